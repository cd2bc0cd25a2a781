"""The gradient of each layer's output: its RMS over all entries of all calls, in float64."""

import math

import pytest
import torch
from torch import nn

from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe, first_and_last_hidden


class Twice(nn.Module):
    """Runs one layer twice, on batches of several sizes, and names them out of order."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(4, 2), nn.Linear(4, 4)
        self.outputs = []

    def forward(self, x):
        for layer, values in ((self.first, x), (self.first, x[:3]), (self.last, x)):
            self.outputs.append(layer(values))
            self.outputs[-1].retain_grad()
        return sum(output.sin().sum() for output in self.outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rms_is_that_of_all_entries_in_the_order_of_execution(dtype):
    module, probe = Twice().to(dtype), LayerProbe()
    probe.install(module)
    module(torch.randn(5, 4, dtype=dtype)).backward()
    probe.remove()
    first, again, last = (output.grad.double().flatten() for output in module.outputs)
    expected = {"first": torch.cat([first, again]), "last": last}
    measured = probe.gradient_rms()
    assert list(measured) == probe.order == ["first", "last"]
    for name, entries in expected.items():
        assert float(measured[name]) == pytest.approx(float(entries.square().mean().sqrt()))


def test_the_order_alone_needs_no_gradient():
    module, probe = Twice(), LayerProbe()
    probe.install(module, gradients=False)
    module(torch.randn(5, 4)).backward()
    assert probe.order == ["first", "last"]
    assert probe.gradient_rms() == {}


@pytest.mark.parametrize(
    ("profile", "ends"),
    [
        ({"a": 1.0, "b": 2.0, "c": 3.0, "out": 4.0}, (1.0, 3.0)),
        ({"a": 1.0, "b": 2.0, "out": 3.0}, (1.0, 2.0)),
        ({"a": 1.0, "out": 2.0}, (math.nan, math.nan)),
        ({}, (math.nan, math.nan)),
    ],
)
def test_the_output_layer_is_not_hidden_and_one_hidden_layer_has_no_depth(profile, ends):
    assert first_and_last_hidden(profile) == pytest.approx(ends, nan_ok=True)


def test_of_many_branching_layers_no_single_gate_is_the_first():
    """A chain keeps its first layer; in branches one gate stands for no more than itself."""
    chain = {str(i): 10.0 ** (i - 20) for i in range(24)}
    assert first_and_last_hidden(chain) == (1e-20, 1e2)
    branches = {**chain, **{str(i): 1e-3 for i in range(1, 23)}}
    assert first_and_last_hidden(branches) == (1e-20, 1e-3)  # it rises after the first
    gate_second = {**branches, "0": 1e-3, "1": 1e-20}
    assert first_and_last_hidden(gate_second) == (1e-3, 1e-3)
    gates = {**branches, "1": 1e-3, "2": 1e-21, "3": 1e-2, "4": 1e-3}
    assert first_and_last_hidden(gates) == (1e-3, 1e-3)  # the median of the first five
    wavering = {**chain, "1": 0.6e-20}
    assert first_and_last_hidden(wavering) == (1e-20, 1e2)
    few = {str(i): value for i, value in enumerate([1e-9, 1e-12, 1.0, 1.0, 1.0, 1.0])}
    assert first_and_last_hidden(few) == (1e-9, 1.0)

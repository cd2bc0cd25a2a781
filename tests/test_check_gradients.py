"""`check_gradients` without a Trainer."""

import json

import pytest
import torch
from gradcheck_modules import Net, ScaledLinear, batch
from torch import nn

from lightning_stab.callbacks.checking import check_gradients
from lightning_stab.errors import InvalidArgumentError


def square_loss(module, x):
    return module(x).square().mean()


def test_a_lightning_module_is_checked_through_its_training_step():
    report = check_gradients(Net(), batch())
    assert report.passed
    assert {record.verdict for record in report.parameters} <= {"ok", "zero", "kink"}
    assert [r.name for r in report.parameters] == [name for name, _ in Net().named_parameters()]


def test_a_wrong_gradient_is_named_with_both_values():
    report = check_gradients(ScaledLinear(4, 3, factor=-1.0), torch.randn(5, 4), square_loss)
    assert not report.passed
    (record,) = report.wrong
    assert record.name == "weight"
    assert record.analytic == pytest.approx(-record.numeric, rel=1e-6)
    assert "wrong" in str(report).splitlines()[3]
    assert json.loads(json.dumps(report.to_dict()))["passed"] is False


def test_a_module_without_a_loss_is_refused():
    with pytest.raises(InvalidArgumentError, match="`loss_fn` must be given"):
        check_gradients(nn.Linear(2, 1), torch.ones(1, 2))


def test_module_buffers_and_random_states_stay(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    assert check_gradients(module, torch.randn(8, 4, generator=torch.Generator()), square_loss)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_unused_and_dead_parameters_are_told_apart():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Parameter(torch.ones(3))
            self.dead = nn.Parameter(torch.ones(3))
            self.unused = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.used + 0.0 * self.dead

    report = check_gradients(Partly(), torch.randn(2, 3), square_loss)
    verdicts = {record.name: record.verdict for record in report.parameters}
    assert verdicts == {"used": "ok", "dead": "zero", "unused": "unused"}

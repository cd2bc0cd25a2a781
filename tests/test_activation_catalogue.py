"""One catalogue of activations: a row changes what every part of the package knows of one."""

import ast
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.cases import for_each
from helpers.laws import OF_TORCH
from torch import nn
from torch.nn import functional
from torch.nn.modules import activation as torch_activations

import lightning_stab
from lightning_stab import initialize
from lightning_stab.callbacks.activations.probe import ActivationProbe
from lightning_stab.callbacks.doctor.loss_functions import LossFunctions
from lightning_stab.functional import activation_kinds
from lightning_stab.functional.activation_kinds import (
    CATALOGUE,
    FUNCTIONS,
    Activation,
    activation_kind,
    register_activation,
)
from lightning_stab.functional.initialization.replay import is_pointwise
from lightning_stab.models import MLPClassifier
from lightning_stab.models.activations import activation_module

NO_ACTIVATIONS_OF_SINGLE_NUMBERS = {
    *("GLU", "MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin"),
}
PACKAGE = Path(lightning_stab.__file__).parent
X = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def catalogue():
    """Let a test change rows, and put the catalogue back."""
    tables = (CATALOGUE, FUNCTIONS, activation_kinds.MODULES, activation_kinds._CLASSES)
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


class Calling(nn.Module):
    """A net that calls its activation as a function."""

    def __init__(self, function, width=8):
        super().__init__()
        self.function = function
        self.a, self.b = nn.Linear(8, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.b(self.function(self.a(x)))


def stack(activation, width=8):
    return nn.Sequential(nn.Linear(8, width), activation, nn.Linear(width, 2))


def kinds_seen(net):
    probe = ActivationProbe()
    probe.install(net)
    net(X)
    probe.remove()
    return [layer.kind for layer in probe.layers]


# --- one row says it everywhere -------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, X], ids=["no batch", "batch"])
def test_the_gain_of_silu_is_changed_in_one_place(catalogue, batch):
    class Swish(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x)

    def gains():
        # an odd width cannot be mirrored, and takes the gain of the activation
        nets = [stack(nn.SiLU(), 7), stack(Swish(), 7)]
        nets += [] if batch is None else [Calling(functional.silu, 7)]
        kaiming = initialize(stack(nn.SiLU()), scheme="kaiming_normal")[1]
        return {kaiming.gain, *(initialize(net, batch)[1].gain for net in nets)}

    assert gains() == {CATALOGUE["silu"].gain}
    register_activation(replace(CATALOGUE["silu"], gain=3.0))
    assert gains() == {3.0}


def test_what_is_measured_of_depth_is_changed_in_one_place(catalogue):
    register_activation(replace(CATALOGUE["tanh"], balanced_gains=((1, 2.5),)))
    assert initialize(stack(nn.Tanh()), X)[1].gain == 2.5


def test_where_a_function_is_flat_is_changed_in_one_place(catalogue):
    register_activation(replace(CATALOGUE["relu"], dead_below=-1e9))
    assert activation_kind("relu").dead_below == -1e9
    probe = ActivationProbe()
    net = stack(nn.ReLU())
    nn.init.constant_(net[0].bias, -100.0)  # dead by the usual bound
    probe.install(net)
    net(X)
    probe.remove()
    assert probe.values()[0, 2].item() == 0  # the column of dead units


def test_a_new_activation_is_one_row(catalogue):
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(x)

    nets = [stack(Sine(), 7), Calling(torch.sin, 7), Calling(torch.Tensor.sin_, 7)]
    assert [kinds_seen(net) for net in nets] == [[], [], []]
    register_activation(
        Activation("sin", Sine, aliases=("sine",), gain=1.5, rectifier=True, range=(-1.0, 1.0),
                   balanced_gains=((1, 1.25),), saturated_above=1.5)
    )  # fmt: skip
    assert [kinds_seen(net) for net in nets] == [["sin"]] * 3
    assert activation_kind("sin").can_saturate
    for net in nets:
        record = initialize(net, X)[1]
        assert (record.preceding, record.gain) == ("Sine", 1.25)
    record = initialize(nets[0])[1]
    assert (record.preceding, record.scheme, record.gain) == ("Sine", "kaiming_normal", 1.5)
    assert isinstance(activation_module("sine"), Sine)
    assert kinds_seen(MLPClassifier(in_features=8, activation="sin", depth=1)) == ["sin"]
    assert unreachable(torch.sin) == unreachable(torch.tanh)


def unreachable(function):
    """Return the fraction of targets that the doctor calls out of reach of a function."""
    losses, prediction = LossFunctions(), torch.zeros(4, requires_grad=True)
    target = torch.tensor([-2.0, 0.0, 0.5, 3.0])
    output = function(prediction)
    losses(function, (prediction,), {}, output)
    losses(functional.mse_loss, (output, target), {}, functional.mse_loss(output, target))
    return losses.measured["unreachable_targets"].item()


# --- every row is known everywhere ----------------------------------------------------------------


def test_no_activation_of_torch_is_missing():
    classes = set(torch_activations.__all__) - NO_ACTIVATIONS_OF_SINGLE_NUMBERS
    assert classes == {CATALOGUE[name].class_name for name in OF_TORCH}


@for_each(OF_TORCH)
def test_every_activation_is_known_as_a_module_and_by_name(name):
    module = activation_module(name)
    assert type(module) is CATALOGUE[name].module
    assert kinds_seen(stack(module)) == [name]
    assert initialize(stack(module))[1].preceding == type(module).__name__


@for_each(OF_TORCH)
def test_every_activation_is_known_as_a_function(name):
    function = getattr(functional, name)
    parameters = CATALOGUE[name].parameters.values() if name == "threshold" else ()
    parameters = [torch.ones(1)] if name == "prelu" else parameters
    assert kinds_seen(Calling(lambda z: function(z, *parameters))) == [name]


@for_each(OF_TORCH)
def test_every_activation_is_known_in_a_recorded_pass(name):
    assert initialize(stack(activation_module(name)), X)[1].preceding == CATALOGUE[name].class_name


@for_each([name for name in OF_TORCH if CATALOGUE[name].range])
def test_results_stay_in_the_range(name):
    z = torch.linspace(-100, 100, 10_001)
    low, high = CATALOGUE[name].range
    results = activation_module(name)(z)
    assert low <= results.min()
    assert results.max() <= high
    for bound, reached in ((low, results.min()), (high, results.max())):
        assert math.isinf(bound) or reached.item() == pytest.approx(bound, abs=0.02)


def test_reachable_targets_are_told_by_the_range():
    assert unreachable(torch.relu) == 0.25
    assert unreachable(functional.hardsigmoid) == unreachable(torch.sigmoid) == 0.5
    assert unreachable(functional.silu) == 0  # of no known range


def test_an_operator_without_torchs_tag_is_pointwise_all_the_same():
    for row in CATALOGUE.values():
        operation = SimpleNamespace(
            name=row.operator or row.name, operator=SimpleNamespace(tags=[])
        )
        assert is_pointwise(operation)
    assert not is_pointwise(SimpleNamespace(name="mm", operator=SimpleNamespace(tags=[])))


# --- there is no second table ---------------------------------------------------------------------


def test_no_other_file_lists_activations_or_their_gains():
    gains = {row.gain for row in CATALOGUE.values() if isinstance(row.gain, float)}
    gains = {gain for gain in gains if len(repr(gain)) > 6}
    names = {n.lower() for row in CATALOGUE.values() for n in (row.name, row.class_name)}
    for path in PACKAGE.rglob("*.py"):
        if path.name == "activation_kinds.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and node.value in gains), path
            if isinstance(node, (ast.Dict, ast.Set, ast.Tuple, ast.List)):
                children = list(ast.walk(node))
                listed = {c.value.lower() for c in children if isinstance(c, ast.Constant)
                          and isinstance(c.value, str)}  # fmt: skip
                listed |= {c.attr.lower() for c in children if isinstance(c, ast.Attribute)}
                assert len(listed & names) < 5, (path, sorted(listed & names))


def test_a_rectifier_passes_what_is_large_and_little_of_what_is_far_below():
    """Kaiming's scheme is for these; SELU has a gain of its own, and a threshold is no default."""
    like = set()
    for name, row in CATALOGUE.items():
        if name not in ("threshold", "selu") and row.module is not None:
            below, above = row.module().eval()(torch.tensor([[-50.0, 50.0]])).flatten().tolist()
            like |= {name} if above > 5 and abs(below) < 0.3 * above else set()
    assert {n for n, row in CATALOGUE.items() if row.rectifier} == like | {"quick_gelu"}

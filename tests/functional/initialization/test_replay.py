"""What lies between two weights, run again: the names it gets, and what is random in it."""

import copy

import pytest
import torch
from helpers.initialization_programs import X, preceding
from helpers.small_modules import FromParts
from helpers.tiers import in_tiers
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own habit

from lightning_stab.functional.initialization import (
    InitializationSettings,
    Program,
    initialize_,
    replay,
)


class Swish(nn.Module):
    """x sigmoid(x) in two operators, as it was written before torch had SiLU."""

    def forward(self, x):
        return x * torch.sigmoid(x)


def test_an_activation_of_several_operators_has_the_name_of_its_class():
    net = nn.Sequential(nn.Linear(8, 8), Swish(), nn.Linear(8, 2))
    assert preceding(net, X) == {"0.weight": "input", "2.weight": "Swish"}


def test_several_activations_in_a_row_have_the_names_of_their_operators():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Sigmoid(), nn.Linear(8, 2))
    assert preceding(net, X)["3.weight"] == "tanh+sigmoid"


def test_a_random_slope_counts_as_its_mean():
    torch.manual_seed(0)
    parts = [part for _ in range(6) for part in (nn.Linear(16, 16), nn.RReLU(0.1, 0.9))]
    net = nn.Sequential(*parts, nn.Linear(16, 4)).double()  # in training mode: each slope is drawn
    batch = torch.randn(32, 16).double()
    step = Program(lambda: copy.deepcopy(net), lambda twin: twin(batch).square().mean())
    records = initialize_(net, InitializationSettings("auto"), 0, step)
    assert {record.preceding for record in records[1:]} == {"RReLU"}
    # f(x) - f(-x) = (1 + slope) x; two mirrored halves share it
    assert [record.gain for record in records[1:]] == pytest.approx([1 / 1.5] * 6)
    net.eval()  # with the mean slope 0.5 the whole net is linear, which only that slope gives
    a, b = torch.randn(2, 5, 16).double()
    assert torch.allclose(net(2 * a - 3 * b), 2 * net(a) - 3 * net(b), atol=1e-10)


class Between(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.function = function

    def forward(self, x):
        for part in self.parts:
            x = self.function(part(x))
        return x


def out_variant(x):
    with torch.no_grad():
        return torch.ops.aten.leaky_relu.out(x.detach(), 0.2, out=torch.empty_like(x))


LEAKY = {
    "function": lambda x: F.leaky_relu(x, 0.2),
    "in place": lambda x: F.leaky_relu(x, 0.2, inplace=True),
    "method": lambda x: torch.ops.aten.leaky_relu.default(x, 0.2),
    "out": out_variant,
    "where": lambda x: torch.where(x > 0, x, 0.2 * x),
    "maximum": lambda x: torch.maximum(x, 0.2 * x),
    "clamped": lambda x: x.clamp(min=0) + 0.2 * x.clamp(max=0),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.2])),
}


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("spelling", LEAKY)
def test_every_spelling_of_a_leaky_relu_is_mirrored_with_its_own_gain(
    spelling, tagged, monkeypatch
):
    if not tagged:  # as in a release of torch that tags nothing
        monkeypatch.setattr(replay, "_is_tagged", lambda operation: False)
    net = Between(LEAKY[spelling])
    step = Program(lambda: copy.deepcopy(net), lambda twin: twin(X).square().mean())
    records = initialize_(net, InitializationSettings("auto"), 0, step)
    assert {record.scheme for record in records} == {"mirrored orthogonal"}
    assert [record.gain for record in records[1:]] == pytest.approx([1 / 1.2] * 3)


FUNCTIONS = {
    function.__name__: function
    for function in (F.relu, F.silu, F.mish, F.hardswish, F.gelu, F.softsign)
} | {"tanh": torch.tanh, "atan": torch.atan, "sin": torch.sin}


@pytest.mark.parametrize("name", in_tiers(FUNCTIONS, ["relu", "mish", "sin", "hardswish"]))
def test_a_release_that_tags_and_lists_nothing_draws_the_same_weights(name, monkeypatch):
    function = FUNCTIONS[name]

    def drawn():
        torch.manual_seed(0)
        net = Between(lambda x: function(x.reshape(2, 3, 8).transpose(0, 1)).reshape(6, 8))
        step = Program(lambda: copy.deepcopy(net), lambda twin: twin(X).square().mean())
        return initialize_(net, InitializationSettings("auto"), 0, step)

    expected = drawn()
    monkeypatch.setattr(replay, "_is_tagged", lambda operation: False)
    assert drawn() == expected


def test_what_mixes_elements_is_not_pointwise(monkeypatch):
    monkeypatch.setattr(replay, "_is_tagged", lambda operation: False)
    mixers = {
        "softmax": lambda x: x.softmax(-1),
        "cumsum": lambda x: x.cumsum(-1),
        "flip": lambda x: x.flip(-1),
        "pool": lambda x: F.avg_pool1d(x, 3, 1, 1),
        "view": lambda x: x.view(6, 8),
    }
    for name, mixer in mixers.items():
        net = Between(mixer)
        step = Program(lambda net=net: copy.deepcopy(net), lambda twin: twin(X).square().mean())
        records = initialize_(net, InitializationSettings("auto"), 0, step)
        assert {r.preceding for r in records[1:]} <= {"linear", "attention"}, name


@pytest.mark.parametrize(
    ("between", "name"),
    [
        (nn.Softmax(-1), ""),  # mixes the elements of a row
        (lambda x: x.cumsum(1), ""),  # torch does not tag it: it is tried
    ],
)
def test_what_mixes_elements_is_no_activation(between, name):
    net = FromParts(lambda m, x: m.b(between(m.a(x))), a=nn.Linear(8, 8), b=nn.Linear(8, 2))
    assert name in preceding(net, X)["b.weight"]


@pytest.mark.parametrize("named", ["bmm", "breaks"])
def test_what_mixes_or_cannot_run_again_is_not_pointwise(named):
    class Operator:
        tags = ()

        def __call__(self, *arguments):
            raise RuntimeError

    class Operation:
        name, acts_pointwise, operator = named, None, Operator()
        tensors = outputs = arguments = (torch.ones(3),)
        keywords = {}  # noqa: RUF012 - never written

    assert not replay.is_pointwise(Operation())


def test_a_lazy_layer_without_a_batch_is_left_alone():
    records = initialize_(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.Linear(4, 2)))
    assert records[0].reason


@pytest.mark.parametrize(
    ("between", "scheme"),
    [
        (lambda x: torch.relu(x), "mirrored orthogonal"),
        (lambda x: torch.relu(x).reshape(6, 2, 4).transpose(1, 2).reshape(6, 8), "orthogonal"),
    ],
)
def test_halves_that_change_places_are_seen_on_fixed_numbers_as_on_drawn_ones(
    between, scheme, monkeypatch
):
    def schemes():
        torch.manual_seed(0)
        net = Between(between)
        step = Program(lambda: copy.deepcopy(net), lambda twin: twin(X).square().mean())
        return [r.scheme for r in initialize_(net, InitializationSettings("auto"), 0, step)]

    drawn = schemes()
    assert (drawn[-1] == "mirrored orthogonal") == (scheme == "mirrored orthogonal")
    monkeypatch.setattr(replay, "LARGE", 0)
    assert schemes() == drawn

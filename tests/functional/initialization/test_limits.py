"""What is left alone, and what could lead the reading of a batch astray."""

import copy
from itertools import pairwise

import pytest
import torch
from helpers.initialization_programs import X, found, preceding, program
from helpers.small_modules import FromParts
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own habit

from lightning_stab.functional.initialization import (
    InitializationSettings,
    Program,
    initialize_,
)
from lightning_stab.functional.initialization.batch_analysis import _is_zero

# --- what is left alone --------------------------------------------------------------------------


def test_low_rank_adapters_stay():
    net = FromParts(
        lambda m, x: F.relu(m.base(x) + 2.0 * m.up(m.down(x))),
        base=nn.Linear(8, 8),
        down=nn.Linear(8, 2, bias=False),
        up=nn.Linear(2, 8, bias=False),
    )
    nn.init.zeros_(net.up.weight)
    before = net.down.weight.detach().clone()
    result = found(net, X)
    assert result["up.weight"][1].startswith("starts at zero")
    assert result["down.weight"][1].startswith("adapter")
    assert result["base.weight"][1] == "orthogonal"
    assert torch.equal(net.down.weight, before)
    assert not net.up.weight.any()


class LowRank(nn.Module):
    """As adapters are wrapped: the base, and a pair by the adapter's name."""

    def __init__(self, base, down, up):
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = nn.ModuleDict({"a": down}), nn.ModuleDict({"a": up})
        nn.init.zeros_(up.weight)


class LowRankLinear(nn.Linear):
    """An adapter that is a layer itself."""

    def __init__(self, into, out, rank):
        super().__init__(into, out)
        self.down, self.up = nn.Linear(into, rank, bias=False), nn.Linear(rank, out, bias=False)
        nn.init.zeros_(self.up.weight)


def bottleneck():
    """A pair of its own, for a residual branch."""
    pair = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 8))
    nn.init.zeros_(pair[2].weight)
    return pair


ADAPTERS = {
    "wrapped": lambda: LowRank(nn.Linear(8, 6), nn.Linear(8, 2), nn.Linear(2, 6)),
    "convolution": lambda: LowRank(
        nn.Conv2d(8, 6, 3), nn.Conv2d(8, 2, 3), nn.Conv2d(2, 6, 1, bias=False)
    ),
    "layer": lambda: LowRankLinear(8, 6, 2),
    "bottleneck": bottleneck,
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_low_rank_adapters_stay_without_a_batch_too(kind):
    net = nn.Sequential(nn.Linear(8, 8), ADAPTERS[kind](), nn.Linear(6, 4))
    before = copy.deepcopy(net.state_dict())
    records = initialize_(net)
    left = {r.name for r in records if r.reason}
    assert len(left) == 2
    assert sum("starts at zero: a branch" in r.reason for r in records) == 1
    assert sum(r.reason.startswith("adapter") for r in records) == 1
    for name, value in net.state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(value, before[name]) is (name in left)


@pytest.mark.parametrize(
    "sizes", [(8, 8, 2), (64, 32, 16, 10), (8, 3, 6), (8, 8, 8)], ids=lambda sizes: f"{sizes}"
)
def test_plain_nets_of_zeros_are_drawn_without_a_batch_too(sizes):
    net = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    assert not any(record.reason for record in initialize_(net))
    assert all(layer.weight.any() for layer in net)


def test_a_plain_net_of_zeros_is_drawn():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    initialize_(net, program=program(net, X))
    assert net[0].weight.any()
    assert net[2].weight.any()


def test_a_weight_merged_before_use_stays():
    net = FromParts(
        lambda m, x: F.linear(x, m.a.weight + m.up.weight @ m.down.weight),
        a=nn.Linear(8, 8), up=nn.Linear(2, 8), down=nn.Linear(8, 2),
    )  # fmt: skip
    assert {reason for _, reason in found(net, X).values()} == {
        "combined with other tensors before use (adapter or parametrized)"
    }


def test_a_weight_normed_layer_still_counts_as_linear_for_the_next():
    net = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 2)
    )
    result = found(net, X)
    assert "parametrized" in result["0.weight"][1]
    assert result["2.weight"] == ("Tanh", "balanced orthogonal")


def test_a_kept_weight_of_zeros_that_feeds_a_layer_is_refused():
    from lightning_stab.errors import ConflictError

    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.zeros_(net[0].weight)
    settings = InitializationSettings(exclude=["0.*"])
    with pytest.raises(ConflictError, match=r"`0.weight` is excluded and all zero, and it feeds"):
        initialize_(net, settings, program=program(net, X))


# --- what could lead astray ----------------------------------------------------------------------


def test_branches_that_are_put_side_by_side_keep_their_activation():
    net = FromParts(
        lambda m, x: m.c(torch.cat([F.relu(m.a(x)), F.relu(m.b(x))], 1)),
        a=nn.Linear(8, 4), b=nn.Linear(8, 4), c=nn.Linear(8, 2),
    )  # fmt: skip
    assert found(net, X)["c.weight"] == ("ReLU", "kaiming_normal")


def test_noise_that_the_module_draws_itself_is_an_input():
    net = FromParts(
        lambda m, x: m.b(torch.tanh(m.a(torch.randn(6, 8)))), a=nn.Linear(8, 8), b=nn.Linear(8, 2)
    )
    assert preceding(net, X) == {"a.weight": "input", "b.weight": "Tanh"}


def test_a_mask_in_a_buffer_is_no_second_source():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)
            self.register_buffer("mask", torch.ones(8))

        def forward(self, x):
            return self.b(F.silu(self.a(x)) * self.mask + self.mask)

    assert found(Masked(), X)["b.weight"] == ("SiLU", "mirrored orthogonal")


def test_an_activation_kept_for_a_skip_as_well_is_not_mirrored():
    def forward(m, x):
        hidden = F.relu(m.a(x))
        return m.c(hidden + m.b(hidden))

    net = FromParts(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 2))
    assert found(net, X)["b.weight"] == ("ReLU", "kaiming_normal")


def test_an_activation_that_goes_on_by_another_way_is_not_mirrored():
    def forward(m, x):
        hidden = F.relu(m.a(x))
        return m.c(torch.cat([hidden, torch.tanh(m.b(hidden))], 1))

    net = FromParts(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8), c=nn.Linear(16, 2))
    assert found(net, X)["b.weight"] == ("ReLU", "kaiming_normal")


def test_a_gradient_taken_inside_the_step_does_not_disturb():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))

    def penalised(twin):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(twin(x).sum(), x, create_graph=True)
        return slope.square().mean()

    records = initialize_(net, program=Program(lambda: copy.deepcopy(net), penalised))
    assert [r.preceding for r in records] == ["input", "Tanh"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.hardtanh(x, 5.0, 6.0),  # constant wherever the signal is
        lambda x: torch.log(x.abs() - 1).nan_to_num(),  # no number around 0
        lambda x: torch.bitwise_or(x.int(), 1).float(),  # does not run on a line of numbers
    ],
)
def test_a_function_without_a_usable_law_counts_as_none(function):
    net = FromParts(lambda m, x: m.b(function(m.a(x))), a=nn.Linear(8, 8), b=nn.Linear(8, 2))
    _, scheme = found(net, X)["b.weight"]
    assert scheme in {"orthogonal", "balanced orthogonal"}
    assert net.b.weight.isfinite().all()


def test_a_sparse_input_is_followed():
    net = FromParts(lambda m, x: m.b(F.relu(x.mm(m.a))), b=nn.Linear(8, 2))
    net.a = nn.Parameter(torch.randn(8, 8))
    records = initialize_(net, program=program(net, X.to_sparse()))
    assert {r.name: r.preceding for r in records}["b.weight"] == "ReLU"


def test_a_lazy_layer_that_the_batch_does_not_reach_stays_lazy():
    net = FromParts(lambda m, x: m.b(x), a=nn.LazyLinear(8), b=nn.Linear(8, 2))
    result = found(net, X)
    assert result["a.weight"][1].startswith("lazy")
    assert result["b.weight"] == ("input", "orthogonal")
    assert isinstance(net.a.weight, nn.UninitializedParameter)


def test_a_lazy_layer_gets_its_shape_from_the_batch_and_is_drawn():
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))
    records = found(net, X)
    assert [tuple(net[i].weight.shape) for i in (0, 2)] == [(8, X.shape[1]), (2, 8)]
    assert records["0.weight"][0] == "input"
    assert records["2.weight"][0] == "ReLU"


def test_which_weights_start_at_zero():
    """Of what has no real numbers in memory it is not known, and does not count."""
    zeros, late = torch.zeros(3, 2), torch.zeros(3, 2)
    late[2, 1] = 1e-9
    for weight, known in (
        (zeros, True), (late, False), (torch.ones(1), False), (torch.zeros(1), True), (None, False),
        (torch.zeros(3, 2, device="meta"), False), (torch.zeros(3, 2, dtype=torch.int8), False),
        (torch.zeros(0, 2), False), (nn.LazyLinear(2).weight, False),
    ):  # fmt: skip
        assert _is_zero(weight) == known

"""Runs that repeat: constants replayed, precision lifted, branches seen and held."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from lightning_stab.functional.gradcheck import Problem, double_copy
from lightning_stab.functional.gradcheck.branches import Branches
from lightning_stab.functional.gradcheck.custom_functions import Depth, watched_functions
from lightning_stab.functional.gradcheck.graph import custom_nodes
from lightning_stab.functional.gradcheck.lines import Line, random_direction

PIECEWISE = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu_(x * 1.0),
    "leaky_relu": F.leaky_relu,
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp below": lambda x: x.clamp(min=0.1),
    "hardtanh": F.hardtanh,
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "max over a row": lambda x: x.max(1).values,
    "min, kept": lambda x: x.min(1, keepdim=True).values,
    "max_pool2d": lambda x: F.max_pool2d(x.reshape(1, 1, 6, 8), 2),
    "where": lambda x: torch.where(x > 0, x.sin(), 2 * x),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
    "rounded": lambda x: x * x.round(),
}


def problem_of(function, shape=(6, 8)):
    module = nn.ParameterList([nn.Parameter(torch.randn(shape, dtype=torch.float64))])
    return Problem(module, lambda on_loss: on_loss(function(module[0])))


@pytest.mark.parametrize("name", PIECEWISE)
@given(seed=st.integers(0, 5))
def test_held_branches_give_the_same_loss_at_the_point_and_one_smooth_piece_around(name, seed):
    torch.manual_seed(seed)
    problem = problem_of(lambda x: PIECEWISE[name](x).square().sum())
    held = problem.branches_to_hold()
    assert held
    here = problem.losses()
    assert problem.losses(held=held) == pytest.approx(here, rel=1e-13)
    direction = random_direction(problem.parameters["0"], torch.Generator().manual_seed(seed))
    with Line(problem, {"0": direction}) as line:
        losses = [line.losses_at(h, held=held)[0] for h in (-0.6, -0.3, 0.0, 0.3, 0.6)]
    if name not in ("where",):  # each piece but the sine is at most quadratic
        third = losses[4] - 2 * losses[3] + 2 * losses[1] - losses[0]
        assert abs(third) <= 1e-9 * max(map(abs, losses))


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_changed_branch_changes_the_sums_and_a_small_step_does_not(name):
    torch.manual_seed(1)
    values = torch.randn(6, 8, dtype=torch.float64)
    runs = []
    for change in (0.0, 1e-12, -2.0):
        with Branches() as branches:
            PIECEWISE[name](values + change * values.abs().gt(0).to(values) * values.sign())
        runs.append(branches.sums)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_stop_is_recorded_and_replayed():
    problem = problem_of(
        lambda x: (x * x.detach()).sum() + len(x) * x.mean().item() + x.sum().item()
    )
    _, (gradients,) = problem.gradients(record=True)
    assert [stop.function for stop in problem.recording.stops] == ["detach", "item", "item"]
    here = problem.losses()[0]
    direction = torch.ones(48)
    with Line(problem, {"0": direction}) as line:
        slope = (line.losses_at(1e-3)[0] - line.losses_at(-1e-3)[0]) / 2e-3
        free = line.losses_at(1e-3, replay=False)[0]
    assert slope == pytest.approx(float(gradients["0"].sum()), rel=1e-9)
    assert abs(free - here) > 1e-3


def test_nothing_inside_a_custom_forward_is_a_stop():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x.detach() + 0.0 * float(x.sum())

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    apply = Doubled.apply  # bound before the check begins
    problem = problem_of(lambda x: apply(x).sum())
    original = Doubled.__dict__["forward"]
    with watched_functions(problem.depth):
        problem.gradients(record=True)
    assert problem.recording.stops == []
    assert problem.depth.called
    assert Doubled.__dict__["forward"] is original


def test_explicit_low_precision_is_lifted_in_forward():
    seen = []

    def loss(x):
        y = x.float() @ torch.ones(8, 2, dtype=torch.float32)
        z = y.to(torch.bfloat16) + torch.zeros(2, dtype=torch.half)
        seen.append((y.dtype, z.dtype, torch.get_default_dtype()))
        return z.sum()

    problem = problem_of(loss)
    problem.gradients(record=True)
    assert seen == [(torch.float64,) * 3]
    assert problem.recording.lifted
    assert torch.get_default_dtype() == torch.float32


def test_the_graph_names_custom_functions_and_the_parameters_behind_them():
    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    near, far = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    loss = (Kept.apply(far * 2) * near).sum()
    (node,) = custom_nodes(loss, {id(near): "near", id(far): "far"})
    assert (node.name, node.parameters) == ("Kept", {"far"})


def test_a_line_comes_back_to_its_origin_exactly():
    problem = problem_of(lambda x: x.square().sum())
    parameter = problem.parameters["0"]
    before = parameter.detach().clone()
    with Line(problem, {"0": torch.randn(48)}) as line:
        line.losses_at(0.1)
        assert not torch.equal(parameter, before)
        line.losses_at(-1e-7)
    assert torch.equal(parameter, before)


def test_a_copy_of_a_module_leaves_the_original_alone():
    module = nn.Linear(2, 2)
    twin, _ = double_copy(module)
    twin.weight.data.zero_()
    assert bool(module.weight.any())
    assert Depth().called is False

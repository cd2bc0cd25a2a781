"""Runs that repeat: constants replayed, precision lifted, branches watched and replayed."""

import itertools
import threading

import pytest
import torch
from helpers.gradcheck_modules import Doubled
from helpers.tiers import in_tiers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from lightning_stab.functional.autograd_graph import custom_nodes
from lightning_stab.functional.gradcheck import Problem, check_problem, double_copy
from lightning_stab.functional.gradcheck.branches import BranchWatch
from lightning_stab.functional.gradcheck.custom_functions import Depth, watch_functions
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
    branches = problem.record_branches()
    assert branches
    here = problem.losses()
    assert problem.losses(branches=branches) == pytest.approx(here, rel=1e-13)
    direction = random_direction(problem.parameters["0"], torch.Generator().manual_seed(seed))
    with Line(problem, {"0": direction}) as line:
        losses = [line.losses_at(h, branches=branches)[0] for h in (-0.6, -0.3, 0.0, 0.3, 0.6)]
    if name not in ("where",):  # each piece but the sine is at most quadratic
        third = losses[4] - 2 * losses[3] + 2 * losses[1] - losses[0]
        assert abs(third) <= 1e-9 * max(map(abs, losses))


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_changed_branch_changes_the_sums_and_a_small_step_does_not(name):
    torch.manual_seed(1)
    values = torch.randn(6, 8, dtype=torch.float64)
    runs = []
    for change in (0.0, 1e-12, -2.0):
        with BranchWatch() as watch:
            PIECEWISE[name](values + change * values.abs().gt(0).to(values) * values.sign())
        runs.append(watch.sums)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_stop_is_recorded_and_replayed():
    problem = problem_of(
        lambda x: (x * x.detach()).sum() + len(x) * x.mean().item() + x.sum().item()
    )
    _, (gradients,) = problem.gradients(record=True)
    assert [stop.function for stop in problem.detached.values] == ["detach", "item", "item"]
    here = problem.losses()[0]
    direction = torch.ones(48)
    with Line(problem, {"0": direction}) as line:
        slope = (line.losses_at(1e-3)[0] - line.losses_at(-1e-3)[0]) / 2e-3
        free = line.losses_at(1e-3, replay=False)[0]
    assert slope == pytest.approx(float(gradients["0"].sum()), rel=1e-9)
    assert abs(free - here) > 1e-3


def test_nothing_inside_a_custom_forward_is_a_stop():
    class Detached(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x.detach() + 0.0 * float(x.sum())

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    apply = Detached.apply  # bound before the check begins
    problem = problem_of(lambda x: apply(x).sum())
    original = Doubled.__dict__["forward"]
    with watch_functions(problem.depth):
        problem.gradients(record=True)
    assert problem.detached.values == []
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
    assert problem.detached.lifted
    assert torch.get_default_dtype() == torch.float32


def test_the_graph_names_custom_functions_and_the_parameters_behind_them():
    near, far = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    loss = (Doubled.apply(far * 2) * near).sum()
    (node,) = custom_nodes(loss, {id(near): "near", id(far): "far"})
    assert (node.name, node.parameters) == ("Doubled", {"far"})


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
    module_copy, _ = double_copy(module)
    module_copy.weight.data.zero_()
    assert bool(module.weight.any())
    assert Depth().called is False


OTHER_WAYS = {  # than x * x.detach(), with the same value at the point
    "fewer values": lambda x: (x * x).sum(),
    "more values": lambda x: (x * x.detach()).sum() + (x - x.detach()).sum(),
    "another function": lambda x: (x * x.data).sum() + 3 * (x.sum() - x.detach().sum()),
    "another shape": lambda x: sum((row * row.detach()).sum() for row in x),
}


@pytest.mark.parametrize("name", OTHER_WAYS)
def test_a_replay_that_loses_its_way_gives_no_losses(name):
    ways = [lambda x: (x * x.detach()).sum()]
    problem = problem_of(lambda x: ways[-1](x))
    problem.gradients(record=True)
    assert len(problem.losses()) == 1
    ways.append(OTHER_WAYS[name])
    assert problem.losses() == []
    ways.pop()
    assert len(problem.losses()) == 1


@pytest.mark.parametrize(
    "other", [lambda x: x, F.relu_, F.gelu, lambda x: F.relu(x[:3]), lambda x: F.relu(F.relu(x))]
)
def test_a_replay_of_branches_that_loses_its_way_gives_no_losses(other):
    ways = [F.relu]
    problem = problem_of(lambda x: ways[-1](1.0 * x).square().sum())
    branches = problem.record_branches()
    assert len(problem.losses(branches=branches)) == 1
    ways.append(other)
    assert problem.losses(branches=branches) == []
    assert len(problem.losses()) == 1


@pytest.mark.parametrize("name", OTHER_WAYS)
@pytest.mark.parametrize(
    "runs", in_tiers(range(6, 18), range(6, 18, 3))
)  # as many as the check of one line needs
def test_a_step_whose_control_flow_changes_is_unchecked_and_not_called_wrong(name, runs):
    """After so many runs, counted where no state is put back, the step does other things."""
    counted = itertools.count()
    problem = problem_of(
        lambda x: OTHER_WAYS[name](x) if next(counted) >= runs else (x * x.detach()).sum()
    )
    report = check_problem(problem)
    assert not report.wrong
    assert not report.passed
    (record,) = report.parameters
    assert record.verdict == "unchecked"
    assert "0: Could not be checked: a run of the step did other operations" in str(report)
    assert "1 unchecked" in report.summary()


def test_a_number_of_losses_that_changes_is_unchecked():
    counted = itertools.count()

    def program(on_loss):
        for _ in range(1 + (next(counted) > 14)):
            on_loss(module[0].square().sum())

    module = nn.ParameterList([nn.Parameter(torch.randn(4, dtype=torch.float64))])
    (record,) = check_problem(Problem(module, program)).parameters
    assert record.verdict == "unchecked"


def test_other_threads_neither_count_nor_lose_their_functions():
    original = Doubled.__dict__["forward"]
    problem, inside, done = problem_of(lambda x: x.sum()), threading.Event(), threading.Event()

    def check_too():
        with watch_functions(Depth()):
            inside.set()
            done.wait(60)

    waits = threading.Thread(target=check_too)
    with watch_functions(problem.depth):
        results = []
        trains = threading.Thread(target=lambda: results.append(Doubled.apply(torch.ones(1))))
        trains.start()
        trains.join()
        waits.start()
        assert not inside.wait(0.05)  # its turn comes when this check is over
        assert not problem.depth.called
        Doubled.apply(torch.ones(1))
        assert problem.depth.called
    assert inside.wait(60)
    done.set()
    waits.join()
    assert float(results[0]) == 2
    assert Doubled.__dict__["forward"] is original

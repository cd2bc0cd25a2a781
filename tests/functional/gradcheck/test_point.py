"""The point of a check: how far it moves, which gradients repeat there, what is a constant."""

import itertools

import pytest
import torch
from torch import nn
from torch.autograd import Function

from lightning_stab.functional.gradcheck import Problem, check_problem
from lightning_stab.functional.gradcheck.check import CheckSettings
from lightning_stab.functional.gradcheck.lines import MOVES, find_point

SIZE = 4000
# which a check keeps back, like all warnings of its runs
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")


def rms(values):
    return float(values.square().mean().sqrt())


def parameters(*tensors):
    return nn.ParameterList([nn.Parameter(t.double()) for t in tensors])


def generator():
    return torch.Generator().manual_seed(0)


def test_each_tensor_moves_by_its_own_size_and_a_zero_one_by_the_distance_itself():
    module = parameters(torch.full((SIZE,), 30.0), torch.zeros(SIZE), torch.zeros(0))
    start = [p.detach().clone() for p in module]
    find_point(Problem(module, lambda on_loss: on_loss(sum(p.sum() for p in module))), generator())
    moved = [rms(p.detach() - was) for p, was in zip(module[:2], start, strict=False)]
    assert moved == pytest.approx([MOVES[0] * 30.0, MOVES[0]], rel=0.05)


@pytest.mark.parametrize("allowed", [MOVES[1], MOVES[2]])
def test_a_point_where_the_loss_is_no_number_is_left_for_a_nearer_one(allowed):
    module = parameters(torch.ones(SIZE))
    start = module[0].detach().clone()

    def program(on_loss):
        distance = (module[0] - start).square().mean()
        far = distance.detach().sqrt() > 1.1 * allowed
        on_loss(module[0].sum() * (float("nan") if far else 1.0))

    point = find_point(Problem(module, program), generator())
    assert point.finite
    assert rms(module[0].detach() - start) == pytest.approx(allowed, rel=0.05)


class Drifting(Function):
    """The identity, whose gradient grows by a small factor at every call."""

    calls = 0

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Drifting.calls += 1
        return gradient * (1 + ctx.factor * Drifting.calls), None


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("factor", "repeats"), [(1e-8, False), (1e-10, True)])
def test_gradients_repeat_up_to_a_part_of_their_own_size(scale, factor, repeats):
    module = parameters(torch.ones(50), torch.ones(50))

    def program(on_loss):
        on_loss(scale * (Drifting.apply(module[0], factor) + module[1]).square().sum())

    Drifting.calls = 0
    point = find_point(Problem(module, program), generator())
    assert point.repeatable
    assert set(point.unrepeatable) == (set() if repeats else {"0"})
    if not repeats:  # two calls go on from the state of the point's own
        assert point.unrepeatable["0"] == pytest.approx(2 * factor, rel=0.01)


class Square(Function):
    """The square, whose gradient is right for a factor of 2."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.factor * gradient * ctx.saved_tensors[0], None


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "ok"), (2.1, "wrong")])
def test_weights_that_a_step_projects_are_checked_where_they_are_then(factor, verdict):
    module = parameters(torch.linspace(-3.0, 3.0, 12))

    def program(on_loss):
        with torch.no_grad():
            module[0].clamp_(-1.0, 1.0)
        on_loss((Square.apply(module[0], factor) * torch.arange(12.0)).sum())

    report = check_problem(Problem(module, program))
    assert [record.verdict for record in report.parameters] == [verdict], str(report)
    assert float(module[0].detach().abs().max()) <= 1.0 + 1e-12


class Target(nn.Module):
    """Comes near to a slow copy of its own weights, which it writes in its step."""

    def __init__(self, write):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, dtype=torch.float64))
        self.register_buffer("slow", torch.zeros(6, dtype=torch.float64))
        self.write = write

    def loss(self):
        with torch.no_grad():
            self.write(self.slow, self.weight)
        return (self.weight.sin() - self.slow).square().sum()


WRITES = {
    "copy_": lambda slow, weight: slow.copy_(weight),
    "lerp_": lambda slow, weight: slow.lerp_(weight, 0.5),
    "add_": lambda slow, weight: slow.add_(weight, alpha=0.3),
    "out=": lambda slow, weight: torch.mul(weight, 2.0, out=slow),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_buffer_that_is_written_from_the_weights_is_a_constant(write):
    torch.manual_seed(0)
    module = Target(WRITES[write])
    report = check_problem(Problem(module, lambda on_loss: on_loss(module.loss())))
    assert [record.verdict for record in report.parameters] == ["ok"], str(report)


def test_of_parameters_without_a_gradient_there_are_no_numbers():
    module = parameters(torch.ones(3), torch.ones(3), torch.ones(3))

    def program(on_loss):
        on_loss((module[0].sin() * module[1].detach()).sum())

    report = check_problem(Problem(module, program))
    assert [r.verdict for r in report.parameters] == ["ok", "stop-gradient", "unused"]
    for record in report.parameters[1:]:
        assert record.relative_error == record.analytic == record.numeric == record.step == 0
        assert (record.coordinate, record.function, record.loss, record.note) == (None, None, 0, "")
    first = report.parameters[0]
    assert first.analytic == pytest.approx(first.numeric, rel=1e-6)
    assert min(abs(first.numeric), first.step) > 0
    assert not report.skipped
    assert min(report.num_forwards, report.num_backwards, report.seconds) > 0


def test_a_right_gradient_is_checked_along_as_many_directions_as_asked():
    def forwards(number):
        module = parameters(torch.ones(3))
        problem = Problem(module, lambda on_loss: on_loss(module[0].sin().sum()))
        report = check_problem(problem, CheckSettings(num_directions=number))
        assert report.passed
        return report.num_forwards

    one, two, five = map(forwards, (1, 2, 5))
    assert two > one
    assert five - two >= 3 * (two - one)


TICKS = itertools.count(1)


class Clock(Function):
    """The identity, whose gradient grows from call to call, by a count that nothing puts back."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 + 1e-6 * next(TICKS))


def test_a_gradient_that_does_not_repeat_is_noted_where_each_run_goes_on_to_another_step():
    module = parameters(torch.ones(50), torch.ones(50))
    module.register_buffer("steps", torch.zeros(()))

    def program(on_loss):
        module.steps += 1  # put back where a run is to repeat, and not where it goes on
        on_loss((Clock.apply(module[0]) + module[1] * module.steps).square().sum())

    point = find_point(Problem(module, program), generator())
    assert point.repeatable
    assert point.unrepeatable == {"0": pytest.approx(1e-6, rel=0.01)}


def test_every_run_and_every_loss_that_is_differentiated_is_counted():
    module = parameters(torch.ones(3), torch.ones(3))

    def program(on_loss):
        on_loss(module[0].sin().sum())
        on_loss(module[1].sin().sum())
        on_loss(torch.zeros(()))  # of nothing that is trained

    problem = Problem(module, program)
    assert (problem.num_forwards, problem.num_backwards) == (0, 0)
    problem.gradients()
    assert (problem.num_forwards, problem.num_backwards) == (1, 2)
    problem.losses()
    assert (problem.num_forwards, problem.num_backwards) == (2, 2)

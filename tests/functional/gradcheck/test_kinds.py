"""Steps that a check must be able to make, and backward passes that it must not let pass."""

import pytest
import torch
from helpers.tiers import in_tiers
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

from lightning_stab.functional.gradcheck import Problem, check_problem
from lightning_stab.functional.gradcheck.branches import KINKS


class Scaled(Function):
    """The identity; its backward has a factor, at every n-th call only if asked."""

    calls = 0

    @staticmethod
    def forward(ctx, x, factor, every):
        ctx.factor, ctx.every = factor, every
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Scaled.calls += 1
        due = Scaled.calls % ctx.every == 0
        return (gradient * ctx.factor if due else gradient), None, None


def checked(step, *shape, factor=1.0, every=1, dtype=torch.float64):
    torch.manual_seed(0)
    module = nn.ParameterList([nn.Parameter(torch.randn(*shape, dtype=dtype))])
    Scaled.calls = 0

    def program(on_loss):
        on_loss(step(Scaled.apply(module[0] * 1.0, factor, every)))

    return check_problem(Problem(module, program))


def ctc(x, as_given=torch.tensor):
    labels, lengths = torch.tensor([[1, 2], [3, 4], [1, 1]]), ((6, 6, 6), (2, 2, 2))
    return F.ctc_loss(x.log_softmax(-1), labels, *map(as_given, lengths))


def written_out(x):
    """An ``out=`` of constants, which a replay must fill."""
    out = torch.empty(6, 3, 5, dtype=x.dtype)
    torch.abs(torch.full_like(out, -2.0), out=out)
    return (out * x).square().sum()


def whole(x):
    steps = (x.detach() * 3).round().long()
    return (x.square() * steps.clamp(0, 2).clamp_min(1).abs()).sum() + steps.max(0).values.sum()


STEPS = {
    "ctc_loss": (ctc, torch.float64),
    "ctc_loss, lengths as a tuple": (lambda x: ctc(x, tuple), torch.float64),
    "whole numbers": (whole, torch.float64),
    "out=": (written_out, torch.float64),
    "abs of complex": (lambda z: z.abs().sum(), torch.complex128),
    "torch.abs, of a matrix": (lambda z: torch.abs(z @ z.mT).square().sum(), torch.complex128),
    "svd of complex": (lambda z: torch.linalg.svdvals(z).square().sum(), torch.complex128),
    "angle": (lambda z: z.angle().sin().sum(), torch.complex128),
    "sgn of complex": (lambda z: (z.sgn() * z).real.sum(), torch.complex128),
    "sgn": (lambda x: (x.sgn() * x).sum(), torch.float64),
    "comparison of complex": (lambda z: torch.where(z == 0, z, z * z).real.sum(), torch.complex128),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_any_kind_is_checked_and_a_wrong_backward_is_found(name):
    step, dtype = STEPS[name]
    right = checked(step, 6, 3, 5, dtype=dtype)
    assert [r.verdict for r in right.parameters] == ["ok"], str(right)
    (record,) = checked(step, 6, 3, 5, dtype=dtype, factor=1.01).wrong
    assert record.function == "Scaled"


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex128, torch.bool])
def test_a_rule_for_real_numbers_leaves_others_alone(dtype):
    values = torch.ones(3, dtype=dtype)
    for kink in KINKS.values():
        if kink.rule is not None and kink.rule is not KINKS["gt"].rule:
            assert not kink.rule.applies(kink.rule.overload or "", (values,), {})


@pytest.mark.parametrize("every", [2, 3])
def test_a_backward_that_is_wrong_at_every_few_calls_is_found(every):
    report = checked(lambda x: x.square().sum(), 4, factor=1.5, every=every)
    assert [record.verdict for record in report.failed] == ["nondeterministic"]
    assert not report.passed
    assert "gave gradients that differ by 5.0e-01" in str(report)
    assert Scaled.calls == 0  # nothing is left of the check


def test_a_call_that_goes_on_and_is_another_step_is_no_finding():
    class Alternates(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.calls = nn.Parameter(torch.randn(4, dtype=torch.float64)), 0

        def forward(self):
            self.calls += 1
            x = self.weight if self.calls % 2 else self.weight.detach()
            return (self.weight * x).sum()

    module = Alternates()
    report = check_problem(Problem(module, lambda on_loss: on_loss(module())))
    assert [record.verdict for record in report.parameters] == ["ok"]


@pytest.mark.parametrize("seed", in_tiers(range(3), [1]))
@pytest.mark.parametrize("written", ["cross_entropy", "nll of log of softmax", "logsumexp"])
def test_a_right_net_that_has_learnt_its_batch_is_not_accused(seed, written):
    """The loss is a difference of nearly equal numbers, and goes in steps above its last digit."""
    torch.manual_seed(seed)
    layers = [nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)]
    net, x, y = nn.Sequential(*layers).double(), torch.randn(8, 8).double(), torch.arange(8) % 3
    losses = {
        "cross_entropy": lambda z: F.cross_entropy(z, y),
        "nll of log of softmax": lambda z: F.nll_loss(z.softmax(-1).log(), y),
        "logsumexp": lambda z: (z.logsumexp(-1) - z.gather(1, y[:, None])[:, 0]).mean(),
    }
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-2)
    for _ in range(55):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    report = check_problem(Problem(net, lambda on_loss: on_loss(losses[written](net(x)))))
    assert report.passed, str(report)
    doubled = check_problem(
        Problem(net, lambda on_loss: on_loss(losses[written](Scaled.apply(net(x), 2.0, 1))))
    )
    if seed == 1:  # where the loss is not all rounding
        assert not doubled.passed or written != "cross_entropy"


def test_a_second_derivative_that_torch_refuses_raises_as_there():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        @once_differentiable
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0].cos()

    def penalty(weight):
        x = torch.ones(3, dtype=torch.float64, requires_grad=True)
        y = Once.apply(x * weight).square().sum()
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
        return y + gradient.square().sum()

    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        penalty(torch.ones(3, dtype=torch.float64, requires_grad=True)).backward()
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        checked(penalty, 3)

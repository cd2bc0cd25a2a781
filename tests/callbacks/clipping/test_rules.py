"""What a rule does to gradients and says of it, on a device as on the host."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab.callbacks.clipping.rules import (
    ClipInput,
    ClipResult,
    ClipSummary,
    clip_by_history,
    clip_norm,
    clip_units,
    clip_values,
)
from lightning_stab.functional.clipping import norm_coefficient


class Elsewhere(torch.Tensor):
    """A tensor of the host that names another device, from which nothing may be read."""

    @property
    def device(self):
        return torch.device("meta")

    def __float__(self):
        raise AssertionError("a transfer from the device")

    __bool__ = __float__


def parameter(*gradient):
    p = nn.Parameter(torch.zeros(len(gradient)))
    p.grad = torch.tensor(gradient)
    return p


@pytest.mark.parametrize("kind", [torch.Tensor, Elsewhere])
@pytest.mark.parametrize(
    ("threshold", "coefficient"), [(10.0, 1.0), (5.1, 1.0), (4.9, 0.98), (0.5, 0.1)]
)
def test_the_norm_is_bounded_and_the_step_counts_as_clipped_where_it_was(
    kind, threshold, coefficient
):
    p = parameter(3.0, 4.0)
    result = clip_norm(ClipInput([p], torch.tensor(5.0).as_subclass(kind), threshold, False))
    assert p.grad.tolist() == pytest.approx([3.0 * coefficient, 4.0 * coefficient], rel=1e-5)
    found = [torch.as_tensor(v).as_subclass(torch.Tensor).item()
             for v in (result.coefficient, result.fraction)]  # fmt: skip
    assert found == pytest.approx([coefficient, float(coefficient < 1)], rel=1e-5)


@pytest.mark.parametrize("kind", [torch.Tensor, Elsewhere])
@pytest.mark.parametrize("total", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_left_alone(kind, total):
    p = parameter(total, 4.0)
    result = clip_norm(ClipInput([p], torch.tensor(total).as_subclass(kind), 1.0, False))
    assert p.grad[1] == 4.0
    assert [float(torch.as_tensor(v).as_subclass(torch.Tensor))
            for v in (result.coefficient, result.fraction)] == [1.0, 0.0]  # fmt: skip


@pytest.mark.parametrize(("per_step", "fraction"), [(True, 0.5), (False, 0.0)])
def test_a_summary_is_of_its_interval_alone(per_step, fraction):
    summary, norm = ClipSummary(per_step=per_step), torch.tensor(2.0)
    for _ in range(2):  # the second interval knows nothing of the first
        for clipped in (1.0, 1.0, 0.0, 0.0):
            last = ClipResult(clipped, 0.25)
            summary.add(last)
        scalars = summary.scalars("_x", norm, norm / 2, last)
        assert scalars.update(scalars.values.tolist()) == {
            "clip/norm_before_x": 2.0, "clip/norm_after_x": 1.0,
            "clip/coefficient_x": 0.25, "clip/fraction_x": fraction,
        }  # fmt: skip
        assert summary.num_steps == 0


def test_the_fraction_of_units_that_were_bounded():
    """Each row is a unit: a gradient of at most a tenth of the weights' norm passes."""
    for rows, fraction in (([1.0], 1.0), ([0.1], 0.0), ([1.0, 0.1], 0.5), ([], 0.0)):
        p = nn.Parameter(torch.full((len(rows), 4), 0.5))  # of norm 1
        p.grad = torch.tensor(rows).reshape(-1, 1).expand(-1, 4).clone() / 2
        result = clip_units(ClipInput([p], None, 0.11, False), {})
        assert float(result.fraction) == fraction
        assert math.isnan(result.coefficient)
        assert p.grad.norm(dim=1).tolist() == pytest.approx([min(r, 0.11) for r in rows])
    p = nn.Parameter(torch.tensor([[3.0, 0.0], [4.0, 0.0]]))  # of norm 5 where units are columns
    p.grad = torch.tensor([[0.3, 0.0], [0.4, 0.0]])
    assert float(clip_units(ClipInput([p], None, 0.11, False), {id(p): 1}).fraction) == 0.0
    assert float(clip_units(ClipInput([p], None, 0.09, False), {id(p): 1}).fraction) == 0.5


def test_the_history_learns_what_was_and_bounds_what_is():
    learnt = []
    history = SimpleNamespace(limit=lambda norm: 2.5, learn=lambda *norms: learnt.append(norms))
    for learns, norms in ((True, [(5.0, 2.5)]), (False, [])):
        p = parameter(3.0, 4.0)
        result = clip_by_history(
            ClipInput([p], torch.tensor(5.0), 9.9, False), history, learns=learns
        )
        assert p.grad.tolist() == pytest.approx([1.5, 2.0], rel=1e-5)
        assert (result.fraction, learnt) == (1.0, norms)
        learnt.clear()
    history.limit = lambda norm: 5.0
    p = parameter(3.0, 4.0)
    result = clip_by_history(ClipInput([p], torch.tensor(5.0), 9.9, False), history, learns=True)
    assert (result, learnt) == (ClipResult(0.0, 1.0), [(5.0, 5.0)])  # within its bound
    for total in (math.nan, math.inf):
        p = parameter(total, 4.0)
        given = ClipInput([p], torch.tensor(total), 9.9, False)
        assert clip_by_history(given, history, learns=True) == ClipResult(0.0, 1.0)
    assert len(learnt) == 1


def test_entries_are_counted_only_where_that_is_asked_for():
    p = parameter(3.0, -4.0, 0.5, 1.0)
    result = clip_values(ClipInput([p], None, 1.0, True))
    assert float(result.fraction) == 0.5
    assert p.grad.tolist() == [1.0, -1.0, 0.5, 1.0]
    assert math.isnan(clip_values(ClipInput([p], None, 1.0, False)).fraction)


@pytest.mark.parametrize("threshold", [1e-7, 3e-6, 1e-3, 1.0, 7e4])
def test_norms_below_the_threshold_are_judged_by_the_same_rounding_as_torchs(threshold):
    """What is passed over on the host without a division gets no other factor than by dividing."""
    shares = (0.0, 0.5, 1 - 2e-5, 1 - 1e-5, 1 - 1e-6, 1 - 1e-7, 1.0, 1 + 1e-7, 1 + 1e-5, 2.0)
    for share in shares:
        total, p = torch.tensor(share * threshold), parameter(2.0)
        result = clip_norm(ClipInput([p], total, threshold, False))
        factor = float(norm_coefficient(total, threshold))
        assert result.coefficient == factor, share
        assert p.grad.tolist() == (torch.tensor([2.0]) * factor).tolist(), share

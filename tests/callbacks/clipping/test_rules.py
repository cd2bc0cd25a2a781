"""What a rule does to gradients and says of it, on a device as on the host."""

import math

import pytest
import torch
from torch import nn

from lightning_stab.callbacks.clipping.rules import ClipInput, ClipResult, ClipSummary, clip_norm


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

"""The clipping rules, each applied to one set of parameters of one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from lightning_stab.callbacks._trainer.device_values import DeviceScalars, is_remote
from lightning_stab.callbacks._trainer.logging import tag
from lightning_stab.functional.clipping import (
    NORM_EPS,
    clip_adaptively_,
    clip_by_value_,
    fraction_beyond,
    norm_coefficient,
    scale_,
)
from lightning_stab.functional.norm_history import NormHistory
from lightning_stab.functional.norms import exact_total_norm, full_tensor, wide_dtype

CLEARLY_BELOW = 1 - 1e-5  # of the threshold: rounding leads no norm from there above it
LOGGED = ("norm_before", "norm_after", "coefficient", "fraction")
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass
class ClipInput:
    """The gradients that one application of a rule works on.

    Attributes:
        params: parameters with a gradient.
        total: the 2-norm of their gradients before clipping, a scalar on the device; None where
            neither the rule nor a report needs it.
        threshold: the rule's threshold at this step.
        measure: whether the statistics that need a pass of their own are wanted.
    """

    params: Sequence[Parameter]
    total: Tensor | None
    threshold: float
    measure: bool

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients as they stand now."""
        return [p.grad for p in self.params if p.grad is not None]

    @property
    def norm(self) -> Tensor:
        """The norm, of a rule that needs it."""
        assert self.total is not None
        return self.total

    def norm_value(self) -> float:
        """Return the norm on the host, exact where float32 overflowed."""
        value = float(self.norm)
        return exact_total_norm(self.gradients) if value == math.inf else value


@dataclass
class ClipResult:
    """What a rule did: device scalars or numbers, NaN for what was not measured or has no meaning.

    Attributes:
        fraction: of elements (value), of units (adaptive) or 1/0 for the step (norm, history).
        coefficient: the one factor that was applied.
    """

    fraction: Tensor | float = math.nan
    coefficient: Tensor | float = math.nan


UNCLIPPED = ClipResult(fraction=0.0, coefficient=1.0)


def clip_values(given: ClipInput) -> ClipResult:
    """Bound every entry by the threshold."""
    fraction = fraction_beyond(given.gradients, given.threshold) if given.measure else math.nan
    clip_by_value_(given.gradients, given.threshold)
    return ClipResult(fraction)


def clip_norm(given: ClipInput) -> ClipResult:
    """Bound the norm of all gradients together by the threshold."""
    total = given.norm
    if is_remote(total):
        coefficient = norm_coefficient(total, given.threshold)
        scale_(given.gradients, coefficient)
        return ClipResult((coefficient < 1.0).float(), coefficient)
    value = float(total)
    if value + NORM_EPS < CLEARLY_BELOW * given.threshold:  # where the factor is 1 after rounding
        return UNCLIPPED
    if value == math.inf:  # float32 overflowed: the entries may well be finite
        total = torch.tensor(given.norm_value(), dtype=torch.float64)
        if not math.isfinite(float(total)):
            return UNCLIPPED
    coefficient = norm_coefficient(total, given.threshold)
    if float(coefficient) < 1.0:
        scale_(given.gradients, coefficient)
    return ClipResult(float(coefficient < 1.0), float(coefficient))


def clip_by_history(given: ClipInput, history: NormHistory[Any], *, learns: bool) -> ClipResult:
    """Bound the norm by its own past; a norm that is not finite is left alone.

    Args:
        given: the gradients.
        history: the past.
        learns: whether this norm becomes part of it.
    """
    norm = given.norm_value()
    if not math.isfinite(norm):
        return UNCLIPPED
    limit = history.limit(norm)
    if learns:
        history.learn(norm, min(norm, limit))
    return clip_norm(replace(given, threshold=limit)) if limit < norm else UNCLIPPED


def clip_units(given: ClipInput, unit_dims: Mapping[int, int]) -> ClipResult:
    """Bound each unit's gradient by its weights.

    Args:
        given: the gradients.
        unit_dims: the unit dimension by identity of the parameter; 0 where it is not named.
    """
    weights = [p.detach() for p in given.params]
    dims = [unit_dims.get(id(p), 0) for p in given.params]
    clipped, units = clip_adaptively_(given.gradients, weights, given.threshold, unit_dims=dims)
    return ClipResult(clipped / max(units, 1))


def transposed_unit_dims(module: nn.Module) -> dict[int, int]:
    """Return the unit dimension of the weights whose output channels stand second."""
    return {id(m.weight): 1 for m in module.modules() if isinstance(m, TRANSPOSED_CONVOLUTIONS)}


class ClipSummary:
    """Counts the clipped steps of one optimizer or group, on the device where they are there.

    Args:
        per_step: whether the fraction is of the interval's steps, not of elements or units.
    """

    def __init__(self, *, per_step: bool) -> None:
        self.num_steps = 0
        self._per_step = per_step
        self._clipped: Tensor | float = 0.0
        self._passed_over: Tensor | float = 0.0  # of the counted steps

    def add(self, result: ClipResult, bad: Tensor | None = None) -> None:
        """Count one step; ``bad`` is 1 on the device where it is not taken."""
        self.num_steps += 1
        if self._per_step and bad is not None:
            self._clipped = self._clipped + torch.where(bad > 0, 0.0, result.fraction)
            self._passed_over = self._passed_over + bad
        elif self._per_step:
            self._clipped = self._clipped + result.fraction

    def scalars(
        self, suffix: str, before: Tensor, after: Tensor, result: ClipResult
    ) -> DeviceScalars:
        """Return the values of an interval's last step, with the interval's fraction.

        Args:
            suffix: distinguishes the values from those of other clippers, optimizers and groups.
            before: the norm before clipping.
            after: the norm after it.
            result: what the rule did at this step.
        """
        taken = self.num_steps - self._passed_over
        fraction = self._clipped / taken if self._per_step else result.fraction
        values = [before, after, *(_scalar(v, before) for v in (result.coefficient, fraction))]
        tags = [tag("clip", name + suffix) for name in LOGGED]
        self.num_steps, self._clipped, self._passed_over = 0, 0.0, 0.0
        return DeviceScalars(
            torch.stack([v.to(before.device, wide_dtype(before.device)) for v in values]),
            lambda numbers: {t: v for t, v in zip(tags, numbers, strict=True) if v == v},
        )


def _scalar(value: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return full_tensor(value.detach()).reshape(())
    return torch.tensor(value, device=like.device, dtype=wide_dtype(like.device))

"""The clipping rules, each applied to one set of parameters of one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.conv import _ConvTransposeNd

from lightning_stab.functional.clipping import (
    clip_adaptively_,
    clip_by_value_,
    fraction_beyond,
    norm_coefficient,
    scale_,
)
from lightning_stab.functional.norm_history import NormHistory
from lightning_stab.functional.norms import exact_total_norm


@dataclass
class Target:
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
class Clipped:
    """What a rule did: device scalars or numbers.

    Attributes:
        coefficient: the factor applied; None where there is no single one.
        fraction: of elements (value), of units (adaptive) or 1/0 for the step (norm, history).
    """

    coefficient: Tensor | float | None
    fraction: Tensor | float | None


def clip_values(target: Target) -> Clipped:
    """Bound every entry by the threshold."""
    fraction = fraction_beyond(target.gradients, target.threshold) if target.measure else None
    clip_by_value_(target.gradients, target.threshold)
    return Clipped(None, fraction)


def clip_norm(target: Target) -> Clipped:
    """Bound the norm of all gradients together by the threshold."""
    return _bound_norm(target, target.threshold)


def clip_by_history(history: NormHistory[Any], *, learns: bool) -> Callable[[Target], Clipped]:
    """Return the rule that bounds the norm by its own past; a non-finite norm is left alone.

    Args:
        history: the past.
        learns: whether this norm becomes part of it.
    """

    def clip(target: Target) -> Clipped:
        norm = target.norm_value()
        if not math.isfinite(norm):
            return Clipped(1.0, 0.0)
        limit = history.limit(norm)
        if learns:
            history.learn(norm, min(norm, limit))
        return _bound_norm(target, limit) if limit < norm else Clipped(1.0, 0.0)

    return clip


def clip_units(unit_dims: dict[int, int]) -> Callable[[Target], Clipped]:
    """Return the rule that bounds each unit's gradient by its weights.

    Args:
        unit_dims: the unit dimension by identity of the parameter; 0 where it is not named.
    """

    def clip(target: Target) -> Clipped:
        weights = [p.detach() for p in target.params]
        dims = [unit_dims.get(id(p), 0) for p in target.params]
        clipped, units = clip_adaptively_(
            target.gradients, weights, target.threshold, unit_dims=dims
        )
        return Clipped(None, clipped / max(units, 1))

    return clip


def transposed_unit_dims(module: nn.Module) -> dict[int, int]:
    """Return the unit dimension of the weights whose output channels stand second."""
    return {id(m.weight): 1 for m in module.modules() if isinstance(m, _ConvTransposeNd)}


def _bound_norm(target: Target, threshold: float) -> Clipped:
    if target.norm.device.type != "cpu":  # reading the norm would wait for the device
        coefficient = norm_coefficient(target.norm, threshold)
        scale_(target.gradients, coefficient)
        return Clipped(coefficient, (coefficient < 1.0).float())
    total = target.norm
    if float(total) == math.inf:  # float32 overflowed: the entries may well be finite
        total = torch.tensor(target.norm_value(), dtype=torch.float64)
        if not math.isfinite(float(total)):
            return Clipped(1.0, 0.0)
    coefficient = norm_coefficient(total, threshold)
    if float(coefficient) < 1.0:
        scale_(target.gradients, coefficient)
    return Clipped(float(coefficient), float(coefficient < 1.0))

"""What a clipper did since it last reported."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks._trainer.logging import tag
from lightning_stab.callbacks.clipping.rules import Clipped
from lightning_stab.functional.norms import full_tensor


class ClipSummary:
    """Counts the clipped steps of one optimizer or group, on the device where they are there.

    Args:
        per_step: whether the fraction is of the interval's steps, not of elements or units.
    """

    def __init__(self, *, per_step: bool) -> None:
        self.per_step = per_step
        self.num_steps = 0
        self._clipped: Tensor | float = 0.0

    def add(self, clipped: Clipped) -> None:
        """Count one step."""
        self.num_steps += 1
        if self.per_step and clipped.fraction is not None:
            self._clipped = self._clipped + clipped.fraction

    def reading(
        self, suffix: str, before: Tensor, after: Tensor, clipped: Clipped
    ) -> DeviceScalars:
        """Return the values of an interval's last step with the interval's fraction; start anew."""
        fraction = self._clipped / self.num_steps if self.per_step else clipped.fraction
        values = [before, after, _scalar(clipped.coefficient, before), _scalar(fraction, before)]
        names = ["norm_before", "norm_after", "coefficient", "fraction"]
        self.num_steps, self._clipped = 0, 0.0

        def to_scalars(numbers: list[float]) -> Mapping[str, float]:
            named = zip(names, numbers, strict=True)
            return {tag("clip", name + suffix): v for name, v in named if v == v}

        return DeviceScalars(
            torch.stack([v.to(before.device, torch.float64) for v in values]), to_scalars
        )


def _scalar(value: Tensor | float | None, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return full_tensor(value.detach()).reshape(())
    return torch.tensor(float("nan") if value is None else value, device=like.device)

"""What happened to each weight."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_stab.functional.initialization.passes import Readings


@dataclass(frozen=True)
class WeightRecord:
    """What happened to one weight; ``reason`` says why it was left alone, if it was.

    Attributes:
        name: the parameter's name.
        layer: the name of the layer that owns it.
        shape: its shape; empty where it has none yet.
        preceding: the activation before it, or ``input``, ``linear``, ``norm``.
        scheme: the scheme that drew it; empty if left alone.
        gain: the gain of the scheme; None if left alone.
        std_before: the standard deviation of its elements before; None if left alone.
        std_after: and after.
        reason: empty if it was drawn.
        activation_std_before: the standard deviation over the batch of the layer's result, per
            unit, RMS over units; None without a batch, or where the layer has no single result.
        activation_std_after: and after.
        gradient_rms_before: the RMS of the loss's gradient with respect to that result.
        gradient_rms_after: and after.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    preceding: str
    scheme: str = ""
    gain: float | None = None
    std_before: float | None = None
    std_after: float | None = None
    reason: str = ""
    activation_std_before: float | None = None
    activation_std_after: float | None = None
    gradient_rms_before: float | None = None
    gradient_rms_after: float | None = None

    def with_readings(self, before: Readings, after: Readings) -> WeightRecord:
        """Return this record with what the batch showed of its layer."""
        if self.name.rpartition(".")[2] != "weight":
            return self
        return replace(
            self,
            activation_std_before=before.signal.get(self.layer),
            activation_std_after=after.signal.get(self.layer),
            gradient_rms_before=before.gradient.get(self.layer),
            gradient_rms_after=after.gradient.get(self.layer),
        )


def shape_of(weight: Tensor | None) -> tuple[int, ...]:
    """Return a weight's shape; empty where it has none yet."""
    lazy = isinstance(weight, nn.parameter.UninitializedParameter)
    return () if weight is None or lazy else tuple(weight.shape)


def std_of(weight: Tensor) -> float:
    """Return the standard deviation of a weight's elements."""
    values = weight.detach()
    wide = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return float(wide.std(correction=0))

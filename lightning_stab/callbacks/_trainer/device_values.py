"""From device to host once: what many statistics measured crosses in one packed tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """Measured values, still on the device, and what they are called once they are numbers.

    Attributes:
        values: shape ``[n]``, real.
        to_scalars: from the ``n`` numbers to named scalars.
    """

    values: Tensor
    to_scalars: Callable[[list[float]], Mapping[str, float]]


def named(name: str, value: Tensor) -> Reading:
    """Return the reading of one scalar."""
    return Reading(value.detach().reshape(1), lambda numbers: {name: numbers[0]})


def cross(readings: Sequence[Reading]) -> dict[str, float]:
    """Return the named scalars of all readings, moved to the host in one transfer.

    Example:
        >>> cross([named("a", torch.tensor(1.0)), named("b", torch.tensor(2.0))])
        {'a': 1.0, 'b': 2.0}
    """
    if not readings:
        return {}
    device = readings[0].values.device
    packed = torch.cat([r.values.detach().to(device, torch.float64) for r in readings]).tolist()
    scalars: dict[str, float] = {}
    start = 0
    for reading in readings:
        end = start + reading.values.numel()
        scalars.update(reading.to_scalars(packed[start:end]))
        start = end
    return scalars

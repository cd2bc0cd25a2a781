"""From device to host once: what many statistics measured crosses in one packed tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DeviceScalars:
    """Measured values, still on the device, and who gets them once they are numbers.

    Attributes:
        values: shape ``[n]``, real.
        update: takes the ``n`` numbers; it keeps them, or returns named scalars to be logged.
    """

    values: Tensor
    update: Callable[[list[float]], Mapping[str, float] | None]


def named(name: str, value: Tensor) -> DeviceScalars:
    """Return one scalar, to be logged under a name."""
    return DeviceScalars(value.detach().reshape(1), lambda numbers: {name: numbers[0]})


def to_host(waiting: Iterable[DeviceScalars]) -> dict[str, float]:
    """Move all values to the host in one transfer; return the named scalars among them.

    Example:
        >>> to_host([named("a", torch.tensor(1.0)), named("b", torch.tensor(2.0))])
        {'a': 1.0, 'b': 2.0}
    """
    waiting = list(waiting)
    if not waiting:
        return {}
    device = waiting[0].values.device
    packed = torch.cat([w.values.detach().to(device, torch.float64) for w in waiting]).tolist()
    scalars: dict[str, float] = {}
    start = 0
    for each in waiting:
        end = start + each.values.numel()
        scalars.update(each.update(packed[start:end]) or {})
        start = end
    return scalars

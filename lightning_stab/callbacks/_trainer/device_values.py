"""From device to host once: what many statistics measured crosses in one packed tensor.

The host either waits for it (`to_host`), or reads it a step or more later (`Arriving`), when the
device has long passed the place: then nothing that the device still has to do is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_stab.functional.norms import in_double, lack_double, wide_dtype

CPU_COUNTS_AS_DEVICE = False  # set by tests: the ways that a GPU takes are taken on the CPU as well


def is_remote(tensor: Tensor) -> bool:
    """Say whether the host would have to wait for a tensor's numbers."""
    return tensor.device.type != "cpu" or CPU_COUNTS_AS_DEVICE


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


def stacked(tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Stack tensors of one shape as one of a device and a precision.

    Where they are alike already, as nearly always, they are converted together, not one by one.
    """
    first = tensors[0]
    if all(t.device == first.device and t.dtype is first.dtype for t in tensors):
        return torch.stack(list(tensors)).to(device, dtype)
    return torch.stack([t.to(device, dtype) for t in tensors])


def to_host(waiting: Iterable[DeviceScalars]) -> dict[str, float]:
    """Move all values to the host in one transfer; return the named scalars among them.

    Example:
        >>> to_host([named("a", torch.tensor(1.0)), named("b", torch.tensor(2.0))])
        {'a': 1.0, 'b': 2.0}
    """
    waiting = list(waiting)
    return _given(waiting, _numbers(waiting)) if waiting else {}


def _numbers(waiting: list[DeviceScalars]) -> list[float]:
    """Return all values as numbers; what is on the host already need not be packed."""
    if any(is_remote(each.values) for each in waiting):
        return _packed(waiting).tolist()
    return [float(number) for each in waiting for number in each.values.tolist()]


def _packed(waiting: list[DeviceScalars]) -> Tensor:
    values = [w.values.detach() for w in waiting]
    if lack_double(values):
        values = _on_cpu(values)
    return torch.cat([v.to(values[0].device, wide_dtype(values[0].device)) for v in values])


def _on_cpu(values: list[Tensor]) -> list[Tensor]:
    """Move values to the CPU, each kind of number in one transfer, so that counts stay exact."""
    places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, each in enumerate(values):
        places.setdefault((each.device, each.dtype), []).append(place)
    moved = list(values)
    for alike in places.values():
        joined = in_double(torch.cat([values[place] for place in alike]))
        parts = torch.split(joined, [len(values[place]) for place in alike])
        for place, part in zip(alike, parts, strict=True):
            moved[place] = part
    return moved


def _given(waiting: list[DeviceScalars], packed: list[float]) -> dict[str, float]:
    """Give each its own numbers; return the named scalars among them."""
    scalars: dict[str, float] = {}
    start = 0
    for each in waiting:
        end = start + each.values.numel()
        scalars.update(each.update(packed[start:end]) or {})
        start = end
    return scalars


class Arriving:
    """Numbers on their way to the host: copied without waiting, read later.

    Args:
        values: shape ``[n]``, real, on any device.

    Example:
        >>> Arriving(torch.tensor([1.0, 2.0])).numbers()
        [1.0, 2.0]
    """

    def __init__(self, values: Tensor) -> None:
        kind = values.device.type
        self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=kind == "cuda")
        self._host.copy_(values.detach(), non_blocking=True)
        self._event: Any = None
        if kind != "cpu":
            self._event = getattr(torch, kind).Event()
            self._event.record()

    def numbers(self) -> list[float]:
        """Return the numbers, after waiting for the copy, but for nothing that was asked later."""
        if self._event is not None:
            self._event.synchronize()
        found: list[float] = self._host.numpy().tolist()  # refused by a tensor of a device
        return found


class Leaving:
    """What was measured at one step, on its way to the host.

    Args:
        waiting: at least one.
        step: the x value under which it is logged.
    """

    def __init__(self, waiting: Iterable[DeviceScalars], step: int) -> None:
        self.step = step
        self._waiting = list(waiting)
        is_far = any(is_remote(each.values) for each in self._waiting)
        self._arriving = Arriving(_packed(self._waiting)) if is_far else None
        self._numbers = [] if is_far else _numbers(self._waiting)
        self._scalars: dict[str, float] | None = None

    def scalars(self) -> dict[str, float]:
        """Give the numbers to whom they belong, once; return the named scalars among them."""
        if self._scalars is None:
            numbers = self._arriving.numbers() if self._arriving else self._numbers
            self._scalars = _given(self._waiting, numbers)
        return self._scalars

"""Faults that any gradient can have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Fault = Callable[[Tensor], Tensor | None]


def _flipped(g: Tensor) -> Tensor:
    return -g


def _zeroed(g: Tensor) -> Tensor:
    return torch.zeros_like(g)


def _doubled(g: Tensor) -> Tensor:
    return 2 * g


def _missing(g: Tensor) -> None:
    return None


def _scaled(factor: float) -> Fault:
    return lambda g: factor * g


def _changed_entry(g: Tensor, index: int, value: Tensor) -> Tensor:
    flat = g.clone().reshape(-1)
    flat[index % len(flat)] = value
    return flat.reshape(g.shape)


def _one_entry_zeroed(g: Tensor) -> Tensor:
    return _changed_entry(g, int(g.abs().argmax()), torch.zeros((), dtype=g.dtype))


def _one_entry_off_by_a_millionth(g: Tensor) -> Tensor:
    flat = g.reshape(-1)
    index = len(flat) // 2
    return _changed_entry(g, index, flat[index] + 1e-6 * g.norm())


def _one_row_dropped(g: Tensor) -> Tensor:
    changed = g.clone()
    changed[len(g) // 2] = 0
    return changed


def _two_entries_swapped(g: Tensor) -> Tensor:
    flat = g.clone().reshape(-1)
    low, high = int(flat.argmin()), int(flat.argmax())
    flat[[low, high]] = flat[[high, low]]
    return flat.reshape(g.shape)


def _only_where_positive(g: Tensor) -> Tensor:
    return g.clamp(min=0)


def _shifted(g: Tensor) -> Tensor:
    return g.roll(1, 0)


def _averaged(g: Tensor) -> Tensor:
    return g / len(g)


def _patterned(g: Tensor) -> Tensor:
    """Return ``g`` with an error of a millionth of its norm, spread over all entries."""
    pattern = torch.arange(g.numel(), dtype=g.dtype).mul(2.3).cos().reshape(g.shape)
    return g + 1e-6 * g.norm() / pattern.norm() * pattern


FAULTS: dict[str, Fault] = {
    "sign flipped": _flipped,
    "one entry zeroed": _one_entry_zeroed,
    "scaled by 1 + 1e-6": _scaled(1 + 1e-6),
    "one row dropped": _one_row_dropped,
    "zeroed": _zeroed,
    "one entry off by 1e-6 of the norm": _one_entry_off_by_a_millionth,
    "two entries swapped": _two_entries_swapped,
    "scaled by 1.0001": _scaled(1.0001),
    "not returned": _missing,
    "negative entries lost": _only_where_positive,
    "off by 1e-6 of the norm": _patterned,
    "doubled": _doubled,
    "shifted by one row": _shifted,
    "scaled by 1.01": _scaled(1.01),
    "averaged instead of summed": _averaged,
}

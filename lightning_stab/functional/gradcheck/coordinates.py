"""Coordinates of tensors: flat views, places, samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flat_view(tensor: Tensor) -> Tensor:
    """Return the values as a flat real view; a complex number counts as two coordinates."""
    data = tensor.detach()
    return (torch.view_as_real(data.resolve_conj()) if data.is_complex() else data).view(-1)


def sampled_coordinates(size: int, number: int | None, generator: torch.Generator) -> list[int]:
    """Return ``number`` different indices below ``size`` in rising order, or all of them."""
    if number is None or number >= size:
        return list(range(size))
    return sorted(torch.randperm(size, generator=generator)[:number].tolist())


def unravelled(index: int, tensor: Tensor) -> tuple[int, ...]:
    """Return the place in ``tensor`` of a flat ``index``; complex tensors have an axis of two.

    Example:
        >>> unravelled(5, torch.zeros(2, 3))
        (1, 2)
    """
    shape: Sequence[int] = (*tensor.shape, 2) if tensor.is_complex() else tensor.shape
    place: list[int] = []
    for size in reversed(shape):
        index, rest = divmod(index, size)
        place.append(rest)
    return tuple(reversed(place))

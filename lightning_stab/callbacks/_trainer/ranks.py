"""What all ranks agree on; with one rank it costs nothing.

Every rank has to call these functions at the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_stab.functional.norms import wide_dtype

T = TypeVar("T")


def gather(trainer: Trainer, value: T) -> list[T]:
    """Return every rank's value, in the order of the ranks; values are pickled on the way."""
    if not _has_several(trainer):
        return [value]
    values: list[T] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def gather_numbers(
    trainer: Trainer, numbers: list[float], device: torch.device
) -> list[list[float]]:
    """Return every rank's numbers, exchanged as one small tensor on ``device``."""
    if not _has_several(trainer):
        return [numbers]
    mine = torch.tensor(numbers, dtype=wide_dtype(device), device=device)
    ranks = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(ranks, mine)
    found: list[list[float]] = torch.stack(ranks).tolist()
    return found


def gather_rows(trainer: Trainer, numbers: Tensor) -> Tensor:
    """Return every rank's numbers, shape ``[ranks, n]``, without waiting for the device."""
    if not _has_several(trainer):
        return numbers[None]
    ranks = [torch.empty_like(numbers) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(ranks, numbers)
    return torch.stack(ranks)


def any_rank(trainer: Trainer, flag: bool) -> bool:
    """Say whether the flag is set on any rank."""
    return bool(trainer.strategy.reduce_boolean_decision(flag, all=False))


def broadcast(trainer: Trainer, value: T, source: int = 0) -> T:
    """Return the value of one rank, the first by default."""
    if trainer.world_size == 1:
        return value
    return trainer.strategy.broadcast(value, src=source)


def broadcast_(trainer: Trainer, tensors: Iterable[Tensor]) -> None:
    """Copy the first rank's values into the tensors of all others, in place."""
    if _has_several(trainer):
        for tensor in tensors:
            torch.distributed.broadcast(tensor.detach(), 0)


def first_rank_with(trainer: Trainer, flag: bool) -> int | None:
    """Return the first rank on which the flag is set, None if it is on none."""
    if not any_rank(trainer, flag):
        return None
    if trainer.world_size == 1:
        return 0
    mine = torch.tensor(
        trainer.global_rank if flag else trainer.world_size, device=trainer.strategy.root_device
    )
    return int(trainer.strategy.reduce(mine, reduce_op="min"))


def mean(trainer: Trainer, value: Tensor) -> float:
    """Return the mean of a scalar over all ranks."""
    if trainer.world_size > 1:
        value = trainer.strategy.reduce(value.to(trainer.strategy.root_device), reduce_op="mean")
    return float(value)


def largest(values: Iterable[float]) -> float:
    """Return the largest of the ranks' values, NaN if one is not finite.

    Example:
        >>> largest([1.0, 3.0]), largest([1.0, float("inf")])
        (3.0, nan)
    """
    values = list(values)
    return max(values) if all(map(math.isfinite, values)) else math.nan


def _has_several(trainer: Trainer) -> bool:
    return trainer.world_size > 1 and torch.distributed.is_initialized()

"""A training order that depends on the seed and the epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import RandomSampler


class EpochShuffle(RandomSampler):
    """Shuffle by ``seed + epoch``; Lightning tells the epoch through `set_epoch`.

    The order is the same whatever else draws random numbers, and a run that is resumed at the end
    of an epoch goes on as if it had not stopped. Being a `RandomSampler`, it is replaced by a
    `DistributedSampler` where Lightning trains on several ranks.
    """

    def __init__(self, data_source: Sized, seed: int) -> None:
        super().__init__(data_source)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield each index once."""
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from torch.randperm(len(self.data_source), generator=generator).tolist()

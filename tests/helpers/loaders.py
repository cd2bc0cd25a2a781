"""Loaders as other people write them, and what a run has read from them."""

import torch
from helpers.contract import loader, samples
from helpers.stopping_modules import Replays
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset


class KeepsItsPlace(Replays):
    """It goes on where it stood, also in the next iterator, and counts them."""

    def __init__(self, num=4, seed=0):
        super().__init__(samples(num, seed))
        self.num_iterators = 0

    def __iter__(self):
        self.num_iterators += 1
        return super().__iter__()


class Stream(IterableDataset):
    """Data without a length."""

    def __init__(self, num=4, seed=0):
        self.data, self.num_iterators = samples(num, seed), 0

    def __iter__(self):
        self.num_iterators += 1
        return iter([self.data[i] for i in range(len(self.data))])


class OpenStream(IterableDataset):
    """An endless source that each iterator goes on reading."""

    def __init__(self):
        self.source, self.num_iterators = self._source(), 0

    def _source(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            x = torch.randn(8, 4, generator=generator)
            yield x, x.abs()[:, :3].argmax(-1)

    def __iter__(self):
        self.num_iterators += 1
        while True:
            yield next(self.source)


class Once:
    """A loader that is its own iterator, as a file is."""

    def __init__(self, num=4):
        self.data, self.at, self.num_iterators = samples(num), 0, 0

    def __iter__(self):
        self.num_iterators += 1
        self.at = 0
        return self

    def __next__(self):
        if self.at == len(self.data):
            raise StopIteration
        self.at += 1
        return self.data[self.at - 1]


class Counted(list):
    """Batches in a list."""

    num_iterators = 0

    def __iter__(self):
        self.num_iterators += 1
        return super().__iter__()


def unbatched(dataset):
    """Return a dataset of whole batches as a loader, and the dataset."""
    return DataLoader(dataset, batch_size=None), dataset


def itself(made):
    return made, made


def combined(mode):
    first, second = KeepsItsPlace(4), KeepsItsPlace(3, seed=5)
    return CombinedLoader({"a": first, "b": second}, mode), first


LOADERS = {  # a loader, and what counts its iterators
    "a data loader": lambda: (loader(4), None),
    "shuffled": lambda: (DataLoader(samples(4), batch_size=None, shuffle=True), None),
    "a list": lambda: itself(Counted(samples(4)[i] for i in range(4))),
    "with a state": lambda: itself(KeepsItsPlace()),
    "its own iterator": lambda: itself(Once()),
    "a stream": lambda: unbatched(Stream()),
    "an open stream": lambda: unbatched(OpenStream()),
    "combined": lambda: combined("max_size_cycle"),
    "combined, the shorter": lambda: combined("min_size"),
}

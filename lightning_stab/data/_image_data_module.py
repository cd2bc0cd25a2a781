"""What the data modules share: scaling and loaders of images that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_stab.arguments import integer
from lightning_stab.functional.norms import in_double


class ImageDataModule(LightningDataModule):
    """Loaders over `train`, `val` and `test`, which the subclass's `setup` fills."""

    train: TensorDataset
    val: TensorDataset
    test: TensorDataset

    def __init__(self, batch_size: int, image: bool, seed: int, num_workers: int) -> None:
        super().__init__()
        self.batch_size = integer("batch_size", batch_size, minimum=1)
        self.image = image
        self.seed = integer("seed", seed, minimum=0)
        self.num_workers = integer("num_workers", num_workers, minimum=0)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the shuffled training batches."""
        # BatchNorm cannot normalise a single sample: a last batch of one is left out.
        drop_last = self.batch_size > 1 and len(self.train) % self.batch_size == 1
        sampler = EpochShuffle(self.train, self.seed)
        return self._loader(self.train, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test batches."""
        return self._loader(self.test)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the test batches."""
        return self._loader(self.test)

    def _loader(self, data: TensorDataset, **settings: Any) -> DataLoader[Any]:
        return DataLoader(
            data,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **settings,
        )

    def _fit_scale(self, train_images: Tensor) -> None:
        """Remember the mean and standard deviation over all pixels of the training images."""
        pixels = in_double(train_images)
        self.mean = float(pixels.mean())
        self.std = float(pixels.std(correction=0)) or 1.0

    def _dataset(self, images: Tensor, classes: Tensor) -> TensorDataset:
        """Return images (n, height, width) scaled, flat or with one channel, and their classes."""
        scaled = (images.to(torch.float32) - self.mean) / self.std
        scaled = scaled.unsqueeze(1) if self.image else scaled.flatten(1)
        return TensorDataset(scaled, classes.to(torch.int64))


class EpochShuffle(RandomSampler):
    """Shuffle by ``seed + epoch`` only; Lightning gives the epoch through `set_epoch`.

    The order does not depend on what else draws random numbers, and a run that is resumed at the
    end of an epoch goes on as if it had not stopped. Being a `RandomSampler`, it is replaced by a
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

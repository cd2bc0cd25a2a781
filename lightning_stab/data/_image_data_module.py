"""What the data modules share: scaling and loaders of images that fit into memory."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab.arguments import integer
from lightning_stab.data._shuffle import EpochShuffle


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
        lonely = self.batch_size > 1 and len(self.train) % self.batch_size == 1
        return self._loader(
            self.train, sampler=EpochShuffle(self.train, self.seed), drop_last=lonely
        )

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
        pixels = train_images.double()
        self.mean = float(pixels.mean())
        self.std = float(pixels.std(correction=0)) or 1.0

    def _dataset(self, images: Tensor, classes: Tensor) -> TensorDataset:
        """Return images (n, height, width) scaled, flat or with one channel, and their classes."""
        scaled = (images.to(torch.float32) - self.mean) / self.std
        scaled = scaled.unsqueeze(1) if self.image else scaled.flatten(1)
        return TensorDataset(scaled, classes.to(torch.int64))

"""MNIST, and every data set that is published in its format, from files in a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lightning_stab.arguments import real
from lightning_stab.data._idx import find_idx, read_idx
from lightning_stab.data._image_data_module import ImageDataModule
from lightning_stab.errors import DatasetError


class MNISTDataModule(ImageDataModule):
    """MNIST, Fashion-MNIST and the like: images from four IDX files in a folder.

    Reads ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same two with ``t10k``,
    each plain or with ``.gz``; ``train-images.idx3-ubyte`` is understood too. Header and length
    are checked. Nothing is downloaded. All parts are shifted and scaled by the mean and the
    standard deviation over all pixels of the training images (without those for validation).

    Args:
        data_dir: the folder of the files.
        batch_size: samples per batch, >= 1. A last training batch of a single sample is left
            out, because BatchNorm cannot normalise it.
        image: whether a sample has the shape (1, 28, 28), for convolutions, instead of (784,).
        seed: >= 0; decides the split and, with the epoch, the order of the training samples.
        val_fraction: share of the training file held out for validation, > 0 and < 1.
        num_workers: processes that load batches, >= 0; the data is in memory, so 0 is fastest.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        DatasetError: in `setup`, if a file is missing, truncated, or not what its header says.

    Example:
        >>> MNISTDataModule("no such folder").setup("fit")
        Traceback (most recent call last):
        ...
        lightning_stab.errors.DatasetError: `data_dir` 'no such folder' is no folder. ...

    Source: LeCun, Bottou, Bengio and Haffner 1998.
    """

    def __init__(
        self,
        data_dir: str = "data/mnist",
        batch_size: int = 64,
        image: bool = False,
        seed: int = 0,
        val_fraction: float = 0.1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, image, seed, num_workers)
        self.data_dir = Path(data_dir)
        self.val_fraction = real("val_fraction", val_fraction, above=0, below=1)
        self.save_hyperparameters(logger=False)

    def setup(self, stage: str | None = None) -> None:
        """Read the files that the stage needs, split and scale."""
        images, classes = _read_pair(self.data_dir, "train")
        train, val = _split(len(classes), self.val_fraction, self.seed)
        self._fit_scale(images[train])
        self.train = self._dataset(images[train], classes[train])
        self.val = self._dataset(images[val], classes[val])
        if stage in (None, "test", "predict"):
            self.test = self._dataset(*_read_pair(self.data_dir, "t10k"))


def _read_pair(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return the images (n, height, width) and the classes (n,) of a part."""
    images_path = find_idx(folder, f"{part}-images", 3)
    classes_path = find_idx(folder, f"{part}-labels", 1)
    images, classes = read_idx(images_path, 3), read_idx(classes_path, 1)
    if len(images) != len(classes):
        raise DatasetError(
            f"{str(images_path)!r} holds {len(images)} images, but {str(classes_path)!r} holds "
            f"{len(classes)} labels. Fetch the two files that belong together."
        )
    return images, classes


def _split(count: int, val_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the shuffled indices of the training and the validation samples."""
    num_val = max(1, round(count * val_fraction))
    if num_val >= count:
        raise DatasetError(
            f"{count} training images cannot be split with `val_fraction` {val_fraction!r}: "
            "both parts need at least one."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[num_val:], order[:num_val]

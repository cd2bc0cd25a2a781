"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_stab.arguments import real
from lightning_stab.data._image_data_module import ImageDataModule
from lightning_stab.errors import DatasetError, InvalidArgumentError


class DigitsDataModule(ImageDataModule):
    """Handwritten digits: 1,797 real images of 8 x 8 pixels, ten classes, nothing to download.

    The split keeps the shares of the classes. All parts are shifted and scaled by the mean and
    the standard deviation over all pixels of the training images.

    Args:
        batch_size: samples per batch, >= 1. A last training batch of a single sample is left
            out, because BatchNorm cannot normalise it.
        image: whether a sample has the shape (1, 8, 8), for convolutions, instead of (64,).
        seed: >= 0; decides the split and, with the epoch, the order of the training samples.
        val_fraction: share of the samples held out for validation, > 0 and < 1.
        test_fraction: share of the samples held out for the test, > 0 and < 1; the two together
            leave something to train on.
        num_workers: processes that load batches, >= 0; the data is in memory, so 0 is fastest.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        DatasetError: in `setup`, if scikit-learn is not installed.

    Example:
        >>> data = DigitsDataModule(batch_size=32)
        >>> data.setup("fit")
        >>> images, classes = next(iter(data.train_dataloader()))
        >>> images.shape, classes.shape
        (torch.Size([32, 64]), torch.Size([32]))

    Source: Alpaydin and Kaynak 1998, the test part of the UCI optical digits.
    """

    def __init__(
        self,
        batch_size: int = 64,
        image: bool = False,
        seed: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, image, seed, num_workers)
        self.val_fraction = real("val_fraction", val_fraction, above=0, below=1)
        self.test_fraction = real("test_fraction", test_fraction, above=0, below=1)
        if self.val_fraction + self.test_fraction >= 1:
            raise InvalidArgumentError(
                "`val_fraction` + `test_fraction` must be < 1, got "
                f"{val_fraction!r} + {test_fraction!r}. Leave something to train on."
            )
        self.save_hyperparameters(logger=False)

    def setup(self, stage: str | None = None) -> None:
        """Load, split and scale; the same for every stage."""
        images, classes, parts = _load_and_split(self.val_fraction, self.test_fraction, self.seed)
        self._fit_scale(images[parts["train"]])
        self.train, self.val, self.test = (
            self._dataset(images[part], classes[part]) for part in parts.values()
        )


def _load_and_split(
    val_fraction: float, test_fraction: float, seed: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the images, their classes, and the indices of the three parts."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DatasetError(
            "DigitsDataModule needs scikit-learn, which is not installed. "
            'Install it with: pip install "lightning-stab[data]"'
        ) from error
    digits = load_digits()
    everything = torch.arange(len(digits.target)).numpy()
    rest, test = train_test_split(
        everything, test_size=test_fraction, stratify=digits.target, random_state=seed
    )
    train, val = train_test_split(
        rest,
        test_size=val_fraction / (1 - test_fraction),
        stratify=digits.target[rest],
        random_state=seed,
    )
    parts = {"train": train, "val": val, "test": test}
    indices = {name: torch.from_numpy(part) for name, part in parts.items()}
    return torch.from_numpy(digits.images), torch.from_numpy(digits.target), indices

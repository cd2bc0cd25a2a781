"""Data sets in memory, and what a program does to them: scale, noise, few rows, bad rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Settings = dict[str, Any]
VALIDATION = {"digits": 500, "breast_cancer": 143, "wine": 54, "diabetes": 110}


@dataclass(frozen=True)
class Split:
    """Inputs and targets to train on and to validate with."""

    inputs: Tensor
    targets: Tensor
    val_inputs: Tensor
    val_targets: Tensor


def cut(inputs: Any, targets: Any, held_out: int) -> Split:
    """Shuffle once and for all, and hold the last rows out."""
    order = np.random.default_rng(0).permutation(len(inputs))
    x = torch.as_tensor(np.asarray(inputs)[order], dtype=torch.float32)
    y = torch.as_tensor(np.asarray(targets)[order])
    y = y.float() if y.is_floating_point() else y.long()
    return Split(x[:-held_out], y[:-held_out], x[-held_out:], y[-held_out:])


def standardised(split: Split) -> Split:
    """Give every feature mean 0 and standard deviation 1 on the training rows."""
    mean, std = split.inputs.mean(0), split.inputs.std(0).clamp_min(1e-6)
    return replace(
        split, inputs=(split.inputs - mean) / std, val_inputs=(split.val_inputs - mean) / std
    )


@lru_cache
def real(name: str) -> Split:
    """Return one of scikit-learn's data sets as it comes (digits in 0..1)."""
    bunch = getattr(datasets, f"load_{name}")()
    inputs = bunch.data / 16 if name == "digits" else bunch.data
    return cut(inputs, bunch.target, VALIDATION[name])


@lru_cache
def clusters() -> Split:
    """Return 2,000 rows of 20 features in 6 classes of two clusters each."""
    inputs, targets = datasets.make_classification(
        2000, 20, n_informative=12, n_redundant=4, n_classes=6, class_sep=1.6, random_state=0
    )
    return cut(inputs, targets, 500)


@lru_cache
def friedman() -> Split:
    """Return Friedman's regression problem: ten features in 0..1, five of them used."""
    inputs, targets = datasets.make_friedman1(2000, 10, noise=0.5, random_state=0)
    return cut(inputs, targets, 500)


def with_standard_targets(split: Split) -> Split:
    """Give the targets mean 0 and standard deviation 1 on the training rows."""
    mean, std = split.targets.mean(), split.targets.std()
    return replace(
        split, targets=(split.targets - mean) / std, val_targets=(split.val_targets - mean) / std
    )


def prepared(split: Split, settings: Settings) -> Split:
    """Do to the data what the program's settings say.

    `rows` keeps so many and repeats them, so that an epoch stays as long; `transform` is "log" or
    "log1p" of the inputs; `input_scale` hits all inputs, `target_scale` and `target_shift`
    all targets; `label_noise` shuffles the targets of that share of training rows;
    `bad_rows` and `bad_targets` = [count, factor] multiply a few training rows.
    """
    generator = torch.Generator().manual_seed(1)
    x, y = split.inputs, split.targets
    val_x, val_y = split.val_inputs, split.val_targets
    if rows := settings.get("rows"):
        again = torch.arange(len(x)) % rows
        x, y = x[again], y[again]
    if transform := settings.get("transform"):
        x, val_x = getattr(torch, transform)(x), getattr(torch, transform)(val_x)
    if (scale := settings.get("input_scale", 1.0)) != 1.0:
        x, val_x = x * scale, val_x * scale
    scale, shift = settings.get("target_scale", 1.0), settings.get("target_shift", 0.0)
    if (scale, shift) != (1.0, 0.0):
        y, val_y = y * scale + shift, val_y * scale + shift
    if noise := settings.get("label_noise"):
        y = shuffled_in_part(y, noise, settings.get("rows") or len(y), generator)
    if bad := settings.get("bad_rows"):
        x = x.clone()
        x[: bad[0]] *= bad[1]
    if bad := settings.get("bad_targets"):
        y = y.clone()
        y[: bad[0]] *= bad[1]
    return Split(x, y, val_x, val_y)


def shuffled_in_part(y: Tensor, share: float, rows: int, generator: torch.Generator) -> Tensor:
    """Give a share of the rows another row's target; rows that repeat keep what they were given."""
    wrong = torch.rand(rows, generator=generator) < share
    other = y[torch.randperm(rows, generator=generator)]
    mask = wrong.reshape(-1, *[1] * (y.dim() - 1))
    return torch.where(mask, other, y[:rows])[torch.arange(len(y)) % rows]


def loaders(split: Split, settings: Settings) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the loaders to train and to validate with; `sorted` rows come class after class."""
    x, y = split.inputs, split.targets
    if by_class := settings.get("sorted", False):
        order = torch.argsort(y, stable=True)
        x, y = x[order], y[order]
    train = DataLoader(TensorDataset(x, y), batch_size=settings["batch"], shuffle=not by_class)
    return train, DataLoader(TensorDataset(split.val_inputs, split.val_targets), batch_size=512)

"""Some 285 data sets in memory: tables, series, tokens and small images, of 2 to 100 classes.

Each function returns inputs and targets of up to some 1,500 rows; the rows are split once and for
all into those to train on and a quarter for validation. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator
from sklearn import datasets
from torch import Tensor

from benchmarks.diagnosis.elsewhere.report_data import REPORT_SETS
from benchmarks.diagnosis.elsewhere.seen_4_data import SEEN_4_SETS
from benchmarks.diagnosis.elsewhere.seen_5_data import SEEN_5_SETS
from benchmarks.diagnosis.elsewhere.seen_6_data import SEEN_6_SETS
from benchmarks.diagnosis.elsewhere.seen_7_data import SEEN_7_SETS
from benchmarks.diagnosis.elsewhere.seen_8_data import SEEN_8_SETS
from benchmarks.diagnosis.elsewhere.seen_9_data import SEEN_9_SETS
from benchmarks.diagnosis.elsewhere.seen_10_data import SEEN_10_SETS
from benchmarks.diagnosis.elsewhere.seen_11_data import SEEN_11_SETS
from benchmarks.diagnosis.elsewhere.seen_data import SEEN_SETS

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Inputs and targets to train on and to validate with.

    Attributes:
        shape: `table` [N, F], `series` [N, T, F], `tokens` [N, T] or `image` [N, 1, H, W].
        task: `classes`, `numbers` (a regression) or `labels` (several of them per row).
        outputs: classes, columns or labels.
    """

    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor
    shape: str
    task: str
    outputs: int


def _blobs(
    classes: int, features: int, rows: int, spread: float = 1.0
) -> Callable[[Generator], Arrays]:
    return lambda rng: datasets.make_blobs(
        rows, features, centers=classes, cluster_std=spread, random_state=int(rng.integers(1000))
    )


def _clusters(classes: int, features: int, rows: int = 1200) -> Callable[[Generator], Arrays]:
    return lambda rng: datasets.make_classification(
        rows,
        features,
        n_informative=features // 2,
        n_classes=classes,
        n_clusters_per_class=1,
        class_sep=1.8,
        random_state=int(rng.integers(1000)),
    )


def _toy(name: str, rows: int = 800, **options: float) -> Callable[[Generator], Arrays]:
    make = getattr(datasets, f"make_{name}")
    return lambda rng: make(n_samples=rows, random_state=int(rng.integers(1000)), **options)


def _real(name: str) -> Callable[[Generator], Arrays]:
    return lambda rng: getattr(datasets, f"load_{name}")(return_X_y=True)


def _checkerboard(rng: Generator) -> Arrays:
    x = rng.uniform(0, 3, (1000, 2))
    return x, (np.floor(x).sum(1) % 2).astype(int)


def _spirals(rng: Generator) -> Arrays:
    y = rng.integers(0, 3, 900)
    radius = rng.uniform(0.1, 1, 900)
    angle = 4 * radius + 2 * np.pi * y / 3 + rng.normal(0, 0.12, 900)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), y


def _prices(rng: Generator) -> Arrays:
    """Raw scales, a constant column, and a few large houses."""
    area, age, rooms = (
        rng.lognormal(4.5, 0.4, 900),
        rng.uniform(0, 90, 900),
        rng.integers(1, 8, 900),
    )
    price = 2.5 * area - 0.8 * age + 12 * rooms + rng.normal(0, 20, 900)
    return np.stack([area, age, rooms, np.full(900, 7.0)], 1), price


def _tides(rng: Generator) -> Arrays:
    hour = rng.uniform(0, 48, 800)
    return hour[:, None], np.sin(hour * 0.5) + 0.5 * np.cos(hour * 0.26) + rng.normal(0, 0.05, 800)


def _counts(rng: Generator) -> Arrays:
    x = rng.normal(size=(900, 6))
    return x, rng.poisson(np.exp(0.6 * x[:, 0] - 0.4 * x[:, 1] + 1)).astype(float)


def _columns(rng: Generator) -> Arrays:
    x = rng.normal(size=(800, 10))
    return x, np.tanh(x @ rng.normal(size=(10, 4)) / 2) + 0.3 * x[:, :4] + rng.normal(
        0, 0.05, (800, 4)
    )


def _swiss(rng: Generator) -> Arrays:
    x, y = datasets.make_swiss_roll(900, noise=0.1, random_state=int(rng.integers(1000)))
    return x, y


def _s_curve(rng: Generator) -> Arrays:
    x, y = datasets.make_s_curve(900, noise=0.05, random_state=int(rng.integers(1000)))
    return x, y


def _labels(features: int, labels: int) -> Callable[[Generator], Arrays]:
    return lambda rng: datasets.make_multilabel_classification(
        1000, features, n_classes=labels, n_labels=3, random_state=int(rng.integers(1000))
    )


def _waves(rng: Generator) -> Arrays:
    y = rng.integers(0, 4, 800)
    time = np.linspace(0, 1, 24)
    phase = rng.uniform(0, 2 * np.pi, (800, 1))
    wave = np.sin(2 * np.pi * (1 + 2 * y[:, None]) * time + phase)
    return (wave + rng.normal(0, 0.3, wave.shape))[:, :, None], y


def _autoregression(rng: Generator) -> Arrays:
    series = np.zeros((900, 21))
    for step in range(2, 21):
        series[:, step] = (
            1.6 * series[:, step - 1] - 0.8 * series[:, step - 2] + rng.normal(0, 0.5, 900)
        )
    return series[:, :20, None], series[:, 20]


def _pulses(rng: Generator) -> Arrays:
    y = rng.integers(0, 5, 800)
    series = rng.normal(0, 0.3, (800, 30))
    for row, kind in enumerate(y):
        for _ in range(kind + 1):
            start = rng.integers(0, 27)
            series[row, start : start + 3] += 2.5
    return series[:, :, None], y


def _steps(rng: Generator) -> Arrays:
    y = rng.integers(0, 2, 700)
    series = rng.normal(0, 0.6, (700, 16, 2))
    series[:, 8:, 0] += 1.5 * (2 * y - 1)[:, None]
    return series, y


def _echo(rng: Generator) -> Arrays:
    series = rng.normal(size=(900, 12, 1))
    return series, 0.7 * series[:, 2, 0] + 0.3 * series[:, 8, 0]


def _chaos(rng: Generator) -> Arrays:
    value, rows = rng.uniform(0.1, 0.9, 900), []
    for _ in range(10):
        rows.append(value)
        value = 3.9 * value * (1 - value)
    return np.stack(rows, 1)[:, :, None], value


def _first_symbol(rng: Generator) -> Arrays:
    x = rng.integers(0, 12, (1000, 10))
    return x, x[:, 0] % 6


def _majority(rng: Generator) -> Arrays:
    share = rng.uniform(0.1, 0.9, (900, 1))
    x = np.where(rng.uniform(size=(900, 15)) < share, 1, 2)
    return x, ((x == 1).sum(1) > 7).astype(int)


def _languages(rng: Generator) -> Arrays:
    chains = rng.dirichlet(np.full(16, 0.25), (8, 16))
    y = rng.integers(0, 8, 1200)
    x = np.zeros((1200, 20), dtype=int)
    x[:, 0] = rng.integers(0, 16, 1200)
    for step in range(1, 20):
        chances = chains[y, x[:, step - 1]].cumsum(1)
        x[:, step] = (rng.uniform(size=(1200, 1)) > chances).sum(1).clip(0, 15)
    return x, y


def _topics(topics: int, words: int = 60) -> Callable[[Generator], Arrays]:
    def make(rng: Generator) -> Arrays:
        mixtures = rng.dirichlet(np.full(words, 0.08), topics).cumsum(1)
        y = rng.integers(0, topics, 1200)
        draws = rng.uniform(size=(1200, 18, 1))
        return (draws > mixtures[y][:, None]).sum(2).clip(0, words - 1), y

    return make


def _ratings(rng: Generator) -> Arrays:
    worth = rng.normal(size=40)
    x = rng.integers(0, 40, (1000, 12))
    return x, worth[x].mean(1) * 3


def _digits(rng: Generator) -> Arrays:
    x, y = datasets.load_digits(return_X_y=True)
    return x.reshape(-1, 1, 8, 8) / 16, y


def _bars(rng: Generator) -> Arrays:
    y = rng.integers(0, 12, 1000)
    x = rng.normal(0, 0.25, (1000, 1, 6, 6))
    for row, place in enumerate(y):
        x[(row, 0, place) if place < 6 else (row, 0, slice(None), place - 6)] += 1
    return x, y


def _shapes(rng: Generator) -> Arrays:
    figures = np.array(
        [
            [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
            [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
            [[1, 0, 1], [0, 1, 0], [1, 0, 1]],
            [[1, 0, 0], [1, 0, 0], [1, 1, 1]],
        ]
    )
    y = rng.integers(0, 4, 1000)
    x = rng.normal(0, 0.2, (1000, 1, 10, 10))
    for row, kind in enumerate(y):
        top, left = rng.integers(0, 8, 2)
        x[row, 0, top : top + 3, left : left + 3] += figures[kind]
    return x, y


def _bright(rng: Generator) -> Arrays:
    x = rng.uniform(0, 1, (900, 1, 8, 8))
    x[:, :, 2:6, 2:6] *= rng.uniform(0, 2, (900, 1, 1, 1))
    return x, x[:, 0, 2:6, 2:6].mean((1, 2)) * 4


def _textures(rng: Generator) -> Arrays:
    y = rng.integers(0, 6, 1000)
    rows, columns = np.mgrid[0:8, 0:8]
    angle = np.pi * y / 6
    phase = rng.uniform(0, 2 * np.pi, 1000)
    wave = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
    x = np.sin(1.6 * wave + phase[:, None, None]) + rng.normal(0, 0.3, (1000, 8, 8))
    return x[:, None], y


# by name: the part of the corpus, the shape, the task, and what makes it
SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "iris": ("tune", "table", "classes", _real("iris")),
    "moons": ("tune", "table", "classes", _toy("moons", noise=0.15)),
    "blobs_20": ("tune", "table", "classes", _blobs(20, 8, 1500)),
    "hastie": ("tune", "table", "classes", lambda rng: _from_zero(_toy("hastie_10_2", 1500)(rng))),
    "diabetes": ("tune", "table", "numbers", _real("diabetes")),
    "friedman1": ("tune", "table", "numbers", _toy("friedman1", 900)),
    "prices": ("tune", "table", "numbers", _prices),
    "labels_5": ("tune", "table", "labels", _labels(12, 5)),
    "waves": ("tune", "series", "classes", _waves),
    "autoregression": ("tune", "series", "numbers", _autoregression),
    "first_symbol": ("tune", "tokens", "classes", _first_symbol),
    "topics_30": ("tune", "tokens", "classes", _topics(30)),
    "bars": ("tune", "image", "classes", _bars),
    "wine": ("validate", "table", "classes", _real("wine")),
    "circles": ("validate", "table", "classes", _toy("circles", noise=0.1, factor=0.4)),
    "clusters_5": ("validate", "table", "classes", _clusters(5, 16)),
    "blobs_100": ("validate", "table", "classes", _blobs(100, 16, 1600, 2.0)),
    "friedman2": ("validate", "table", "numbers", _toy("friedman2", 900)),
    "columns": ("validate", "table", "numbers", _columns),
    "swiss_roll": ("validate", "table", "numbers", _swiss),
    "labels_12": ("validate", "table", "labels", _labels(20, 12)),
    "pulses": ("validate", "series", "classes", _pulses),
    "echo": ("validate", "series", "numbers", _echo),
    "majority": ("validate", "tokens", "classes", _majority),
    "languages": ("validate", "tokens", "classes", _languages),
    "shapes": ("validate", "image", "classes", _shapes),
    "breast_cancer": ("seen", "table", "classes", _real("breast_cancer")),
    "quantiles": ("seen", "table", "classes", _toy("gaussian_quantiles", 1200, n_classes=4)),
    "clusters_50": ("seen", "table", "classes", _clusters(50, 24, 1600)),
    "checkerboard": ("seen", "table", "classes", _checkerboard),
    "spirals": ("seen", "table", "classes", _spirals),
    "friedman3": ("seen", "table", "numbers", _toy("friedman3", 900)),
    "tides": ("seen", "table", "numbers", _tides),
    "counts": ("seen", "table", "numbers", _counts),
    "s_curve": ("seen", "table", "numbers", _s_curve),
    "labels_8": ("seen", "table", "labels", _labels(30, 8)),
    "steps": ("seen", "series", "classes", _steps),
    "chaos": ("seen", "series", "numbers", _chaos),
    "topics_6": ("seen", "tokens", "classes", _topics(6, 30)),
    "ratings": ("seen", "tokens", "numbers", _ratings),
    "digits": ("seen", "image", "classes", _digits),
    "textures": ("seen", "image", "classes", _textures),
    "bright": ("seen", "image", "numbers", _bright),
    **SEEN_SETS,
    **SEEN_4_SETS,
    **SEEN_5_SETS,
    **SEEN_6_SETS,
    **SEEN_7_SETS,
    **SEEN_8_SETS,
    **SEEN_9_SETS,
    **SEEN_10_SETS,
    **SEEN_11_SETS,
    **REPORT_SETS,
}


def _from_zero(arrays: Arrays) -> Arrays:
    return arrays[0], (arrays[1] > 0).astype(int)


@lru_cache
def rows(name: str) -> Rows:
    """Return a data set as it comes, split into training and validation rows."""
    _, shape, task, make = SETS[name]
    inputs, targets = make(np.random.default_rng(sum(map(ord, name))))
    order = np.random.default_rng(0).permutation(len(inputs))
    x = torch.as_tensor(np.asarray(inputs)[order])
    x = x.long() if shape == "tokens" else x.float()
    y = torch.as_tensor(np.asarray(targets)[order])
    y = y.long() if task == "classes" else y.float()
    y = y[:, None] if task == "numbers" and y.dim() == 1 else y
    held = len(x) // 4
    outputs = int(y.max()) + 1 if task == "classes" else y.shape[1]
    return Rows(x[held:], y[held:], x[:held], y[:held], shape, task, outputs)

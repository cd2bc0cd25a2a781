"""The data sets of the report part: other kinds than those that the rules were made on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from sklearn import datasets

Arrays = tuple[np.ndarray, np.ndarray]


def _loans(rng: Generator) -> Arrays:
    """Amounts beside kinds that are coded as one of four."""
    kind = rng.integers(0, 4, 1300)
    income, debt = rng.lognormal(10, 0.5, 1300), rng.lognormal(8.5, 1, 1300)
    years = rng.integers(0, 30, 1300)
    risk = np.log(debt / income) + 0.6 * (kind == 2) - 0.05 * years + rng.logistic(0, 0.2, 1300)
    x = np.concatenate([np.stack([income, debt, years], 1), np.eye(4)[kind]], 1)
    return x, (risk > np.quantile(risk, 0.7)).astype(int)


def _tic_tac_toe(rng: Generator) -> Arrays:
    """Nine fields of -1, 0 and 1: whether the first player has three in a line."""
    x = rng.choice([-1, 0, 1], (1500, 9), p=[0.3, 0.15, 0.55])
    lines = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
    return x, np.any([(x[:, line] == 1).all(1) for line in map(list, lines)], 0).astype(int)


def _tiles(rng: Generator) -> Arrays:
    """Sixteen fields of a plane, among features that say nothing."""
    x = rng.uniform(0, 4, (1500, 2))
    y = np.floor(x).astype(int) @ [4, 1]
    return np.concatenate([x + rng.normal(0, 0.05, x.shape), rng.uniform(size=(1500, 3))], 1), y


def _minerals(rng: Generator) -> Arrays:
    """Shares of eight elements that add up to 1: six kinds of unequal frequency."""
    y = rng.choice(6, 1200, p=[0.3, 0.25, 0.18, 0.12, 0.09, 0.06])
    centres = rng.normal(0, 0.9, (6, 8))
    parts = np.exp(centres[y] + rng.normal(0, 0.5, (1200, 8)))
    return parts / parts.sum(1, keepdims=True), y


def _shells(rng: Generator) -> Arrays:
    """Three layers around a point of five dimensions, and a label that counts outwards."""
    y = rng.integers(0, 3, 1100)
    way = rng.normal(size=(1100, 5))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return way * (1 + y + rng.normal(0, 0.2, 1100))[:, None], y


def _demand(rng: Generator) -> Arrays:
    """What is asked for by hour, day and temperature."""
    hour, day = rng.uniform(0, 24, 1200), rng.integers(0, 7, 1200)
    warmth = rng.normal(12, 8, 1200)
    y = 40 + 15 * np.sin((hour - 8) * np.pi / 12) - 10 * (day > 4) + 0.05 * (warmth - 18) ** 2
    return np.stack([hour, day, warmth], 1), y + rng.normal(0, 2, 1200)


def _drag(rng: Generator) -> Arrays:
    """A force: the density times the square of the speed times the area, each over a decade."""
    x = np.exp(rng.uniform(-1, 1, (1000, 4)))
    return x, 0.5 * x[:, 0] * x[:, 1] ** 2 * x[:, 2] * np.sqrt(x[:, 3])


def _sparse(rng: Generator) -> Arrays:
    """Thirty features of which six matter."""
    x, y = datasets.make_regression(
        1000, 30, n_informative=6, noise=20.0, random_state=int(rng.integers(1000))
    )
    return x, y


def _arm(rng: Generator) -> Arrays:
    """Where the hand of an arm of three joints is."""
    angle = rng.uniform(-1.2, 1.2, (1200, 3))
    total = angle.cumsum(1)
    return angle, np.stack([np.cos(total).sum(1), np.sin(total).sum(1)], 1)


def _genes(rng: Generator) -> Arrays:
    """Ten labels that share four causes behind forty features."""
    cause = rng.normal(size=(1300, 4))
    x = cause @ rng.normal(size=(4, 40)) + rng.normal(0, 1.0, (1300, 40))
    score = cause @ rng.normal(size=(4, 10)) + 0.4 * rng.normal(size=(1300, 10))
    return x, (score > rng.uniform(-0.5, 1.2, 10)).astype(float)


def _chirps(rng: Generator) -> Arrays:
    """A tone that rises, falls or stays."""
    y = rng.integers(0, 3, 1000)
    time = np.linspace(0, 1, 26)
    pitch = 3 + (y[:, None] - 1) * 2.5 * time + rng.normal(0, 0.2, (1000, 1))
    start = rng.uniform(0, 2 * np.pi, (1000, 1))
    wave = np.sin(2 * np.pi * pitch * time + start)
    return (wave + rng.normal(0, 0.2, wave.shape))[:, :, None], y


def _work(rng: Generator) -> Arrays:
    """The sum over time of the product of two channels, smooth each."""
    series = rng.normal(size=(1100, 17, 2))
    series = (series[:, 1:] + series[:, :-1]) / 2
    return series, series.prod(2).sum(1)


def _missed(rng: Generator) -> Arrays:
    """A row of beats: whether one of them is left out."""
    y = rng.integers(0, 2, 900)
    series = rng.normal(0, 0.2, (900, 30, 1))
    for row, missing in enumerate(y):
        beats = np.arange(rng.integers(0, 5), 30, 5)
        series[row, np.delete(beats, rng.integers(1, len(beats) - 1)) if missing else beats] += 1.5
    return series, y


def _command(rng: Generator) -> Arrays:
    """The first symbol says which of two later ones is the answer."""
    x = rng.integers(2, 10, (1400, 9))
    x[:, 0] = rng.integers(0, 2, 1400)
    return x, np.where(x[:, 0] == 0, x[:, 3], x[:, 6]) - 2


def _spam(rng: Generator) -> Arrays:
    """Whether a text holds two of eight words or more."""
    x = rng.integers(0, 50, (1300, 12))
    return x, ((x < 8).sum(1) > 1).astype(int)


def _sentiment(rng: Generator) -> Arrays:
    """Words with a worth, which a word of denial before them turns round."""
    worth = np.concatenate([[0.0], rng.normal(size=29)])
    x = rng.integers(1, 30, (1300, 10))
    x[rng.random((1300, 10)) < 0.1] = 0
    sign = np.ones(x.shape)
    sign[:, 1:][x[:, :-1] == 0] = -1
    return x, (sign * worth[x]).sum(1)


def _glyphs(rng: Generator) -> Arrays:
    """Eight figures of five by five points, anywhere in an image."""
    figures = (rng.random((8, 5, 5)) < 0.5).astype(float)
    y = rng.integers(0, 8, 1300)
    x = rng.normal(0, 0.25, (1300, 1, 9, 9))
    for row, kind in enumerate(y):
        top, left = rng.integers(1, 4, 2)
        x[row, 0, top : top + 5, left : left + 5] += figures[kind]
    return x, y


def _spot(rng: Generator) -> Arrays:
    """Where a bright spot is: two numbers."""
    place = rng.uniform(2, 9, (1100, 2))
    rows, columns = np.mgrid[0:12, 0:12]
    squares = (rows - place[:, 0, None, None]) ** 2 + (columns - place[:, 1, None, None]) ** 2
    return (np.exp(-squares / 4) + rng.normal(0, 0.15, squares.shape))[:, None], place


def _gratings(rng: Generator) -> Arrays:
    """Stripes, checks or rings, as bytes from 0 to 255."""
    y = rng.integers(0, 3, 1000)
    rows, columns = np.mgrid[-5:5:10j, -5:5:10j]
    shift = rng.uniform(0, 2 * np.pi, (1000, 1, 1))
    forms = np.stack(
        [
            np.sin(1.5 * rows + shift),
            np.sin(1.5 * rows + shift) * np.sin(1.5 * columns + shift),
            np.sin(1.5 * np.hypot(rows, columns) + shift),
        ]
    )
    x = forms[y, np.arange(1000)] + rng.normal(0, 0.3, (1000, 10, 10))
    return np.clip(127 + 60 * x, 0, 255)[:, None] / 255, y


REPORT_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "loans": ("report", "table", "classes", _loans),
    "tic_tac_toe": ("report", "table", "classes", _tic_tac_toe),
    "tiles": ("report", "table", "classes", _tiles),
    "minerals": ("report", "table", "classes", _minerals),
    "shells": ("report", "table", "classes", _shells),
    "demand": ("report", "table", "numbers", _demand),
    "drag": ("report", "table", "numbers", _drag),
    "sparse": ("report", "table", "numbers", _sparse),
    "arm": ("report", "table", "numbers", _arm),
    "genes": ("report", "table", "labels", _genes),
    "chirps": ("report", "series", "classes", _chirps),
    "work": ("report", "series", "numbers", _work),
    "missed": ("report", "series", "classes", _missed),
    "command": ("report", "tokens", "classes", _command),
    "spam": ("report", "tokens", "classes", _spam),
    "sentiment": ("report", "tokens", "numbers", _sentiment),
    "glyphs": ("report", "image", "classes", _glyphs),
    "spot": ("report", "image", "numbers", _spot),
    "gratings": ("report", "image", "classes", _gratings),
}

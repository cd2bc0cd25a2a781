"""The data sets of what was the report part of the second look, then of the third."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from sklearn import datasets

Arrays = tuple[np.ndarray, np.ndarray]


def _sensors(rng: Generator) -> Arrays:
    """Three states of a machine, in physical units, with a dead sensor and a few wild readings."""
    y = rng.integers(0, 3, 1100)
    kelvin = 300 + 12 * y + rng.normal(0, 5, 1100)
    pascal = 1.01e5 + 900 * (y == 1) + rng.normal(0, 400, 1100)
    metres = 1e-4 * (1 + (y == 2) + 0.3 * rng.normal(size=1100))
    turns = rng.lognormal(7, 0.5, 1100)
    kelvin[rng.integers(0, 1100, 6)] = 2000.0
    return np.stack([kelvin, pascal, metres, turns, np.full(1100, -1.0)], 1), y


def _fraud(rng: Generator) -> Arrays:
    """One row in seven is of the class that matters; amounts are heavy-tailed."""
    x = rng.normal(size=(1400, 9))
    x[:, 0] = rng.lognormal(3, 1, 1400)
    score = 1.3 * np.log(x[:, 0]) - 4 + 1.5 * x[:, 1] * x[:, 2] + x[:, 3]
    return x, (score > np.quantile(score, 0.86)).astype(int)


def _codes(rng: Generator) -> Arrays:
    """Five noisy bits: 32 classes."""
    y = rng.integers(0, 32, 1600)
    bits = (y[:, None] >> np.arange(5)) & 1
    return np.concatenate(
        [2 * bits - 1 + rng.normal(0, 0.35, bits.shape), rng.normal(size=(1600, 5))], 1
    ), y


def _grades(rng: Generator) -> Arrays:
    """Seven ordered classes, the outer ones rare."""
    x = rng.normal(size=(1200, 8))
    worth = x[:, :3].sum(1) + 0.5 * x[:, 3] ** 2 + rng.normal(0, 0.2, 1200)
    return x, np.digitize(worth, np.quantile(worth, [0.04, 0.15, 0.38, 0.62, 0.85, 0.96]))


def _parity(rng: Generator) -> Arrays:
    x = rng.uniform(-1, 1, (1400, 6))
    return x, (np.prod(np.sign(x[:, :2]), 1) > 0).astype(int)


def _claims(rng: Generator) -> Arrays:
    """A regression with a heavy tail."""
    x = rng.normal(size=(1100, 7))
    return x, np.exp(0.7 * x[:, 0] + 0.5 * np.abs(x[:, 1]) + 0.1 * rng.normal(size=1100))


def _yields(rng: Generator) -> Arrays:
    x = rng.uniform(0, 1, (900, 5))
    return x, 1e-5 * (x[:, 0] * (1 - x[:, 0]) * 4 + 0.4 * x[:, 1] - 0.3 * x[:, 2] * x[:, 3])


def _heights(rng: Generator) -> Arrays:
    """Terrain: a surface over two coordinates, in metres."""
    x = rng.uniform(-3, 3, (1000, 2))
    return x, 400 + 90 * np.sin(x[:, 0]) * np.cos(x[:, 1]) + 60 * x[:, 0] + rng.normal(0, 5, 1000)


def _forces(rng: Generator) -> Arrays:
    """Three outputs, of which one is the product of the others' causes."""
    x = rng.normal(size=(1000, 6))
    y = np.stack([x[:, 0] - x[:, 1], np.maximum(x[:, 2], 0), x[:, 0] * x[:, 3]], 1)
    return x, y + rng.normal(0, 0.05, y.shape)


def _alarms(rng: Generator) -> Arrays:
    """Six labels, each a threshold of its own, some rare."""
    x = rng.normal(size=(1200, 14))
    score = x @ rng.normal(size=(14, 6)) + 0.5 * rng.normal(size=(1200, 6))
    limits = np.diagonal(np.quantile(score, [0.5, 0.4, 0.6, 0.7, 0.8, 0.88], 0))
    return x, (score > limits).astype(float)


def _beats(rng: Generator) -> Arrays:
    """A pulse's shape: single, double, inverted."""
    y = rng.integers(0, 3, 900)
    time = np.arange(28)
    start = rng.uniform(6, 16, (900, 1))
    first = np.exp(-((time - start) ** 2) / 3)
    second = 0.8 * np.exp(-((time - start - 7) ** 2) / 3)
    series = np.where(y[:, None] == 2, -first, first) + (y[:, None] == 1) * second
    return (series + rng.normal(0, 0.15, series.shape))[:, :, None], y


def _walks(rng: Generator) -> Arrays:
    """The highest place of a walk."""
    walk = rng.normal(size=(1000, 18)).cumsum(1)
    return walk[:, :, None], walk.max(1)


def _regimes(rng: Generator) -> Arrays:
    """Four kinds of motion in two channels: rising, falling, turning up, turning down."""
    y = rng.integers(0, 4, 900)
    time = np.linspace(-1, 1, 20)
    forms = np.stack([time, -time, np.abs(time) * 2 - 1, 1 - np.abs(time) * 2])
    series = forms[y][:, :, None] * rng.uniform(0.6, 1.5, (900, 1, 2))
    return series + rng.normal(0, 0.4, series.shape), y


def _first_of_three(rng: Generator) -> Arrays:
    """Which of three marks comes first among other symbols."""
    x = rng.integers(3, 20, (1200, 12))
    places = rng.random((1200, 12)).argsort(1)[:, :3]
    np.put_along_axis(x, places, np.tile(np.arange(3), (1200, 1)), 1)
    return x, places.argmin(1)


def _distinct(rng: Generator) -> Arrays:
    """How much of a text is of the first half of the alphabet, later symbols counting more."""
    x = rng.integers(0, 30, (1100, 14))
    return x, ((x < 15) * np.linspace(0.5, 1.5, 14)).sum(1)


def _genres(rng: Generator) -> Arrays:
    """Twelve genres of very unequal size."""
    shares = np.array([6, 6, 4, 4, 3, 3, 2, 2, 1.5, 1.5, 1, 1])
    y = rng.choice(12, 1400, p=shares / shares.sum())
    usual = rng.integers(0, 80, (12, 9))
    known = usual[y[:, None], rng.integers(0, 9, (1400, 16))]
    return np.where(rng.random((1400, 16)) < 0.55, known, rng.integers(0, 80, (1400, 16))), y


def _photographs(rng: Generator) -> Arrays:
    """Patches of two photographs."""
    patches, y = [], rng.integers(0, 2, 1200)
    grey = [image.mean(2) / 255 for image in datasets.load_sample_images().images]
    for kind in y:
        top, left = rng.integers(0, grey[kind].shape[0] - 24), rng.integers(0, 600)
        patches.append(grey[kind][top : top + 24 : 3, left : left + 24 : 3])
    return np.stack(patches)[:, None], y


def _dots(rng: Generator) -> Arrays:
    """How many dots there are: 0 to 5."""
    y = rng.integers(0, 6, 1200)
    x = rng.normal(0, 0.1, (1200, 1, 9, 9))
    for row, count in enumerate(y):
        places = rng.choice(16, count, replace=False)
        x[row, 0, 1 + 2 * (places // 4), 1 + 2 * (places % 4)] += 1
    return x, y


def _slopes(rng: Generator) -> Arrays:
    """How steeply brightness rises, a number."""
    slope = rng.normal(size=(1000, 2))
    rows, columns = np.mgrid[-1:1:10j, -1:1:10j]
    x = slope[:, 0, None, None] * rows + slope[:, 1, None, None] * columns
    return (x + rng.normal(0, 0.5, x.shape))[:, None], slope[:, 0] - 0.5 * slope[:, 1]


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


SEEN_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "sensors": ("seen_2", "table", "classes", _sensors),
    "fraud": ("seen_2", "table", "classes", _fraud),
    "codes_32": ("seen_2", "table", "classes", _codes),
    "grades": ("seen_2", "table", "classes", _grades),
    "parity": ("seen_2", "table", "classes", _parity),
    "claims": ("seen_2", "table", "numbers", _claims),
    "yields": ("seen_2", "table", "numbers", _yields),
    "heights": ("seen_2", "table", "numbers", _heights),
    "forces": ("seen_2", "table", "numbers", _forces),
    "alarms": ("seen_2", "table", "labels", _alarms),
    "beats": ("seen_2", "series", "classes", _beats),
    "walks": ("seen_2", "series", "numbers", _walks),
    "regimes": ("seen_2", "series", "classes", _regimes),
    "first_of_three": ("seen_2", "tokens", "classes", _first_of_three),
    "distinct": ("seen_2", "tokens", "numbers", _distinct),
    "genres": ("seen_2", "tokens", "classes", _genres),
    "photographs": ("seen_2", "image", "classes", _photographs),
    "dots": ("seen_2", "image", "classes", _dots),
    "slopes": ("seen_2", "image", "numbers", _slopes),
    "loans": ("seen_3", "table", "classes", _loans),
    "tic_tac_toe": ("seen_3", "table", "classes", _tic_tac_toe),
    "tiles": ("seen_3", "table", "classes", _tiles),
    "minerals": ("seen_3", "table", "classes", _minerals),
    "shells": ("seen_3", "table", "classes", _shells),
    "demand": ("seen_3", "table", "numbers", _demand),
    "drag": ("seen_3", "table", "numbers", _drag),
    "sparse": ("seen_3", "table", "numbers", _sparse),
    "arm": ("seen_3", "table", "numbers", _arm),
    "genes": ("seen_3", "table", "labels", _genes),
    "chirps": ("seen_3", "series", "classes", _chirps),
    "work": ("seen_3", "series", "numbers", _work),
    "missed": ("seen_3", "series", "classes", _missed),
    "command": ("seen_3", "tokens", "classes", _command),
    "spam": ("seen_3", "tokens", "classes", _spam),
    "sentiment": ("seen_3", "tokens", "numbers", _sentiment),
    "glyphs": ("seen_3", "image", "classes", _glyphs),
    "spot": ("seen_3", "image", "numbers", _spot),
    "gratings": ("seen_3", "image", "classes", _gratings),
}
# of standardised targets; elsewhere 1
TARGET_SIZES = {"yields": 0.05, "heights": 8.0}

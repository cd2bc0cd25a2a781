"""The data sets of what was the report part of the fourth look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from sklearn import datasets

Arrays = tuple[np.ndarray, np.ndarray]


def _triangles(rng: Generator) -> Arrays:
    """Three lengths: no triangle, one with an obtuse angle, or one with acute angles alone."""
    x = rng.uniform(1, 10, (1300, 3))
    a, b, c = np.sort(x, 1).T
    return x, np.where(a + b <= c, 0, np.where(a**2 + b**2 < c**2, 1, 2))


def _mandelbrot(rng: Generator) -> Arrays:
    """Whether a point of the plane belongs to the Mandelbrot set."""
    c = rng.uniform(-1.7, 0.6, 1400) + 1j * rng.uniform(-0.9, 0.9, 1400)
    z = np.zeros_like(c)
    for _ in range(30):
        z = np.where(np.abs(z) < 2, z**2 + c, z)
    return np.stack([c.real, c.imag], 1), (np.abs(z) < 2).astype(int)


def _census(rng: Generator) -> Arrays:
    """Wages, hours, age and school, of which a twentieth was not answered and stands as -9."""
    age, school = rng.uniform(18, 80, 1300), rng.integers(4, 20, 1300)
    hours, wage = rng.normal(36, 9, 1300), rng.lognormal(2.6, 0.5, 1300)
    score = 0.05 * age - 0.0005 * age**2 + 0.15 * school + 0.02 * hours + 0.04 * wage
    x = np.stack([age, school, hours, wage, rng.integers(0, 2, 1300)], 1)
    x[rng.random(x.shape) < 0.05] = -9
    return x, np.digitize(score, np.quantile(score, [0.45, 0.75]))


def _signatures(rng: Generator) -> Arrays:
    """A hundred patterns of thirty bits, of which every twentieth is wrong."""
    patterns = rng.integers(0, 2, (100, 30))
    y = rng.integers(0, 100, 1600)
    return patterns[y] ^ (rng.random((1600, 30)) < 0.05), y


def _compass(rng: Generator) -> Arrays:
    """The direction of a wind of any strength, among twelve."""
    angle, strength = rng.uniform(0, 2 * np.pi, 1400), rng.lognormal(1, 0.6, 1400)
    wind = np.stack([strength * np.cos(angle), strength * np.sin(angle)], 1)
    return wind, (angle / (2 * np.pi) * 12).astype(int)


def _gas(rng: Generator) -> Arrays:
    """The pressure of a gas after van der Waals, in pascals, by amount, warmth and volume."""
    moles, kelvin = rng.uniform(0.5, 3, 1100), rng.uniform(250, 600, 1100)
    volume = rng.uniform(1e-3, 6e-3, 1100)
    pressure = moles * 8.314 * kelvin / (volume - 4e-5 * moles) - 0.36 * (moles / volume) ** 2
    return np.stack([moles, kelvin, volume], 1), pressure


def _low_rank(rng: Generator) -> Arrays:
    """Fifty features that follow from a few."""
    x = 30 * datasets.make_low_rank_matrix(
        1000, 50, effective_rank=4, random_state=int(rng.integers(1000))
    )
    y = x @ rng.normal(size=50)
    return x, y + 0.5 * np.abs(x @ rng.normal(size=50)) + rng.normal(0, 0.1 * y.std(), 1000)


def _spectra(rng: Generator) -> Arrays:
    """How much of three substances there is, by the light that a mixture absorbs."""
    places = np.linspace(0, 1, 40)
    centre, width = rng.uniform(0.1, 0.9, (3, 2, 1)), rng.uniform(0.04, 0.15, (3, 2, 1))
    pure = np.exp(-(((places - centre) / width) ** 2)).sum(1)
    amount = rng.gamma(2, 0.5, (1100, 3))
    return np.exp(-amount @ pure) + rng.normal(0, 0.01, (1100, 40)), amount


def _appliances(rng: Generator) -> Arrays:
    """Which of seven appliances are on, by what all of them together draw at sixteen meters."""
    on = rng.random((1300, 7)) < np.linspace(0.2, 0.6, 7)
    drawn = rng.gamma(1.0, 1.0, (7, 16))
    return on @ drawn + rng.normal(0, 0.3, (1300, 16)), on.astype(float)


def _gestures(rng: Generator) -> Arrays:
    """Paths of a hand: circles either way, a figure of eight, a stroke to and fro, a spiral."""
    y = rng.integers(0, 5, 1000)
    time = np.linspace(0, 2 * np.pi, 22)
    forms = np.stack(
        [
            [np.cos(time), np.sin(time)],
            [np.cos(time), -np.sin(time)],
            [np.sin(time), np.sin(2 * time)],
            [np.cos(time), np.cos(time)],
            [time / 6 * np.cos(2 * time), time / 6 * np.sin(2 * time)],
        ]
    ).transpose(0, 2, 1)
    paths = forms[y] * rng.uniform(0.7, 1.4, (1000, 1, 1))
    return paths + rng.normal(0, 0.4, paths.shape), y


def _decays(rng: Generator) -> Arrays:
    """A swing that dies away: how fast it swings and how fast it dies."""
    speed, loss = rng.uniform(0.3, 1.2, 1100), rng.uniform(0.02, 0.3, 1100)
    time = np.arange(24)
    swing = np.exp(-loss[:, None] * time) * np.cos(speed[:, None] * time)
    return (swing + rng.normal(0, 0.05, swing.shape))[:, :, None], np.stack([speed, loss], 1)


def _louder(rng: Generator) -> Arrays:
    """Whether the first half of a noise is louder or the second."""
    y = rng.integers(0, 2, 1000)
    noise = rng.normal(size=(1000, 24))
    noise[y == 0, :12] *= 2.5
    noise[y == 1, 12:] *= 2.5
    return noise[:, :, None], y


def _stock(rng: Generator) -> Arrays:
    """What is left in a store after deliveries and sales, which never sell what is not there."""
    came, asked = rng.exponential(1.0, (1100, 14)), rng.exponential(1.1, (1100, 14))
    left = np.zeros(1100)
    for day in range(14):
        left = np.maximum(left + came[:, day] - asked[:, day], 0)
    return np.stack([came, asked], 2), left


def _most_common(rng: Generator) -> Arrays:
    """Which of five symbols is the commonest."""
    shares = rng.dirichlet(np.full(5, 0.6), 1400).cumsum(1)
    x = (rng.random((1400, 17, 1)) > shares[:, None]).sum(2).clip(0, 4)
    return x, (x[:, :, None] == np.arange(5)).sum(1).argmax(1)


def _recipes(rng: Generator) -> Arrays:
    """Foods, each with an amount after it: what they are worth together."""
    food, amount = rng.integers(0, 20, (1400, 6)), rng.integers(0, 4, (1400, 6))
    worth = rng.gamma(2, 1, 20)[food] * (0.5 + amount)
    return np.stack([food, 20 + amount], 2).reshape(1400, 12), worth.sum(1)


def _motifs(rng: Generator) -> Arrays:
    """Which of six motifs of six letters a strand of an alphabet of four holds."""
    motifs = rng.integers(0, 4, (6, 6))
    y, x = rng.integers(0, 6, 1300), rng.integers(0, 4, (1300, 22))
    for row, kind in enumerate(y):
        start = rng.integers(0, 17)
        x[row, start : start + 6] = motifs[kind]
    return x, y


def _tags(rng: Generator) -> Arrays:
    """Six labels of a text, each on where one of its three words stands."""
    x = rng.integers(0, 24, (1400, 8))
    return x, (x[:, :, None] // 3 == np.arange(6)).any(1).astype(float)


def _clock(rng: Generator) -> Arrays:
    """A clock's hand, at one of twelve hours."""
    y = rng.integers(0, 12, 1300)
    angle = (y + rng.uniform(-0.3, 0.3, 1300)) * np.pi / 6
    rows, columns = np.mgrid[-5:6, -5:6]
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    along, beside = columns * sine - rows * cosine, columns * cosine + rows * sine
    hand = np.exp(-(beside**2)) * ((along > -0.5) & (along < 5))
    return (hand + rng.normal(0, 0.2, hand.shape))[:, None], y


def _areas(rng: Generator) -> Arrays:
    """How large a bright ellipse is, anywhere and of any form."""
    axes, centre = rng.uniform(1.0, 4.5, (1100, 2, 1, 1)), rng.uniform(4, 7, (1100, 2, 1, 1))
    rows, columns = np.mgrid[0:12, 0:12]
    far = ((rows - centre[:, 0]) / axes[:, 0]) ** 2 + ((columns - centre[:, 1]) / axes[:, 1]) ** 2
    x = (far < 1) * rng.uniform(0.7, 1.3, (1100, 1, 1)) + rng.normal(0, 0.2, far.shape)
    return x[:, None], np.pi * axes[:, 0, 0, 0] * axes[:, 1, 0, 0]


def _quadrants(rng: Generator) -> Arrays:
    """In which quarters of an image there is a cross: four labels."""
    on = rng.random((1200, 4)) < 0.45
    x = rng.normal(0, 0.3, (1200, 1, 10, 10))
    for row, quarter in zip(*np.nonzero(on), strict=True):
        top, left = 5 * (quarter // 2) + rng.integers(1, 4), 5 * (quarter % 2) + rng.integers(1, 4)
        x[row, 0, top - 1 : top + 2, left] += 1
        x[row, 0, top, left - 1 : left + 2] += 1
    return x, on.astype(float)


SEEN_4_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "triangles": ("seen_4", "table", "classes", _triangles),
    "mandelbrot": ("seen_4", "table", "classes", _mandelbrot),
    "census": ("seen_4", "table", "classes", _census),
    "signatures_100": ("seen_4", "table", "classes", _signatures),
    "compass": ("seen_4", "table", "classes", _compass),
    "gas": ("seen_4", "table", "numbers", _gas),
    "low_rank": ("seen_4", "table", "numbers", _low_rank),
    "spectra": ("seen_4", "table", "numbers", _spectra),
    "appliances": ("seen_4", "table", "labels", _appliances),
    "gestures": ("seen_4", "series", "classes", _gestures),
    "decays": ("seen_4", "series", "numbers", _decays),
    "louder": ("seen_4", "series", "classes", _louder),
    "stock": ("seen_4", "series", "numbers", _stock),
    "most_common": ("seen_4", "tokens", "classes", _most_common),
    "recipes": ("seen_4", "tokens", "numbers", _recipes),
    "motifs": ("seen_4", "tokens", "classes", _motifs),
    "tags_6": ("seen_4", "tokens", "labels", _tags),
    "clock": ("seen_4", "image", "classes", _clock),
    "areas": ("seen_4", "image", "numbers", _areas),
    "quadrants": ("seen_4", "image", "labels", _quadrants),
}

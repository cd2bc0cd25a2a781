"""The data sets of what was the report part of the fifth look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _linked_rings(rng: Generator) -> Arrays:
    """Two rings that go through each other, in space."""
    y, angle = rng.integers(0, 2, 1200), rng.uniform(0, 2 * np.pi, 1200)
    flat = np.stack([np.cos(angle), np.sin(angle), np.zeros(1200)], 1)
    upright = np.stack([1 + np.cos(angle), np.zeros(1200), np.sin(angle)], 1)
    return np.where(y[:, None] == 1, upright, flat) + rng.normal(0, 0.15, (1200, 3)), y


def _galaxies(rng: Generator) -> Arrays:
    """Four kinds by seven brightnesses with heavy tails, and two columns that say nothing."""
    y = rng.integers(0, 4, 1300)
    centres = rng.normal(0, 1.6, (4, 7))
    bright = centres[y] + 0.6 * rng.standard_t(2.5, (1300, 7))
    return np.concatenate([18 + bright, rng.exponential(1e4, (1300, 2))], 1), y


def _chords(rng: Generator) -> Arrays:
    """How loud the twelve notes are: 24 chords, major and minor."""
    y = rng.integers(0, 24, 1600)
    notes = np.array([[0, 4, 7], [0, 3, 7]])[y // 12] + (y % 12)[:, None]
    x = rng.gamma(1.5, 0.12, (1600, 12))
    x[np.arange(1600)[:, None], notes % 12] += rng.uniform(0.5, 1.5, (1600, 3))
    return x, y


def _displays(rng: Generator) -> Arrays:
    """Two digits on a display of seven segments each, as voltages: a hundred classes."""
    digits = "1110111 0010010 1011101 1011011 0111010 1101011 1101111 1010010 1111111 1111011"
    segments = np.array([list(map(int, digit)) for digit in digits.split()])
    y = rng.integers(0, 100, 1700)
    on = np.concatenate([segments[y // 10], segments[y % 10]], 1)
    return 4.8 * on + rng.normal(0, 0.8, on.shape), y


def _vehicles(rng: Generator) -> Arrays:
    """What a vehicle burns, by weight, power, a kind of five; a weight not known stands as 0."""
    kind, year = rng.integers(0, 5, 1200), rng.integers(1980, 2020, 1200)
    weight, power = rng.normal(1400, 250, 1200), rng.lognormal(4.6, 0.35, 1200)
    factor = np.array([1.0, 1.25, 0.8, 1.1, 0.6])[kind]
    burnt = factor * (2 + 2.5e-3 * weight + 0.02 * power) * np.exp((2000 - year) / 60)
    weight[rng.random(1200) < 0.04] = 0
    x = np.concatenate([np.stack([weight, power, year], 1), np.eye(5)[kind]], 1)
    return x, burnt + rng.normal(0, 0.3, 1200)


def _concrete(rng: Generator) -> Arrays:
    """How strong concrete is, by kilograms of its parts and days of age, most of them few."""
    cement, water = rng.uniform(150, 500, 1100), rng.uniform(140, 220, 1100)
    sand, ash = rng.uniform(600, 950, 1100), rng.choice([0, 0, 1], 1100) * rng.gamma(4, 25, 1100)
    days = rng.choice([3, 7, 14, 28, 56, 90], 1100)
    strength = 22 * ((cement + 0.5 * ash) / water) ** 1.1 * (0.45 + 0.12 * np.log(days))
    return np.stack([cement, water, sand, ash, days], 1), strength + rng.normal(0, 2.5, 1100)


def _pendulum(rng: Generator) -> Arrays:
    """Where a pendulum is and how fast, a while after it was seen: two numbers."""
    x = np.stack([rng.uniform(-2.5, 2.5, 1200), rng.uniform(-2, 2, 1200)], 1)
    damping = rng.uniform(0, 0.8, 1200)
    angle, speed = x.T.copy()
    for _ in range(60):
        speed = speed - 0.02 * (np.sin(angle) * 2 + damping * speed)
        angle = angle + 0.02 * speed
    return np.concatenate([x, damping[:, None]], 1), np.stack([angle, speed], 1)


def _symptoms(rng: Generator) -> Arrays:
    """Which of eight illnesses there are, by what was answered to 36 questions: 1, -1, or 0."""
    ill = rng.random((1400, 8)) < np.linspace(0.2, 0.5, 8)
    typical = rng.random((8, 36)) < 0.2
    chance = 1 - 0.92 * (1 - 0.85 * typical[None] * ill[:, :, None]).prod(1)
    answers = np.where(rng.random((1400, 36)) < chance, 1, -1)
    answers[rng.random(answers.shape) < 0.1] = 0
    return answers, ill.astype(float)


def _activities(rng: Generator) -> Arrays:
    """Six activities by three axes of acceleration: how the device lies, and how it swings."""
    y = rng.integers(0, 6, 1200)
    lies = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0.3, 0.9], [0, 0.3, 0.9], [0.4, 0, 0.9]])
    strength, pace = np.array([0, 0, 0, 0.5, 1.4, 0.7])[y], np.array([0, 0, 0, 3, 5, 4])[y]
    time, start = np.linspace(0, 1, 24), rng.uniform(0, 2 * np.pi, (1200, 1))
    swing = strength[:, None] * np.sin(2 * np.pi * pace[:, None] * time + start)
    x = 9.8 * (lies[y][:, None] + swing[:, :, None] * np.array([0.3, 0.5, 0.8]))
    return x + rng.normal(0, 3.0, x.shape), y


def _runoff(rng: Generator) -> Arrays:
    """What a river carries after twenty days of rain, most of them dry: earth lets it go slowly."""
    rain = rng.gamma(0.8, 9, (1300, 20)) * (rng.random((1300, 20)) < 0.45)
    warm = rng.normal(12, 5, (1300, 1)) + rng.normal(0, 2, (1300, 20))
    earth, river = np.full(1300, 20.0), np.zeros(1300)
    for day in range(20):
        earth = np.maximum(earth + rain[:, day] - 0.12 * np.maximum(warm[:, day], 0), 0)
        river = 0.2 * earth
        earth = earth - river
    return np.stack([rain, warm], 2), river


def _sales(rng: Generator) -> Arrays:
    """The sales of the next three days, by those of three weeks: a trend and a week's habit."""
    day = np.arange(24)
    level, trend = rng.uniform(50, 150, (1100, 1)), rng.normal(0, 1.2, (1100, 1))
    habit = rng.normal(0, 14, (1100, 7))[:, day % 7]
    sold = level + trend * day + habit + rng.normal(0, 4, (1100, 24))
    return sold[:, :21, None], sold[:, 21:]


def _events(rng: Generator) -> Arrays:
    """Which of four events a line shows: a bump, a dip, a shiver, a step that stays."""
    on = rng.random((1400, 4)) < 0.45
    x = rng.normal(0, 0.25, (1400, 28))
    for row, kind in zip(*np.nonzero(on), strict=True):
        start = rng.integers(2, 21)
        if kind == 3:
            x[row, 8 + start // 2 :] += 1.5
            continue
        form = np.array([[1, 2, 2, 1, 0], [-1, -2, -2, -1, 0], [1.6, -1.6, 1.6, -1.6, 1.6]])[kind]
        x[row, start : start + 5] += 1.2 * form
    return x[:, :, None], on.astype(float)


def _headlines(rng: Generator) -> Arrays:
    """Twenty fields of news: words as often as in speech, and a few that belong to a field."""
    y = rng.integers(0, 20, 1600)
    shares = 1 / np.arange(2, 42)
    x = rng.choice(40, (1600, 11), p=shares / shares.sum())
    own = 40 + 3 * y[:, None] + rng.integers(0, 3, (1600, 11))
    return np.where(rng.random((1600, 11)) < 0.7, own, x), y


def _endings(rng: Generator) -> Arrays:
    """Nine endings: what the last letter and the one before it are, among three kinds each."""
    x = rng.integers(0, 6, (1400, 9))
    return x, 3 * (x[:, 7] % 3) + x[:, 8] % 3


def _passwords(rng: Generator) -> Arrays:
    """Whether a password has a digit and a sign beside its letters."""
    kind = rng.choice(3, (1500, 10), p=[0.76, 0.13, 0.11])
    x = 5 * kind + rng.integers(0, 5, (1500, 10))
    return x, (kind[:, :, None] == [1, 2]).any(1).all(1).astype(int)


def _receipts(rng: Generator) -> Arrays:
    """Two prices of three digits each between signs, and what they come to."""
    digits = rng.integers(0, 10, (1500, 6))
    sums = digits[:, :3] @ [100, 10, 1] + digits[:, 3:] @ [100, 10, 1]
    sign = np.full((1500, 1), 10)
    return np.concatenate([sign, digits[:, :3], sign + 1, digits[:, 3:]], 1), sums / 100


def _clouds(rng: Generator) -> Arrays:
    """Noise of four grains, from single points to large clouds."""
    y = rng.integers(0, 4, 1200)
    speed = np.hypot(*np.meshgrid(np.fft.fftfreq(12), np.fft.fftfreq(12)))
    width = np.array([0.0, 0.7, 1.4, 2.8])[y, None, None]
    waves = np.fft.fft2(rng.normal(size=(1200, 12, 12))) * np.exp(-2 * (np.pi * width * speed) ** 2)
    x = np.fft.ifft2(waves).real
    x = x / x.std((1, 2), keepdims=True) + rng.normal(0, 0.15, x.shape)
    return x[:, None], y


def _constellations(rng: Generator) -> Arrays:
    """Fifteen groups of stars, each star a little off its place and some behind clouds."""
    y, places = rng.integers(0, 15, 1500), rng.uniform(1.5, 9.5, (15, 6, 2))
    stars = places[y] + rng.normal(0, 0.35, (1500, 6, 2))
    light = rng.uniform(0.6, 1.2, (1500, 6)) * (rng.random((1500, 6)) < 0.85)
    rows, columns = np.mgrid[0:11, 0:11]
    x = rng.normal(0, 0.12, (1500, 11, 11))
    for star in range(6):
        top, left = stars[:, star, 0, None, None], stars[:, star, 1, None, None]
        far = (rows - top) ** 2 + (columns - left) ** 2
        x += light[:, star, None, None] * np.exp(-far / 1.2)
    return x[:, None], y


def _wavelengths(rng: Generator) -> Arrays:
    """How often a pattern of waves repeats over an image, at any phase and a slight tilt."""
    often, tilt = rng.uniform(0.8, 4.0, (1300, 1, 1)), rng.uniform(-0.4, 0.4, (1300, 1, 1))
    rows, columns = np.mgrid[0:1:12j, 0:1:12j]
    along = rows * np.cos(tilt) + columns * np.sin(tilt)
    x = np.sin(2 * np.pi * often * along + rng.uniform(0, 2 * np.pi, (1300, 1, 1)))
    return (x + rng.normal(0, 0.2, x.shape))[:, None], often[:, 0, 0]


def _faces(rng: Generator) -> Arrays:
    """What is true of a drawn face: glasses, an open mouth, a hat, eyes that are shut."""
    on = rng.random((1300, 4)) < 0.5
    x = np.zeros((1300, 14, 12))
    for face, (glasses, mouth, hat, shut) in zip(x, on, strict=True):
        face[2:13, 2:10] = 0.3
        for left in (3, 7):
            face[5 : 6 if shut else 7, left : left + 2] = 0.8
            face[4:8, left - 1 : left + 3] += 0.3 * glasses
        face[9 : 11 if mouth else 10, 4:8] = 0.8
        face[:3, 2:10] += 0.5 * hat
    moved = [np.roll(f, tuple(rng.integers(-1, 2, 2)), (0, 1)) for f in x]
    return (np.stack(moved) + rng.normal(0, 0.15, x.shape))[:, None], on.astype(float)


SEEN_5_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "linked_rings": ("seen_5", "table", "classes", _linked_rings),
    "galaxies": ("seen_5", "table", "classes", _galaxies),
    "chords_24": ("seen_5", "table", "classes", _chords),
    "displays_100": ("seen_5", "table", "classes", _displays),
    "vehicles": ("seen_5", "table", "numbers", _vehicles),
    "concrete": ("seen_5", "table", "numbers", _concrete),
    "pendulum": ("seen_5", "table", "numbers", _pendulum),
    "symptoms": ("seen_5", "table", "labels", _symptoms),
    "activities": ("seen_5", "series", "classes", _activities),
    "runoff": ("seen_5", "series", "numbers", _runoff),
    "sales": ("seen_5", "series", "numbers", _sales),
    "events": ("seen_5", "series", "labels", _events),
    "headlines_20": ("seen_5", "tokens", "classes", _headlines),
    "endings": ("seen_5", "tokens", "classes", _endings),
    "passwords": ("seen_5", "tokens", "classes", _passwords),
    "receipts": ("seen_5", "tokens", "numbers", _receipts),
    "clouds": ("seen_5", "image", "classes", _clouds),
    "constellations": ("seen_5", "image", "classes", _constellations),
    "wavelengths": ("seen_5", "image", "numbers", _wavelengths),
    "faces": ("seen_5", "image", "labels", _faces),
}

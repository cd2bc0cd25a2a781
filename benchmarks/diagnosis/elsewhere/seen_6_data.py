"""The data sets of what was the report part of the sixth look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _stars(rng: Generator) -> Arrays:
    """Dwarfs, white dwarfs, giants and supergiants, by kelvins, magnitude, colour and distance."""
    y = rng.choice(4, 1300, p=[0.45, 0.2, 0.2, 0.15])
    warmth = np.array([8.6, 9.3, 8.4, 8.9])[y] + rng.normal(0, 0.3, 1300)
    radius = np.array([0.0, -3.8, 2.6, 4.6])[y] + rng.normal(0, 0.6, 1300)
    magnitude = 4.8 - 2.17 * radius - 4.34 * (warmth - 8.66) + rng.normal(0, 1.0, 1300)
    colour, away = 7000 / np.exp(warmth) - 0.6, 40 * rng.standard_exponential(1300) ** 2
    return np.stack([np.exp(warmth), magnitude, colour + rng.normal(0, 0.1, 1300), away], 1), y


def _mushrooms(rng: Generator) -> Arrays:
    """Five things seen of a mushroom, each coded as one of a few, and whether it can be eaten."""
    sizes = (4, 3, 6, 2, 5)
    seen = [rng.integers(0, size, 1500) for size in sizes]
    bad = sum(rng.normal(0, 1, size)[own] for size, own in zip(sizes, seen, strict=True))
    bad = bad + ((seen[0] == 1) & (seen[4] > 2)) - ((seen[2] < 2) & (seen[3] == 1))
    codes = [np.eye(size)[own] for size, own in zip(sizes, seen, strict=True)]
    return np.concatenate(codes, 1), (bad + rng.normal(0, 0.1, 1500) > np.median(bad)).astype(int)


def _rooms(rng: Generator) -> Arrays:
    """In which of 48 rooms a device is, by how it hears fourteen senders, in decibels."""
    y, senders = rng.integers(0, 48, 1700), rng.uniform(0, 1, (14, 2)) * [40, 30]
    place = np.stack([y % 8, y // 8], 1) * 5 + 2.5 + rng.uniform(-1.5, 1.5, (1700, 2))
    far = np.linalg.norm(place[:, None] - senders, axis=2)
    heard = -38 - 26 * np.log10(far + 1) + rng.normal(0, 1.0, far.shape)
    return np.maximum(heard, -80), y


def _yin_yang(rng: Generator) -> Arrays:
    """Yin, yang and their eyes (Kriener et al. 2022), of a disc that does not lie around 0."""
    radius, angle = np.sqrt(rng.uniform(0, 1, 1500)), rng.uniform(0, 2 * np.pi, 1500)
    a, b = radius * np.cos(angle), radius * np.sin(angle)
    right, left = np.hypot(a - 0.5, b), np.hypot(a + 0.5, b)
    is_yin = np.where(left < 0.5, True, np.where(right < 0.5, False, b > 0))
    y = np.where((right < 0.2) | (left < 0.2), 2, is_yin.astype(int))
    return np.stack([a + 3, 10 * b, a - b], 1), y


def _diamonds(rng: Generator) -> Arrays:
    """What diamonds cost, by their carats, three sides, and the codes of cut and colour."""
    carat, cut, colour = rng.lognormal(-0.4, 0.5, 1300), *rng.integers(0, 5, (2, 1300))
    side = 6.2 * carat ** (1 / 3)
    sides = side[:, None] * rng.normal([1, 1, 0.62], 0.02, (1300, 3))
    price = 4000 * carat**1.6 * np.exp(0.06 * cut - 0.09 * colour) * rng.lognormal(0, 0.08, 1300)
    return np.concatenate([np.stack([carat, cut, colour], 1), sides], 1), price


def _flights(rng: Generator) -> Arrays:
    """How many kilometres there are between two places, by their latitudes and longitudes."""
    north, east = rng.uniform(25, 70, (2, 1500)), rng.uniform(-15, 90, (2, 1500))
    a, b, apart = *np.radians(north), np.radians(east[0] - east[1])
    cosine = np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(apart)
    return np.stack([north[0], east[0], north[1], east[1]], 1), 6371 * np.arccos(cosine)


def _colours(rng: Generator) -> Arrays:
    """Lightness and two contrasts of what a screen shows, by the bytes of red, green and blue."""
    x = rng.integers(0, 256, (1300, 3))
    light = (x / 255) ** 2.2 @ [[0.43, 0.22, 0.02], [0.34, 0.71, 0.11], [0.18, 0.07, 0.94]]
    a, b, c = np.cbrt(light).T
    return x, np.stack([116 * b - 16, 500 * (a - b), 200 * (b - c)], 1)


def _habitats(rng: Generator) -> Arrays:
    """Which of seven plants grow at a place: each likes a middle of warmth, rain and height."""
    x = rng.normal(size=(1500, 3))
    best, width = rng.normal(0, 1.8, (7, 3)), rng.uniform(1.0, 2.0, (7, 3))
    far = (((x[:, None] - best) / width) ** 2).sum(2) + rng.normal(0, 0.05, (1500, 7))
    raw = np.stack([9 + 6 * x[:, 0], np.exp(6.5 + 0.4 * x[:, 1]), 600 + 250 * x[:, 2]], 1)
    soil = rng.integers(0, 3, 1500)
    far = far + 0.5 * (soil[:, None] == np.arange(7) % 3)
    return np.concatenate([raw, np.eye(3)[soil]], 1), (far < np.quantile(far, 0.4, 0)).astype(float)


def _voltages(rng: Generator) -> Arrays:
    """The form of a wave: smooth, square, slowly rising or slowly falling; any phase."""
    y, pace = rng.integers(0, 4, 1200), rng.uniform(1.5, 2.5, (1200, 1))
    turn = pace * np.linspace(0, 1, 30) + rng.uniform(0, 1, (1200, 1))
    rising = 2 * (turn % 1) - 1
    forms = np.stack([np.sin(2 * np.pi * turn), np.sign(rising), rising, -rising])
    x = forms[y, np.arange(1200)] * rng.uniform(0.8, 1.2, (1200, 1))
    return 230 * (x + rng.normal(0, 0.15, x.shape))[:, :, None], y


def _reckoning(rng: Generator) -> Arrays:
    """Where a ship is after sixteen hours, by its speed and its turning in each."""
    speed, turn = rng.gamma(6, 2, (1300, 16)), rng.normal(0, 12, (1300, 16))
    course = np.radians(turn.cumsum(1) + rng.normal(0, 1, (1300, 16)))
    place = [(speed * np.cos(course)).sum(1), (speed * np.sin(course)).sum(1)]
    return np.stack([speed, turn], 2), np.stack(place, 1)


def _dosage(rng: Generator) -> Arrays:
    """How much of a medicine is in the blood after eighteen hours, by doses and kidneys."""
    dose = rng.choice([0, 0, 0, 50, 100, 200], (1300, 18))
    fades = rng.uniform(0.05, 0.3, (1300, 1))
    level = (dose * np.exp(-fades * np.arange(17, -1, -1))).sum(1)
    clears = np.broadcast_to(400 * fades, dose.shape)
    return np.stack([dose, clears], 2), level * rng.lognormal(0, 0.03, 1300)


def _tones(rng: Generator) -> Arrays:
    """Which of five tones sound, each as loud as it likes and a little early or late."""
    on = rng.random((1400, 5)) < 0.45
    time, pitch = np.linspace(0, 1, 32), np.array([2.0, 3.5, 5.0, 7.0, 9.5])[:, None]
    late = rng.uniform(-0.9, 0.9, (1400, 5, 1))
    waves = np.sin(2 * np.pi * pitch * time + late) * rng.uniform(0.7, 1.3, (1400, 5, 1))
    x = (on[:, :, None] * waves).sum(1)
    return (x + rng.normal(0, 0.25, x.shape))[:, :, None], on.astype(float)


def _melodies(rng: Generator) -> Arrays:
    """In which of twelve keys a melody is; few of its notes lie beside the key."""
    y, weights = rng.integers(0, 12, 1500), np.array([6, 1, 3, 1, 4, 1, 1])
    steps = np.array([0, 2, 4, 5, 7, 9, 11])[rng.choice(7, (1500, 20), p=weights / weights.sum())]
    notes = (steps + y[:, None]) % 12
    return np.where(rng.random((1500, 20)) < 0.05, rng.integers(0, 12, (1500, 20)), notes), y


def _roman(rng: Generator) -> Arrays:
    """Roman numbers of 1 to 399, filled up with blanks, and what they say."""
    units = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
    tens = [u.translate(str.maketrans("IVX", "XLC")) for u in units]
    y = rng.integers(1, 400, 1400)
    words = [("C" * (n // 100) + tens[n // 10 % 10] + units[n % 10]).rjust(11) for n in y]
    return np.array([[" IVXLC".index(letter) for letter in word] for word in words]), y


def _traits(rng: Generator) -> Arrays:
    """Five traits by ten pairs of genes, where one of a pair may suffice or both are needed.

    The three forms of each gene are symbols of their own.
    """
    genes = rng.choice(3, (1500, 10), p=[0.35, 0.4, 0.25])
    worth = np.where(rng.random((5, 10)) < 0.4, rng.normal(0, 1, (5, 10)), 0)
    strength = np.array([[0, 1, 1], [0, 0, 1], [0, 0.5, 1]])[np.arange(10) % 3, genes]
    score = strength @ worth.T + 0.4 * strength[:, :1] * strength[:, 1:6]
    score = score + rng.normal(0, 0.1, score.shape)
    return 3 * np.arange(10) + genes, (score > np.median(score, 0)).astype(float)


def _strolls(rng: Generator) -> Arrays:
    """In which of four directions one ends, after single and double steps to four sides."""
    likes = rng.dirichlet(np.full(4, 0.7), 1500).cumsum(1)
    side = (rng.random((1500, 15, 1)) > likes[:, None]).sum(2).clip(0, 3)
    double = rng.integers(0, 2, (1500, 15))
    moves = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[side] * (1 + double)[:, :, None]
    end = moves.sum(1) + 0.1 * rng.random(2)
    turn = np.arctan2(end[:, 1], end[:, 0]) / (2 * np.pi) * 4
    return side + 4 * double, np.floor(turn + 0.5).astype(int) % 4


def _tetrominoes(rng: Generator) -> Arrays:
    """Which of seven pieces of four squares there is, upright or upside down."""
    pieces = "1111/0000 1100/1100 0100/1110 0110/1100 1100/0110 1000/1110 0010/1110"
    y, x = rng.integers(0, 7, 1500), rng.normal(0, 0.15, (1500, 9, 9))
    for row, kind in enumerate(y):
        lines = pieces.split()[kind].split("/")
        piece = np.array([list(map(float, line)) for line in lines])
        piece = np.rot90(piece, 2 * rng.integers(0, 2))
        top, left = rng.integers(1, 3, 2)
        x[row, top : top + piece.shape[0], left : left + piece.shape[1]] += piece
    return x[:, None], y


def _barcodes(rng: Generator) -> Arrays:
    """Four bars that are wide or narrow, blurred and slanted a little, as bytes."""
    y = rng.integers(0, 16, 1500)
    columns = np.arange(12) + rng.uniform(-0.12, 0.12, (1500, 1, 1)) * np.arange(10)[:, None]
    x = np.zeros((1500, 10, 12))
    for bar in range(4):
        wide = 0.45 + 0.75 * ((y >> bar) & 1)[:, None, None]
        x += 1 / (1 + np.exp(6 * (np.abs(columns - 1.5 - 3 * bar) - wide)))
    x = rng.uniform(90, 200, (1500, 1, 1)) * (1 - 0.8 * x) + rng.normal(0, 12, x.shape)
    return np.clip(x + 40, 0, 255)[:, None] / 255, y


def _tilts(rng: Generator) -> Arrays:
    """How a long grain of rice lies: sine and cosine of twice its angle."""
    angle, middle = rng.uniform(0, np.pi, (1300, 1, 1)), rng.uniform(-1, 1, (2, 1300, 1, 1))
    rows, columns = np.mgrid[-5:6, -5:6]
    rows, columns = rows - middle[0], columns - middle[1]
    along = columns * np.cos(angle) + rows * np.sin(angle)
    beside = rows * np.cos(angle) - columns * np.sin(angle)
    x = np.exp(-((along / 3.5) ** 4) - (beside / 1.2) ** 2) + rng.normal(0, 0.15, beside.shape)
    return x[:, None], np.stack([np.sin(2 * angle), np.cos(2 * angle)], 1)[:, :, 0, 0]


def _stamps(rng: Generator) -> Arrays:
    """Which of five postmarks a letter bears, one over another, each about where it belongs."""
    on, marks = rng.random((1400, 5)) < 0.45, (rng.random((5, 5, 5)) < 0.55).astype(float)
    x, corners = rng.normal(0, 0.2, (1400, 11, 11)), [(1, 1), (1, 5), (3, 3), (5, 1), (5, 5)]
    for row, kind in zip(*np.nonzero(on), strict=True):
        top, left = corners[kind] + rng.integers(0, 2, 2)
        x[row, top : top + 5, left : left + 5] += rng.uniform(0.6, 1.0) * marks[kind]
    return x[:, None], on.astype(float)


SEEN_6_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "stars": ("seen_6", "table", "classes", _stars),
    "mushrooms": ("seen_6", "table", "classes", _mushrooms),
    "rooms_48": ("seen_6", "table", "classes", _rooms),
    "yin_yang": ("seen_6", "table", "classes", _yin_yang),
    "diamonds": ("seen_6", "table", "numbers", _diamonds),
    "flights": ("seen_6", "table", "numbers", _flights),
    "colours": ("seen_6", "table", "numbers", _colours),
    "habitats": ("seen_6", "table", "labels", _habitats),
    "voltages": ("seen_6", "series", "classes", _voltages),
    "reckoning": ("seen_6", "series", "numbers", _reckoning),
    "dosage": ("seen_6", "series", "numbers", _dosage),
    "tones": ("seen_6", "series", "labels", _tones),
    "melodies_12": ("seen_6", "tokens", "classes", _melodies),
    "roman": ("seen_6", "tokens", "numbers", _roman),
    "traits": ("seen_6", "tokens", "labels", _traits),
    "strolls": ("seen_6", "tokens", "classes", _strolls),
    "tetrominoes": ("seen_6", "image", "classes", _tetrominoes),
    "barcodes_16": ("seen_6", "image", "classes", _barcodes),
    "tilts": ("seen_6", "image", "numbers", _tilts),
    "stamps": ("seen_6", "image", "labels", _stamps),
}

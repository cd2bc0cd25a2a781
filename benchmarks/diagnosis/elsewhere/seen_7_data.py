"""The data sets of what was the report part of the seventh look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _orbits(rng: Generator) -> Arrays:
    """Whether a probe falls down, stays in an orbit or escapes: kilometres, metres/s, degrees."""
    radius, angle = rng.uniform(6600, 14000, 1400), rng.uniform(-60, 60, 1400)
    speed = np.sqrt(2 * 398600 / radius) * rng.uniform(0.55, 1.25, 1400)
    energy = speed**2 / 2 - 398600 / radius
    turning = radius * speed * np.cos(np.radians(angle))
    round_ = np.sqrt(np.maximum(1 + 2 * energy * turning**2 / 398600**2, 0))
    lowest = turning**2 / 398600 / (1 + round_)
    y = np.where(lowest < 6500, 0, np.where(energy < 0, 1, 2))
    return np.stack([radius, 1000 * speed, angle, np.full(1400, 6371.0)], 1), y


def _letters(rng: Generator) -> Arrays:
    """Twenty-six letters in two fonts, by fourteen measures of their ink, whole numbers to 15."""
    y, font = rng.integers(0, 26, 1700), rng.integers(0, 2, 1700)
    middle = rng.uniform(2, 13, (26, 1, 14)) + rng.normal(0, 1.5, (26, 2, 14))
    stretched = rng.normal(0, 1, (1700, 2)) @ rng.normal(0, 0.9, (2, 14))
    x = middle[y, font] + stretched + rng.normal(0, 1.3, (1700, 14))
    return np.clip(np.round(x), 0, 15), y


def _isotopes(rng: Generator) -> Arrays:
    """Which of twelve sources radiates, by how often each of 28 channels counted."""
    y, channel = rng.integers(0, 12, 1500), np.arange(28)
    lines, share = rng.uniform(1, 27, (12, 3, 1)), rng.dirichlet(np.ones(3), 12)[:, :, None]
    peaks = (share * np.exp(-(((channel - lines) / 1.1) ** 2))).sum(1)
    strength = rng.lognormal(4.6, 0.4, (1500, 1))
    ground = 60 * np.exp(-channel / 9)
    return rng.poisson(strength * peaks[y] + ground).astype(float), y


def _physiques(rng: Generator) -> Arrays:
    """Five ranks of weight for height, where one height in 200 was written in metres."""
    sex, age = rng.integers(0, 2, 1400), rng.uniform(18, 85, 1400)
    tall = rng.normal(178, 7, 1400) - 13 * sex
    mass = rng.lognormal(3.23, 0.2, 1400)
    weight = mass * (tall / 100) ** 2
    waist = 0.9 * weight + 0.15 * age + rng.normal(0, 5, 1400)
    y = np.digitize(mass, [18.5, 25, 30, 35])
    tall = np.where(rng.random(1400) < 1 / 200, tall / 100, tall)
    return np.stack([tall, weight, waist, age, sex], 1), y


def _outbreaks(rng: Generator) -> Arrays:
    """How many are ill at the worst and when, by contacts, days of illness, shots and first ill."""
    meets, days = rng.uniform(0.25, 0.8, 1200), rng.uniform(4, 12, 1200)
    shots, ill = rng.uniform(0, 0.4, 1200), 10 ** rng.uniform(-4, -2.3, 1200)
    first, open_, worst, when = ill.copy(), 1 - shots - ill, ill.copy(), np.zeros(1200)
    for day in range(1, 241):
        caught = meets * open_ * ill
        open_, ill = open_ - caught, ill + caught - ill / days
        when, worst = np.where(ill > worst, day, when), np.maximum(worst, ill)
    x = np.stack([meets, days, shots, 1e6 * first], 1)
    return x, np.stack([1e6 * worst, np.minimum(when, 150)], 1)


def _sunlight(rng: Generator) -> Arrays:
    """What a solar panel yields in watts: nothing by night, and no more than its inverter lets."""
    hour, day = rng.uniform(0, 24, 1500), rng.integers(1, 366, 1500)
    north, cloud = rng.uniform(35, 60, 1500), rng.beta(0.7, 0.9, 1500)
    tilt = np.radians(23.4) * np.sin(2 * np.pi * (day - 81) / 365)
    here, turn = np.radians(north), np.pi * (hour - 12) / 12
    height = np.sin(here) * np.sin(tilt) + np.cos(here) * np.cos(tilt) * np.cos(turn)
    power = 5200 * np.maximum(height, 0) * (1 - 0.75 * cloud**2)
    x = np.stack([hour, day, north, 100 * cloud, np.full(1500, 20.0)], 1)
    return x, np.minimum(power, 3300) * rng.normal(1, 0.03, 1500)


def _torques(rng: Generator) -> Arrays:
    """What two motors of a robot's arm have to do, by angles, speeds and accelerations."""
    angle, speed = rng.uniform(-1.6, 1.6, (2, 1400)), rng.normal(0, 1.2, (2, 1400))
    faster = rng.normal(0, 2, (2, 1400))
    bent, straight = np.sin(angle[1]), np.cos(angle[1])
    both = 0.4 + 0.5 * straight
    weight = 6 * np.cos(angle.sum(0))
    first = (1.6 + straight) * faster[0] + both * faster[1] + 14 * np.cos(angle[0]) + weight
    first = first - 0.5 * bent * (2 * speed[0] * speed[1] + speed[1] ** 2)
    second = both * faster[0] + 0.4 * faster[1] + 0.5 * bent * speed[0] ** 2 + weight
    y = np.stack([first, second], 1)
    return np.concatenate([angle, speed, faster]).T, y + rng.normal(0, 0.2, y.shape)


def _valves(rng: Generator) -> Arrays:
    """Which of six valves are open, by the pressures at ten places of some pipes, in pascals."""
    on = rng.random((1400, 6)) < 0.5
    ends = np.array([(i, (i + 1) % 10) for i in range(10)] + [(0, 5), (2, 7), (3, 8), (1, 6)])
    wide = np.repeat(rng.uniform(0.5, 1.5, (1, 14)), 1400, 0)
    wide[:, 8:] *= np.where(on, 1.0, 0.05)
    net = np.zeros((1400, 10, 10))
    for pipe, (a, b) in enumerate(ends):
        net[:, a, a] += wide[:, pipe]
        net[:, b, b] += wide[:, pipe]
        net[:, a, b] -= wide[:, pipe]
        net[:, b, a] -= wide[:, pipe]
    into = rng.normal(0, 0.3, (1400, 10)) + np.array([4, 0, -1, -2, 0, -3, 2, 0, -1, 1])
    pressure = np.linalg.solve(net + 0.2 * np.eye(10), into[:, :, None])[:, :, 0]
    return 3e5 + 2e4 * pressure + rng.normal(0, 500, pressure.shape), on.astype(float)


def _gaits(rng: Generator) -> Arrays:
    """Whether someone limps: every second step of a foot is weaker or comes late."""
    y, time = rng.integers(0, 2, 1200), np.arange(32)
    apart, start = rng.uniform(4.5, 6, 1200), rng.uniform(0, 3, 1200)
    x = rng.normal(0, 0.15, (1200, 32, 2))
    for step in range(6):
        limps = y * (step % 2)
        at = start + step * apart + 1.2 * limps
        push = rng.normal(1.2, 0.15, 1200) * (1 - 0.45 * limps)
        force = push[:, None] * np.exp(-((time - at[:, None]) ** 2) / 1.5)
        x[:, :, 0] += force
        x[:, 1:, 1] += np.diff(force, axis=1)
    return 9.8 * (1 + x), y


def _diphthongs(rng: Generator) -> Arrays:
    """Eight sounds that go from one vowel to another, as two formants in hertz of any speaker."""
    vowels = np.array([[300, 2300], [550, 1900], [750, 1250], [500, 900], [330, 800]])
    ways = np.array([[2, 0], [1, 0], [3, 0], [2, 4], [3, 4], [0, 2], [4, 1], [1, 2]])
    y, time = rng.integers(0, 8, 1400), np.arange(14)
    turned = 1 / (1 + np.exp(-(time - rng.uniform(4, 9, (1400, 1))) / 1.3))[:, :, None]
    start, end = vowels[ways[y, 0]][:, None], vowels[ways[y, 1]][:, None]
    x = (start + (end - start) * turned) * rng.normal(1, 0.1, (1400, 1, 1))
    return x + rng.normal(0, [60, 140], x.shape), y


def _sonar(rng: Generator) -> Arrays:
    """How far the ground is, by a call in one channel and its later, weaker echo in the other."""
    call, far, time = rng.uniform(2, 9, (1300, 1)), rng.uniform(3, 18, (1300, 1)), np.arange(30)
    sent = np.exp(-((time - call) ** 2) / 2)
    heard = 2.2 / (1 + 0.05 * far) * np.exp(-((time - call - far) ** 2) / 3)
    x = np.stack([sent, heard], 2)
    return x + rng.normal(0, 0.12, x.shape), 750 * far[:, 0]


def _cultures(rng: Generator) -> Arrays:
    """How many cells a culture comes to and how fast they grow, by its first sixteen hours."""
    most, pace = rng.uniform(2e6, 9e6, (1300, 1)), rng.uniform(0.3, 0.9, (1300, 1))
    begin, time = most * rng.uniform(0.01, 0.1, (1300, 1)), np.arange(16)
    cells = most / (1 + (most / begin - 1) * np.exp(-pace * time))
    cells = cells * rng.lognormal(0, 0.08, cells.shape)
    return cells[:, :, None], np.concatenate([most, pace], 1)


def _lines(rng: Generator) -> Arrays:
    """Which of ten lines, five each way, a train takes, by eleven stops of which some are wrong."""
    ways = np.stack([rng.permutation(24) for _ in range(5)])
    y, start = rng.integers(0, 10, 1500), rng.integers(0, 24, 1500)
    steps = np.arange(11) * np.where(y < 5, 1, -1)[:, None]
    x = ways[(y % 5)[:, None], (start[:, None] + steps) % 24]
    return np.where(rng.random(x.shape) < 0.08, rng.integers(0, 24, x.shape), x), y


def _intents(rng: Generator) -> Arrays:
    """What is asked for: to play, stop or buy, and of two kinds of things, among other words."""
    act, kind = rng.integers(0, 3, 1500), rng.integers(0, 2, 1500)
    x = rng.integers(15, 30, (1500, 10))
    verb, thing = rng.random((1500, 10)).argsort(1)[:, :2].T
    x[np.arange(1500), verb] = 3 * act + rng.integers(0, 3, 1500)
    x[np.arange(1500), thing] = 9 + 3 * kind + rng.integers(0, 3, 1500)
    return x, 2 * act + kind


def _molecules(rng: Generator) -> Arrays:
    """How heavy a chain of atoms is with its hydrogen, which a double bond drives away."""
    kinds, length = rng.choice(5, (1400, 14), p=[0.5, 0.12, 0.14, 0.14, 0.1]), np.arange(14)
    kinds[:, 0] = 0
    is_bond = (kinds == 4) & (np.roll(kinds, 1, 1) != 4)
    kinds = np.where((kinds == 4) & ~is_bond, 0, kinds)
    weight = np.array([12.01, 14.01, 16.0, 32.07, 0.0])[kinds]
    hydrogen = 1.01 * np.array([2, 1, 0, 0, -4])[kinds]
    ends = rng.integers(7, 15, (1400, 1))
    there = length < ends
    return np.where(there, kinds + 1, 0), ((weight + hydrogen) * there).sum(1) + 2.02


def _baskets(rng: Generator) -> Arrays:
    """What a basket tells: a pet, a child, a garden, a feast, and that no one eats meat.

    A feast takes three drinks or more; the others show by any one of a few goods.
    """
    likes = rng.dirichlet(np.array([0.35, 0.35, 0.35, 1.3, 0.8, 2.0]), 1500).cumsum(1)
    shelf = (rng.random((1500, 13, 1)) > likes[:, None]).sum(2).clip(0, 5)
    x = 4 * shelf + rng.integers(0, 4, (1500, 13))
    often = (shelf[:, :, None] == np.arange(5)).sum(1)
    told = [often[:, 0] > 0, often[:, 1] > 0, often[:, 2] > 0, often[:, 3] > 2, often[:, 4] == 0]
    return x, np.stack(told, 1).astype(float)


def _leaves(rng: Generator) -> Arrays:
    """How many lobes a leaf has: none, two, three, four or five; it lies nearly upright."""
    y, lean = rng.integers(0, 5, 1500), rng.normal(0, 0.2, (1500, 1, 1))
    rows, columns = np.mgrid[-6:7, -6:7]
    middle = rng.uniform(-0.6, 0.6, (2, 1500, 1, 1))
    high, wide = rows - middle[0], columns - middle[1]
    count = np.array([0, 2, 3, 4, 5])[y, None, None]
    lobe = np.cos(count * (np.arctan2(wide, -high) + lean)) * (count > 0)
    edge = rng.uniform(3.4, 4.4, (1500, 1, 1)) * (1 + 0.4 * lobe)
    x = 1 / (1 + np.exp(2 * (np.hypot(high, wide) - edge)))
    return (x + rng.normal(0, 0.15, x.shape))[:, None], y


def _characters(rng: Generator) -> Arrays:
    """Forty characters: one of eight signs to the left and one of five to the right of it."""
    y, signs = rng.integers(0, 40, 1700), (rng.random((13, 7, 4)) < 0.5).astype(float)
    x = np.zeros((1700, 10, 11))
    top, left = rng.integers(1, 3, 1700), rng.integers(1, 3, 1700)
    for page, kind, high, wide in zip(x, y, top, left, strict=True):
        page[high : high + 7, wide : wide + 4] = signs[kind // 5]
        page[high : high + 7, wide + 4 : wide + 8] = signs[8 + kind % 5]
    ink = rng.uniform(0.7, 1.2, (1700, 1, 1))
    return (ink * x + rng.normal(0, 0.15, x.shape))[:, None], y


def _horizons(rng: Generator) -> Arrays:
    """How high a horizon stands and how it leans, between a sky and a darker sea, as bytes."""
    high, lean = rng.uniform(-3.5, 3.5, (1300, 1, 1)), rng.uniform(-0.5, 0.5, (1300, 1, 1))
    rows, columns = np.mgrid[-5.5:5.5:12j, -5.5:5.5:12j]
    share = 1 / (1 + np.exp(2.5 * (rows + high + np.tan(lean) * columns)))
    sky, sea = rng.uniform(140, 220, (1300, 1, 1)), rng.uniform(20, 90, (1300, 1, 1))
    x = sea + (sky - sea) * share + rng.normal(0, 14, share.shape)
    return np.clip(x, 0, 255)[:, None] / 255, np.concatenate([high, lean], 1)[:, :, 0]


def _maps(rng: Generator) -> Arrays:
    """What a map shows: a river downwards, a road across, a wood of speckles, a lake."""
    on = rng.random((1400, 4)) < 0.5
    rows, columns = np.mgrid[0:13, 0:13]
    bend, turn = rng.uniform(0.5, 2, (1400, 1, 1)), rng.uniform(0, 6.3, (1400, 1, 1))
    course = rng.uniform(2, 10, (1400, 1, 1)) + bend * np.sin(rows / 2 + turn)
    climb = rng.uniform(-0.2, 0.2, (1400, 1, 1))
    road = rng.uniform(2, 10, (1400, 1, 1)) + climb * (columns - 6)
    middle = rng.uniform(2, 10, (4, 1400, 1, 1))
    wood = np.maximum(abs(rows - middle[0]), abs(columns - middle[1])) < 2.6
    lake = np.hypot(rows - middle[2], columns - middle[3]) < 2.4
    parts = [
        -np.exp(-((columns - course) ** 2)),
        np.exp(-((rows - road) ** 2) / 0.5),
        wood * np.where((rows + columns) % 2, 1.0, -1.0),
        -1.0 * lake,
    ]
    x = sum(part * own[:, None, None] for part, own in zip(parts, on.T, strict=True))
    return (x + rng.normal(0, 0.15, (1400, 13, 13)))[:, None], on.astype(float)


SEEN_7_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "orbits": ("seen_7", "table", "classes", _orbits),
    "letters_26": ("seen_7", "table", "classes", _letters),
    "isotopes_12": ("seen_7", "table", "classes", _isotopes),
    "physiques": ("seen_7", "table", "classes", _physiques),
    "outbreaks": ("seen_7", "table", "numbers", _outbreaks),
    "sunlight": ("seen_7", "table", "numbers", _sunlight),
    "torques": ("seen_7", "table", "numbers", _torques),
    "valves": ("seen_7", "table", "labels", _valves),
    "gaits": ("seen_7", "series", "classes", _gaits),
    "diphthongs": ("seen_7", "series", "classes", _diphthongs),
    "sonar": ("seen_7", "series", "numbers", _sonar),
    "cultures": ("seen_7", "series", "numbers", _cultures),
    "lines_10": ("seen_7", "tokens", "classes", _lines),
    "intents": ("seen_7", "tokens", "classes", _intents),
    "molecules": ("seen_7", "tokens", "numbers", _molecules),
    "baskets": ("seen_7", "tokens", "labels", _baskets),
    "leaves": ("seen_7", "image", "classes", _leaves),
    "characters_40": ("seen_7", "image", "classes", _characters),
    "horizons": ("seen_7", "image", "numbers", _horizons),
    "maps": ("seen_7", "image", "labels", _maps),
}

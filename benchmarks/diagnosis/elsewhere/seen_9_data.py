"""The data sets of what was the report part of the ninth look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _wheat(rng: Generator) -> Arrays:
    """Three kinds of wheat by area, length, width and groove of a grain, and a roundness near 1."""
    y = rng.choice(3, 1300, p=[0.4, 0.35, 0.25])
    long = np.array([5.5, 6.1, 5.2])[y] * rng.normal(1, 0.035, 1300)
    wide = np.array([3.25, 3.68, 2.85])[y] * rng.normal(1, 0.04, 1300)
    area = 0.78 * long * wide * rng.normal(1, 0.01, 1300)
    groove = np.array([5.05, 6.0, 5.12])[y] + rng.normal(0, 0.22, 1300)
    round_ = 0.87 + 0.06 * (wide / long - 0.58) + rng.normal(0, 0.004, 1300)
    return np.stack([area, long, wide, groove, round_, np.full(1300, 14.0)], 1), y


def _hearts(rng: Generator) -> Arrays:
    """Whether a heart is ill, by age, pressures, a pulse and a kind of pain; fats unknown are 0."""
    age, sex = rng.normal(54, 9, 1500).clip(28, 80), rng.integers(0, 2, 1500)
    pressure, fat = rng.normal(132, 17, 1500), rng.lognormal(5.45, 0.2, 1500)
    pain = rng.integers(0, 4, 1500)
    pulse = 205 - 0.8 * age + rng.normal(0, 16, 1500)
    risk = 0.09 * (age - 54) + 0.7 * sex + 0.03 * (pressure - 132) + (fat - 240) / 60
    risk = risk - 0.06 * (pulse - 162) + np.array([-1.8, -0.6, 0.4, 1.8])[pain]
    y = (1.8 * (risk - 0.4) + rng.logistic(0, 1, 1500) > 0).astype(int)
    fat = np.where(rng.random(1500) < 0.05, 0, fat)
    return np.concatenate([np.stack([age, sex, pressure, fat, pulse], 1), np.eye(4)[pain]], 1), y


def _crops(rng: Generator) -> Arrays:
    """Which of 22 crops suits a field, by what its soil holds, its warmth, damp, acid and rain."""
    y = rng.integers(0, 22, 1700)
    low, high = np.array([[5, 5, 5, 15, 30, 5.2, 30], [120, 130, 180, 32, 95, 7.6, 260]])
    middle = rng.uniform(low, high, (22, 7))
    return middle[y] + rng.normal(0, 1, (1700, 7)) * (high - low) * 0.11, y


def _transistors(rng: Generator) -> Arrays:
    """Whether a transistor blocks, acts as a resistor, or holds its current, by its volts."""
    gate, drain, source = rng.uniform(0, 5, 1500), rng.uniform(0, 6, 1500), rng.uniform(0, 1, 1500)
    needed = rng.normal(0.9, 0.15, 1500)
    over = gate - source - needed
    y = np.where(over < 0, 0, np.where(drain - source < over, 1, 2))
    kelvin, noise = rng.normal(300, 6, 1500), rng.normal(0, 0.05, (3, 1500))
    volts = [gate + noise[0], drain + noise[1], source + noise[2]]
    return np.stack([*volts, 1000 * needed, kelvin, np.full(1500, 1e-7)], 1), y


def _speakers(rng: Generator) -> Arrays:
    """A hundred speakers, by twenty numbers of their voice, which a telephone shifts."""
    y = rng.integers(0, 100, 2000)
    size = 12 / np.arange(1, 21)
    voice = rng.normal(size=(100, 20)) * size
    phone = rng.normal(size=(4, 20)) * size * 0.3
    heard = voice[y] + phone[rng.integers(0, 4, 2000)]
    return heard + rng.normal(size=(2000, 20)) * size * 0.28, y


def _laptops(rng: Generator) -> Arrays:
    """What laptops cost, by memory, disk, clock, inches and one of four makers."""
    memory, disk = 2.0 ** rng.integers(2, 6, 1300), 2.0 ** rng.integers(7, 12, 1300)
    clock, inches = rng.uniform(1.4, 4.2, 1300), rng.choice([11.6, 13.3, 14, 15.6, 17.3], 1300)
    maker = rng.integers(0, 4, 1300)
    price = 160 + 95 * np.log2(memory) + 40 * np.log2(disk / 64) + 150 * (clock - 1)
    price = price * np.array([0.85, 1, 1.1, 1.6])[maker] + 18 * (inches - 14) ** 2
    x = np.stack([memory, disk, clock, inches, np.full(1300, 2.0)], 1)
    return np.concatenate([x, np.eye(4)[maker]], 1), price * rng.lognormal(0, 0.06, 1300)


def _turbines(rng: Generator) -> Arrays:
    """What a wind turbine yields in kilowatts: it starts at 3 m/s, and is full at 12 m/s."""
    wind, warm = 8 * rng.weibull(2, 1500), rng.uniform(-10, 35, 1500)
    aside, blades = rng.normal(0, 9, 1500), rng.uniform(0, 4, 1500)
    dense = 1.225 * 288 / (warm + 273)
    share = np.clip((wind * np.cos(np.radians(aside))) ** 3 * dense / 1.225 / 12**3, 0, 1)
    power = np.where(wind < 3, 0, 2050 * share * (1 - 0.05 * blades))
    x = np.stack([wind, warm, aside, blades, rng.normal(50, 0.05, 1500)], 1)
    return x, power + rng.normal(0, 25, 1500)


def _beams(rng: Generator) -> Arrays:
    """How far a beam bends, as tenfolds of millimetres, and its stress, by load and sizes."""
    load, long = rng.uniform(500, 8000, 1400), rng.uniform(1.5, 6, 1400)
    wide, high = rng.uniform(0.05, 0.2, 1400), rng.uniform(0.1, 0.3, 1400)
    stiff = rng.choice([1.1e10, 7e10, 2.1e11], 1400)
    bend = load * long**3 / (48 * stiff * wide * high**3 / 12)
    stress = 1.5 * load * long / (wide * high**2) / 1e6
    y = np.stack([np.log10(1000 * bend), np.log10(stress)], 1)
    return np.stack([load, long, wide, high, stiff], 1), y + rng.normal(0, 0.03, y.shape)


def _premiums(rng: Generator) -> Arrays:
    """What the ill cost their insurance: more if they smoke, and most if they are heavy too."""
    age, heavy = rng.integers(18, 65, 1400), rng.normal(30, 5.5, 1400)
    children, smokes, region = (
        rng.poisson(1, 1400),
        rng.random(1400) < 0.25,
        rng.integers(0, 4, 1400),
    )
    cost = 3.2 * age**2 + 450 * children + 90 * region
    cost = cost + smokes * (9000 + 900 * np.maximum(heavy - 25, 0) + 9000 * (heavy > 30))
    x = np.stack([age, heavy, children, smokes, np.arange(1400) % 2], 1).astype(float)
    return np.concatenate([x, np.eye(4)[region]], 1), cost + rng.gamma(1, 900, 1400)


def _bloods(rng: Generator) -> Arrays:
    """Five findings by nine values of the blood, whose limits are not the same for both sexes."""
    sex, hidden = rng.integers(0, 2, (1500, 1)), rng.normal(size=(1500, 5))
    on = hidden + 0.3 * rng.normal(size=(1500, 5)) > np.array([0.3, 0.1, 0.5, 0.2, 0])
    sense = rng.normal(size=(5, 8)) * (rng.random((5, 8)) < 0.35) + np.eye(5, 8)
    middle = np.array([14.2, 250, 7000, 4.6, 90, 0.9, 138, 45])
    share = np.array([0.1, 0.25, 0.3, 0.1, 0.07, 0.2, 0.02, 0.4])
    values = hidden @ sense + 0.25 * rng.normal(size=(1500, 8)) - 0.8 * sex
    return np.concatenate([middle * np.exp(share * values), sex], 1), on.astype(float)


def _dances(rng: Generator) -> Arrays:
    """Five dances, by how hard each of 24 eighths is struck, from any beat on."""
    bars = ["311211", "31213121", "31112111", "32003020", "3012"]
    y, start = rng.integers(0, 5, 1400), rng.integers(0, 8, 1400)
    long = np.array([list(map(int, (bar * 12)[:40])) for bar in bars])
    struck = long[y[:, None], start[:, None] + np.arange(24)] * rng.uniform(0.8, 1.3, (1400, 1))
    struck = struck + rng.normal(0, 0.45, struck.shape)
    return np.stack([struck, np.tile(np.arange(24) % 2, (1400, 1))], 2), y


def _tremors(rng: Generator) -> Arrays:
    """Whether the ground shakes by a quake, a blast, traffic or a door: upright and sideways."""
    y, time = rng.integers(0, 4, 1400), np.arange(32)
    start = rng.uniform(3, 9, (1400, 1))
    since = time - start
    first = np.exp(-np.maximum(since, 0) / 5) * (since > 0)
    later = np.exp(-np.maximum(since - 8, 0) / 8) * (since > 8)
    bang = np.exp(-np.maximum(since, 0) / 2) * (since > 0)
    pass_ = np.exp(-((time - start - 8) ** 2) / 60)
    up = np.stack([2 * first + 0.8 * later, 3.5 * first, 1.4 * pass_, 4 * bang])
    side = np.stack([0.6 * first + 3 * later, 1.0 * first, 1.4 * pass_, 0.3 * bang])
    size = np.stack([up, side], 3)[y, np.arange(1400)] * rng.lognormal(3, 0.25, (1400, 1, 1))
    return size * rng.normal(size=size.shape) + rng.normal(0, 3, size.shape), y


def _batteries(rng: Generator) -> Arrays:
    """How many hours a battery lasts yet, by eighteen readings of its volts, amperes, warmth."""
    time, holds = np.arange(18), rng.uniform(40, 80, (1300, 1))
    drawn = rng.uniform(0.6, 1.4, (1300, 1)) * np.exp(rng.normal(0, 0.15, (1300, 18)))
    left = 1 - rng.uniform(0, 0.4, (1300, 1)) - drawn.cumsum(1) / holds
    volts = 3.35 + 0.75 * left - 0.25 * np.exp(-12 * left.clip(0.02)) - 0.05 * drawn
    volts = volts + rng.normal(0, 0.008, volts.shape)
    warm = 20 + 6 * drawn.cumsum(1) / (time + 1) + rng.normal(0, 0.8, volts.shape)
    return np.stack([volts, drawn, warm], 2), left[:, -1] * holds[:, 0] / drawn.mean(1)


def _heating(rng: Generator) -> Arrays:
    """How warm a room and its wall are after twenty hours of heating and of the air outside."""
    outside = rng.normal(5, 6, (1300, 1)) + 4 * np.sin(
        np.arange(20) / 3.8 + rng.uniform(0, 6, (1300, 1))
    )
    heats = (rng.random((1300, 20)) < rng.uniform(0.1, 0.9, (1300, 1))).astype(float)
    room, wall = rng.normal(17, 2, 1300), rng.normal(15, 2, 1300)
    first = np.stack([room, wall], 1)
    for hour in range(20):
        room = room + 3.5 * heats[:, hour] - 0.3 * (room - wall) - 0.05 * (room - outside[:, hour])
        wall = wall + 0.12 * (room - wall) - 0.08 * (wall - outside[:, hour])
    shown = np.repeat(first[:, :1], 20, 1) + rng.normal(0, 0.3, (1300, 20))
    y = np.stack([room, wall], 1)
    return np.stack([outside, heats, shown], 2), y + rng.normal(0, 0.3, y.shape)


def _elevators(rng: Generator) -> Arrays:
    """On which of nine floors a lift stands in the end, by its speed; it started on the fourth."""
    y, time = rng.integers(0, 9, 1500), np.arange(24)
    way, start = 3.2 * (y - 4), rng.uniform(2, 6, (1500, 1))
    long = rng.uniform(9, 15, (1500, 1))
    share = np.clip((time - start) / long, 0, 1)
    path = way[:, None] * (share - np.sin(2 * np.pi * share) / (2 * np.pi))
    speed = np.diff(path, axis=1, prepend=0) + rng.normal(0, 0.1, path.shape)
    return np.stack([speed, rng.normal(9.81, 0.05, speed.shape)], 2), y


def _vibrations(rng: Generator) -> Arrays:
    """What ails a machine: a shaft out of balance, a gear that whines, knocks, or a loose foot."""
    on, time = rng.random((1500, 4)) < 0.45, np.arange(36)
    turn = rng.uniform(0, 2 * np.pi, (4, 1500, 1))
    slow = 1.6 * np.sin(2 * np.pi * time / 12 + turn[0])
    whine = 1.0 * np.sin(2 * np.pi * time / 3.1 + turn[1])
    knocks = 3.2 * ((time + (9 * turn[2] / 6.3).astype(int)) % 9 == 0)
    drift = 1.8 * np.sign(np.sin(2 * np.pi * time / 24 + turn[3]))
    parts = np.stack([slow, whine, knocks, 0 * slow], 2) * on[:, None, :]
    x = parts.sum(2) + rng.normal(0, 0.35, slow.shape)
    foot = drift * on[:, 3:] + rng.normal(0, 0.7, slow.shape)
    return 9.8 * np.stack([x, foot], 2), on.astype(float)


def _cuisines(rng: Generator) -> Arrays:
    """Twelve cuisines by twelve ingredients, of which salt, oil and onions are in all of them."""
    y, common = rng.integers(0, 12, 1500), np.array([0, 1, 2, 3])
    liked = rng.permuted(np.tile(np.arange(4, 40), (12, 1)), axis=1)[:, :8]
    chosen = liked[y[:, None], rng.integers(0, 8, (1500, 12))]
    kind = rng.random((1500, 12))
    chosen = np.where(kind < 0.3, rng.choice(common, (1500, 12)), chosen)
    return np.where(kind > 0.85, rng.integers(4, 40, (1500, 12)), chosen), y


def _openings(rng: Generator) -> Arrays:
    """Sixteen openings of a game by its first ten moves, of which some have been exchanged."""
    y, line = rng.integers(0, 16, 1600), rng.integers(0, 20, (16, 6))
    line[:, 0] = np.arange(16) // 4
    x = rng.integers(0, 20, (1600, 10))
    x[:, :6] = line[y]
    swaps = rng.random(1600) < 0.3
    x[swaps, 2], x[swaps, 4] = x[swaps, 4], x[swaps, 2].copy()
    astray = rng.random((1600, 10)) < 0.1
    return np.where(astray, rng.integers(0, 20, x.shape), x), y


def _dates(rng: Generator) -> Arrays:
    """Which day of the year a line names: a day and a month in either order, and a few words."""
    month, day = rng.integers(0, 12, 1500), rng.integers(1, 31, 1500)
    first = rng.random(1500) < 0.6
    pair = np.stack([np.where(first, day, 31 + month), np.where(first, 31 + month, day)], 1)
    words = rng.integers(43, 52, (1500, 4))
    x = np.concatenate([words[:, :2], pair, words[:, 2:]], 1)
    late = rng.random(1500) < 0.4
    x[late] = np.roll(x[late], 1, 1)
    return x, 30.4 * month + day


def _logs(rng: Generator) -> Arrays:
    """Which of five troubles a log of ten lines tells of, each by one of two kinds of line."""
    x = rng.choice(20, (1600, 10), p=np.array([0.5] * 10 + [1] * 10) / 15)
    marks = np.stack([(x == 2 * kind) | (x == 2 * kind + 1) for kind in range(5)], 2)
    return x, marks.any(1).astype(float)


def _signs(rng: Generator) -> Arrays:
    """Twelve road signs: a disc, a triangle, a square or a diamond around one of three marks."""
    y = rng.integers(0, 12, 1600)
    rows, columns = np.mgrid[-5.5:5.5:12j, -5.5:5.5:12j]
    slip = rng.normal(0, 0.35, (2, 1600, 1, 1))
    high, wide = rows - slip[0], columns - slip[1]
    forms = [np.hypot(high, wide) < 5.2, abs(wide) * 1.8 < high + 5.5]
    forms += [np.maximum(abs(high), abs(wide)) < 4.7, abs(high) + abs(wide) < 6.2]
    marks = [abs(high) < 1, abs(wide) < 1, np.hypot(high, wide) > 1.8]
    near = np.hypot(high, wide) < 3
    form = np.stack(forms)[y // 3, np.arange(1600)]
    mark = np.stack(marks)[y % 3, np.arange(1600)] & near
    x = (1.0 * form - 0.9 * mark) * rng.uniform(0.7, 1.1, (1600, 1, 1))
    return (x + rng.normal(0, 0.15, x.shape))[:, None], y


def _dice(rng: Generator) -> Arrays:
    """What a die shows, which lies askew and whose points are darker than its face."""
    y, lean = rng.integers(0, 6, 1500), rng.normal(0, 0.15, (1500, 1, 1))
    rows, columns = np.mgrid[-4.5:4.5:10j, -4.5:4.5:10j]
    slip = rng.normal(0, 0.3, (2, 1500, 1, 1))
    high = np.cos(lean) * rows - np.sin(lean) * columns - slip[0]
    wide = np.sin(lean) * rows + np.cos(lean) * columns - slip[1]
    corners = [(-3, -3), (3, 3), (-3, 3), (3, -3), (0, -3), (0, 3), (0, 0)]
    shown = [[6], [0, 1], [0, 1, 6], [0, 1, 2, 3], [0, 1, 2, 3, 6], [0, 1, 2, 3, 4, 5]]
    spots = np.stack([np.exp(-((high - a) ** 2 + (wide - b) ** 2) / 1.2) for a, b in corners])
    x = np.stack([spots[own].sum(0) for own in shown])[y, np.arange(1500)]
    x = rng.uniform(0.7, 1, (1500, 1, 1)) * (1 - 0.9 * x)
    return (x + rng.normal(0, 0.1, x.shape))[:, None], y


def _wafers(rng: Generator) -> Arrays:
    """Which faults a wafer shows where its chips fail: amid it, at its edge, in a ring, a line."""
    on = rng.random((1500, 4)) < 0.45
    rows, columns = np.mgrid[-5.5:5.5:12j, -5.5:5.5:12j]
    far, lean = np.hypot(rows, columns), rng.uniform(0, np.pi, (1500, 1, 1))
    off = rng.uniform(-3, 3, (1500, 1, 1))
    line = abs(rows * np.sin(lean) + columns * np.cos(lean) - off) < 0.7
    parts = [far < 1.8, far > 4.9, abs(far - 3.3) < 0.8]
    chance = 0.04 + 0 * line
    for part, own in zip((*parts, line), on.T, strict=True):
        chance = np.maximum(chance, 0.85 * part * own[:, None, None])
    x = 1.0 * (rng.random((1500, 12, 12)) < chance)
    return np.where(far < 6.3, x, 0.5)[:, None], on.astype(float)


def _arches(rng: Generator) -> Arrays:
    """How an arch is bent and how thick it is, as bytes; it stands a little off the middle."""
    bend, thick = rng.uniform(-0.16, 0.16, (1300, 1, 1)), rng.uniform(0.7, 2, (1300, 1, 1))
    rows, columns = np.mgrid[-5.5:5.5:12j, -5.5:5.5:12j]
    slip = rng.normal(0, 0.6, (2, 1300, 1, 1))
    away = rows - slip[0] - bend * ((columns - slip[1]) ** 2 - 10)
    x = 200 / (1 + np.exp(4 * (abs(away) - thick))) + rng.normal(30, 10, (1300, 12, 12))
    return x.clip(0, 255)[:, None], np.stack([bend, thick], 1)[:, :, 0, 0]


def _nodules(rng: Generator) -> Arrays:
    """Whether a bright knot stands in a cloudy picture, whose threads are as bright but thin."""
    y = rng.integers(0, 2, 1500)
    rows, columns = np.mgrid[0:12, 0:12]
    place, lean = rng.uniform(2.5, 8.5, (2, 1500, 1, 1)), rng.uniform(0, np.pi, (1500, 1, 1))
    knot = np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 3.5)
    across = (rows - 5.5) * np.sin(lean) + (columns - 5.5) * np.cos(lean)
    thread = np.exp(-((across - place[0] + 5.5) ** 2) / 0.5)
    cloud = 0.3 * np.sin(rows / 2.5 + place[1]) + 0.3 * np.cos(columns / 3 + place[0])
    x = cloud + thread + 1.5 * knot * y[:, None, None] + rng.normal(0, 0.2, (1500, 12, 12))
    return x[:, None], y


SEEN_9_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "wheat": ("seen_9", "table", "classes", _wheat),
    "hearts": ("seen_9", "table", "classes", _hearts),
    "crops_22": ("seen_9", "table", "classes", _crops),
    "transistors": ("seen_9", "table", "classes", _transistors),
    "speakers_100": ("seen_9", "table", "classes", _speakers),
    "laptops": ("seen_9", "table", "numbers", _laptops),
    "turbines": ("seen_9", "table", "numbers", _turbines),
    "beams": ("seen_9", "table", "numbers", _beams),
    "premiums": ("seen_9", "table", "numbers", _premiums),
    "bloods": ("seen_9", "table", "labels", _bloods),
    "dances": ("seen_9", "series", "classes", _dances),
    "tremors": ("seen_9", "series", "classes", _tremors),
    "elevators": ("seen_9", "series", "classes", _elevators),
    "batteries": ("seen_9", "series", "numbers", _batteries),
    "heating": ("seen_9", "series", "numbers", _heating),
    "vibrations": ("seen_9", "series", "labels", _vibrations),
    "cuisines_12": ("seen_9", "tokens", "classes", _cuisines),
    "openings_16": ("seen_9", "tokens", "classes", _openings),
    "dates": ("seen_9", "tokens", "numbers", _dates),
    "logs": ("seen_9", "tokens", "labels", _logs),
    "signs_12": ("seen_9", "image", "classes", _signs),
    "dice": ("seen_9", "image", "classes", _dice),
    "nodules": ("seen_9", "image", "classes", _nodules),
    "arches": ("seen_9", "image", "numbers", _arches),
    "wafers": ("seen_9", "image", "labels", _wafers),
}

"""The data sets of what was the report part of the eighth look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _penguins(rng: Generator) -> Arrays:
    """Three kinds of penguins by beak, flipper, mass and sex, which for one in 30 is not known."""
    y, sex = rng.choice(3, 1300, p=[0.42, 0.23, 0.35]), rng.integers(0, 2, 1300)
    middle = np.array([[38.8, 18.3, 190, 3700], [48.8, 18.4, 196, 3730], [47.5, 15, 217, 5080]])
    large = np.array([0.035, 0.04, 0.015, 0.08]) * (2 * sex[:, None] - 1)
    x = middle[y] * (1 + large) + rng.normal(0, [2.2, 0.8, 5.5, 330], (1300, 4))
    told = np.where(rng.random(1300) < 1 / 30, -1, sex)
    return np.concatenate([x, told[:, None]], 1), y


def _churn(rng: Generator) -> Arrays:
    """Whether a customer leaves, by months, fees in cents, calls and a contract of three kinds."""
    months, calls = rng.integers(1, 73, 1500), rng.poisson(1.6, 1500)
    fee = rng.lognormal(8.2, 0.4, 1500)
    kind, card = rng.integers(0, 3, 1500), rng.integers(0, 2, 1500)
    likely = 0.9 * (calls - 1.6) - 0.07 * (months - 30) + (fee - 3900) / 900 - 1.6 * (kind - 1)
    y = (2.2 * likely + 2 * (calls > 3) * (kind == 0) + rng.logistic(0, 1, 1500) > 0).astype(int)
    coded = np.eye(3)[kind]
    total = months * fee * rng.normal(1, 0.04, 1500)
    x = np.stack([months, fee, total, calls, card, np.full(1500, 49.0)], 1)
    return np.concatenate([x, coded], 1), y


def _perfumes(rng: Generator) -> Arrays:
    """Fifty perfumes, weak or strong, by how far they lower the ohms of eighteen sensors."""
    y = rng.integers(0, 50, 1800)
    smell = rng.lognormal(0, 0.9, (50, 18))
    strength = rng.lognormal(0, 0.3, (1800, 1))
    ohms = rng.uniform(3e3, 5e4, 18) / (1 + strength * smell[y]) ** 0.6
    return ohms * rng.normal(1, 0.03, ohms.shape), y


def _water(rng: Generator) -> Arrays:
    """Whether water is ice, liquid, vapour or beyond both, by kelvins and tenfolds of pascals."""
    warm, push = rng.uniform(200, 900, 1400), rng.uniform(2.5, 8.5, 1400)
    warm = np.where(rng.random(1400) < 0.4, rng.uniform(220, 420, 1400), warm)
    boils = np.log10(101325) - 2124 * (1 / warm - 1 / 373)
    y = np.where(push < boils, 2, np.where(warm < 273, 0, 1))
    y = np.where((warm > 647) & (push > 7.34), 3, y)
    x = np.stack([warm, push, np.full(1400, 18.015), rng.normal(21, 2, 1400)], 1)
    return x, y


def _mortgages(rng: Generator) -> Arrays:
    """What a loan costs in a month, and all its interest, by sum, rate, years and kind of bank."""
    debt, years = rng.lognormal(12.2, 0.4, 1300), rng.integers(8, 36, 1300)
    rate = rng.uniform(0.8, 7.5, 1300)
    part = rate / 1200
    month = debt * part / (1 - (1 + part) ** (-12.0 * years))
    x = np.stack([debt, rate, years, rng.integers(0, 4, 1300), np.full(1300, 12.0)], 1)
    return x, np.stack([month, 12 * years * month - debt], 1)


def _throws(rng: Generator) -> Arrays:
    """How far a thrown ball flies and how high it comes, by speed, degrees, height and mass."""
    speed, degrees = rng.uniform(5, 35, 1200), rng.uniform(5, 80, 1200)
    high, mass = rng.uniform(0, 25, 1200), rng.uniform(150, 700, 1200)
    up = speed * np.sin(np.radians(degrees))
    along = speed * np.cos(np.radians(degrees))
    far = along / 9.81 * (up + np.sqrt(up**2 + 2 * 9.81 * high))
    y = np.stack([far, high + up**2 / 19.62], 1)
    return np.stack([speed, degrees, high, mass], 1), y + rng.normal(0, 0.8, y.shape)


def _comfort(rng: Generator) -> Arrays:
    """How warm it feels, by warmth, damp, wind and sun; one damp in 100 was not read, and is 0."""
    warm, damp = rng.uniform(-8, 42, 1500), rng.uniform(15, 100, 1500)
    wind, sun = rng.weibull(1.8, 1500) * 6, 900 * rng.beta(0.8, 1.2, 1500)
    steam = damp / 100 * 6.105 * np.exp(17.27 * warm / (237.7 + warm))
    felt = warm + 0.348 * steam - 0.7 * wind + 0.7 * sun / (wind + 10) - 4.25
    damp = np.where(rng.random(1500) < 0.01, 0, damp)
    x = np.stack([warm, damp, wind, sun, np.full(1500, 1.5)], 1)
    return x, felt + rng.normal(0, 1, 1500)


def _gates(rng: Generator) -> Arrays:
    """What five logic gates say, by the voltages of their eight wires."""
    bits = rng.random((1500, 8)) < 0.5
    most = bits[:, [0, 2, 6]].sum(1) > 1
    said = [bits[:, 0] & bits[:, 1], bits[:, 2] | bits[:, 3], bits[:, 4] ^ bits[:, 5], most]
    said.append(bits[:, 7] & ~bits[:, 1])
    return 3.3 * bits + rng.normal(0, 0.4, (1500, 8)), np.stack(said, 1).astype(float)


def _gears(rng: Generator) -> Arrays:
    """In which of five gears a car drives, by kilometres an hour and turns a minute."""
    y = rng.integers(0, 5, 1400)
    wander = rng.normal(0, 130, (1400, 16)).cumsum(1)
    turns = np.clip(rng.uniform(1300, 4300, (1400, 1)) + wander, 800, 6000)
    speed = turns / np.array([125.0, 72, 48, 36, 28])[y][:, None]
    turns = turns + rng.normal(0, 60, turns.shape)
    return np.stack([speed + rng.normal(0, 1, speed.shape), turns], 2), y


def _passages(rng: Generator) -> Arrays:
    """Whether someone goes in, goes out or turns round at the door, by two barriers of light."""
    y, time = rng.integers(0, 3, 1300), np.arange(18)
    start, later = rng.uniform(2, 7, (1300, 1)), rng.uniform(3, 7, (1300, 1))
    early = np.exp(-((time - start) ** 2) / 1.5)
    late = np.exp(-((time - start - later) ** 2) / 1.5)
    first = np.where(y[:, None] == 1, late, early) + np.where(y[:, None] == 2, late, 0)
    second = np.where(y[:, None] == 0, late, np.where(y[:, None] == 1, early, 0))
    x = 1 - np.stack([first, second], 2)
    return 5 * x + rng.normal(0, 0.5, x.shape), y


def _sleep(rng: Generator) -> Arrays:
    """Five states of sleep by the waves of the brain and the moves of an eye, in microvolts."""
    y, time = rng.integers(0, 5, 1500), np.arange(32)
    period = np.array([4.0, 8, 3, 16, 6])[y] * rng.uniform(0.93, 1.07, 1500)
    turn = rng.uniform(0, 2 * np.pi, (1500, 1))
    height = np.array([35.0, 25, 30, 70, 8])[y] * rng.uniform(0.8, 1.2, 1500)
    wave = height[:, None] * np.sin(2 * np.pi * time / period[:, None] + turn)
    burst = np.exp(-((time - rng.uniform(8, 24, (1500, 1))) ** 2) / 40)
    wave = wave * np.where(y[:, None] == 2, burst, 1)
    rolls = 30 * np.sin(2 * np.pi * time / 28 + rng.uniform(0, 6.3, (1500, 1)))
    side = rng.choice([-1, 1], (1500, 1))
    jerks = 40 * side * np.sign(np.sin(2 * np.pi * time / 11 + 2 * turn))
    eye = np.where(y[:, None] == 1, rolls, np.where(y[:, None] == 4, jerks, 0))
    eye = eye + np.where(y == 0, 25, 6)[:, None] * rng.normal(size=eye.shape)
    return np.stack([wave + rng.normal(0, 8, wave.shape), eye], 2), y


def _ascents(rng: Generator) -> Arrays:
    """How many metres a walk climbs in all, by its height and how steep it is, place by place."""
    steep = rng.normal(0, 1, (1300, 24))
    for place in range(1, 24):
        steep[:, place] = 0.8 * steep[:, place - 1] + 0.6 * steep[:, place]
    steep = 22 * (steep + rng.normal(0, 0.5, (1300, 1)))
    height = rng.uniform(100, 300, (1300, 1)) + steep.cumsum(1)
    shown = steep / 3 + rng.normal(0, 1, steep.shape)
    return np.stack([height, shown], 2), np.maximum(steep, 0).sum(1)


def _stuck(rng: Generator) -> Arrays:
    """Which of four gauges at one boiler are stuck, so that they show one value all the time."""
    on, time = rng.random((1400, 4)) < 0.4, np.arange(18)
    pace, turn = rng.uniform(0.25, 0.7, (1400, 1)), rng.uniform(0, 6.3, (1400, 1))
    true = np.sin(pace * time + turn)[:, :, None] + rng.normal(0, 0.3, (1400, 1, 1))
    x = true + rng.normal(0, 0.25, (1400, 18, 4))
    held = x[:, :1] + rng.normal(0, 0.03, x.shape)
    x = np.where(on[:, None, :], held, x)
    return 80 + np.array([2.0, 5, 5, 12]) * x, on.astype(float)


def _radar(rng: Generator) -> Arrays:
    """Where a plane will be three sweeps later, by fourteen of them in kilometres, some wild."""
    way, bend = rng.uniform(0, 6.3, (1400, 1)), rng.normal(0, 0.06, (1400, 1))
    step = rng.uniform(1.5, 4, (1400, 1))
    turned = way + bend * np.arange(17)
    path = np.stack([step * np.cos(turned), step * np.sin(turned)], 2).cumsum(1)
    path = path + rng.normal(0, 8, (1400, 1, 2))
    seen = path[:, :14] + rng.normal(0, 0.5, (1400, 14, 2))
    wild = rng.random((1400, 14, 1)) < 0.02
    return np.where(wild, seen + rng.normal(0, 8, seen.shape), seen), path[:, 16]


def _bowling(rng: Generator) -> Arrays:
    """What fourteen balls score; where all ten pins fall, the next two balls count once more."""
    x = rng.choice(11, (1500, 14), p=[0.08] * 9 + [0.06, 0.22])
    after = np.zeros((1500, 16))
    after[:, :14] = x
    return x, x.sum(1) + ((x == 10) * (after[:, 1:15] + after[:, 2:])).sum(1)


def _dialects(rng: Generator) -> Arrays:
    """In which of six dialects one speaks, by which of four forms is used of each of 14 words."""
    chance = rng.dirichlet(np.full(4, 0.35), (6, 12)).cumsum(2)
    y, word = rng.integers(0, 6, 1500), rng.integers(0, 12, (1500, 14))
    form = (rng.random((1500, 14, 1)) > chance[y[:, None], word]).sum(2).clip(0, 3)
    return 4 * word + form, y


def _addresses(rng: Generator) -> Arrays:
    """To which of thirty towns a letter goes, by a street, a number and a code of three digits."""
    y = rng.integers(0, 30, 1700)
    codes = np.stack([rng.integers(0, 10, 30), np.arange(30) % 10, np.arange(30) // 3], 1)
    digits = np.where(rng.random((1700, 3)) < 0.04, rng.integers(0, 10, (1700, 3)), codes[y])
    favoured = rng.integers(10, 55, (30, 6))
    street = favoured[y, rng.integers(0, 6, 1700)]
    street = np.where(rng.random(1700) < 0.25, rng.integers(10, 55, 1700), street)
    ending, number = rng.integers(55, 60, 1700), rng.integers(0, 10, (1700, 2))
    return np.concatenate([street[:, None], ending[:, None], number, digits], 1), y


def _interactions(rng: Generator) -> Arrays:
    """Which of four pairs of kinds of medicine are taken together, of up to eight medicines."""
    kind = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, *[4] * 6])
    x, there = rng.integers(0, 18, (1600, 8)), np.arange(8) < rng.integers(4, 9, (1600, 1))
    has = ((kind[x][:, :, None] == np.arange(4)) & there[:, :, None]).any(1)
    return np.where(there, x + 1, 0), (has & np.roll(has, 1, 1)).astype(float)


def _tickets(rng: Generator) -> Arrays:
    """How urgent a request is, in four degrees, by who asks and by thirteen words that weigh."""
    weight, asks = rng.normal(0, 1, 30), rng.integers(0, 4, 1500)
    weight[rng.permutation(30)[:15]] *= 0.1
    words = rng.integers(0, 30, (1500, 13))
    total = weight[words].sum(1) + np.array([-2.5, -0.5, 0.5, 2.5])[asks]
    y = np.digitize(total, np.quantile(total, [0.3, 0.6, 0.85]))
    return np.concatenate([30 + asks[:, None], words], 1), y


def _phases(rng: Generator) -> Arrays:
    """Eight phases of the moon, whose dark side shines faintly and which is not quite centred."""
    y = rng.integers(0, 8, 1500)
    rows, columns = np.mgrid[-5.5:5.5:12j, -5.5:5.5:12j]
    size, middle = rng.uniform(4, 5, (1500, 1, 1)), rng.normal(0, 0.4, (2, 1500, 1, 1))
    high, wide = (rows - middle[0]) / size, (columns - middle[1]) / size
    out = high**2 + wide**2
    deep, angle = np.sqrt(np.maximum(1 - out, 0)), (np.pi * y / 4)[:, None, None]
    light = 1 / (1 + np.exp(-8 * (wide * np.sin(angle) - deep * np.cos(angle))))
    x = (0.15 + 0.85 * light) / (1 + np.exp(12 * (np.sqrt(out) - 1)))
    return (x + rng.normal(0, 0.12, x.shape))[:, None], y


def _weaves(rng: Generator) -> Arrays:
    """Five weaves of cloth, from any thread on: plain, baskets, twill either way, and ribs."""
    y = rng.integers(0, 5, 1500)
    rows, columns = np.mgrid[0:10, 0:10]
    start = rng.integers(0, 4, (2, 1500, 1, 1))
    high, wide = rows + start[0], columns + start[1]
    kinds = [(high + wide) % 2, (high // 2 + wide // 2) % 2, (high + wide) % 4 // 2]
    kinds += [(high - wide) % 4 // 2, wide % 2 + 0 * high]
    x = np.stack(kinds)[y, np.arange(1500)] * rng.uniform(0.8, 1.3, (1500, 1, 1))
    return (x + rng.normal(0, 0.2, x.shape))[:, None], y


def _flags(rng: Generator) -> Arrays:
    """Ten flags of stripes, crosses, discs and wedges, which wave in the wind."""
    rows, columns = np.mgrid[-4:5, -6:6]
    across, down = abs(rows) < 2, abs(columns) < 2
    slanted = abs(abs(rows) - 0.66 * abs(columns + 0.5)) < 1
    wedge = columns + 6 < 1.3 * (5 - abs(rows))
    corner, nordic = (rows < 0) & (columns < -1), abs(columns + 3) < 1.5
    designs = [across, down, across | down, slanted, np.hypot(rows, columns + 0.5) < 3, wedge]
    designs += [corner, rows < 0, columns < 0, across | nordic]
    y, turn = rng.integers(0, 10, 1600), rng.uniform(0, 6.3, (1600, 1, 1))
    wind = 1 + 0.25 * np.sin(columns * rng.uniform(0.4, 0.9, (1600, 1, 1)) + turn)
    x = (0.2 + 0.8 * np.stack(designs)[y]) * wind + rng.normal(0, 0.2, (1600, 9, 12))
    return x[:, None], y


def _charts(rng: Generator) -> Arrays:
    """How high the four bars of a chart are, on paper of any grey."""
    y = rng.uniform(0.5, 10, (1400, 4))
    grey, ink = rng.uniform(0.6, 1, (1400, 1, 1)), rng.uniform(0, 0.2, (1400, 1, 1))
    height = np.arange(11, -1, -1)[None, :, None]
    cover = np.clip(np.repeat(y, 3, 1)[:, None, :] - height + 0.5, 0, 1)
    cover = cover * np.tile([1.0, 1.0, 0.0], 4)
    x = grey * (1 - cover) + ink * cover
    return (x + rng.normal(0, 0.06, x.shape))[:, None], y


def _scenes(rng: Generator) -> Arrays:
    """What a sketch shows: the sun, a mountain, rain, a fence."""
    on = rng.random((1500, 4)) < 0.5
    rows, columns = np.mgrid[0:12, 0:12]
    place, turn = rng.uniform(2.5, 8.5, (2, 1500, 1, 1)), rng.integers(0, 4, (1500, 1, 1))
    sun = 1.2 * (np.hypot(rows - 2.5, columns - place[0]) < 2)
    hill = -1.0 * (rows - 4 > 1.1 * abs(columns - place[1]))
    rain = 0.8 * ((rows + 2 * columns + turn) % 4 == 0)
    fence = 1.0 * ((rows > 8) & ((columns + turn) % 2 == 0)) + 0.5 * (rows == 9)
    parts = zip((sun, hill, rain, fence), on.T, strict=True)
    x = sum(part * own[:, None, None] for part, own in parts)
    return (x + rng.normal(0, 0.15, (1500, 12, 12)))[:, None], on.astype(float)


SEEN_8_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "penguins": ("seen_8", "table", "classes", _penguins),
    "churn": ("seen_8", "table", "classes", _churn),
    "perfumes_50": ("seen_8", "table", "classes", _perfumes),
    "water": ("seen_8", "table", "classes", _water),
    "mortgages": ("seen_8", "table", "numbers", _mortgages),
    "throws": ("seen_8", "table", "numbers", _throws),
    "comfort": ("seen_8", "table", "numbers", _comfort),
    "gates": ("seen_8", "table", "labels", _gates),
    "gears": ("seen_8", "series", "classes", _gears),
    "passages": ("seen_8", "series", "classes", _passages),
    "sleep": ("seen_8", "series", "classes", _sleep),
    "ascents": ("seen_8", "series", "numbers", _ascents),
    "radar": ("seen_8", "series", "numbers", _radar),
    "stuck": ("seen_8", "series", "labels", _stuck),
    "dialects": ("seen_8", "tokens", "classes", _dialects),
    "addresses_30": ("seen_8", "tokens", "classes", _addresses),
    "tickets": ("seen_8", "tokens", "classes", _tickets),
    "bowling": ("seen_8", "tokens", "numbers", _bowling),
    "interactions": ("seen_8", "tokens", "labels", _interactions),
    "phases": ("seen_8", "image", "classes", _phases),
    "weaves": ("seen_8", "image", "classes", _weaves),
    "flags_10": ("seen_8", "image", "classes", _flags),
    "charts": ("seen_8", "image", "numbers", _charts),
    "scenes": ("seen_8", "image", "labels", _scenes),
}

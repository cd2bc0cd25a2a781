"""The data sets of the report part: other kinds than those that the rules were made on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _cheeses(rng: Generator) -> Arrays:
    """Nine kinds of cheese by water, fat, salt, acid, days on the shelf, and grams of the wheel."""
    y = rng.integers(0, 9, 1500)
    water = np.array([36, 42, 52, 55, 79, 41, 30, 46, 60])[y] + rng.normal(0, 1.8, 1500)
    fat = np.array([33, 28, 26, 22, 5, 31, 29, 24, 20])[y] + rng.normal(0, 1.8, 1500)
    salt = np.array([1.8, 2.2, 1.6, 3.4, 0.9, 0.8, 1.7, 3.9, 0.7])[y] * rng.lognormal(0, 0.15, 1500)
    acid = np.array([5.2, 5.4, 6.9, 4.6, 4.7, 5.6, 5.4, 6.2, 5.2])[y] + rng.normal(0, 0.12, 1500)
    days = np.array([270, 45, 30, 60, 2, 120, 600, 90, 4])[y] * rng.lognormal(0, 0.4, 1500)
    wheel = np.exp(rng.normal(7, 1, 1500))
    return np.stack([water, fat, salt, acid, days, wheel, np.full(1500, 4.0)], 1), y


def _leaks(rng: Generator) -> Arrays:
    """Whether a pipe leaks, by pascals lost and expected, litres per second, metres, and age."""
    long, wide = rng.uniform(300, 1500, 1500), rng.choice([0.08, 0.1, 0.15, 0.2], 1500)
    flow = wide**2.5 * rng.uniform(400, 1100, 1500)
    expected = 16.2 * long * (flow / 1000) ** 2 / wide**5
    y = (rng.random(1500) < 0.45).astype(int)
    lost = expected * (1 + y * rng.uniform(0.2, 0.8, 1500)) * rng.normal(1, 0.04, 1500)
    x = [rng.normal(6e5, 5e4, 1500), lost, expected, flow, long, wide]
    return np.stack([*x, rng.integers(0, 70, 1500)], 1).astype(float), y


def _parcels(rng: Generator) -> Arrays:
    """Which of four rates a parcel has, by centimetres and grams: girth and weight decide."""
    sides = np.sort(np.exp(rng.normal(3.2, 0.4, (1500, 3))), 1)[:, ::-1]
    girth = sides[:, 0] + 2 * (sides[:, 1] + sides[:, 2])
    grams = 0.2 * sides.prod(1) * rng.lognormal(0, 0.5, 1500)
    y = np.maximum(np.digitize(girth, [95, 135, 180]), np.digitize(grams, [1500, 5000, 14000]))
    x = np.column_stack([sides, grams, rng.random(1500) < 0.2, rng.integers(1, 9, 1500)])
    return x.astype(float), y


def _bacteria(rng: Generator) -> Arrays:
    """Forty-five strains by how dim 24 broths become; two broths feed none."""
    y, eats = rng.integers(0, 45, 1800), rng.random((45, 24)) < 0.5
    eats[:, [5, 17]] = False
    most = rng.uniform(0.7, 1.6, (45, 24))
    grown = np.where(rng.random((1800, 24)) < 0.04, ~eats[y], eats[y])
    dim = 0.04 + grown * most[y] * rng.lognormal(0, 0.15, (1800, 1))
    return dim * rng.lognormal(0, 0.12, dim.shape), y


def _irons(rng: Generator) -> Arrays:
    """Which of five phases iron is in, by degrees and share of carbon, among what does not matter.

    The lines between them bend as those of the diagram of iron and carbon do.
    """
    hot, carbon = rng.uniform(500, 1650, 1600), 5 * rng.beta(1, 1.4, 1600)
    melts = 1540 - 90 * carbon + 8 * (carbon - 4.3).clip(0) * 60
    firm = np.where(carbon < 2.1, 1500 - 165 * carbon, 1148)
    turns = np.where(carbon < 0.8, 912 - 230 * carbon, 727 + 320 * (carbon - 0.8))
    y = np.where(hot > melts, 4, np.where(hot > firm, 3, np.where(hot > turns, 2, 1)))
    y = np.where((hot < 727) & (carbon < 0.8), 0, y)
    x = [hot, carbon, rng.normal(0.4, 0.1, 1600), rng.lognormal(-4, 0.6, 1600)]
    return np.stack([*x, rng.integers(1, 7, 1600)], 1).astype(float), y


def _cyclists(rng: Generator) -> Arrays:
    """How many watts a cyclist needs: metres per second, slope, wind, kilograms and posture."""
    speed, slope = rng.uniform(3, 13, 1500), rng.normal(0.5, 2.5, 1500)
    wind, mass = rng.normal(0, 2.5, 1500), rng.normal(82, 11, 1500)
    low = rng.random(1500) < 0.4
    air = np.where(low, 0.17, 0.26) * (speed + wind) * np.abs(speed + wind)
    watts = speed * (air + mass * 9.81 * (0.005 + slope / 100))
    x = np.stack([speed, slope, wind, mass, low, rng.normal(85, 8, 1500)], 1).astype(float)
    return x, watts + rng.normal(0, 15, 1500)


def _orchards(rng: Generator) -> Arrays:
    """The logarithm of an orchard's kilograms: trees, their years, frost, rain, hives."""
    trees, years = rng.lognormal(4.6, 0.7, 1400), rng.uniform(2, 35, 1400)
    frost, rain = rng.normal(1, 2, 1400), rng.normal(480, 110, 1400)
    hives = rng.poisson(1.5, 1400)
    each = 45 / (1 + np.exp(-(years - 7) / 2)) * np.exp(-0.03 * (years - 20).clip(0))
    each = each / (1 + np.exp(-(frost + 2.2) / 0.6)) * (1 - ((rain - 520) / 500) ** 2).clip(0.2)
    y = trees * each * (0.6 + 0.4 * np.tanh(hives)) * rng.lognormal(0, 0.1, 1400)
    x = np.stack([trees, years, frost, rain, hives, np.full(1400, 1.0)], 1).astype(float)
    return x, np.log1p(y)


def _brakes(rng: Generator) -> Arrays:
    """How many metres a car needs until it stands: km/h, slope, the road's state, tyres, tonnes."""
    speed, slope = rng.uniform(20, 130, 1500) / 3.6, rng.normal(0, 3, 1500)
    state, tread = rng.integers(0, 4, 1500), rng.uniform(1, 8, 1500)
    wet = np.array([0.0, 0.6, 1.0, 0.4])[state]
    grip = np.array([0.85, 0.65, 0.55, 0.3])[state] * (1 - 0.25 * wet * (1 - tread / 8))
    waits = rng.normal(0.9, 0.08, 1500)
    y = waits * speed + speed**2 / (2 * 9.81 * (grip + slope / 100))
    x = np.stack([3.6 * speed, slope, tread, rng.lognormal(0.3, 0.25, 1500)], 1)
    return np.concatenate([x, np.eye(4)[state]], 1), y * rng.normal(1, 0.03, 1500)


def _buffers(rng: Generator) -> Arrays:
    """How acid a mixture is, and how much it conducts: moles of acid, salt and lye; constants."""
    strength = rng.uniform(3.5, 7, 1500)
    acid, salt = np.exp(rng.uniform(-4, -1, (2, 1500)))
    lye = acid * rng.uniform(0, 0.9, 1500) * (rng.random(1500) < 0.6)
    warm = rng.uniform(15, 35, 1500)
    ph = strength + np.log10((salt + lye) / (acid - lye)) + rng.normal(0, 0.05, 1500)
    conducts = 90 * (salt + lye) * (1 + 0.02 * (warm - 25)) * rng.normal(1, 0.03, 1500)
    return np.stack([strength, acid, salt, lye, warm], 1), np.stack([ph, conducts], 1)


def _permits(rng: Generator) -> Arrays:
    """Which of five permits a building needs, by its height, floor, noise, visitors and stores."""
    high, floor = rng.gamma(3, 6, 1500), rng.lognormal(6.5, 0.8, 1500)
    noise, guests = rng.normal(62, 12, 1500), rng.lognormal(4, 1.2, 1500)
    stores, near = rng.exponential(300, 1500), rng.uniform(5, 500, 1500)
    on = [high > 20, floor > 900, noise - 20 * np.log10(near / 50) > 60]
    on += [(guests > 90) | (guests / floor > 0.25), stores > np.where(near < 200, 130, 350)]
    return np.stack([high, floor, noise, guests, stores, near], 1), np.stack(on, 1).astype(float)


def _strokes(rng: Generator) -> Arrays:
    """How one swims, by three accelerations of a wrist: crawl, on the back, breast, butterfly."""
    y, time = rng.integers(0, 4, 1500), np.arange(30)
    turn = 2 * np.pi * time / rng.uniform(9, 15, (1500, 1)) + rng.uniform(0, 6.3, (1500, 1))
    forth = np.stack([np.sin(turn), np.sin(turn), np.sin(turn) ** 3, np.sin(turn)])
    up = np.stack([np.cos(turn), -np.cos(turn), 0.3 * np.sin(2 * turn), np.cos(turn) ** 3])
    side = np.stack([0.3 * np.sin(2 * turn), 0.4 * np.cos(turn), np.cos(turn), np.sin(2 * turn)])
    x = np.stack([part[y, np.arange(1500)] for part in (forth, up, side)], 2)
    x = x * rng.uniform(6, 14, (1500, 1, 1)) + np.array([0, 0, 9.8]) + rng.normal(0, 2, x.shape)
    return x, y


def _quakes(rng: Generator) -> Arrays:
    """What shook the ground: an earthquake, a blast, a train, a step; up and aside."""
    y, time = rng.integers(0, 4, 1500), np.arange(36)
    start, gap = rng.uniform(3, 10, (1500, 1)), rng.uniform(6, 12, (1500, 1))

    def after(when: np.ndarray, fades: float) -> np.ndarray:
        return np.where(time >= when, np.exp(-(time - when).clip(0) / fades), 0)

    first, second = after(start, 5), after(start + gap, 7)
    hum = np.exp(-(((time - start - 10) / 7) ** 2))
    up = np.stack([0.8 * first + 0.5 * second, 1.6 * first, hum, after(start, 1.5)])
    aside = np.stack([0.2 * first + 1.4 * second, 0.4 * first, 0.9 * hum, 0.2 * after(start, 1.5)])
    size = rng.lognormal(1, 0.5, (1500, 1))
    x = np.stack([size * part[y, np.arange(1500)] for part in (up, aside)], 2)
    return np.log(0.1 + x * rng.lognormal(0, 0.35, x.shape)) + rng.normal(0, 0.1, x.shape), y


def _taps(rng: Generator) -> Arrays:
    """What draws water, by litres per minute: a bath, a basin, a shower, a washer, a sprinkler."""
    y, time = rng.integers(0, 5, 1500), np.arange(28)
    start = rng.uniform(1, 6, (1500, 1))
    lasts = np.array([13.0, 3, 9, 18, 18])[y][:, None] * rng.lognormal(0, 0.1, (1500, 1))
    runs = (time >= start) & (time < start + lasts)
    most = np.array([12.0, 5, 8, 9, 10])[y][:, None] * rng.lognormal(0, 0.12, (1500, 1))
    washes = ((time - start) % 6 < 2.5) | (y != 3)[:, None]
    sprays = np.where(y[:, None] == 4, 0.7 + 0.3 * np.sin(1.6 * (time - start)), 1)
    flow = most * runs * washes * sprays
    kettle = 4 * ((time - rng.integers(0, 28, (1500, 1))) // 2 == 0)
    return (flow + kettle + rng.normal(0, 0.5, flow.shape)).clip(0)[:, :, None], y


def _swings(rng: Generator) -> Arrays:
    """How long the rope of a swing is, in metres, by where it is seen in twenty-four moments."""
    long, time = rng.uniform(1.2, 6, 1500), 0.25 * np.arange(24)
    pace = np.sqrt(9.81 / long)[:, None]
    wide, phase = rng.uniform(0.1, 0.5, (1500, 1)), rng.uniform(-0.8, 0.8, (1500, 1))
    angle = wide * np.exp(-0.05 * time) * np.cos(pace * time + phase)
    seen = np.stack([angle, -wide * pace * np.sin(pace * time + phase)], 2)
    return seen + rng.normal(0, 0.03, seen.shape), long


def _foxes(rng: Generator) -> Arrays:
    """How many hares and foxes there will be in three steps, by the twenty before; logarithms."""
    hares, foxes = np.exp(rng.normal(0, 0.5, (2, 1500)))
    births, hunger = rng.uniform(0.5, 0.9, (2, 1500))
    told = []
    for _ in range(23):
        for _ in range(10):
            hares, foxes = (
                hares + 0.05 * hares * (births - foxes),
                foxes + 0.05 * foxes * (hares - hunger),
            )
        told.append(np.stack([hares, foxes], 1))
    seen = np.log(np.stack(told, 1))
    x = seen[:, :20] + rng.normal(0, 0.08, (1500, 20, 2))
    return np.exp(x), seen[:, 22] + rng.normal(0, 0.05, (1500, 2))


def _greenhouses(rng: Generator) -> Arrays:
    """What was used in a greenhouse: a window, water, a lamp, a heater; four measurements."""
    on, time = rng.random((1500, 4)) < 0.4, np.arange(24)
    start = rng.integers(3, 17, (4, 1500, 1))
    since = (time - start).clip(0)
    open_, wet, lit, heated = (1 - np.exp(-since / 2.5)) * on.T[:, :, None]
    cloud = rng.normal(0, 1, (1500, 1))
    warm = 22 - 4 * open_ + 5 * heated + lit + cloud + rng.normal(0, 0.7, wet.shape)
    damp = 65 - 12 * open_ + 15 * wet - 5 * heated + rng.normal(0, 3, wet.shape)
    gas = (
        900 - 350 * open_ - 120 * lit + rng.normal(0, 50, (1500, 1)) + rng.normal(0, 40, wet.shape)
    )
    light = np.exp(3 + 0.3 * cloud + 1.0 * lit + rng.normal(0, 0.2, wet.shape))
    return np.stack([warm, damp, gas, light], 2), on.astype(float)


def _plates(rng: Generator) -> Arrays:
    """Eight countries by the plates of their cars: ten figures and twenty letters, some marks."""
    forms = ["LLDDLLL", "LDDDDDD", "DDDDLLL", "LLLDDDD", "LLDDDLL", "DLLLDDD", "LLLLDDD", "DDLLLLD"]
    is_letter = np.array([[sign == "L" for sign in form] for form in forms])
    y = rng.integers(0, 8, 1600)
    liked = rng.dirichlet(np.full(20, 0.6), 8).cumsum(1)
    letters = 10 + (rng.random((1600, 7, 1)) > liked[y][:, None]).sum(2).clip(0, 19)
    signs = np.where(is_letter[y], letters, rng.integers(0, 10, (1600, 7)))
    signs = np.where(rng.random((1600, 7)) < 0.12, 30, signs)  # not read
    x, slip = np.full((1600, 9), 31), rng.integers(0, 3, 1600)
    np.put_along_axis(x, slip[:, None] + np.arange(7), signs, 1)
    return x, y


def _meters(rng: Generator) -> Arrays:
    """Six meters of verse by sixteen syllables, weak to strong, in words that end or go on."""
    feet = ["+-", "-+", "+--", "--+", "-+-", "++--"]
    y, begin = rng.integers(0, 6, 1600), rng.random(1600) < 0.15
    is_strong = np.array([[sign == "+" for sign in (foot * 9)[:17]] for foot in feet])
    strong = np.where(begin[:, None], is_strong[y, 1:], is_strong[y, :16])
    strong = np.where(rng.random((1600, 16)) < 0.05, ~strong, strong)
    return 4 * strong + 2 * (rng.random((1600, 16)) < 0.4) + rng.integers(0, 2, (1600, 16)), y


def _knitting(rng: Generator) -> Arrays:
    """How many stitches are left after twelve instructions; `twice` does the next one twice."""
    does = np.array([0, 0, 0, 1, 1, 2, -1, -1, -2, 3, -3, 4, -4, 0])  # the last one is `twice`
    x = rng.integers(0, 14, (1500, 12))
    before = np.roll(x, 1, 1)
    before[:, 0] = 0
    return x, 40 + (does[x] * np.where(before == 13, 2, 1)).sum(1) + rng.normal(0, 0.5, 1500)


def _resumes(rng: Generator) -> Arrays:
    """Which of five trades one knows by fourteen words; a `no` takes back the word after it."""
    of = rng.permutation(np.repeat(np.arange(-1, 5), [25, 6, 6, 6, 6, 6]))
    x = 1 + rng.integers(0, 55, (1600, 14))
    has = rng.random((1600, 5)) < 0.4
    trade = of[x - 1]
    unsaid = (trade >= 0) & ~np.take_along_axis(has, trade.clip(0), 1)
    plain = 1 + np.flatnonzero(of == -1)
    x = np.where(unsaid, plain[rng.integers(0, 25, x.shape)], x)
    no = (rng.random(x.shape) < 0.08) & (np.arange(14) < 13)
    x = np.where(no, 0, x)
    taken = np.roll(x == 0, 1, 1)
    told = [((of[(x - 1).clip(0)] == kind) & (x > 0) & ~taken).any(1) for kind in range(5)]
    return x, np.stack(told, 1).astype(float)


def _grid(size: int) -> np.ndarray:
    """Return the rows and columns of a square, counted from its middle."""
    from_middle: np.ndarray = np.mgrid[0:size, 0:size] - (size - 1) / 2
    return from_middle


def _fingers(rng: Generator) -> Arrays:
    """How many fingers a hand shows, none to five, in a lean picture."""
    (rows, columns), y = _grid(14), rng.integers(0, 6, 1500)
    lean, slip = rng.normal(0, 0.12, (1500, 1, 1)), rng.normal(0, 0.5, (2, 1500, 1, 1))
    down, right = rows - slip[0] - 2, columns - slip[1]
    along, aside = down * np.cos(lean) - right * np.sin(lean), right + lean * down
    hand = (np.hypot(along - 1, aside) < 3.4).astype(float)
    ranks = rng.random((1500, 5)).argsort(1).argsort(1)
    for finger, at in enumerate((-5.2, -2.6, -0.2, 2.2, 4.6)):
        is_up = (ranks[:, finger] < y)[:, None, None]
        reach = 4.5 if finger == 0 else 8.2
        bar = np.exp(-((aside - at) ** 2) / 0.9) * (along < 1) * (along > -reach)
        hand = np.maximum(hand, is_up * bar)
    light = rng.uniform(0.6, 1, (1500, 1, 1))
    return (light * hand + rng.normal(0, 0.12, hand.shape))[:, None], y


def _braille(rng: Generator) -> Arrays:
    """Sixteen letters of raised dots, in paper that is not flat, by light from one side."""
    codes = [1, 3, 9, 25, 17, 11, 27, 19, 10, 26, 5, 7, 13, 29, 21, 15]
    (rows, columns), y = np.mgrid[0:12, 0:9], rng.integers(0, 16, 1500)
    slip = rng.uniform(-1.2, 1.2, (2, 1500, 1, 1))
    high = np.zeros((1500, 12, 9))
    for dot in range(6):
        raised = np.array([code >> dot & 1 for code in codes])[y][:, None, None]
        down, right = 2 + 3.5 * (dot % 3), 2.3 + 3.5 * (dot // 3)
        off = (rows - down - slip[0]) ** 2 + (columns - right - slip[1]) ** 2
        high += raised * np.exp(-off / 1.6) * rng.uniform(0.7, 1.1, (1500, 1, 1))
    high += 0.04 * (
        rng.normal(0, 1, (1500, 1, 1)) * rows + rng.normal(0, 1, (1500, 1, 1)) * columns
    )
    lit = high - 0.5 * np.roll(high, 1, 2)
    return (lit + rng.normal(0, 0.08, lit.shape))[:, None], y


def _ships(rng: Generator) -> Arrays:
    """Five ships before the sky: a sailing boat, a tanker, a ferry, a tug, a submarine."""
    (rows, columns), y = _grid(14), rng.integers(0, 5, 1500)
    slip = rng.uniform(-1.5, 1.5, (2, 1500, 1, 1))
    down, right = rows - 2 - slip[0], columns - slip[1]
    right = np.where(rng.random((1500, 1, 1)) < 0.5, right, -right)

    def box(left: float, until: float, top: float, bottom: float) -> np.ndarray:
        return (right > left) & (right < until) & (down > top) & (down < bottom)

    sail = (down > -7) & (down < 0) & (right > -0.5) & (right < 0.5 * (down + 7))
    every = [
        sail | box(-3, 4, 0.5, 2.5),
        box(-6, 6, 0, 2.5) | box(-6, -3.5, -3, 0.5),
        box(-5, 5, 0, 2.5) | box(-4, 4, -2.5, 0.5) | box(-1, 1, -4, -2),
        box(-3, 3, 0, 2.5) | box(-1, 2, -2.5, 0.5) | box(-1, 0.3, -6, -2),
        box(-5, 5, 0.7, 2.5) | box(-1, 1, -1, 1),
    ]
    ship = np.stack(every)[y, np.arange(1500)]
    swell = 0.15 * np.sin(rows * 1.5 + rng.uniform(0, 6, (1500, 1, 1))) * (rows > 3)
    x = 0.8 + swell - rng.uniform(0.4, 0.7, (1500, 1, 1)) * ship
    return (x + rng.normal(0, 0.11, x.shape))[:, None], y


def _trunks(rng: Generator) -> Arrays:
    """How many rings a trunk has, which is not quite round; the middle may lie aside."""
    (rows, columns), rings = _grid(16), rng.uniform(1.5, 5, (1400, 1, 1))
    slip, flat = rng.normal(0, 0.6, (2, 1400, 1, 1)), rng.normal(1, 0.06, (1400, 1, 1))
    far = np.hypot((rows - slip[0]) * flat, (columns - slip[1]) / flat)
    x = 0.5 + 0.4 * np.cos(2 * np.pi * far / 7.5 * rings) * (far < 7.5)
    x = x + 0.05 * rng.normal(0, 1, (1400, 1, 1)) * columns / 8
    return (x + rng.normal(0, 0.06, x.shape))[:, None], rings[:, 0, 0]


def _houses(rng: Generator) -> Arrays:
    """What a house has: a chimney, a balcony, a garage, a tree before it."""
    (rows, columns), on = _grid(14), (rng.random((1600, 4)) < 0.45)
    slip = rng.integers(-1, 2, (2, 1600, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    wall = (down > -1) & (down < 6) & (np.abs(right) < 4)
    roof = (down <= -1) & (np.abs(right) < 1.1 * (down + 6))
    x = 0.5 * wall + 0.8 * roof
    chimney = (np.abs(right - 2) < 1) & (down > -6) & (down < -3)
    balcony = (np.abs(right + 1) < 2.6) & (np.abs(down - 1.5) < 0.8)
    garage = (np.abs(right - 5.2) < 1.6) & (down > 2) & (down < 6)
    crown = np.hypot(right + 4.5, down - 2) < rng.uniform(1.6, 2.6, (1600, 1, 1))
    for kind, (part, tone) in enumerate(
        ((chimney, 0.9), (balcony, 1.0), (garage, 0.8), (crown, 0.25))
    ):
        x = np.where(part & on[:, kind, None, None], tone, x)
    x = x * rng.uniform(0.7, 1.1, (1600, 1, 1))
    return (x + rng.normal(0, 0.1, x.shape))[:, None], on.astype(float)


REPORT_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "cheeses_9": ("report", "table", "classes", _cheeses),
    "leaks": ("report", "table", "classes", _leaks),
    "parcels": ("report", "table", "classes", _parcels),
    "bacteria_45": ("report", "table", "classes", _bacteria),
    "irons_5": ("report", "table", "classes", _irons),
    "cyclists": ("report", "table", "numbers", _cyclists),
    "orchards": ("report", "table", "numbers", _orchards),
    "brakes": ("report", "table", "numbers", _brakes),
    "buffers": ("report", "table", "numbers", _buffers),
    "permits": ("report", "table", "labels", _permits),
    "strokes": ("report", "series", "classes", _strokes),
    "quakes": ("report", "series", "classes", _quakes),
    "taps_5": ("report", "series", "classes", _taps),
    "swings": ("report", "series", "numbers", _swings),
    "foxes": ("report", "series", "numbers", _foxes),
    "greenhouses": ("report", "series", "labels", _greenhouses),
    "plates_8": ("report", "tokens", "classes", _plates),
    "meters_6": ("report", "tokens", "classes", _meters),
    "knitting": ("report", "tokens", "numbers", _knitting),
    "resumes": ("report", "tokens", "labels", _resumes),
    "fingers_6": ("report", "image", "classes", _fingers),
    "braille_16": ("report", "image", "classes", _braille),
    "ships_5": ("report", "image", "classes", _ships),
    "trunks": ("report", "image", "numbers", _trunks),
    "houses": ("report", "image", "labels", _houses),
}

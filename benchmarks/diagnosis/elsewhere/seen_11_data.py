"""The data sets of what was the report part of the eleventh look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _phishing(rng: Generator) -> Arrays:
    """Whether an address is a trap, by length, dots, digits, days of age, and links to it."""
    y = (rng.random(1500) < 0.45).astype(int)
    long, dots = rng.gamma(6, 6 + 3 * y), rng.poisson(1.6 + 1.0 * y)
    digits = rng.poisson(0.8 + 2.5 * y)
    age = rng.lognormal(7.2 - 2.2 * y, 1.1)
    age = np.where(rng.random(1500) < 0.12, -1, age)  # not known
    secure, links = rng.random(1500) < 0.93 - 0.25 * y, rng.lognormal(4.0 - 2.0 * y, 1.5)
    x = [long, dots, digits, age, secure, links, rng.integers(0, 24, 1500)]
    return np.stack(x, 1).astype(float), y


def _fish(rng: Generator) -> Arrays:
    """Seven kinds of fish on a market, by grams, three lengths, height and breadth."""
    y = rng.integers(0, 7, 1400)
    long = rng.lognormal([3.4, 3.0, 3.3, 3.0, 3.8, 2.5, 3.2], 0.22, (1400, 7))[np.arange(1400), y]
    high = np.array([0.40, 0.27, 0.38, 0.32, 0.16, 0.17, 0.27])[y] * rng.normal(1, 0.05, 1400)
    broad = np.array([0.145, 0.15, 0.165, 0.14, 0.105, 0.105, 0.185])[y] * rng.normal(1, 0.06, 1400)
    fork = np.array([1.09, 1.08, 1.08, 1.10, 1.06, 1.07, 1.08])[y] + rng.normal(0, 0.008, 1400)
    tail = np.array([1.24, 1.20, 1.17, 1.25, 1.14, 1.13, 1.12])[y] + rng.normal(0, 0.012, 1400)
    grams = 0.9 * long**3 * high * broad * rng.lognormal(0, 0.08, 1400)
    return np.stack([grams, long, long * fork, long * tail, long * high, long * broad], 1), y


def _bookings(rng: Generator) -> Arrays:
    """Whether a booked room is given back: days ahead, nights, price, and how one pays."""
    ahead, nights = rng.gamma(1.1, 80, 1600), 1 + rng.poisson(2.2, 1600)
    price, before = rng.lognormal(4.6, 0.4, 1600), rng.poisson(0.25, 1600)
    wishes, pays = rng.poisson(0.7, 1600), rng.integers(0, 3, 1600)
    car = rng.random(1600) < 0.12
    doubt = 1.3 * np.log1p(ahead / 30) + 1.6 * np.minimum(before, 3) - 1.3 * wishes - 4 * car
    doubt = doubt + np.array([0.8, -1.2, 2.2])[pays] + 0.012 * (price - 100)
    y = (doubt - 1.3 + rng.logistic(0, 0.4, 1600) > 0).astype(int)
    x = np.stack([ahead, nights, price, before, wishes, car], 1).astype(float)
    return np.concatenate([x, np.eye(3)[pays]], 1), y


def _lenses(rng: Generator) -> Arrays:
    """What a lens shows: smaller or larger, upside down or upright; millimetres and 1/metres."""
    strength = rng.uniform(3, 14, 1500) * np.where(rng.random(1500) < 0.75, 1, -1)
    near = 1000 / np.abs(strength) * np.exp(rng.uniform(-1.1, 1.5, 1500))
    times = 1 / (1 - near * strength / 1000)
    y = np.where(times > 0, np.where(times > 1, 3, 2), np.where(times < -1, 1, 0))
    glass, shown = rng.normal(1.52, 0.02, 1500), near * rng.normal(1, 0.02, 1500)
    return np.stack([strength, shown, glass, rng.uniform(20, 60, 1500)], 1), y


def _pigments(rng: Generator) -> Arrays:
    """Forty pigments by the light they give back at twenty wavelengths; lamps are not alike."""
    y, wave = rng.integers(0, 40, 1700), np.linspace(0, 1, 20)
    edge, steep = rng.uniform(0.1, 0.9, (2, 40, 1)), rng.uniform(8, 25, (2, 40, 1))
    rise = 1 / (1 + np.exp(-steep[0] * (wave - edge[0])))
    peak = rng.uniform(0.2, 0.7, (40, 1)) * np.exp(-((wave - edge[1]) ** 2) * steep[1] * 4)
    kind = 0.1 + rng.uniform(0.3, 0.8, (40, 1)) * rise + peak
    lamp = rng.lognormal(0, 0.12, (1700, 1)) * (1 + rng.normal(0, 0.08, (1700, 1)) * (wave - 0.5))
    return 4095 * kind[y] * lamp * rng.normal(1, 0.035, (1700, 20)), y


def _airfoils(rng: Generator) -> Arrays:
    """How loud the wind is at a wing, in decibels: hertz, degrees, metres, metres/s, thickness."""
    tone, lean = rng.choice(200 * 2 ** (np.arange(21) / 3), 1400), rng.uniform(0, 20, 1400)
    chord = rng.choice([0.025, 0.05, 0.1, 0.15, 0.23, 0.3], 1400)
    speed = rng.choice([31.7, 39.6, 55.5, 71.3], 1400)
    thick = 0.002 * np.exp(0.13 * lean) * chord / 0.1 * rng.lognormal(0, 0.2, 1400)
    peak = np.log2(0.03 * speed / np.sqrt(thick * chord) / 2e-3 / 20)
    off = np.log2(tone / 1000) - 0.5 * peak + 1
    y = 126 + 22 * np.log10(speed / 50) - 1.1 * np.where(off > 0, off**2, 0.5 * off**2)
    x = np.stack([tone, lean, chord, speed, thick], 1)
    return x, y + 4 * np.log10(chord / 0.1) + rng.normal(0, 0.9, 1400)


def _power_plants(rng: Generator) -> Arrays:
    """What a gas turbine and its steam give in megawatts, by the air and the condenser."""
    warm = rng.uniform(2, 36, 1400)
    vacuum = 34 + 1.1 * warm + rng.normal(0, 6, 1400)
    pressure = 1013 + rng.normal(0, 6, 1400) - 0.25 * (warm - 19)
    damp = (95 - 1.1 * warm + rng.normal(0, 12, 1400)).clip(25, 100)
    y = 497 - 1.75 * warm - 0.24 * (vacuum - 40) + 0.06 * (pressure - 1013) - 0.15 * (damp - 70)
    y = y + 6 * np.tanh((12 - warm) / 5) + rng.normal(0, 3.5, 1400)
    return np.stack([warm, vacuum, pressure, damp], 1), y


def _marathons(rng: Generator) -> Arrays:
    """How many minutes a marathon takes, by age, sex, training, warmth, hills and a shorter run."""
    age, woman = rng.uniform(18, 70, 1500), rng.random(1500) < 0.4
    week, talent = rng.gamma(4, 12, 1500), rng.normal(0, 0.09, 1500)
    hot, climbs = rng.normal(14, 6, 1500), rng.gamma(1.5, 120, 1500)
    fit = np.exp(talent + 0.00025 * (age - 30) ** 2 + 0.1 * woman - 0.08 * np.log(week + 8))
    ten = 62 * fit * rng.normal(1, 0.02, 1500)
    y = (
        62 * 4.66 * fit
        + 14 * np.maximum(0, 1 - week / 40)
        + 0.9 * np.maximum(hot - 12, 0)
        + 0.025 * climbs
    )
    x = [age, woman, week, hot, climbs, np.where(rng.random(1500) < 0.08, 0, ten)]
    return np.stack(x, 1).astype(float), y * rng.normal(1, 0.015, 1500)


def _collisions(rng: Generator) -> Arrays:
    """How fast two bodies are after they met, by masses, speeds and how springy they are."""
    one, other = np.exp(rng.uniform(-1, 1.5, (2, 1400)))
    fast, slow = rng.uniform(1, 8, 1400), rng.uniform(-6, 1, 1400)
    springy = rng.uniform(0, 1, 1400)
    pushed = (1 + springy) * (fast - slow) / (one + other)
    y = np.stack([fast - pushed * other, slow + pushed * one], 1)
    x = np.stack([1000 * one, 1000 * other, fast, slow, springy, rng.random(1400)], 1)
    return x, y + rng.normal(0, 0.12, y.shape)


def _dashboards(rng: Generator) -> Arrays:
    """Which lamps of a dashboard are lit: of oil, battery, heat, tyres, fuel."""
    turns, speed = rng.uniform(700, 5500, 1500), rng.uniform(0, 150, 1500)
    oil = 0.6 + 0.0007 * turns + rng.normal(0, 1, 1500)
    volts = np.where(turns > 1200, 13.9, 12.7) - rng.gamma(1, 0.9, 1500)
    heat, tyres = rng.normal(98, 14, 1500), rng.normal(2.3, 0.25, (4, 1500))
    fuel, burns = rng.uniform(0, 60, 1500), rng.uniform(5, 12, 1500)
    on = [oil < 0.9 + 0.0005 * turns, volts < np.where(turns > 1200, 13.1, 11.9)]
    on += [heat > 106 - 0.06 * speed, tyres.mean(0) < 2.2, 100 * fuel / burns < 180]
    shown = np.stack([turns, speed, oil, volts, heat, *tyres, fuel, burns], 1)
    return shown * rng.normal(1, 0.005, (1500, 11)), np.stack(on, 1).astype(float)


def _calls(rng: Generator) -> Arrays:
    """Six calls of birds as pitch and loudness: up, down, a trill, two notes, steps, a bow."""
    y, along = rng.integers(0, 6, 1500), np.linspace(0, 1, 28)
    trill = np.sin(2 * np.pi * rng.uniform(4, 6, (1500, 1)) * along + rng.uniform(0, 6, (1500, 1)))
    two, steps = np.where(along < 0.5, 0.8, -0.8), np.floor(4 * along) / 2 - 0.75
    fixed = [2 * along - 1, 1 - 2 * along, two, steps, 1 - 8 * (along - 0.5) ** 2]
    every = [np.tile(each, (1500, 1)) for each in fixed]
    pitch = np.stack([*every[:2], trill, *every[2:]])[y, np.arange(1500)]
    high = rng.uniform(2500, 5200, (1500, 1)) * np.exp(rng.uniform(0.1, 0.3, (1500, 1)) * pitch)
    loud = 55 + 6 * np.sin(np.pi * along) - 12 * (np.abs(along - 0.5) < 0.06) * (y[:, None] == 3)
    loud = loud + rng.normal(0, 4, (1500, 1)) + rng.normal(0, 2, (1500, 28))
    return np.stack([high * rng.normal(1, 0.035, high.shape), loud], 2), y


def _typists(rng: Generator) -> Arrays:
    """Ten people who type one phrase of sixteen keys: milliseconds down, and until the next."""
    y = rng.integers(0, 10, 1500)
    held, apart = rng.normal(0, 0.16, (10, 16)), rng.normal(0, 0.32, (10, 16))
    pace = rng.normal(0, 0.15, (1500, 1))
    down = np.exp(4.5 + held[y] + 0.5 * pace + rng.normal(0, 0.2, (1500, 16)))
    free = np.exp(4.9 + apart[y] + pace + rng.normal(0, 0.4, (1500, 16)))
    return np.stack([down, free + 600 * (rng.random(free.shape) < 0.03)], 2), y


def _welds(rng: Generator) -> Arrays:
    """Four seams by amperes and volts of the arc: sound, a pore, too near, and an edge missed."""
    y, time = rng.integers(0, 4, 1400), np.arange(32)
    start = rng.integers(4, 24, (1400, 1))
    hump = np.exp(-(((time - start) / 2.5) ** 2))
    sway = np.sin(2 * np.pi * time / rng.uniform(7, 9, (1400, 1)) + rng.uniform(0, 6, (1400, 1)))
    is_pore, is_near, is_off = ((y == kind)[:, None] for kind in (1, 2, 3))
    amps = 180 + 6 * sway - 45 * hump * is_pore + 20 * is_near * (time > start)
    volts = 24 + 0.4 * sway + 4 * hump * is_pore - 2.2 * is_near * (time > start)
    volts = volts + 1.6 * is_off * sway
    amps = amps - 14 * is_off * sway + rng.normal(0, 6, (1400, 1))
    noise = rng.normal(size=(2, 1400, 32)) * np.array([7, 0.7])[:, None, None]
    return np.stack([amps + noise[0], volts + noise[1]], 2), y


def _glucose(rng: Generator) -> Arrays:
    """How much sugar the blood will hold in half an hour, by meals, shots and what it held."""
    meals = 60.0 * (rng.random((1400, 24)) < 0.07) * rng.uniform(0.4, 1.4, (1400, 24))
    shots = 6.0 * (rng.random((1400, 24)) < 0.06) * rng.uniform(0.4, 1.4, (1400, 24))
    sugar, gut, drug = rng.normal(140, 35, 1400), np.zeros(1400), np.zeros(1400)
    held = []
    for step in range(30):
        if step < 24:
            gut, drug = gut + meals[:, step], drug + shots[:, step]
        sugar = sugar + 0.099 * gut - 0.675 * drug - 0.03 * (sugar - 120)
        gut, drug = 0.82 * gut, 0.85 * drug
        held.append(sugar)
    shown = np.stack(held[:24], 1) + rng.normal(0, 4, (1400, 24))
    return np.stack([shown, meals, shots], 2), held[-1] + rng.normal(0, 3, 1400)


def _jams(rng: Generator) -> Arrays:
    """How fast cars go at the last of four places in the next two steps; a jam comes upstream."""
    time, meets = np.arange(20), rng.uniform(6, 26, (1400, 1))
    pace, wide = rng.uniform(1.5, 4, (1400, 1)), rng.uniform(1, 2.5, (1400, 1))
    free, slow = rng.uniform(85, 120, (1400, 1)), rng.uniform(15, 55, (1400, 1))

    def speed(at: int, when: np.ndarray) -> np.ndarray:
        shock = (when - meets + pace * (3 - at)) / wide
        return free - (free - slow) / (1 + np.exp(-shock))

    x = np.stack([speed(at, time) for at in range(4)], 2)
    y = speed(0, np.array([21, 24])) + rng.normal(0, 2, (1400, 2))
    return x[:, :, ::-1] + rng.normal(0, 4, x.shape), y


def _monitors(rng: Generator) -> Arrays:
    """What a monitor at a bed saw: no breath, little oxygen, a fast pulse, a loose clip."""
    on, time = rng.random((1500, 4)) < 0.4, np.arange(30)
    start = rng.uniform(3, 22, (4, 1500, 1))
    lasts = np.array([6, 8, 7, 3])[:, None, None]
    stays = 1 / (1 + np.exp(-3 * (time - start))) / (1 + np.exp(3 * (time - start - lasts)))
    still, low, fast, loose = stays * on.T[:, :, None] * rng.uniform(0.8, 1.2, (4, 1500, 1))
    breath = rng.uniform(13, 18, (1500, 1)) * (1 - 0.8 * still) + rng.normal(0, 1.6, still.shape)
    oxygen = 97 - 7 * low - 2 * still - 25 * loose + rng.normal(0, 1.2, still.shape)
    pulse = rng.normal(75, 6, (1500, 1)) + 32 * fast + 5 * low - 50 * loose
    pulse = pulse + rng.normal(0, 4, still.shape)
    return np.stack([breath, oxygen, pulse], 2), on.astype(float)


def _proteins(rng: Generator) -> Arrays:
    """Ten families of proteins by eighteen amino acids: some places are kept, all may slip."""
    y, kept = rng.integers(0, 10, 1600), rng.integers(0, 20, (10, 16))
    firm = rng.random((10, 16)) < 0.6
    mutated = rng.random((1600, 16)) > np.where(firm[y], 0.85, 0.25)
    told = np.where(mutated, rng.integers(0, 20, (1600, 16)), kept[y])
    x, slip = rng.integers(0, 20, (1600, 18)), rng.integers(0, 3, 1600)
    np.put_along_axis(x, slip[:, None] + np.arange(16), told, 1)
    return x, y


def _hours(rng: Generator) -> Arrays:
    """Which of twelve hours is nearest, as people say it: `ten to eight`, or `eight and forty`."""
    hour, way, minute = (rng.integers(0, count, 1600) for count in (12, 4, 5))
    # `eight and forty` is nearer to nine
    y = (hour + ((way == 2) & (minute >= 2))) % 12
    x = rng.integers(24, 34, (1600, 7))
    at = rng.integers(0, 4, (1600, 1)) + np.arange(4)
    words = np.stack([12 + minute, 18 + way, hour, 22 + (hour > 5)], 1)
    np.put_along_axis(x, at, words, 1)
    return x, y


def _scrabble(rng: Generator) -> Arrays:
    """What a word of up to nine letters scores; a sign before a letter counts it twice."""
    worth = np.array([int(each, 16) for each in "1332142418513113A11114484A"])
    often = 1 / (worth + 1.0)
    x = rng.choice(26, (1500, 10), p=often / often.sum())
    at, has = rng.integers(0, 9, 1500), rng.random(1500) < 0.7
    x[has, at[has]] = 26
    values = np.append(worth, [0, 0])
    long = rng.integers(5, 11, (1500, 1))
    x = np.where(np.arange(10) < long, x, 27)
    twice = np.where(x[:, :-1] == 26, values[x[:, 1:]], 0)
    return x, values[x].sum(1) + twice.sum(1) + 0.0


def _mails(rng: Generator) -> Arrays:
    """What a mail is: a question, urgent or a file by one word, a bill or a meeting by two."""
    x, on = rng.integers(12, 24, (1600, 12)), rng.random((1600, 5)) < 0.4
    places = rng.random((1600, 6)).argsort(1)[:, :5] * 2
    for kind in range(5):
        where = np.flatnonzero(on[:, kind])
        at = places[where, kind]
        x[where, at] = 2 * kind + rng.integers(0, 2, len(where))
        if kind in (1, 2):
            x[where, at], x[where, at + 1] = 2 * kind, 2 * kind + 1
    lone, other = rng.random(1600) < 0.3, rng.integers(1, 3, 1600)
    spare = lone & ~on[np.arange(1600), other]
    x[spare, places[spare, other[spare]]] = 2 * other[spare]
    return x, on.astype(float)


def _grid(count: int) -> tuple[np.ndarray, np.ndarray]:
    middle = (count - 1) / 2
    rows, columns = np.mgrid[0:count, 0:count]
    return rows - middle, columns - middle


def _lights(rng: Generator) -> Arrays:
    """What a traffic light shows: stop, ready, slow, go, or nothing; by day and by night."""
    y, (rows, columns) = rng.integers(0, 5, 1500), _grid(12)
    slip = rng.normal(0, 0.6, (2, 1500, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    shows = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])[y]
    case = (np.abs(right) < 2) & (np.abs(down) < 5.2)
    x = np.where(case, 0.15, rng.uniform(0, 0.8, (1500, 1, 1)))
    for lamp, place in enumerate((-3.4, 0.0, 3.4)):
        glow = np.exp(-((down - place) ** 2 + right**2) / 1.6)
        x = x + rng.uniform(0.5, 0.9, (1500, 1, 1)) * glow * (0.12 + shows[:, lamp, None, None])
    return (x + rng.normal(0, 0.07, x.shape))[:, None], y


def _prints(rng: Generator) -> Arrays:
    """Four prints of a finger by their ridges: an arch, a loop to the left or right, a whorl."""
    y, (rows, columns) = rng.integers(0, 4, 1600), _grid(14)
    slip = rng.normal(0, 0.5, (2, 1600, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    bow = down + rng.uniform(0.8, 1.2, (1600, 1, 1)) * 4 * np.exp(-(right**2) / 12)
    side = np.where(y == 1, 1.0, -1.0)[:, None, None]
    lean = 0.75 * right * side + 0.66 * down
    loop = np.where(lean > 0, np.abs(0.66 * right * side - 0.75 * down), np.hypot(right, down))
    whorl = np.hypot(right, 0.85 * down)
    every = np.stack([bow, loop, loop, whorl])[y, np.arange(1600)]
    turn = rng.uniform(-0.5, 0.5, (1600, 1, 1))
    ridges = np.cos(2 * np.pi * every / rng.uniform(3.4, 4.2, (1600, 1, 1)) + turn)
    return (120 + 60 * ridges + rng.normal(0, 25, ridges.shape)).clip(0, 255)[:, None] / 255, y


def _fruits(rng: Generator) -> Arrays:
    """Six fruits in the light of a lamp: an apple, a pear, a banana, cherries, a lemon, grapes."""
    y, (rows, columns) = rng.integers(0, 6, 1600), _grid(12)
    lean, size = rng.normal(0, 0.25, (1600, 1, 1)), rng.uniform(0.85, 1.15, (1600, 1, 1))
    slip = rng.normal(0, 0.5, (2, 1600, 1, 1))
    down, right = (rows - slip[0]) / size, (columns - slip[1]) / size
    up = down * np.cos(lean) + right * np.sin(lean)
    aside = right * np.cos(lean) - down * np.sin(lean)

    def ball(at: float, beside: float, tall: float, wide: float) -> np.ndarray:
        far = ((up - at) / tall) ** 2 + ((aside - beside) / wide) ** 2
        return np.asarray(np.sqrt(np.maximum(1 - far, 0)))

    apple = ball(0, 0, 3.8, 4.2)
    pear = np.maximum(ball(1.5, 0, 3, 3.4), ball(-2.2, 0, 2.8, 1.8))
    banana = np.exp(-((up - aside**2 / 9 + 1.2) ** 2) / 1.5 - (aside / 5) ** 6)
    cherries = np.maximum(ball(2, -2.5, 2.2, 2.2), ball(2, 2.5, 2.2, 2.2))
    lemon = ball(0, 0, 2.4, 4.8)
    grapes = np.max([ball(a, b, 1.6, 1.6) for a, b in ((-3, -2), (-3, 2), (0, 0), (3, 0))], 0)
    every = np.stack([apple, pear, banana, cherries, lemon, grapes])
    x = every[y, np.arange(1600)] * (1 + rng.normal(0, 0.05, (1600, 1, 1)) * rows)
    x = x * rng.uniform(0.6, 1, (1600, 1, 1))
    return (x + rng.normal(0, 0.13, x.shape))[:, None], y


def _gauges(rng: Generator) -> Arrays:
    """What the needle of a gauge shows, over a scale of seven marks, behind glass that shines."""
    (rows, columns), shown = _grid(14), rng.uniform(0, 1, (1400, 1, 1))
    slip = rng.normal(0, 0.3, (2, 1400, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    turn = np.pi * (1.2 * shown - 0.6)
    along = right * np.sin(turn) - down * np.cos(turn)
    aside = right * np.cos(turn) + down * np.sin(turn)
    needle = np.exp(-(aside**2) / 0.8) * (along > -1) * (along < 5.5)
    x = 0.9 - 0.75 * needle
    for mark in np.pi * (1.2 * np.linspace(0, 1, 7) - 0.6):
        off = (right - 6 * np.sin(mark)) ** 2 + (down + 6 * np.cos(mark)) ** 2
        x = x - 0.4 * np.exp(-off / 0.5)
    place = rng.uniform(-5, 5, (2, 1400, 1, 1))
    shine = np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 6)
    return (x + 0.4 * shine + rng.normal(0, 0.07, x.shape))[:, None], shown[:, 0, 0]


def _suitcases(rng: Generator) -> Arrays:
    """What a ray shows in a suitcase, one thing over another: a bottle, a knife, a coil, a book."""
    (rows, columns), on = _grid(14), rng.random((1600, 4)) < 0.45
    dark = 0.25 + 0.1 * np.abs(rng.normal(size=(1600, 14, 14)))
    for kind in range(4):
        slip, lean = rng.uniform(-2, 2, (2, 1600, 1, 1)), rng.normal(0, 0.3, (1600, 1, 1))
        down, right = rows - slip[0], columns - slip[1]
        along = right * np.cos(lean) + down * np.sin(lean)
        aside = down * np.cos(lean) - right * np.sin(lean)
        body = (np.abs(along) < 1.6) & (aside > -2) & (aside < 4)
        neck = (np.abs(along) < 0.6) & (aside > -4) & (aside < 0)
        thing = [
            0.7 * (body | neck),
            1.3 * ((np.abs(aside) < 0.6) & (np.abs(along) < 4)),
            0.9 * (np.abs(np.hypot(along, aside) - 2.4) < 0.6),
            0.5 * ((np.abs(along) < 4) & (np.abs(aside) < 3)),
        ][kind]
        dark = dark + thing * rng.uniform(0.8, 1.2, (1600, 1, 1)) * on[:, kind, None, None]
    return np.exp(-dark)[:, None], on.astype(float)


SEEN_11_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "phishing": ("seen_11", "table", "classes", _phishing),
    "fish_7": ("seen_11", "table", "classes", _fish),
    "bookings": ("seen_11", "table", "classes", _bookings),
    "lenses": ("seen_11", "table", "classes", _lenses),
    "pigments_40": ("seen_11", "table", "classes", _pigments),
    "airfoils": ("seen_11", "table", "numbers", _airfoils),
    "power_plants": ("seen_11", "table", "numbers", _power_plants),
    "marathons": ("seen_11", "table", "numbers", _marathons),
    "collisions": ("seen_11", "table", "numbers", _collisions),
    "dashboards": ("seen_11", "table", "labels", _dashboards),
    "calls_6": ("seen_11", "series", "classes", _calls),
    "typists_10": ("seen_11", "series", "classes", _typists),
    "welds": ("seen_11", "series", "classes", _welds),
    "glucose": ("seen_11", "series", "numbers", _glucose),
    "jams": ("seen_11", "series", "numbers", _jams),
    "monitors": ("seen_11", "series", "labels", _monitors),
    "proteins_10": ("seen_11", "tokens", "classes", _proteins),
    "hours_12": ("seen_11", "tokens", "classes", _hours),
    "scrabble": ("seen_11", "tokens", "numbers", _scrabble),
    "mails": ("seen_11", "tokens", "labels", _mails),
    "lights_5": ("seen_11", "image", "classes", _lights),
    "prints": ("seen_11", "image", "classes", _prints),
    "fruits_6": ("seen_11", "image", "classes", _fruits),
    "gauges": ("seen_11", "image", "numbers", _gauges),
    "suitcases": ("seen_11", "image", "labels", _suitcases),
}

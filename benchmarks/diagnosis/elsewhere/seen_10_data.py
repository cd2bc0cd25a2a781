"""The data sets of what was the report part of the tenth look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Arrays = tuple[np.ndarray, np.ndarray]


def _coins(rng: Generator) -> Arrays:
    """Which of eight coins runs through a slot, by millimetres, grams and how it conducts."""
    y = rng.integers(0, 8, 1500)
    across = np.array([16.3, 18.8, 21.3, 19.8, 22.3, 24.3, 23.3, 25.8])[y]
    thick = np.array([1.67, 1.67, 1.67, 1.93, 2.14, 2.38, 2.33, 2.2])[y]
    conducts = np.array([5.9, 5.9, 6.0, 9.6, 9.5, 9.7, 3.2, 3.0])[y]
    across, thick = across + rng.normal(0, 0.35, 1500), thick * rng.normal(1, 0.03, 1500)
    grams = 0.0066 * across**2 * thick * rng.normal(1, 0.02, 1500)
    worn = rng.uniform(0.85, 1, 1500)
    x = [across, thick, grams, 1e6 * conducts * worn, rng.integers(0, 1000, 1500)]
    return np.stack(x, 1).astype(float), y


def _planets(rng: Generator) -> Arrays:
    """Whether a star dims by a planet: for as long as its year allows, and not too deep."""
    days, star = rng.lognormal(2.2, 0.9, 1500), rng.normal(1, 0.2, 1500).clip(0.5, 1.6)
    depth, noise = rng.lognormal(6.8, 1.2, 1500), rng.lognormal(4.5, 0.4, 1500)
    fits = 1.8 * star * days ** (1 / 3)
    hours = fits * np.exp(rng.normal(0, 0.6, 1500))
    odd = np.abs(rng.normal(0, 1.5, 1500))
    doubt = 2.2 * np.abs(np.log(hours / fits)) + 0.9 * np.maximum(np.log(depth) - 8, 0) + 0.3 * odd
    clear = np.log(depth / noise * np.sqrt(90 / days))
    y = (1.3 + 0.5 * clear - 2 * doubt + rng.logistic(0, 0.3, 1500) > 0).astype(int)
    return np.stack([days, hours, depth, noise, star, odd, np.full(1500, 2009.0)], 1), y


def _foods(rng: Generator) -> Arrays:
    """Sixteen kinds of food by what a hundred grams hold; what is not known is 0."""
    y = rng.integers(0, 16, 1700)
    kind = rng.dirichlet(np.array([2.5, 1.2, 1, 1, 0.5]), 16)
    held = np.stack([rng.dirichlet(45 * kind[each] + 0.2) for each in y])
    water, sweet, fat, protein, fibre = 100 * held.T
    energy = 4 * sweet + 9 * fat + 4 * protein + 2 * fibre
    salts = rng.lognormal([4, 5, 2], 1, (16, 3))[y] * rng.lognormal(0, 0.35, (1700, 3))
    fibre = np.where(rng.random(1700) < 0.1, 0, fibre)
    return np.column_stack([energy, water, sweet, fat, protein, fibre, salts]), y


def _soils(rng: Generator) -> Arrays:
    """Which of seven soils, by the shares of sand, silt and clay, beside how sour it is."""
    clay = rng.beta(1.4, 2.4, 1500)
    sand = (1 - clay) * rng.beta(1.1, 1.1, 1500)
    silt = 1 - clay - sand
    loam = np.where(sand > 0.52, 1, np.where(silt > 0.5, 2, 3))
    y = np.where(sand > 0.75, 0, loam)
    y = np.where((clay > 0.27) & (sand <= 0.75), np.where(sand > 0.35, 4, 5), y)
    y = np.where(clay > 0.45, 6, y)
    parts = np.stack([sand, silt, clay], 1) + rng.normal(0, 0.02, (1500, 3))
    return np.column_stack([100 * parts, rng.uniform(5, 8, 1500)]), y


def _birds(rng: Generator) -> Arrays:
    """Sixty birds of twelve families, by sixteen measures that grow with the bird."""
    y = rng.integers(0, 60, 1900)
    family = rng.normal(0, 0.5, (12, 16))
    kind = np.repeat(family, 5, 0) + rng.normal(0, 0.28, (60, 16))
    grown = rng.normal(0, 0.12, (1900, 1))
    long = np.exp(3 + np.linspace(-1, 2, 16) + kind[y] + grown + rng.normal(0, 0.13, (1900, 16)))
    return long, y


def _salaries(rng: Generator) -> Arrays:
    """What people earn in a year, by years, degree, hours, how many they lead, and their city."""
    years, degree = rng.gamma(2, 6, 1400).clip(0, 45), rng.integers(0, 4, 1400)
    hours, leads = rng.choice([20, 30, 35, 40], 1400), rng.poisson(1.5, 1400)
    city = rng.integers(0, 5, 1400)
    hourly = 14 + 4.5 * degree + 0.9 * years - 0.012 * years**2 + 5 * np.sqrt(leads)
    hourly = hourly * np.array([0.8, 0.95, 1, 1.15, 1.4])[city] * rng.lognormal(0, 0.07, 1400)
    x = np.stack([years, degree, hours, leads, rng.integers(1, 13, 1400)], 1).astype(float)
    return np.concatenate([x, np.eye(5)[city]], 1), 52 * hours * hourly


def _hulls(rng: Generator) -> Arrays:
    """How hard water holds back a yacht, by its form and speed; at high speed by far the most."""
    place, form = rng.uniform(-5, 0, 1400), rng.uniform(0.53, 0.6, 1400)
    slim, beam, long = (
        rng.uniform(4.3, 5.1, 1400),
        rng.uniform(2.8, 5.3, 1400),
        rng.uniform(2.7, 3.6, 1400),
    )
    speed = rng.uniform(0.12, 0.45, 1400)
    waves = np.exp(11 * (speed - 0.18)) * (1 + 4 * (form - 0.56)) * (4.7 / slim) ** 2
    held = 30 * speed**2 + waves * (1 + 0.05 * (place + 2.5) ** 2) + 0.4 * (beam - 4)
    x = np.stack([place, form, slim, beam, long, speed], 1)
    return x, held + rng.normal(0, 0.6, 1400)


def _rides(rng: Generator) -> Arrays:
    """How many bicycles are lent in an hour, by the hour, warmth, damp, wind, and day of work."""
    hour, works = rng.integers(0, 24, 1500), rng.random(1500) < 0.68
    warm, damp, wind = (
        rng.normal(14, 9, 1500),
        rng.uniform(0.3, 1, 1500),
        rng.gamma(2, 6, 1500),
    )
    peaks = np.exp(-((hour - 8) ** 2) / 3) + 1.3 * np.exp(-((hour - 17.5) ** 2) / 5)
    leisure = np.exp(-((hour - 14) ** 2) / 20)
    wish = 20 + np.where(works, 380 * peaks + 90 * leisure, 320 * leisure)
    wish = wish / (1 + np.exp(-(warm - 10) / 6)) * (1 - 0.5 * (damp > 0.85)) * np.exp(-wind / 60)
    turn = 2 * np.pi * hour / 24
    x = np.stack([np.sin(turn), np.cos(turn), hour, works, warm, damp, wind], 1)
    return x, rng.poisson(wish * rng.gamma(40, 1 / 40, 1500)).astype(float)


def _alloys(rng: Generator) -> Arrays:
    """How strong and how tough a steel is, by what it holds, how hot it was, and for how long."""
    parts = rng.dirichlet([1.2, 2, 3, 1, 1, 8], 1400)[:, :5] * [3, 12, 40, 5, 6]
    carbon, manganese, chrome, nickel, silicon = parts.T
    heat, minutes = rng.uniform(200, 700, 1400), rng.lognormal(4, 0.5, 1400)
    soft = (heat + 273) * (18 + np.log10(minutes / 60)) / 1e4
    hard = 500 + 900 * np.tanh(2 * carbon) + 60 * manganese + 18 * chrome + 45 * nickel
    strong = hard - 520 * (soft - 1.2) + 25 * silicon + rng.normal(0, 35, 1400)
    tough = 160 - 0.09 * strong + 22 * np.sqrt(nickel) - 40 * (np.abs(heat - 350) < 60)
    y = np.stack([strong, tough + rng.normal(0, 6, 1400)], 1)
    return np.column_stack([parts, heat, minutes, np.full(1400, 7.85)]), y


def _warnings(rng: Generator) -> Arrays:
    """Which warnings a weather station gives: of heat, frost, a storm, rain, or fog."""
    season = rng.uniform(0, 2 * np.pi, 1500)
    warm = 11 + 12 * np.sin(season) + rng.normal(0, 6, 1500)
    damp = (75 - 0.8 * (warm - 11) + rng.normal(0, 13, 1500)).clip(15, 100)
    pressure = rng.normal(1013, 9, 1500)
    wind = rng.gamma(2, 5, 1500) * np.exp((1013 - pressure) / 22)
    rain = rng.gamma(0.7, 6, 1500) * (damp / 75) ** 3 * np.exp((1013 - pressure) / 25)
    felt = warm + 0.08 * (damp - 60) * (warm > 15) - 0.25 * np.sqrt(wind) * (warm < 10)
    near = warm - (100 - damp) / 5
    on = [felt > 22, felt < 2, wind > 14, rain > 7, (warm - near < 4) & (wind < 12)]
    shown = np.stack([warm, damp, pressure, wind, rain], 1) * rng.normal(1, 0.01, (1500, 5))
    return np.column_stack([shown, np.sin(season), np.cos(season)]), np.stack(on, 1).astype(float)


def _loads(rng: Generator) -> Arrays:
    """Six devices by the watts they draw: a kettle, a fridge, a drum, a lamp, an oven, a drill."""
    y, time = rng.integers(0, 6, 1400), np.arange(30)
    start, turn = rng.integers(0, 14, (1400, 1)), rng.integers(0, 12, (1400, 1))
    kettle = 2000.0 * ((time >= start) & (time < start + 6))
    fridge = 420.0 * ((time + turn) % 12 < 5) + 350 * ((time + turn) % 12 == 0)
    drum = 1500.0 * (time < 4 + turn // 4) + 330 * (1 + np.sin(1.6 * time + turn))
    oven = 1900.0 * (time < 8 + turn // 4) + 1900 * ((time + turn) % 5 == 0) * (time >= 8)
    drill = 700.0 * (rng.random((1400, 30)) < 0.35)
    lamp = 300.0 + 0 * turn * time
    every = np.stack([kettle, fridge, drum, lamp, oven, drill])
    watts = every[y, np.arange(1400)] * rng.lognormal(0, 0.25, (1400, 1))
    volts = 232 - watts / 900 + rng.normal(0, 1, watts.shape)
    return np.stack([watts + np.abs(rng.normal(0, 90, watts.shape)), volts], 2), y


def _pen(rng: Generator) -> Arrays:
    """Eight forms that a pen draws, as places on a tablet: loops, hooks, waves and corners."""
    y, along = rng.integers(0, 8, 1500), np.linspace(0, 1, 24)
    turn = 2 * np.pi * along
    high = np.stack([np.cos(turn), np.cos(turn), np.sin(2 * turn), 1 - 2 * along])
    wide = np.stack([np.sin(turn), -np.sin(turn), np.sin(turn), 0.2 * np.sin(turn)])
    bend, rise = np.abs(2 * along - 1), np.minimum(1, 2 * along)
    fall = np.maximum(0, 2 * along - 1)
    high = np.concatenate(
        [high, [2 * bend - 1, 1 - 2 * rise, 0.6 * np.sin(2 * turn), 2 * rise - 1]]
    )
    wide = np.concatenate([wide, [2 * along - 1, 2 * fall - 1, 2 * along - 1, 2 * fall - 1]])
    lean, size = rng.normal(0, 0.2, (1500, 1)), rng.uniform(18, 40, (1500, 1))
    down, across = high[y], wide[y] + lean * high[y]
    paths = size[:, :, None] * np.stack([across, down], 2) + rng.normal(60, 8, (1500, 1, 2))
    return paths + rng.normal(0, 4, paths.shape), y


def _controls(rng: Generator) -> Arrays:
    """Six courses of a process: as it should, in cycles, drifting up or down, or with a jump."""
    y, time = rng.integers(0, 6, 1500), np.arange(32)
    cycle = rng.uniform(1.6, 2.6, (1500, 1)) * np.sin(
        2 * np.pi * time / rng.uniform(6, 11, (1500, 1)) + rng.uniform(0, 6.3, (1500, 1))
    )
    drift = rng.uniform(0.06, 0.14, (1500, 1)) * time
    jump = rng.uniform(1.5, 3.2, (1500, 1)) * (time > rng.integers(9, 22, (1500, 1)))
    every = np.stack([0 * drift, cycle, drift, -drift, jump, -jump])
    x = 30 + 2 * (every[y, np.arange(1500)] + rng.normal(0, 0.7, (1500, 32)))
    return x[:, :, None], y


def _queues(rng: Generator) -> Arrays:
    """How many people stand in a queue in the end, by who came and how many tills were open."""
    come = rng.poisson(rng.uniform(3, 9, (1400, 1)), (1400, 20))
    tills = rng.integers(1, 4, (1400, 5)).repeat(4, 1)
    wait = rng.poisson(4, 1400).astype(float)
    first = wait.copy()
    for minute in range(20):
        wait = np.maximum(wait + come[:, minute] - 2.8 * tills[:, minute], 0)
    shown = np.repeat(first[:, None], 20, 1)
    return np.stack([come, tills, shown], 2).astype(float), wait + rng.normal(0, 0.7, 1400)


def _breaths(rng: Generator) -> Arrays:
    """How often and how deep somebody breathes, by a belt that slips and a beating heart."""
    time, pace = np.arange(36) * 0.5, rng.uniform(0.1, 0.4, (1400, 1))
    deep = rng.uniform(0.5, 1.6, (1400, 1))
    turn = 2 * np.pi * (pace * time + rng.random((1400, 1)))
    chest = deep * (np.sin(turn) + 0.2 * np.sin(2 * turn))
    heart = 0.1 * np.sin(2 * np.pi * 0.9 * time + rng.uniform(0, 6, (1400, 1)))
    slip = 0.02 * rng.normal(size=(1400, 36)).cumsum(1)
    x = 500 + 40 * (chest + heart + slip + rng.normal(0, 0.12, chest.shape))
    return x[:, :, None], np.concatenate([60 * pace, deep], 1)


def _drives(rng: Generator) -> Arrays:
    """What a drive held: a hard stop, a bend to the left, one to the right, a bump."""
    on, time = rng.random((1500, 4)) < 0.45, np.arange(40)
    start = rng.uniform(3, 34, (4, 1500, 1))
    near = np.exp(-(((time - start) / np.array([2, 3, 3, 0.7])[:, None, None]) ** 2))
    stop, left, right, bump = near * on.T[:, :, None] * rng.uniform(0.8, 1.3, (4, 1500, 1))
    ahead, aside = -5 * stop, 3 * (left - right)
    turn = 0.5 * (left - right)
    up = 9.8 + 5 * bump - 3 * np.roll(bump, 1, 1) + 0.6 * stop
    noise = rng.normal(size=(4, 1500, 40)) * np.array([0.7, 0.6, 0.08, 0.7])[:, None, None]
    return (np.stack([ahead, aside, turn, up]) + noise).transpose(1, 2, 0), on.astype(float)


def _journeys(rng: Generator) -> Arrays:
    """Twelve bus lines by eight stops on end, in either direction; lines share their stops."""
    y, lines = rng.integers(0, 12, 1500), rng.integers(0, 36, (12, 14))
    lines[:, 5:8] = rng.integers(0, 6, (12, 3))
    first = rng.integers(0, 7, (1500, 1))
    x = lines[y[:, None], first + np.arange(8)]
    back = rng.random(1500) < 0.5
    x[back] = x[back, ::-1]
    unknown = rng.random(x.shape) < 0.12
    return np.where(unknown, 36, x), y


def _visits(rng: Generator) -> Arrays:
    """Whether a visit to a shop ends with an order, by what was opened, in its order."""
    x = rng.choice(14, (1600, 14), p=np.array([3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) / 20)
    wish = 1.4 * (x == 4).sum(1) + 0.9 * (x == 5).sum(1) - 1.0 * (x == 6).sum(1)
    late = 1.2 * (x[:, 10:] == 7).any(1) + 1.0 * (x[:, 10:] == 4).any(1)
    gone = 1.3 * (x[:, 11:] == 8).any(1) + 0.6 * (x == 9).sum(1)
    y = wish + late - gone - 0.9 + rng.logistic(0, 0.25, 1600) > 0
    return x, y.astype(int)


def _hands(rng: Generator) -> Arrays:
    """What a hand of thirteen cards is worth: by its honours, and by its longest suit."""
    x = rng.random((1500, 52)).argsort(1)[:, :13]
    honours = np.where(x % 13 >= 9, x % 13 - 8, 0).sum(1)
    suits = np.stack([(x // 13 == suit).sum(1) for suit in range(4)], 1)
    return np.sort(x, 1), honours + 1.2 * np.maximum(suits.max(1) - 4, 0) + 0.0


def _allergens(rng: Generator) -> Arrays:
    """Which of five allergens a recipe of eight things holds; `without` takes the next."""
    x = rng.choice(np.arange(1, 13), (1600, 8), p=np.array([1] * 5 + [1.2] * 7) / 13.4)
    at = rng.integers(0, 7, 1600)
    takes = rng.random(1600) < 0.3
    x[takes, at[takes]] = 0
    held = np.concatenate([np.ones((1600, 1), bool), x[:, :-1] != 0], 1)
    on = [((x == kind) & held).any(1) for kind in range(1, 6)]
    return x, np.stack(on, 1).astype(float)


def _grid(count: int) -> tuple[np.ndarray, np.ndarray]:
    middle = (count - 1) / 2
    rows, columns = np.mgrid[0:count, 0:count]
    return rows - middle, columns - middle


def _arrows(rng: Generator) -> Arrays:
    """To which of eight sides an arrow points, on ground that is not evenly lit."""
    y, (rows, columns) = rng.integers(0, 8, 1600), _grid(12)
    lean = (np.pi * y / 4 + rng.normal(0, 0.1, 1600))[:, None, None]
    slip = rng.normal(0, 0.3, (2, 1600, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    along = right * np.cos(lean) + down * np.sin(lean)
    aside = np.abs(down * np.cos(lean) - right * np.sin(lean))
    shaft = (aside < 0.8) & (np.abs(along) < 4.2)
    head = (aside < 4.4 - along) & (along > 1) & (along < 4.4)
    lit = rng.normal(0, 0.03, (1600, 1, 1)) * rows + rng.normal(0, 0.03, (1600, 1, 1)) * columns
    x = 1.2 * (shaft | head) + lit + rng.normal(0, 0.15, lit.shape)
    return x[:, None], y


def _cells(rng: Generator) -> Arrays:
    """Five cells under a microscope: pale within, full, a sickle, one with grains, a cluster."""
    y, (rows, columns) = rng.integers(0, 5, 1600), _grid(12)
    lean, wide = rng.uniform(0, np.pi, (1600, 1, 1)), rng.uniform(3.2, 4.4, (1600, 1, 1))
    slip = rng.normal(0, 0.3, (2, 1600, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    along = right * np.cos(lean) + down * np.sin(lean)
    aside = down * np.cos(lean) - right * np.sin(lean)
    far = np.hypot(along, aside)
    disc = 1 / (1 + np.exp(3 * (far - wide)))
    pale = disc * (1 - 0.7 * np.exp(-(far**2) / 3))
    sickle = np.exp(-((aside - along**2 / 8 + 1) ** 2) / 1.3 - (along / 5) ** 4)
    grains = disc * (0.55 + 0.45 * np.sin(2.2 * along) * np.sin(2.2 * aside))
    three = [np.exp(-((along - a) ** 2 + (aside - b) ** 2) / 2.5) for a, b in ((-2, 0), (2, -2))]
    cluster = np.maximum(np.maximum(*three), np.exp(-((along - 1) ** 2 + (aside - 2.5) ** 2) / 2.5))
    every = np.stack([pale, disc, sickle, grains, cluster])
    x = 230 - 200 * every[y, np.arange(1600)] * rng.uniform(0.7, 1.1, (1600, 1, 1))
    return (x + rng.normal(0, 14, x.shape)).clip(0, 255)[:, None] / 255, y


def _roads(rng: Generator) -> Arrays:
    """Five roads from above, turned by quarters: straight, a bend, a fork, a crossing, an end."""
    y, (rows, columns) = rng.integers(0, 5, 1600), _grid(10)
    slip = rng.normal(0, 0.5, (2, 1600, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    broad = rng.uniform(0.9, 1.4, (1600, 1, 1))
    sides = [(abs(right) < broad) & (down < broad), (abs(down) < broad) & (right > -broad)]
    sides += [(abs(right) < broad) & (down > -broad), (abs(down) < broad) & (right < broad)]
    has = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    turned = np.stack([np.roll(has, turn, 1) for turn in range(4)])[rng.integers(0, 4, 1600), y]
    road = (np.stack(sides, 1) & (turned[:, :, None, None] == 1)).any(1)
    ground = rng.uniform(0.2, 0.5, (1600, 1, 1)) + rng.normal(0, 0.12, road.shape)
    return np.where(road, 0.9 + rng.normal(0, 0.1, road.shape), ground)[:, None], y


def _glasses(rng: Generator) -> Arrays:
    """How full a glass is, which stands aslant, is not always as wide, and has a bright rim."""
    (rows, columns), full = _grid(12), rng.uniform(0.05, 0.95, (1400, 1, 1))
    lean, wide = rng.normal(0, 0.12, (1400, 1, 1)), rng.uniform(2.2, 4.2, (1400, 1, 1))
    slip = rng.normal(0, 0.5, (2, 1400, 1, 1))
    down, right = rows - slip[0], columns - slip[1]
    inside = 1 / (1 + np.exp(4 * (np.abs(right - lean * down) - wide)))
    wet = 1 / (1 + np.exp(-3 * (down + lean * right - (4.5 - 9 * full))))
    wet = wet / (1 + np.exp(3 * (down - 4.5)))
    rim = np.exp(-((np.abs(right - lean * down) - wide) ** 2) / 0.3) * (np.abs(down) < 4.8)
    x = 0.8 * inside * wet + 0.4 * rim + rng.normal(0, 0.1, wet.shape)
    return x[:, None], full[:, 0, 0]


def _pizzas(rng: Generator) -> Arrays:
    """What lies on a pizza: bright discs, dark dots, rings, or long strips; two of each."""
    (rows, columns), on = _grid(12), rng.random((1500, 4)) < 0.45
    x = 0.5 + 0.1 * rng.normal(size=(1500, 12, 12))
    for kind in range(4):
        for _ in range(2):
            slip = rng.uniform(-3.5, 3.5, (2, 1500, 1, 1))
            lean = rng.uniform(0, np.pi, (1500, 1, 1))
            down, right = rows - slip[0], columns - slip[1]
            far = np.hypot(down, right)
            along = right * np.cos(lean) + down * np.sin(lean)
            aside = down * np.cos(lean) - right * np.sin(lean)
            strip = (np.abs(aside) < 0.6) & (np.abs(along) < 3.5)
            part = [0.6 * (far < 1.6), -0.7 * (far < 1), 0.6 * (np.abs(far - 2) < 0.5)]
            x += ([*part, -0.45 * strip][kind]) * on[:, kind, None, None]
    return np.where(np.hypot(rows, columns) < 6.3, x, 0)[:, None], on.astype(float)


SEEN_10_SETS: dict[str, tuple[str, str, str, Callable[[Generator], Arrays]]] = {
    "coins_8": ("seen_10", "table", "classes", _coins),
    "planets": ("seen_10", "table", "classes", _planets),
    "foods_16": ("seen_10", "table", "classes", _foods),
    "soils": ("seen_10", "table", "classes", _soils),
    "birds_60": ("seen_10", "table", "classes", _birds),
    "salaries": ("seen_10", "table", "numbers", _salaries),
    "hulls": ("seen_10", "table", "numbers", _hulls),
    "rides": ("seen_10", "table", "numbers", _rides),
    "alloys": ("seen_10", "table", "numbers", _alloys),
    "warnings": ("seen_10", "table", "labels", _warnings),
    "loads_6": ("seen_10", "series", "classes", _loads),
    "pen_8": ("seen_10", "series", "classes", _pen),
    "controls": ("seen_10", "series", "classes", _controls),
    "queues": ("seen_10", "series", "numbers", _queues),
    "breaths": ("seen_10", "series", "numbers", _breaths),
    "drives": ("seen_10", "series", "labels", _drives),
    "journeys_12": ("seen_10", "tokens", "classes", _journeys),
    "visits": ("seen_10", "tokens", "classes", _visits),
    "hands": ("seen_10", "tokens", "numbers", _hands),
    "allergens": ("seen_10", "tokens", "labels", _allergens),
    "arrows_8": ("seen_10", "image", "classes", _arrows),
    "cells": ("seen_10", "image", "classes", _cells),
    "roads_5": ("seen_10", "image", "classes", _roads),
    "glasses": ("seen_10", "image", "numbers", _glasses),
    "pizzas": ("seen_10", "image", "labels", _pizzas),
}

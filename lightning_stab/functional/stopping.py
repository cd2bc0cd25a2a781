"""When to stop: waiting since the best check, a metric that rises, a metric that swings.

Everything here is about plain numbers, one per check. Weights, files and processes are elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple, get_args


class Position(NamedTuple):
    """A moment of training: how many checks, epochs and optimizer steps had been completed."""

    check: int = 0
    epoch: int = 0
    step: int = 0


BEGINNING = Position()
MinOrMax = Literal["min", "max"]
Unit = Literal["checks", "epochs", "steps"]
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True)
class Track:
    """The history of one metric in four numbers.

    Attributes:
        best: the best finite value; NaN before there is one.
        at: its position.
        observed: how many values there were, finite or not.
        finite: how many of them were finite.
    """

    best: float = math.nan
    at: Position = BEGINNING
    observed: int = 0
    finite: int = 0


def margin(best: float, min_delta: float, *, relative: bool) -> float:
    r"""Return by how much a value must beat ``best``, never negative.

    Absolute: :math:`|\delta|`. Relative: :math:`|\delta| \cdot |best|`, with the absolute value of
    the best, so that it asks for an improvement of a negative metric too. While there is no finite
    best, the margin is 0.

    Example:
        >>> margin(-2.0, 0.1, relative=True)
        0.2
    """
    size = abs(min_delta)
    if not relative:
        return size
    return size * abs(best) if math.isfinite(best) else 0.0


def improves(value: float, best: float, *, mode: str, by: float = 0.0) -> bool:
    """Say whether a finite ``value`` beats ``best`` by more than ``by``.

    Example:
        >>> improves(0.8, 1.0, mode="min", by=0.1), improves(0.95, 1.0, mode="min", by=0.1)
        (True, False)
    """
    if not math.isfinite(value):
        return False
    if math.isnan(best):
        return True
    return value < best - by if mode == "min" else value > best + by


def observe(track: Track, value: float, now: Position, *, improved: bool) -> Track:
    """Return the track after one more value. A non-finite value is counted and never kept."""
    finite = math.isfinite(value)
    seen = replace(track, observed=track.observed + 1, finite=track.finite + finite)
    return replace(seen, best=value, at=now) if improved and finite else seen


def time_since_best(track: Track, now: Position, start: Position, unit: str) -> int:
    """Return how many ``unit`` have passed since the best value, or since ``start`` if later.

    Example:
        >>> track = Track(best=0.5, at=Position(check=2, epoch=2, step=20))
        >>> time_since_best(track, Position(5, 5, 50), Position(), "steps")
        30
    """
    field = UNITS.index(unit)
    return now[field] - max(track.at[field], start[field])


def rising_checks(values: Sequence[float], mode: str) -> int:
    """Return how many checks in a row, up to the last, were worse than the one before.

    Example:
        >>> rising_checks([3.0, 1.0, 2.0, 4.0], "min")
        2
    """
    count = 0
    for earlier, later in zip(values[-2::-1], values[:0:-1], strict=True):
        if not (later > earlier if mode == "min" else later < earlier):
            break
        count += 1
    return count


@dataclass(frozen=True)
class Swing:
    r"""How a window of values moves around its level.

    Attributes:
        level: the mean of the window.
        amplitude: the standard deviation about the window's straight line of least squares.
        trend: how far that line moves over the window, end minus start.
        autocorrelation: lag-1 autocorrelation of the differences between neighbours, the line
            taken away, :math:`\sum d_t d_{t+1} / \sum d_t^2`. Values that alternate give -1,
            independent noise -1/2, a random walk 0, a smooth curve +1.
    """

    level: float
    amplitude: float
    trend: float
    autocorrelation: float


def measure_swing(values: Sequence[float]) -> Swing:
    """Measure the movement of a window of at least 4 finite values.

    Example:
        >>> swing = measure_swing([1.0, 2.0] * 5)
        >>> round(swing.autocorrelation, 2), round(swing.amplitude, 1)
        (-0.89, 0.5)
    """
    n = len(values)
    level = math.fsum(values) / n
    middle = (n - 1) / 2
    spread = n * (n * n - 1) / 12
    slope = math.fsum((i - middle) * (v - level) for i, v in enumerate(values)) / spread
    rest = [v - level - slope * (i - middle) for i, v in enumerate(values)]
    differences = [b - a for a, b in pairwise(rest)]
    energy = math.fsum(d * d for d in differences)
    products = math.fsum(a * b for a, b in pairwise(differences))
    return Swing(
        level=level,
        amplitude=math.sqrt(math.fsum(r * r for r in rest) / n),
        trend=slope * (n - 1),
        autocorrelation=products / energy if energy > 0 else 0.0,
    )


def oscillates(
    values: Sequence[float], *, amplitude: float, mode: str = "min", turning: float = -0.3
) -> bool:
    r"""Say whether the values swing around a level without getting better.

    All three hold: the differences turn back on themselves (their lag-1 autocorrelation is at most
    ``turning``); the swing is wide, :math:`amplitude > a \cdot |level|`; and the line through the
    window gets better by less than two amplitudes.

    Args:
        values: the window, finite values, the oldest first; at least 4 of them.
        amplitude: the least relative amplitude ``a`` that counts.
        mode: "min" if smaller is better, else "max".
        turning: with the default a window of ten values is called an oscillation always if they
            alternate, two times in three if they are independent noise about a level, three times
            in a hundred if they walk at random, and never if they fall.

    Example:
        >>> oscillates([1.0, 2.0] * 5, amplitude=0.05), oscillates(range(10, 0, -1), amplitude=0.05)
        (True, False)
    """
    if len(values) < 4 or not all(math.isfinite(v) for v in values):
        return False
    swing = measure_swing(values)
    better = -swing.trend if mode == "min" else swing.trend
    return (
        swing.autocorrelation <= turning
        and swing.amplitude > amplitude * abs(swing.level)
        and better < 2 * swing.amplitude
    )

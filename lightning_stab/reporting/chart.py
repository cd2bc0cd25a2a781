"""Line charts as inline SVG that fill any width, with labels in HTML beside their lines.

Coordinates are stretched and text is not, so that a chart reads alike on a phone, on a screen and
on paper. `page.js` adds values under the pointer, zooming and hiding; without it nothing is missing
but these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lightning_stab.reporting.series import Series
from lightning_stab.reporting.text import escape, name, number, power_of_ten

WIDTH, HEIGHT = 1000, 200  # of a drawing's own coordinates; the height in pixels too
MOST_POINTS = 400  # of a line
LABEL_GAP = 15  # pixels between two labels
LOG_FROM = 30.0  # a largest over a smallest value from which the axis is logarithmic


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        name: what is written at its end.
        series: the points.
        colour: a class of `page.css`: ``blue``, ``orange``, ... or ``s0`` to ``s9`` for layers.
        labelled: whether its name stands beside it; others show under the pointer.
    """

    name: str
    series: Series
    colour: str = "blue"
    labelled: bool = True


@dataclass(frozen=True)
class Mark:
    """A step of a finding, drawn as a numbered vertical line."""

    step: int
    text: str
    title: str = ""
    severity: str = "error"


@dataclass(frozen=True)
class Axis:
    """A range of values, in its own unit or as logarithms."""

    low: float
    high: float
    is_log: bool = False

    def place(self, values: Any) -> Any:
        """Return where values stand, 0 at the low end and 1 at the high one."""
        numbers = np.asarray(values, dtype=np.float64)
        if self.is_log:
            numbers = np.log10(np.maximum(numbers, 10**self.low))
        return np.clip((numbers - self.low) / (self.high - self.low), -0.5, 1.5)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """Return places in [0, 1] and their labels."""
        if self.is_log:
            first, last = math.ceil(self.low), math.floor(self.high)
            every = max(1, -(-(last - first + 1) // most))
            powers = [p for p in range(first, last + 1) if p % every == 0]
            if len(powers) > 1 and (last - first > 1 or self.high - self.low > 2.2):
                plain = powers[0] >= -3 and powers[-1] <= 4
                shown = {p: number(10.0**p) if plain else power_of_ten(p) for p in powers}
                return [(float(self.place(10.0**p)), text) for p, text in shown.items()]
            values = [d * 10.0**p for p in range(first - 1, last + 1) for d in (1, 2, 5)]
            values = [v for v in values if self.low <= math.log10(v) <= self.high]
            if len(values) > 2:
                return [(float(self.place(v)), number(v)) for v in values]
        low, high = (10**self.low, 10**self.high) if self.is_log else (self.low, self.high)
        values = [v for v in nice(low, high, most) if v > 0 or not self.is_log]
        texts = tick_texts(values)
        return [(float(self.place(v)), text) for v, text in zip(values, texts, strict=True)]


def nice(low: float, high: float, most: int) -> list[float]:
    """Return round numbers within a range.

    Example:
        >>> nice(0.0, 184.0, 5)
        [0.0, 50.0, 100.0, 150.0]
    """
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Return labels with as many digits as tell neighbours apart.

    Example:
        >>> tick_texts([2.305, 2.3075, 2.31])
        ['2.305', '2.3075', '2.31']
    """
    apart = min((abs(b - a) for a, b in pairwise(values)), default=0.0)
    digits = max(0, 2 - math.floor(math.log10(apart))) if apart > 0 else 3
    if digits > 8 or any(abs(v) >= 1e5 for v in values):
        return [number(v) for v in values]
    whole = all(float(v).is_integer() for v in values)
    texts = [f"{v:,.{0 if whole else digits}f}" for v in values]
    return texts if whole else [text.rstrip("0").rstrip(".") or "0" for text in texts]


def value_axis(lines: Sequence[Line], also: Sequence[float] = (), log: bool | None = None) -> Axis:
    """Return the axis that shows all finite values; logarithmic where they span decades."""
    parts = [line.series.finite().values for line in lines]
    values = np.concatenate([*parts, np.array([v for v in also if math.isfinite(v)], float)])
    if not len(values):
        return Axis(0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    positive = values[values > 0]
    if log is None:
        log = low > 0 and high / low > LOG_FROM
    if log and len(positive):
        low, high = math.log10(positive.min()), math.log10(max(positive.max(), positive.min()))
        gap = max(0.05 * (high - low), 0.05)
        return Axis(low - gap, high + gap, True)
    gap = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return Axis(0.0 if 0 <= low < 0.4 * high else low - gap, high + gap)


def steps_axis(last: int) -> Axis:
    """Return the axis of a run's steps."""
    return Axis(0.0, float(max(last, 1)))


def chart(
    title: str,
    lines: Sequence[Line],
    steps: Axis,
    *,
    note: str = "",
    log: bool | None = None,
    threshold: tuple[float, str] | None = None,
    band: tuple[float, float, str] | None = None,
    marks: Sequence[Mark] = (),
    axis_name: str = "step",
) -> str:
    """Return a chart as HTML.

    Args:
        title: what is drawn, in plain text.
        lines: the curves; those without a point are left out.
        steps: the x axis.
        note: a short explanation beside the title, in plain text.
        log: whether the y axis is logarithmic; where the values span decades, by default.
        threshold: a value and its name.
        band: the lower and upper end of what is usual, and its name.
        marks: numbered steps.
        axis_name: what the x axis counts.
    """
    drawn = [line for line in lines if len(line.series)]
    also = [threshold[0]] if threshold else []
    axis = value_axis(drawn, also, log)
    parts = [_grid(axis), _band(band, axis), _threshold(threshold, axis)]
    parts += [_path(line, place, steps, axis) for place, line in enumerate(drawn)]
    parts += [_nonfinite(line, steps) for line in drawn]
    overlays = [
        f'<i class="mark {mark.severity}" style="left:{100 * float(steps.place(mark.step)):.2f}%"'
        f' data-x="{mark.step}" title="{escape(mark.title)}">{escape(mark.text)}</i>'
        for mark in marks
    ]
    about = {
        "x": [steps.low, steps.high],
        "y": [axis.low, axis.high],
        "log": axis.is_log,
        "name": axis_name,
        "lines": [_data(line) for line in drawn],
    }
    y_ticks, x_ticks = _numbers(steps, axis, any(len(line.series.finite()) for line in drawn))
    heading = f"<b>{escape(title)}</b>" + (f" <small>{escape(note)}</small>" if note else "")
    return (
        f'<figure class="chart" data-chart="{escape(json.dumps(about, separators=(",", ":")))}">'
        f'<figcaption>{heading}</figcaption><div class="frame"><div class="y">{y_ticks}</div>'
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none"'
        f' role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>{"".join(overlays)}'
        f'</div><div class="labels">{_labels(drawn, axis, threshold, band)}</div>'
        f'<div class="x">{x_ticks}<em>{escape(axis_name)}</em></div></div></figure>'
    )


def _numbers(steps: Axis, axis: Axis, has_values: bool) -> tuple[str, str]:
    ticks = axis.ticks() if has_values else []  # of an axis without a value they would be invented
    y_places = [(f"top:{HEIGHT * (1 - place):.1f}px", text) for place, text in ticks]
    x_places = [(f"left:{100 * place:.2f}%", text) for place, text in steps.ticks(6)]
    up, along = (
        "".join(f'<span style="{place}">{text}</span>' for place, text in places)
        for places in (y_places, x_places)
    )
    return up, along


def _grid(axis: Axis) -> str:
    ticks = "".join(f"M0 {HEIGHT * (1 - place):.1f}H{WIDTH}" for place, _ in axis.ticks())
    return f'<path class="grid" d="{ticks}"/>'


def _band(band: tuple[float, float, str] | None, axis: Axis) -> str:
    if band is None:
        return ""
    low, high = (float(np.clip(axis.place(v), 0, 1)) for v in band[:2])
    top, size = HEIGHT * (1 - high), HEIGHT * (high - low)
    return f'<rect class="band" x="0" width="{WIDTH}" y="{top:.1f}" height="{size:.1f}"/>'


def _threshold(threshold: tuple[float, str] | None, axis: Axis) -> str:
    if threshold is None:
        return ""
    at = HEIGHT * (1 - float(axis.place(threshold[0])))
    return f'<path class="threshold" d="M0 {at:.1f}H{WIDTH}"/>'


def _path(line: Line, place: int, steps: Axis, axis: Axis) -> str:
    """Return a line, with gaps where values are not finite, and a dot where there is one point."""
    shown = line.series.thinned(MOST_POINTS)
    xs = WIDTH * steps.place(shown.steps)
    ys = HEIGHT * (1 - axis.place(shown.values))
    words, pen = [], "M"
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if math.isfinite(y):
            words.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    if len(words) == 1:
        words.append("h0.1")
    alone = " dot" if len(words) == 2 and words[1] == "h0.1" else ""
    return f'<path class="line {line.colour}{alone}" data-line="{place}" d="{"".join(words)}"/>'


def _nonfinite(line: Line, steps: Axis) -> str:
    """Return a red stretch at the top from the first to the last value that is not finite."""
    bad = line.series.steps[~np.isfinite(line.series.values)]
    if not len(bad):
        return ""
    first, last = (WIDTH * float(steps.place(s)) for s in (bad[0], bad[-1]))
    return (
        f'<rect class="nonfinite" x="{first:.1f}" y="0" width="{max(last - first, 4):.1f}"'
        f' height="6"><title>{name(line.name)}: not finite</title></rect>'
    )


def _data(line: Line) -> dict[str, Any]:
    shown = line.series.thinned(MOST_POINTS)
    values = [float(f"{v:.4g}") if math.isfinite(v) else None for v in shown.values.tolist()]
    return {"n": line.name, "c": line.colour, "s": shown.steps.tolist(), "v": values}


def _labels(
    lines: Sequence[Line],
    axis: Axis,
    threshold: tuple[float, str] | None,
    band: tuple[float, float, str] | None,
) -> str:
    """Return the names at the right end of the lines, moved apart where they would meet."""
    wanted: list[tuple[float, str, str, str]] = []
    for place, line in enumerate(lines):
        finite = line.series.finite()
        if line.labelled:
            last = float(finite.values[-1]) if len(finite) else math.nan
            top = HEIGHT * (1 - float(axis.place(last))) if len(finite) else 0.0
            button = f'<button data-line="{place}" class="{line.colour}" title="{name(line.name)}">'
            text = f"{name(line.name)}</button> <b>{number(last)}</b>"
            wanted.append((top, button + text, line.colour, "line"))
    if threshold is not None:
        text = f"{escape(threshold[1])} <b>{number(threshold[0])}</b>"
        wanted.append((HEIGHT * (1 - float(axis.place(threshold[0]))), text, "threshold", ""))
    if band is not None:
        middle = HEIGHT * (1 - float(np.clip(axis.place(band[:2]), 0, 1).mean()))
        wanted.append((middle, escape(band[2]), "usual", ""))
    tops = _apart([each[0] for each in wanted])
    return "".join(
        f'<div class="label {colour} {kind}" style="top:{top:.0f}px">{text}</div>'
        for top, (_, text, colour, kind) in zip(tops, wanted, strict=True)
    )


def _apart(tops: Sequence[float]) -> list[float]:
    """Return places that keep their order, at least a label's height apart, within the chart.

    Example:
        >>> _apart([10.0, 12.0])
        [10.0, 25.0]
    """
    order = sorted(range(len(tops)), key=lambda i: tops[i])
    placed = [min(max(t, 0.0), float(HEIGHT)) for t in tops]
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + LABEL_GAP)
    end = float(HEIGHT)
    for i in reversed(order):
        placed[i] = min(placed[i], end)
        end = placed[i] - LABEL_GAP
    return placed

"""The depth picture: layers from first to last against steps, and the state of each layer."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_stab.reporting.chart import Axis
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Array, Series
from lightning_stab.reporting.text import escape, name, number, power_of_ten

COLUMNS = 160  # of a picture, at most
MOST_LAYERS = 200  # rows of a picture; of deeper nets every n-th layer is drawn
DEAD = SATURATED = 0.5  # a fraction of units from which a layer is marked
FAR_LOG10 = 3.0  # decades from the last hidden layer from which a gradient is marked
NOT_FINITE = (213, 94, 0)
# cividis, which people who do not see red or green read alike
CIVIDIS = (
    (0, 34, 78),
    (53, 69, 108),
    (102, 105, 112),
    (148, 142, 119),
    (200, 184, 102),
    (254, 232, 56),
)
FRACTION = ((238, 238, 242), (230, 159, 0), (120, 40, 0))


@dataclass(frozen=True)
class LayerState:
    """How a layer stood at the end.

    Attributes:
        name: the layer's.
        norm: of its gradient, NaN where that is not known.
        dead: the fraction of units that are zero on every sample.
        saturated: the fraction of entries at which the activation is flat.
        faults: what is wrong with it, words of `FAULTS`.
    """

    name: str
    norm: float
    dead: float
    saturated: float
    faults: tuple[str, ...]


FAULTS = {  # letter and explanation, so that colour alone says nothing
    "not finite": "N",
    "no gradient": "0",
    "tiny gradient": "↓",
    "large gradient": "↑",
    "dead units": "D",
    "saturated": "S",
}


def gradients_by_layer(run: Run) -> tuple[str, dict[str, Series]]:
    """Return what is known of the gradient by layer, and what it is, in order of depth."""
    for section, what in (
        ("grad_norm", "gradient norm"),
        ("preactivation_grad", "gradient RMS at the pre-activations"),
    ):
        layers = {n: s for n, s in run.section(section).items() if not n.startswith("total")}
        if len(layers) > 1:
            return what, layers
    return "", {}


def layer_states(run: Run) -> list[LayerState]:
    """Return the state of each layer at the end, the first layer first."""
    _, gradients = gradients_by_layer(run)
    units = {n: run.section(n) for n in ("dead_fraction", "saturated_fraction")}
    named = [n for section in units.values() for n in section]
    names = list(gradients) or sorted(set(named), key=natural)
    last = {n: float(s.values[-1]) for n, s in gradients.items() if len(s)}
    usual = [math.log10(v) for v in last.values() if math.isfinite(v) and v > 0]
    reference = usual[-2:][0] if usual else math.nan  # the last hidden layer
    states = []
    for layer in names:
        dead, saturated = (_of_layer(section, layer, names) for section in units.values())
        norm = last.get(layer, math.nan)
        faults = _faults(layer in last, norm, reference)
        faults += ["dead units"] * (dead >= DEAD) + ["saturated"] * (saturated >= SATURATED)
        states.append(LayerState(layer, norm, dead, saturated, tuple(faults)))
    return states


def _faults(is_known: bool, norm: float, reference: float) -> list[str]:
    if not is_known:
        return []
    if not math.isfinite(norm):
        return ["not finite"]
    if norm == 0:
        return ["no gradient"]
    away = math.log10(norm) - reference
    return ["tiny gradient"] * (away < -FAR_LOG10) + ["large gradient"] * (away > FAR_LOG10)


def _of_layer(section: Mapping[str, Series], layer: str, layers: Sequence[str]) -> float:
    """Return the last value of the activation in the same block as a layer, NaN if none is."""
    block = layer.rpartition(".")[0]
    alone = sum(each.rpartition(".")[0] == block for each in layers) == 1
    for activation, series in section.items():
        beside = activation.rpartition(".")[0] == block and block and alone
        if len(series) and (activation == layer or beside):
            return float(series.values[-1])
    return math.nan


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``layer.2`` before ``layer.10``."""
    parts = re.split(r"(\d{1,9})", text)
    return [(int(part), "") if part.isdigit() and len(part) < 10 else (-1, part) for part in parts]


def strip(states: Sequence[LayerState]) -> str:
    """Return a row of boxes, one for each layer, as HTML; faults carry a letter."""
    boxes = []
    for state in states:
        letters = "".join(FAULTS[fault] for fault in state.faults)
        about = ", ".join(state.faults) or "nothing unusual"
        numbers = [f"gradient {number(state.norm)}"] * math.isfinite(state.norm)
        numbers += [f"dead {state.dead:.0%}"] * math.isfinite(state.dead)
        numbers += [f"saturated {state.saturated:.0%}"] * math.isfinite(state.saturated)
        hint = f"{state.name}: {about}" + (f" ({', '.join(numbers)})" if numbers else "")
        look = "bad" if state.faults else "good"
        boxes.append(f'<i class="{look}" title="{escape(hint)}">{letters}</i>')
    seen = [f for f in FAULTS if any(f in state.faults for state in states)]
    key = ", ".join(f"<b>{FAULTS[f]}</b> {f}" for f in seen) or "nothing unusual in any layer"
    return (
        '<div class="strip"><span>first layer</span><div>'
        + "".join(boxes)
        + f"</div><span>last</span></div><p class=note>State of each layer at the end: {key}.</p>"
    )


def picture(
    title: str, layers: Mapping[str, Series], steps: Axis, *, log: bool, note: str = ""
) -> str:
    """Return layers against steps as colours, as HTML.

    Args:
        title: what is drawn, in plain text.
        layers: the curves, the first layer first.
        steps: the x axis.
        log: whether colours stand for the logarithm; else for a fraction in [0, 1].
        note: a short explanation, in plain text.
    """
    every = -(-len(layers) // MOST_LAYERS)
    rows = {n: s for i, (n, s) in enumerate(layers.items()) if i % every == 0}
    values = np.stack([sample(series, steps, COLUMNS) for series in rows.values()])
    shown = values
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            shown = np.log10(values)
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low, high = (math.floor(low), math.ceil(max(high, low + 1e-9))) if log else (0.0, 1.0)
    palette = CIVIDIS if log else FRACTION
    image = _png(_colours(shown, values, float(low), float(high), palette))
    height = min(18, max(3, 420 // len(rows)))
    thin_out = max(1, -(-13 // height))
    names = "".join(
        f'<span style="top:{height * (i + 0.5):.1f}px" title="{name(layer)}">{name(layer)}</span>'
        for i, layer in enumerate(rows)
        if i % thin_out == 0
    )
    ticks = "".join(
        f'<span style="left:{100 * p:.2f}%">{text}</span>' for p, text in steps.ticks(6)
    )
    ends = [power_of_ten(int(v)) if log else f"{v:.0%}" for v in (low, high)]
    colours = ", ".join(f"rgb{colour}" for colour in palette)
    numbers = [[_rounded(v) for v in row] for row in values.tolist()]
    about = json.dumps({"rows": list(rows), "v": numbers, "x": [steps.low, steps.high]})
    return (
        f'<figure class="heat" data-heat="{escape(about)}"><figcaption><b>{escape(title)}</b>'
        f" <small>{escape(note)}</small> <span class=scale>{ends[0]}"
        f'<i style="background:linear-gradient(90deg, {colours})"></i>{ends[1]}</span>'
        f'</figcaption><div class="frame"><div class="rows">{names}</div><div class="plot">'
        f'<img alt="{escape(title)}" style="height:{height * len(rows)}px" src="{image}">'
        f'</div><div class="x">{ticks}<em>step</em></div></div></figure>'
    )


def _rounded(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return float(f"{value:.3g}") if math.isfinite(value) else "not finite"


def sample(series: Series, steps: Axis, columns: int) -> Array:
    """Return the curve's latest value at each column; NaN before the first, inf if not finite."""
    edges = np.linspace(steps.low, steps.high, columns + 1)[1:]
    at = np.searchsorted(series.steps, edges, side="right") - 1
    known = np.where(np.isfinite(series.values), series.values, np.inf)
    return np.where(at >= 0, known[np.maximum(at, 0)], np.nan)


def _colours(
    shown: Array, values: Array, low: float, high: float, palette: Sequence[tuple[int, int, int]]
) -> Array:
    """Return red, green, blue and opacity of each cell."""
    bottom = np.where(values == 0, low, shown)  # a zero has no logarithm: the darkest colour
    place = np.clip((np.nan_to_num(bottom, posinf=high) - low) / (high - low), 0, 1)
    stops = np.linspace(0, 1, len(palette))
    channels = [np.interp(place, stops, [c[i] for c in palette]) for i in range(3)]
    opacity = np.where(np.isnan(values), 0, 255)
    pixels = np.stack([*channels, opacity], -1).astype(np.uint8)
    pixels[np.isposinf(values)] = (*NOT_FINITE, 255)
    return pixels


def _png(pixels: Array) -> str:
    """Return an image of shape (rows, columns, 4) as a data URL."""

    def part(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows, columns = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", columns, rows, 8, 6, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = part(b"IHDR", head) + part(b"IDAT", zlib.compress(lines, 9)) + part(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()

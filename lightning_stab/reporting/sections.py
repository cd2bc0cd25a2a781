"""The sections of a report below the cards."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_stab.reporting.causes import main_metric
from lightning_stab.reporting.chart import Axis, Line, Mark, chart
from lightning_stab.reporting.curves import learning_curves
from lightning_stab.reporting.depth import gradients_by_layer, layer_states, natural, picture, strip
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Series
from lightning_stab.reporting.text import duration, escape, name, number, sentence
from lightning_stab.reporting.timeline import learning_rate, skipped_steps

USUAL_RATIO = (1e-4, 1e-2, "usual")  # of update to weight; near 10^-3 trains well
WORTH_DRAWING = 0.1  # a fraction of dead or saturated units
MOST_METRICS = 8  # metrics that are drawn
MOST_ROWS = 200  # of a table
OF_METRICS = ("green", "purple", "sky", "vermillion")
OF_LOSSES = ("blue", "orange", "sky", "green", "purple", "vermillion")


def tiles(run: Run) -> str:
    """Return the numbers that one looks for first, as HTML."""
    learning = learning_curves(run.series)
    found: list[tuple[str, str]] = []
    for tag in dict.fromkeys((learning.training, learning.validation, main_metric(run))):
        finite = run.series[tag].finite() if tag else None
        if finite is not None and len(finite):
            found.append((name(tag), number(float(finite.values[-1]))))
    taken = run.about.get("steps")
    known = isinstance(taken, int) and not isinstance(taken, bool)
    found.append(("steps", f"{taken:,}") if known else ("last logged step", f"{run.last_step:,}"))
    if run.seconds > 0:
        found.append(("time", duration(run.seconds)))
    if "guard/skipped" in run.series or skipped_steps(run):
        found.append(("steps skipped", f"{len(skipped_steps(run)):,}"))
    clipped = run.series.get("clip/fraction")
    if clipped is not None and len(clipped.finite()):
        found.append(("clipped", f"{float(np.mean(clipped.finite().values)):.0%}"))
    cells = "".join(f"<div><b>{value}</b><span>{what}</span></div>" for what, value in found)
    return f'<div class="tiles">{cells}</div>'


def loss_and_metrics(run: Run, steps: Axis, marks: Sequence[Mark]) -> str:
    """Return the losses in one chart, and the metrics, those of one name together."""
    learning = learning_curves(run.series)
    pairs = zip(learning.losses, OF_LOSSES, strict=False)
    parts = []
    lines = [Line(tag, run.series[tag], colour) for tag, colour in pairs]
    if lines:
        parts.append(chart("Loss", lines, steps, marks=marks))
    groups: dict[str, list[str]] = {}
    for tag in learning.metrics:
        groups.setdefault(_plain(tag), []).append(tag)
    for group, tags in list(groups.items())[:MOST_METRICS]:
        pairs = zip(tags, OF_METRICS, strict=False)
        lines = [Line(tag, run.series[tag], colour) for tag, colour in pairs]
        parts.append(chart(group, lines, steps, marks=marks))
    more = len(groups) - MOST_METRICS
    note = f"<p class=note>{more} more metrics were logged.</p>" if more > 0 else ""
    return "".join(parts) + note


def _plain(tag: str) -> str:
    """Return a metric's name without the stage.

    Example:
        >>> _plain("val_accuracy"), _plain("train/f1_epoch")
        ('accuracy', 'f1')
    """
    words = re.split(r"[/_.-]", tag)
    stages = {"train", "training", "val", "valid", "validation", "test", "eval", "step", "epoch"}
    return "_".join(w for w in words if w.lower() not in stages) or tag


def depth(run: Run, steps: Axis) -> str:
    """Return the health strip and the pictures of layers against steps."""
    what, gradients = gradients_by_layer(run)
    states = layer_states(run)
    parts = [strip(states)] if states else []
    if gradients:
        heading = f"{what[:1].upper()}{what[1:]} by layer"
        note = "dark is small; first layer at the top"
        parts.append(picture(heading, gradients, steps, log=True, note=note))
    for section, heading in (
        ("dead_fraction", "Dead units by layer"),
        ("saturated_fraction", "Saturated entries by layer"),
    ):
        layers = dict(sorted(run.section(section).items(), key=lambda pair: natural(pair[0])))
        if any(np.nanmax(s.values, initial=0.0) > WORTH_DRAWING for s in layers.values()):
            parts.append(picture(heading, layers, steps, log=False))
        elif layers:
            few = f"{heading.split(' by')[0]}: never more than {WORTH_DRAWING:.0%} in any layer."
            parts.append(f"<p class=note>{few}</p>")
    return "".join(parts)


def gradients_and_updates(run: Run, steps: Axis, marks: Sequence[Mark]) -> str:
    """Return norm before and after clipping, and update ratios with the usual band."""
    parts = []
    total = run.series.get("grad_norm/total") or run.series.get("clip/norm_before")
    after = run.series.get("grad_norm_clipped/total") or run.series.get("clip/norm_after")
    if total is not None:
        lines = [Line("before clipping" if after else "total", total, "blue")]
        lines += [Line("after clipping", after, "orange")] if after is not None else []
        parts.append(chart("Gradient norm", lines, steps, marks=marks))
    ratios = run.section("update_ratio")
    if ratios:
        lines = layer_lines(ratios)
        note = "size of a step relative to the weights"
        heading = "Update to weight"
        usual = chart(heading, lines, steps, note=note, log=True, band=USUAL_RATIO, marks=marks)
        parts.append(usual)
    return "".join(parts)


def layer_lines(layers: Mapping[str, Series]) -> list[Line]:
    """Return a line a layer, in one hue from the first to the last; these two have labels."""
    last = max(len(layers) - 1, 1)
    return [
        Line(layer, series, f"s{round(9 * i / last)}", labelled=i in (0, last))
        for i, (layer, series) in enumerate(layers.items())
    ]


def rate_and_precision(run: Run, steps: Axis, marks: Sequence[Mark]) -> str:
    """Return the learning rate, and the loss scale of mixed precision."""
    parts = []
    rate = learning_rate(run)
    if rate is not None:
        start = "lr/" if rate[0].startswith("lr/") else "lr-"
        tags = [t for t in run.series if t.startswith(start)] or [rate[0]]
        colours = ("blue", "orange", "green", "purple")
        pairs = zip(tags, colours, strict=False)
        lines = [Line(t, run.series[t], colour) for t, colour in pairs]
        values = np.concatenate([line.series.values for line in lines])
        if len(values) and np.ptp(values) == 0:
            always = number(float(values[0]))
            parts.append(f"<p><code>{name(tags[0])}</code> was {always} in every step.</p>")
        else:
            parts.append(chart("Learning rate", lines, steps, marks=marks))
    scale = run.series.get("precision/scale")
    if scale is not None:
        line = Line("scale", scale, "blue")
        parts.append(chart("Loss scale of mixed precision", [line], steps, log=True))
    return "".join(parts)


def initialization(run: Run) -> str:
    """Return signal and gradient before and after the initialisation, and its table."""
    texts = run.texts.get("weight_initialization")
    if not texts:
        return ""
    rows = _table_rows(texts[-1][1])
    parts = []
    for quantity, heading in (
        ("signal", "Signal: spread of a unit over the batch"),
        ("gradient", "Gradient: RMS at the pre-activations"),
    ):
        lines = [
            Line(f"{moment}", series, colour)
            for moment, colour in (("before", "grey"), ("after", "green"))
            if (series := _column(rows, f"{quantity} {moment}")) is not None
        ]
        if lines:
            axis = Axis(1.0, float(max(len(line.series) for line in lines)) + 1e-9)
            name_ = "layer, from first to last"
            parts.append(chart(heading, lines, axis, log=True, axis_name=name_))
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row.values()) for row in rows[:MOST_ROWS]
    )
    head = "".join(f"<th>{escape(cell)}" for cell in (rows[0] if rows else ()))
    table = f"<div class=wide><table><tr>{head}{body}</table></div>"
    summary = f"<summary>All {len(rows)} weights</summary>"
    return "".join(parts) + (f"<details>{summary}{table}</details>" if rows else "")


def _table_rows(markdown: str) -> list[dict[str, str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=False)) for row in cells[2:]] if cells else []


def _column(rows: Sequence[Mapping[str, str]], head: str) -> Series | None:
    values = []
    for row in rows:
        try:
            value = float(row.get(head, ""))
        except ValueError:
            continue
        values.append(value if value > 0 else np.nan)
    depth_ = np.arange(1, len(values) + 1)
    return Series(depth_, np.array(values, float), len(values)) if len(values) > 1 else None


def gradient_check(run: Run) -> str:
    """Return the verdict of the gradient check, and its table."""
    texts = run.texts.get("gradient_check")
    if not texts:
        return ""
    text = texts[-1][1].strip().strip("`").strip()
    first, _, rest = text.partition("\n")
    details = f"<details><summary>Every parameter</summary><pre>{escape(rest.strip())}</pre>"
    return f"<p>{sentence(first)}</p>" + (f"{details}</details>" if rest.strip() else "")


def about(run: Run) -> str:
    """Return callbacks, configuration, versions and hardware."""
    parts = []
    callbacks = run.about.get("callbacks")
    if isinstance(callbacks, list) and callbacks:
        rows = "".join(
            f"<tr><th><code>{escape(each[0])}</code><td>{sentence(each[1])}"
            for each in callbacks
            if isinstance(each, list) and len(each) == 2
        )
        parts.append(f"<table>{rows}</table>")
    facts = [*_dict(run, "versions"), *_dict(run, "hardware"), *_dict(run, "trainer")]
    if run.began is not None:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.began))
        facts.append(("began", began))
    if facts:
        rows = "".join(f"<tr><th>{escape(key)}<td>{escape(value)}" for key, value in facts)
        parts.append(f"<table>{rows}</table>")
    if run.config:
        code = f"<pre>{escape(run.config)}</pre>"
        parts.append(f"<details><summary>Configuration</summary>{code}</details>")
    parts += [f"<p class=note>{sentence(note)}</p>" for note in run.notes]
    return "".join(parts)


def _dict(run: Run, key: str) -> list[tuple[str, Any]]:
    found = run.about.get(key)
    return list(found.items()) if isinstance(found, dict) else []

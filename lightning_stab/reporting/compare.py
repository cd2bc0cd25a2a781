"""Runs side by side: what was set differently first, then curves over each other, then findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import yaml

from lightning_stab.reporting.causes import Causes, Verdict, causes_of, is_alarm, verdict_of
from lightning_stab.reporting.chart import Axis, Line, chart, steps_axis
from lightning_stab.reporting.curves import learning_curves
from lightning_stab.reporting.page import page, section, verdict_html
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Series
from lightning_stab.reporting.text import escape, layers, name, number, since, title

COLOURS = ("blue", "orange", "green", "purple", "sky", "vermillion", "grey")
MOST_CURVES = 12  # tags that are drawn over each other
FEWEST_STEPS = 3  # points of a curve before it can tell groups apart
APART = 0.3  # decades, or halves of the whole range, by which two groups must differ
SAME_SIDE = 2  # moments in a row at which the groups stay apart
NOT_A_CAUSE = ("epoch", "stopping/", "outcome/", "stability_report/")


@dataclass(frozen=True)
class Judged:
    """A run, a short name that tells it from the others, and what is wrong with it."""

    run: Run
    name: str
    causes: Causes

    @property
    def failed(self) -> bool:
        """Whether something is wrong with it."""
        return is_alarm(self.run, self.causes)


@dataclass(frozen=True)
class Difference:
    """The first curve that tells failing and good runs apart.

    Attributes:
        tag: the curve's.
        step: from which on the groups stay apart.
        failing: the range of the failing runs' values there.
        good: the range of the good runs' values there.
    """

    tag: str
    step: int
    failing: tuple[float, float]
    good: tuple[float, float]


def judged(runs: Sequence[Run]) -> list[Judged]:
    """Return runs with their causes and short names."""
    short = short_names([str(run.folder) for run in runs])
    return [Judged(run, each, causes_of(run)) for run, each in zip(runs, short, strict=True)]


def short_names(folders: Sequence[str]) -> list[str]:
    """Return what differs of folders' names, and a number where they are the same.

    Example:
        >>> short_names(["runs/a/version_0", "runs/b/version_0"])
        ['a', 'b']
        >>> short_names(["runs/a", "runs/a"])
        ['a', 'a (2)']
    """
    parts = [PurePath(folder).parts for folder in folders]
    while len(parts) > 1 and all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    while len(parts) > 1 and all(len(p) > 1 and p[-1] == parts[0][-1] for p in parts):
        parts = [p[:-1] for p in parts]
    names: list[str] = []
    for each in ("/".join(p) for p in parts):
        twins = sum(n == each or n.startswith(f"{each} (") for n in names)
        names.append(f"{each} ({twins + 1})" if twins else each)
    return names


def settings(run: Run) -> dict[str, str]:
    """Return a run's settings, flat, by their path in the configuration."""
    flat: dict[str, str] = {}
    try:
        _flatten("", yaml.load(run.config, Loader=_Loader), flat)
    except (yaml.YAMLError, RecursionError, ValueError):
        flat["configuration"] = run.config.strip()
    for key in ("settings", "versions", "hardware", "trainer"):
        _flatten(key, run.about.get(key) or {}, flat)
    return flat


# reads objects of any class as what they hold, and makes none
_Loader: Any = type("_Loader", (yaml.SafeLoader,), {})


def _plain(loader: Any, _: str, node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_Loader.add_multi_constructor("", _plain)


def _flatten(path: str, value: Any, into: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            _flatten(f"{path}.{key}" if path else str(key), each, into)
    elif isinstance(value, list) and value:
        for place, each in enumerate(value):
            named = each.get("class_path") if isinstance(each, Mapping) else None
            end = str(named).rpartition(".")[2] if named else str(place)
            _flatten(f"{path}.{end}", each, into)
    elif value not in (None, {}, []):
        into[path] = str(value)


def differences(runs: Sequence[Judged]) -> dict[str, list[str]]:
    """Return the settings that differ, with each run's value; "" where a run has none."""
    flat = [settings(each.run) for each in runs]
    keys = dict.fromkeys(key for each in flat for key in each)
    rows: dict[str, list[str]] = {}
    seen = set()
    for key in keys:
        values = [each.get(key, "") for each in flat]
        # what hyperparameters and `StabilityReport` both say, as `optimizer: adam` and `Adam`
        same = (key.rpartition(".")[2].removesuffix("s"), *(v.casefold() for v in values))
        if len(set(values)) > 1 and same not in seen:
            rows[key] = values
        seen.add(same)
    return rows


def first_difference(runs: Sequence[Judged]) -> Difference | None:
    """Return the curve by which failing and good runs can be told apart first.

    At each moment the groups are apart where every value of one lies above every value of the
    other by `APART`: in decades for curves that are positive, else relative to the whole range.
    It has to stay so for `SAME_SIDE` moments. Facts of the doctor and logged curves take part;
    None without both kinds of runs, or where no curve tells them apart.
    """
    failing = [_curves(each.run) for each in runs if each.failed]
    good = [_curves(each.run) for each in runs if not each.failed]
    if not failing or not good:
        return None
    shared = set.intersection(*(set(each) for each in (*failing, *good)))
    found = [
        difference
        for tag in sorted(shared)
        if (difference := _apart(tag, [c[tag] for c in failing], [c[tag] for c in good]))
    ]
    return min(found, key=lambda d: (d.step, -_gap(d)), default=None)


def _curves(run: Run) -> dict[str, Series]:
    curves = {**run.series, **{f"diagnosis/{n}": s for n, s in run.facts.items()}}
    return {
        tag: series.finite()
        for tag, series in curves.items()
        if len(series.finite()) >= FEWEST_STEPS and not tag.startswith(NOT_A_CAUSE)
    }


def _apart(tag: str, failing: Sequence[Series], good: Sequence[Series]) -> Difference | None:
    every = (*failing, *good)
    first, last = max(s.steps[0] for s in every), min(s.steps[-1] for s in every)
    moments = every[0].steps[(every[0].steps >= first) & (every[0].steps <= last)]
    if len(moments) < SAME_SIDE:
        return None
    low = min(float(s.values.min()) for s in every)
    span = max(float(s.values.max()) for s in every) - low
    scaled = [np.log10(s.values) if low > 0 else s.values / (span or 1.0) for s in every]
    at = [s.steps.searchsorted(moments, side="right") - 1 for s in every]
    values = np.stack([v[i] for v, i in zip(scaled, at, strict=True)])
    bad, fine = values[: len(failing)], values[len(failing) :]
    for sign in (1, -1):
        gap = np.min(sign * bad, 0) - np.max(sign * fine, 0)
        away = np.flatnonzero(gap < APART)
        start = int(away[-1]) + 1 if len(away) else 0
        if len(moments) - start >= SAME_SIDE:
            real = [s.values[i[start]] for s, i in zip(every, at, strict=True)]
            ends = real[: len(failing)], real[len(failing) :]
            pairs = [(float(min(e)), float(max(e))) for e in ends]
            return Difference(tag, int(moments[start]), pairs[0], pairs[1])
    return None


def _gap(difference: Difference) -> float:
    """Return by how much the groups differ, in decades or plainly."""
    centres = [sum(pair) / 2 for pair in (difference.failing, difference.good)]
    if min(centres) > 0:
        return abs(math.log10(centres[0] / centres[1]))
    return abs(centres[0] - centres[1]) / (abs(centres[0]) + abs(centres[1]) or 1.0)


def answer(runs: Sequence[Judged]) -> Verdict:
    """Say in a sentence what tells the runs apart."""
    failed = [each.name for each in runs if each.failed]
    counts = f"{len(failed)} of {len(runs)} runs failed" if failed else "No run failed"
    settled = differences(runs)
    by_group = [key for key, values in settled.items() if _divides(values, runs)]
    first = first_difference(runs)
    parts = [f"Failed: {layers(failed, 6)}."] if failed else []
    if by_group:
        parts.append(f"What was set differently in them alone: {layers(by_group, 4)}.")
    if first is not None:
        parts.append(
            f"The first curve that tells them apart is <code>{name(first.tag)}</code>, from step "
            f"{first.step:,} on: {_range(first.failing)} in those that failed, "
            f"{_range(first.good)} in the others."
        )
    elif failed and len(failed) < len(runs):
        parts.append("No curve that all of them have tells the two groups apart.")
    if not failed:
        parts.append(f"{len(settled)} settings differ." if settled else "No setting differs.")
    return Verdict("error" if failed else "ok", counts, " ".join(parts))


def _divides(values: Sequence[str], runs: Sequence[Judged]) -> bool:
    """Say whether no failing run has a value that a good run has too."""
    bad = {v for v, each in zip(values, runs, strict=True) if each.failed}
    fine = {v for v, each in zip(values, runs, strict=True) if not each.failed}
    return bool(bad and fine) and not bad & fine


def _range(ends: tuple[float, float]) -> str:
    low, high = ends
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def comparison_page(runs: Sequence[Judged]) -> str:
    """Return the comparison as one self-contained HTML page."""
    parts = [
        verdict_html(answer(runs)),
        section("settings", "Set differently", _settings_table(runs)),
        section("curves", "Curves over each other", _charts(runs)),
        section("findings", "Findings", _findings(runs)),
    ]
    return page(" and ".join(each.name for each in runs), "".join(parts))


def _head(runs: Sequence[Judged]) -> str:
    cells = "".join(
        f'<th class="{COLOURS[i % len(COLOURS)]}">{"✖" if each.failed else "✔"} {name(each.name)}'
        for i, each in enumerate(runs)
    )
    return f"<tr><th>{cells}"


def _settings_table(runs: Sequence[Judged]) -> str:
    found = differences(runs)
    if not found:
        return "<p>No setting that was saved differs.</p>"
    ordered = sorted(found.items(), key=lambda pair: not _divides(pair[1], runs))
    rows = "".join(
        f"<tr{' class=divides' * _divides(values, runs)}><th>{name(key)}"
        + "".join(f"<td>{name(value) or '-'}" for value in values)
        for key, values in ordered
    )
    return f"<div class=wide><table>{_head(runs)}{rows}</table></div>"


def _charts(runs: Sequence[Judged]) -> str:
    steps = steps_axis(max(each.run.last_step for each in runs))
    first = first_difference(runs)
    tags = [first.tag] if first is not None else []
    for each in runs:
        learning = learning_curves(each.run.series)
        tags += [*learning.losses[:2], *learning.metrics]
    tags += ["grad_norm/total", "clip/fraction", "guard/skipped", "lr/group0"]
    return "".join(_chart(tag, runs, steps) for tag in list(dict.fromkeys(tags))[:MOST_CURVES])


def _chart(tag: str, runs: Sequence[Judged], steps: Axis) -> str:
    fact = tag.removeprefix("diagnosis/")
    lines = []
    for place, each in enumerate(runs):
        series = each.run.series.get(tag) or (each.run.facts.get(fact) if fact != tag else None)
        if series is not None:
            lines.append(Line(each.name, series, COLOURS[place % len(COLOURS)]))
    return chart(tag, lines, steps) if lines else ""


def _findings(runs: Sequence[Judged]) -> str:
    ids = dict.fromkeys(f["id"] for each in runs for f in each.causes.alarms)
    rows = ""
    for id_ in ids:
        cells = ""
        for each in runs:
            found = next((f for f in each.causes.alarms if f["id"] == id_), None)
            cells += f"<td>step {since(found):,}" if found else "<td>"
        rows += f"<tr><th>{escape(title(id_))}{cells}"
    table = f"<div class=wide><table>{_head(runs)}{rows}</table></div>" if rows else ""
    verdicts = "".join(
        f"<li><b>{name(each.name)}</b>: {verdict.headline}. {verdict.text}</li>"
        for each in runs
        for verdict in [verdict_of(each.run, each.causes)]
    )
    return f"{table}<ul>{verdicts}</ul>"


def comparison_text(runs: Sequence[Judged]) -> str:
    """Return the answer and what was set differently, as plain text for a terminal."""
    said = answer(runs)
    lines = [said.plain, Verdict("", said.text, "").plain]
    for key, values in differences(runs).items():
        pairs = (f"{each.name}: {v or '-'}" for each, v in zip(runs, values, strict=True))
        lines.append(f"  {key}: {'; '.join(pairs)}")
    return "\n".join(lines)

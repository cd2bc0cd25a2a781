"""What happened when: one list of events, and lanes above the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_stab.reporting.causes import Causes, main_metric
from lightning_stab.reporting.chart import WIDTH, Axis
from lightning_stab.reporting.curves import better, learning_curves
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Array, Series
from lightning_stab.reporting.text import escape, layers, name, number, sentence, since, title

MOST_STEPS = 4  # single steps that a line of the list names
MOST_TICKS = 400  # of a lane
RATE_CHANGE = 2.0  # a factor between two learning rates that the list names


@dataclass(frozen=True)
class Event:
    """Something that happened at a step, as HTML; `kind` is a class of `page.css`."""

    step: int
    kind: str
    text: str


def events_of(run: Run, causes: Causes) -> list[Event]:
    """Return everything that happened, in its order."""
    events = [*_findings(causes), *_counts(run), *_rates(run), *_best(run)]
    events += [Event(step, "restart", "The run was continued from a checkpoint.") for step in
               run.restarts]  # fmt: skip
    if "weight_initialization" in run.texts:
        events.append(Event(0, "done", "The weights were initialised."))
    if run.gradient_check or "gradient_check" in run.texts:
        events.append(Event(0, "done", "The gradients were checked."))
    ended = str(run.about.get("ended", ""))
    if ended and ended != "completed":
        text = f"Ended by an {escape(ended)}: {sentence(run.about.get('failure', ''))}"
        events.append(Event(run.last_step, "error", text))
    return sorted(events, key=lambda e: e.step)


def _findings(causes: Causes) -> Iterator[Event]:
    for place, finding in enumerate(causes.alarms, start=1):
        where = f" in {layers(finding['layers'])}" if finding["layers"] else ""
        text = f"<b>{place} {escape(title(finding['id']))}</b>{where}. "
        yield Event(since(finding), finding["severity"], text + sentence(finding["message"]))
    for finding in causes.remarks:
        text = f"{escape(title(finding['id']))}. {sentence(finding['message'])}"
        yield Event(since(finding), "info", text)
    for finding in causes.consequences:
        before = [n for n, f in enumerate(causes.alarms, 1) if since(f) <= finding["step"]]
        follows = f" (follows from <b>{before[0]}</b>)" if before else ""
        text = f"{escape(title(finding['id']))}{follows}. {sentence(finding['message'])}"
        yield Event(finding["step"], "info", text)
    for finding in causes.withdrawn:
        cause = finding.get("explained_by")
        why = f"<b>{escape(title(cause))}</b> explains it" if cause else "it no longer held"
        text = f"{escape(title(finding['id']))}, of step {since(finding):,}, was withdrawn: {why}."
        yield Event(int(finding.get("withdrawn_at", finding["step"])), "info", text)


def rises(series: Series | None) -> list[int]:
    """Return the steps at which a count has risen."""
    if series is None or not len(series):
        return []
    values = np.nan_to_num(series.values)
    return [int(s) for s in series.steps[np.diff(values, prepend=0.0) > 0]]


def skipped_steps(run: Run) -> list[int]:
    """Return the steps that the guard, or the loss scaler, passed over."""
    scaler = rises(run.series.get("precision/skipped"))
    return sorted({*rises(run.series.get("guard/skipped")), *scaler})


def _counts(run: Run) -> Iterator[Event]:
    for tag, words in (
        ("guard/skipped", "skipped by <code>StepGuard</code>"),
        ("guard/rewound", "at which <code>StepGuard</code> went back to an earlier snapshot"),
        ("precision/skipped", "skipped by the loss scaler of mixed precision"),
    ):
        steps = rises(run.series.get(tag))
        if steps:
            total = int(np.nanmax(run.series[tag].values))
            shown = ", ".join(f"{s:,}" for s in steps[:MOST_STEPS])
            more = ", ..." if len(steps) > MOST_STEPS else ""
            plural = "s" if total != 1 else ""
            text = f"{total:,} step{plural} {words}: {shown}{more}."
            yield Event(steps[0], "skip", text)


def _rates(run: Run) -> Iterator[Event]:
    rate = learning_rate(run)
    if rate is None or len(rate[1]) < 2:
        return
    tag, series = rate
    above = series.values[series.values > 0]
    before = float(above[0]) if len(above) else 0.0  # a warm-up may begin at 0
    changes = []
    for step, value in zip(series.steps[1:].tolist(), series.values[1:].tolist(), strict=True):
        if value > 0 and before > 0 and not 1 / RATE_CHANGE < value / before < RATE_CHANGE:
            changes.append((step, before, value))
            before = value
    if changes:
        first, last = changes[0], changes[-1]
        times = f", in {len(changes)} such changes to {number(last[2])}" * (len(changes) > 1)
        text = f"<code>{name(tag)}</code> from {number(first[1])} to {number(first[2])}{times}."
        yield Event(first[0], "rate", text)


def _best(run: Run) -> Iterator[Event]:
    learning = learning_curves(run.series)
    tag = main_metric(run) or learning.validation
    series = run.series[tag].finite() if tag else None
    if series is not None and len(series) > 1 and np.ptp(series.values) > 0:
        up = better(tag) == "up"
        at = int(series.values.argmax() if up else series.values.argmin())
        text = f"<code>{name(tag)}</code> at its best: {number(float(series.values[at]))}."
        yield Event(int(series.steps[at]), "best", text)


def learning_rate(run: Run) -> tuple[str, Series] | None:
    """Return tag and curve of the first parameter group's learning rate, if it was logged."""
    tags = [t for t in run.series if t.startswith(("lr/", "lr-")) or t in ("lr", "learning_rate")]
    return (tags[0], run.series[tags[0]]) if tags else None


def lanes(run: Run, steps: Axis) -> str:
    """Return a lane for skipped, rewound, clipped steps and restarts, as HTML."""
    found = [
        _ticks_lane("skipped", skipped_steps(run), steps, "vermillion"),
        _ticks_lane("rewound", rises(run.series.get("guard/rewound")), steps, "purple"),
        _fraction_lane("clipped", run.series.get("clip/fraction"), steps),
        _ticks_lane("restart", list(run.restarts), steps, "black"),
        _rate_lane(run, steps),
    ]
    shown = [lane for lane in found if lane]
    return f'<div class="lanes">{"".join(shown)}</div>' if shown else ""


def _lane(title: str, content: str, total: str) -> str:
    return (
        f'<div class="lane"><span>{title}</span><svg viewBox="0 0 {WIDTH} 10"'
        f' preserveAspectRatio="none" data-lane>{content}</svg><span>{total}</span></div>'
    )


def _ticks_lane(title: str, at: Sequence[int], steps: Axis, colour: str) -> str:
    if not at:
        return ""
    every = -(-len(at) // MOST_TICKS)
    path = "".join(f"M{WIDTH * float(steps.place(s)):.1f} 0V10" for s in at[::every])
    return _lane(title, f'<path class="tick {colour}" d="{path}"/>', f"{len(at):,}")


def _fraction_lane(title: str, series: Series | None, steps: Axis) -> str:
    """Return a lane whose colour is as dense as the fraction that was clipped."""
    if series is None or not (series.finite().values > 0).any():
        return ""
    thinned = series.finite().thinned(160)
    starts: Array = np.concatenate([[0], thinned.steps[:-1]])
    boxes = []
    for start, end, value in zip(starts, thinned.steps, thinned.values, strict=True):
        left, right = (WIDTH * float(steps.place(s)) for s in (start, end))
        width = max(right - left, 2)
        boxes.append(
            f'<rect class="clipped" x="{left:.1f}" width="{width:.1f}" height="10"'
            f' opacity="{min(max(float(value), 0), 1):.2f}"/>'
        )
    mean = float(np.mean(thinned.values)) if len(thinned) else 0.0
    return _lane(title, "".join(boxes), f"{mean:.0%}")


def _rate_lane(run: Run, steps: Axis) -> str:
    """Return a lane with the learning rate from 0 to its highest, where it changes."""
    rate = learning_rate(run)
    series = rate[1].finite().thinned(MOST_TICKS) if rate is not None else None
    if series is None or not len(series) or np.ptp(series.values) == 0:
        return ""
    xs, high = WIDTH * steps.place(series.steps), float(series.values.max())
    ys = 10 * (1 - np.clip(series.values / high, 0, 1)) if high > 0 else np.zeros(len(xs))
    points = "L".join(f"{x:.1f} {y:.2f}" for x, y in zip(xs, ys, strict=True))
    path = f'<path class="rate" d="M{xs[0]:.1f} 10L{points}L{xs[-1]:.1f} 10Z"/>'
    return _lane("rate", path, f"{number(float(series.values[-1]))} at the end")


def event_list(events: Sequence[Event]) -> str:
    """Return the events as a list, as HTML."""
    rows = "".join(
        f'<li class="{e.kind}"><span>step {e.step:,}</span><p>{e.text}</p></li>' for e in events
    )
    return f'<ol class="events">{rows}</ol>' if rows else ""

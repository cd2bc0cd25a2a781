"""What curves alone tell of a run: for logs of runs that no doctor watched.

Thresholds are relative to the curve's own range, so that they hold for any loss, also a negative
one. A check that cannot tell says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lightning_stab.reporting.curves import Learning, better, learning_curves
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Array, Series

FEWEST = 8  # points below which a curve is not judged
NOTHING_LEARNT = 0.02  # of the loss's start, or of its noise: less is no improvement
WINDOW, DEVIATIONS, JUMP = 32, 6.0, 0.3  # of spikes; the jump relative to the loss's range
RISE = 0.5  # of what the validation loss had come down: more is overfitting
METRIC_FALL = 0.02  # of the best metric
STILL_FALLING = 0.1  # of the whole improvement in the last fifth: the run was too short


def check_curves(run: Run) -> list[dict[str, Any]]:
    """Return findings from the curves alone, as `Finding.to_dict` has them, the first cause first.

    A diverged or non-finite run gets that one finding: what else its curves show follows from it.
    """
    learning = learning_curves(run.series)
    found = list(_nonfinite(run, learning))
    loss = run.series.get(learning.training)
    if loss is not None and not found:
        found += [f for f in (_diverged(loss.finite(), learning.training),) if f]
    if not found:
        found += _course(run, learning)
    return sorted(found, key=lambda f: f["step"])


def _course(run: Run, learning: Learning) -> Iterator[dict[str, Any]]:
    loss = run.series.get(learning.training)
    validation = run.series.get(learning.validation)
    judged = loss if loss is not None else validation
    learnt = True
    if judged is not None:
        name = learning.training or learning.validation
        finite = judged.finite()
        flat = _nothing_learnt(finite, name)
        learnt = flat is None
        yield from [f for f in (flat, _spikes(finite, name)) if f]
        if learnt:
            yield from [f for f in (_standing(finite, name),) if f]
    overfitting = _overfitting(run, learning) if learnt else None
    if overfitting:
        yield overfitting
    elif judged is not None and learnt:
        # the training loss may go on falling for ever; a validation loss says when to stop
        tag = learning.validation or learning.training
        yield from [f for f in (_too_short(run.series[tag].finite(), tag),) if f]


def _finding(
    id_: str, severity: str, step: int, message: str, advice: tuple[str, ...], **evidence: float
) -> dict[str, Any]:
    return {
        "id": id_,
        "severity": severity,
        "step": int(step),
        "layers": [],
        "message": message,
        "advice": list(advice),
        "evidence": {name: {"value": value} for name, value in evidence.items()},
        "from_curves": True,
    }


def _nonfinite(run: Run, learning: Learning) -> Iterator[dict[str, Any]]:
    drawn = (*learning.losses, *learning.metrics)
    first = {t: run.series[t].first_nonfinite for t in drawn if t in run.series}
    # a metric may be undefined for a while; a loss may not, and a gradient may not
    bad = {t: s for t, s in first.items() if s is not None and t in learning.losses}
    total = run.series.get("grad_norm/total")
    if total is not None and total.first_nonfinite is not None:
        bad["grad_norm/total"] = total.first_nonfinite
    if bad:
        tag = min(bad, key=lambda t: bad[t])
        what = "the gradient's norm" if tag.startswith("grad_norm") else f"`{tag}`"
        yield _finding(
            "non-finite",
            "error",
            bad[tag],
            f"{what[0].upper()}{what[1:]} is not finite from step {bad[tag]:,} on.",
            (
                "Look at the batch of that step: inputs, targets, a division by 0.",
                "Add `StepGuard(on_nonfinite='skip')`, and lower the learning rate.",
            ),
        )


def _ends(values: Array) -> tuple[float, float]:
    """Return the medians of the first and of the last values."""
    size = max(3, len(values) // 20)
    return float(np.median(values[:size])), float(np.median(values[-size:]))


def _smooth(values: Array) -> Array:
    """Return the running medians of a twentieth of the curve."""
    size = max(3, len(values) // 20)
    windows = np.lib.stride_tricks.sliding_window_view(values, min(size, len(values)))
    return np.asarray(np.median(windows, axis=1))


def _diverged(loss: Series, tag: str) -> dict[str, Any] | None:
    if len(loss) < FEWEST:
        return None
    start, last = float(loss.values[0]), _ends(loss.values)[1]
    smooth = _smooth(loss.values)
    best = float(min(smooth.min(), start))
    # twice the start, and risen by more than it ever came down
    if last <= start + max(abs(start), start - best):
        return None
    above = np.flatnonzero(loss.values > start + max(abs(start), start - best))
    below = np.flatnonzero(loss.values <= start)
    first = above[above > below[-1]] if len(below) else above
    step = int(loss.steps[first[0]]) if len(first) else int(loss.steps[-1])
    return _finding(
        "diverged",
        "error",
        step,
        f"`{tag}` rose from {_short(start)} at the start to {_short(last)} at the end.",
        (
            "Lower the learning rate, or let it warm up over the first steps.",
            "Add `GradientClipping()`; it bounds the step that a single batch can take.",
        ),
        first_loss=start,
        last_loss=last,
    )


def _nothing_learnt(loss: Series, tag: str) -> dict[str, Any] | None:
    if len(loss) < 2 * FEWEST:
        return None
    start, last = _ends(loss.values)
    noise = float(np.median(np.abs(np.diff(loss.values)))) / np.sqrt(max(3, len(loss) // 20))
    best = float(_smooth(loss.values).min())
    if start - best > max(NOTHING_LEARNT * abs(start), 2 * noise):
        return None
    return _finding(
        "nothing-learnt",
        "warning",
        int(loss.steps[0]),
        f"`{tag}` is {_short(last)} at the end and was {_short(start)} at the start: nothing was"
        " learnt.",
        (
            "Run `lightning-stab diagnose` with the same arguments: it names the cause.",
            "Check that ten samples can be learnt by heart (`--trainer.overfit_batches`).",
        ),
        first_loss=start,
        last_loss=last,
    )


def _spikes(loss: Series, tag: str) -> dict[str, Any] | None:
    values = loss.values
    if len(values) < WINDOW:
        return None
    scale = _ends(values)[0] - float(_smooth(values).min())
    half = WINDOW // 2
    windows = np.lib.stride_tricks.sliding_window_view(values, half)[:-1]
    median, spread = np.median(windows, axis=1), windows.std(axis=1)
    later = values[half:]
    high = later > median + np.maximum(DEVIATIONS * spread, JUMP * abs(scale))
    places = np.flatnonzero(high & ~np.r_[False, high[:-1]]) + half
    if not len(places) or scale <= 0:
        return None
    worst = int(places[values[places].argmax()])
    above_start = bool(values[worst] > values[0])
    return _finding(
        "loss-spikes",
        "warning" if above_start or len(places) > 2 else "info",
        int(loss.steps[places[0]]),
        f"`{tag}` jumped {len(places)} time{'s' * (len(places) > 1)}, to {_short(values[worst])} at"
        f" step {int(loss.steps[worst]):,}.",
        (
            "Add `StepGuard(on_spike='skip')`: it passes over steps far outside the run's past.",
            "Look at the batches of these steps.",
        ),
        highest_loss=float(values[worst]),
    )


def _standing(loss: Series, tag: str) -> dict[str, Any] | None:
    smooth = _smooth(loss.values)
    if len(smooth) < 4 * FEWEST:
        return None
    start, best = _ends(loss.values)[0], float(smooth.min())
    left = smooth - best < 0.01 * (start - best)
    # first place from which the curve stays within 1 % of its best
    away = np.flatnonzero(~left)
    since = int(away[-1]) + 1 if len(away) else 0
    if since > 0.6 * len(smooth):
        return None
    step = int(loss.steps[since])
    return _finding(
        "plateau",
        "info",
        step,
        f"`{tag}` has stood within 1 % of its best since step {step:,}.",
        ("Lower the learning rate there (`LearningRateDecay`), or end the run earlier.",),
    )


def _overfitting(run: Run, learning: Learning) -> dict[str, Any] | None:
    validation = run.series.get(learning.validation)
    loss = run.series.get(learning.training)
    if validation is None or loss is None:
        return None
    val, train = validation.finite(), loss.finite()
    if len(val) < 4 or len(train) < 4:
        return None
    lowest = int(val.values.argmin())
    best, last = float(val.values[lowest]), float(np.median(val.values[-3:]))
    came_down = max(float(val.values[0]) - best, 0.05 * abs(best))
    falls_on = _ends(train.values[train.steps >= val.steps[lowest]] if lowest else train.values)
    if lowest >= len(val) - 3 or last - best < RISE * came_down or falls_on[1] >= falls_on[0]:
        return None
    step = int(val.steps[lowest])
    return _finding(
        "overfitting",
        "info" if _metrics_hold(run, learning) else "warning",
        step,
        f"`{learning.validation}` was best at step {step:,} ({_short(best)}) and has risen to"
        f" {_short(last)}, while `{learning.training}` went on falling.",
        (
            f"Add `BestWeightsEarlyStopping(monitor={learning.validation!r})`: it keeps the best.",
            "More data, augmentation, dropout or weight decay.",
        ),
        best=best,
        last=last,
    )


def _metrics_hold(run: Run, learning: Learning) -> bool:
    """Say whether a validation metric stays at its best although the validation loss rises."""
    for tag in learning.metrics:
        way = better(tag)
        values = run.series[tag].finite().values
        if "val" in tag.lower() and way and len(values) >= 4:
            signed = values if way == "up" else -values
            best = float(signed.max())
            late = float(signed[-max(3, len(signed) // 4) :].max())
            return late > best - METRIC_FALL * abs(best)
    return False


def _too_short(loss: Series, tag: str) -> dict[str, Any] | None:
    if len(loss) < 6:
        return None
    smooth = _smooth(loss.values)
    start, end = float(smooth[0]), float(smooth[-1])
    late = float(smooth[int(0.8 * (len(smooth) - 1))])
    if start <= end or late - end < STILL_FALLING * (start - end):
        return None
    share = (late - end) / (start - end)
    return _finding(
        "too-short",
        "info",
        int(loss.steps[-1]),
        f"`{tag}` was still falling when the run ended: {share:.0%} of its whole improvement came"
        " in the last fifth.",
        ("Train longer: raise `max_epochs`, or continue from the checkpoint.",),
        late_share=share,
    )


def _short(value: float) -> str:
    return f"{value:.3g}"

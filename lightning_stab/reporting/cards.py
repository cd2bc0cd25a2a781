"""A card for each cause: the evidence drawn where it happened, its threshold, the advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_stab.diagnosis.facts import MEANINGS
from lightning_stab.reporting.causes import Causes
from lightning_stab.reporting.chart import Axis, Line, Mark, chart
from lightning_stab.reporting.curves import learning_curves
from lightning_stab.reporting.depth import natural
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Series
from lightning_stab.reporting.text import cure, escape, layers, name, number, sentence, since, title

CALLBACKS = (  # that an advice may name
    "ActivationMonitor",
    "BestWeightsEarlyStopping",
    "GradientCheck",
    "GradientClipping",
    "GradientMonitor",
    "LearningRateDecay",
    "StepGuard",
    "TrainingDoctor",
    "WeightInitialization",
)
GLYPHS = {"error": "✖", "warning": "▲", "info": "i"}
WORDS = {"error": "error", "warning": "warning", "info": "info"}
BY_LAYER = ("dead_fraction", "saturated_fraction", "update_ratio")  # facts that are also sections
OVER_DEPTH = ("gradient_depth_log10", "gradient_depth_start_log10")
OF_LOSS = ("loss_ratio", "spike_height", "spikes", "unexplained", "relapse", "oscillation")
FLAG = "flag_set"  # the threshold of facts that only say yes or no, as the message does already
FEWEST = 3  # points from which a fact's curve is worth drawing
MOST_LINES = 5  # layers of a card's chart


def marks_of(causes: Causes) -> list[Mark]:
    """Return the alarms' steps as numbered marks, for every chart over steps."""
    return [
        Mark(since(f), str(place), title(f["id"]), f["severity"])
        for place, f in enumerate(causes.alarms, start=1)
    ]


def cards(run: Run, causes: Causes, steps: Axis) -> str:
    """Return a card for each alarm, and one list of what is worth knowing, as HTML."""
    marks = marks_of(causes)
    parts = [_card(run, f, steps, mark) for f, mark in zip(causes.alarms, marks, strict=True)]
    if causes.remarks:
        rows = "".join(
            f"<li><b>{escape(title(f['id']))}</b> (step {since(f):,}). {sentence(f['message'])}"
            + (f" <span class=do>{sentence(f['advice'][0])}</span>" if f["advice"] else "")
            + "</li>"
            for f in causes.remarks
        )
        parts.append(f'<article class="card info"><h3>Worth knowing</h3><ul>{rows}</ul></article>')
    return "".join(parts)


def _card(run: Run, finding: Mapping[str, Any], steps: Axis, mark: Mark) -> str:
    severity = finding["severity"]
    where = layers(finding["layers"], 6) if finding["layers"] else "the whole run"
    step = since(finding)
    when = f"since step {step:,}" if step else "from the start"
    when += f", found at step {finding['step']:,}" if finding["step"] > step else ""
    advice = "".join(f"<li>{sentence(line)}</li>" for line in finding["advice"])
    yaml = cure(finding["advice"], CALLBACKS)
    source = finding.get("source")
    return (
        f'<article class="card {severity}"><h3><i class="number {severity}">{mark.text}</i> '
        f"{escape(title(finding['id']))} <small>{GLYPHS[severity]} {WORDS[severity]}, {when}, "
        f"{where}</small></h3><p>{sentence(finding['message'])}</p>"
        f"{_evidence_chart(run, finding, steps, mark)}{_evidence(finding)}"
        f"<h4>What to do</h4><ol>{advice}</ol>"
        + (f"<pre class=cure>{escape(yaml)}</pre>" if yaml else "")
        + (f"<p class=note>Source: {sentence(source)}</p>" if source else "")
        + "</article>"
    )


def _broken(finding: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the evidence that broke its threshold; the rest says what was ruled out."""
    pairs = list(finding["evidence"].items())
    return [(n, e) for n, e in pairs if e.get("sign", ">") in (">", "<", ">=", "<=")]


def _evidence(finding: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{_meaning(fact)}<td>{number(each.get('value'))}<td>"
        + (f"{_limit(each)} <code>{name(each['name'])}</code>" if each.get("name") else "")
        for fact, each in _broken(finding)
        if each.get("name") != FLAG
    )
    return f"<table class=evidence><tr><th>measured<th><th>threshold{rows}</table>" * bool(rows)


def _meaning(fact: str) -> str:
    """Return what a fact is, as HTML; its name where nobody has explained it."""
    meaning = MEANINGS.get(fact, "").partition(". ")[0].removeprefix("by layer, ")
    return sentence(meaning) if meaning else name(title(fact))


def _limit(each: Mapping[str, Any]) -> str:
    side = {"<": "below", ">": "above"}.get(str(each.get("sign")), "")
    return f"{side} {number(each.get('threshold'))}"


def _evidence_chart(run: Run, finding: Mapping[str, Any], steps: Axis, mark: Mark) -> str:
    evidence = _broken(finding)
    facts = [fact for fact, _ in evidence]
    if any(fact in OVER_DEPTH for fact in facts):
        limits = [each for fact, each in evidence if fact in OVER_DEPTH]
        drawn = _profile(run, finding, limits[0])
        if drawn:
            return drawn
    for fact, each in evidence:
        threshold = _threshold(each)
        section = _shown_layers(run.section(fact), finding["layers"]) if fact in BY_LAYER else {}
        if section:
            lines = [Line(n, s, f"s{2 * i}") for i, (n, s) in enumerate(section.items())]
            words = title(fact)
            return chart(words, lines, steps, threshold=threshold, marks=[mark])
    loss = learning_curves(run.series).training
    about_loss = not facts or finding.get("from_curves") or any(f in OF_LOSS for f in facts)
    if finding["id"] == "non-finite" and (not loss or not len(run.series[loss].finite())):
        before = run.series.get("grad_norm/total")
        if before is not None and len(before.finite()):
            line = Line("grad_norm/total", before, "blue")
            return chart("Gradient norm", [line], steps, marks=[mark])
    if about_loss and loss:
        return _loss(run, steps, mark)
    for fact, each in evidence:
        series = run.facts.get(fact)
        if series is not None and len(series.finite()) >= FEWEST:
            line = Line(fact, series, "blue")
            return chart(title(fact), [line], steps, threshold=_threshold(each), marks=[mark])
    return _loss(run, steps, mark) if loss else ""


def _loss(run: Run, steps: Axis, mark: Mark) -> str:
    """Return the losses with the step marked."""
    learning = learning_curves(run.series)
    tags = [t for t in dict.fromkeys((learning.training, learning.validation)) if t]
    lines = [Line(t, run.series[t], c) for t, c in zip(tags, ("blue", "orange"), strict=False)]
    return chart("Loss", lines, steps, marks=[mark])


def _threshold(each: Mapping[str, Any]) -> tuple[float, str] | None:
    value = each.get("threshold")
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return (float(value), "threshold") if is_number and value is not None else None


def _shown_layers(section: Mapping[str, Series], named: Sequence[str]) -> dict[str, Series]:
    chosen = {n: s for n, s in section.items() if n in named} or dict(section)
    return dict(sorted(chosen.items(), key=lambda pair: natural(pair[0]))[:MOST_LINES])


def _profile(run: Run, finding: Mapping[str, Any], limit: Mapping[str, Any]) -> str:
    """Return the gradient over depth at the step of the finding and at the end.

    Args:
        run: with the gradient by layer.
        finding: of a gradient that vanishes or explodes.
        limit: the evidence: the first layer's gradient over the last hidden one's, as log10.
    """
    layers = run.section("preactivation_grad")
    what = "RMS of the gradient at each layer's pre-activations"
    if len(layers) < FEWEST:
        layers = {n: s for n, s in run.section("grad_norm").items() if not n.startswith("total")}
        what = "Gradient norm of each layer"
    if len(layers) < FEWEST:
        return ""
    first = min(int(s.steps[0]) for s in layers.values())
    moments = sorted({max(finding["step"], first), run.last_step})
    depth = np.arange(1, len(layers) + 1)
    lines = []
    for moment, colour in zip(moments, ("blue", "orange"), strict=False):
        at = [int(np.searchsorted(s.steps, moment, side="right")) - 1 for s in layers.values()]
        values = np.array(
            [s.values[max(i, 0)] for i, s in zip(at, layers.values(), strict=True)], float
        )
        values = np.where(values > 0, values, np.nan)
        if moment == moments[0]:
            threshold = _at_the_first_layer(float(values[-2]), limit)
        lines.append(Line(f"step {moment:,}", Series(depth, values, len(depth)), colour))
    axis = Axis(1.0, float(len(layers)))
    note = "a healthy net is nearly level"
    note += "; the threshold is for the first layer" if threshold else ""
    name_ = "layer, from first to last"
    return chart(what, lines, axis, note=note, log=True, threshold=threshold, axis_name=name_)


def _at_the_first_layer(hidden: float, limit: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return beyond which value the first layer's gradient is called vanishing or exploding."""
    threshold = _threshold(limit)
    if threshold is None or not math.isfinite(hidden) or abs(threshold[0]) > 30:
        return None
    return hidden * 10 ** threshold[0], "threshold"

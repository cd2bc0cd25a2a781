"""One list of causes, and the verdict in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any

from lightning_stab.reporting.curve_checks import check_curves
from lightning_stab.reporting.curves import better, learning_curves
from lightning_stab.reporting.run import SEVERITIES, Run
from lightning_stab.reporting.text import layers, name, number, sentence, since, title

CERTAIN = ("non-finite", "diverged")  # curve checks that hold also where the doctor says otherwise
ALARMS = ("warning", "error")


@dataclass(frozen=True)
class Causes:
    """What is wrong with a run.

    Attributes:
        alarms: findings of which each gets a card, the worst and earliest first.
        remarks: what is worth knowing and no fault.
        consequences: what the curves show and an alarm explains.
        withdrawn: findings that did not hold.
    """

    alarms: tuple[Mapping[str, Any], ...]
    remarks: tuple[Mapping[str, Any], ...]
    consequences: tuple[Mapping[str, Any], ...]
    withdrawn: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Verdict:
    """The run in a sentence.

    Attributes:
        state: ``ok``, ``unknown``, ``warning`` or ``error``.
        headline: a few words, as HTML.
        text: what is wrong, where and since when, as HTML.
        advice: what to do first, as HTML; "" where nothing is wrong.
    """

    state: str
    headline: str
    text: str
    advice: str = ""

    @property
    def plain(self) -> str:
        """The headline as plain text."""
        return unescape(re.sub(r"<[^>]*>", "", self.headline))


def causes_of(run: Run) -> Causes:
    """Put together what the doctor found and what the curves show, each cause once."""
    withdrawn = tuple(f for f in run.findings if f.get("state") == "withdrawn")
    held = [f for f in run.findings if f.get("state") != "withdrawn"]
    alarms = [f for f in held if f["severity"] in ALARMS]
    remarks = [f for f in held if f["severity"] not in ALARMS]
    consequences: list[Mapping[str, Any]] = []
    for found in check_curves(run):
        if any(f["id"] == found["id"] for f in held):
            continue
        if alarms and run.diagnosed:
            consequences.append(found)
        elif found["severity"] in ALARMS and (not run.diagnosed or found["id"] in CERTAIN):
            alarms.append(found)
        elif found["id"] == "too-short" or not run.diagnosed:
            remarks.append(found)
    alarms.sort(key=lambda f: (-SEVERITIES.index(f["severity"]), since(f)))
    return Causes(tuple(alarms), tuple(remarks), tuple(consequences), withdrawn)


def is_alarm(run: Run, causes: Causes) -> bool:
    """Say whether something is wrong with a run."""
    return bool(causes.alarms) or run.about.get("ended") == "exception"


def verdict_of(run: Run, causes: Causes) -> Verdict:
    """Return the verdict: healthy, or what is wrong, where, since when and what to do."""
    if causes.alarms:
        return _alarm(causes)
    if run.about.get("ended") == "exception":
        text = f"{sentence(run.about.get('failure', ''))} Nothing wrong was found before it."
        return Verdict("error", "The run ended in an exception", text)
    learning = learning_curves(run.series)
    if not run.series:
        return Verdict("unknown", "No judgement", "The run has logged no number.")
    if not (learning.losses or run.diagnosed):
        text = "No loss is among the tags, and no <code>TrainingDoctor</code> watched the run."
        return Verdict("unknown", "No judgement", text)
    by = (
        "<code>TrainingDoctor</code> found nothing wrong."
        if run.diagnosed
        else "The curves show nothing wrong. No <code>TrainingDoctor</code> looked further."
    )
    short = next((f for f in causes.remarks if f["id"] == "too-short"), None)
    advice = sentence(short["advice"][0]) if short else ""
    headline = "Healthy" if run.diagnosed else "Healthy by its curves"
    headline += ", and still improving at the end" if short else ""
    return Verdict("ok", headline, f"{outcome(run)} {by}", advice)


def outcome(run: Run) -> str:
    """Say how loss and metrics came along, as HTML."""
    learning = learning_curves(run.series)
    sentences = []
    for tag in dict.fromkeys(t for t in (learning.training, learning.validation) if t):
        values = run.series[tag].finite().values
        if len(values) > 1:
            way = "fell" if values[-1] < values[0] else "rose"
            ends = f"from {number(float(values[0]))} to {number(float(values[-1]))}"
            sentences.append(f"<code>{name(tag)}</code> {way} {ends}.")
    metric = main_metric(run)
    if metric:
        last = number(float(run.series[metric].finite().values[-1]))
        sentences.append(f"<code>{name(metric)}</code> ended at {last}.")
    return " ".join(sentences)


def main_metric(run: Run) -> str:
    """Return the tag of the metric that says most: one of validation whose best is known."""
    metrics = [t for t in learning_curves(run.series).metrics if len(run.series[t].finite())]
    metrics = [t for t in metrics if better(t)]
    return next((t for t in metrics if "val" in t.lower()), next(iter(metrics), ""))


def _alarm(causes: Causes) -> Verdict:
    first, more = causes.alarms[0], len(causes.alarms) - 1
    where = f" in {layers(first['layers'])}" if first["layers"] else ""
    when = f", since step {since(first):,}" if since(first) else ", from the start"
    others = f" {more} other cause{'s' * (more > 1)} below." if more else ""
    advice = sentence(first["advice"][0]) if first["advice"] else ""
    return Verdict(
        first["severity"],
        sentence(title(first["id"])) + where + when,
        sentence(first["message"]) + others,
        advice,
    )

"""Where findings go: the terminal, the loggers, a json file in the run's folder."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.logging import log_json, log_scalars, log_text, tag
from lightning_stab.callbacks._trainer.places import reporting, write_file
from lightning_stab.callbacks._trainer.terminal import beside_bar
from lightning_stab.diagnosis import SEVERITIES, Facts, Finding
from lightning_stab.diagnosis.facts import BY_LAYER

FILE_NAME = "findings.json"
SECTION, FACTS = "diagnosis", "diagnosis_facts"
LOGGER = logging.getLogger("lightning_stab")
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
READ = {"not>": "<=", "not<": ">="}  # conditions that a number meets which is not known
COLOURS = {"info": "cyan", "warning": "yellow", "error": "red"}
NOT_LOGGED = ("moment", "step", "epoch", "learning_rate", "warming_up")


def print_findings(trainer: Trainer, findings: Sequence[Finding]) -> None:
    """Send findings to the logger `lightning_stab`, on the first rank.

    Where nobody has given that logger or the root a handler, Python's own last resort prints
    warnings and errors to the terminal's error stream. A progress bar in the way is cleared first.
    """
    for finding in findings if trainer.is_global_zero else ():
        if finding.state == "confirmed":  # it was said when it was found
            continue
        level = LEVELS[finding.severity]
        if finding.state == "withdrawn":  # who has read the alarm shall read this too
            level = min(level, logging.WARNING)
        if LOGGER.isEnabledFor(level):
            failure = "A finding of `TrainingDoctor` cannot be printed"
            with reporting(trainer, failure), beside_bar(trainer, LOGGER):
                LOGGER.log(level, "%s", text_of(finding))


def text_of(finding: Finding) -> str:
    """Return a finding as plain text: a line for what and when, one for the message, the advice."""
    if finding.state == "withdrawn":
        cause = finding.explained_by
        why = f"`{cause}` explains it" if cause else "it no longer holds"
        return f"withdrawn: {finding.id} (step {finding.withdrawn_at}): {why}."
    head = f"{finding.severity}: {finding.id} (step {finding.step}{_history(finding)})"
    return "\n".join([head, finding.message, *(f"  {line}" for line in numbered(finding.advice))])


def log_findings(trainer: Trainer, findings: Sequence[Finding]) -> None:
    """Send findings to the loggers.

    TensorBoard gets a text by id and, packed as json, all that is new at this step; every logger
    the severity as a scalar by id: 1, 2, 3 for a new one, 0 for one that is withdrawn.
    """
    shown = [f for f in findings if f.state != "confirmed"]
    for finding in shown:
        log_text(trainer, tag(SECTION, finding.id), markdown(finding))
    severities = {
        tag(SECTION, f.id): float(f.state != "withdrawn" and SEVERITIES.index(f.severity) + 1)
        for f in shown
    }
    log_scalars(trainer, severities)
    log_json(trainer, tag(SECTION, "findings"), [f.to_dict() for f in findings])


def log_facts(trainer: Trainer, facts: Facts, *, as_scalars: bool = False) -> None:
    """Send the facts of the whole run that are known to TensorBoard, packed as json.

    Args:
        trainer: whose loggers.
        facts: what was measured.
        as_scalars: whether all loggers get them one by one as well.
    """
    known = {
        f.name: float(getattr(facts, f.name))
        for f in fields(Facts)
        if f.name not in BY_LAYER and f.name not in NOT_LOGGED
    }
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    log_json(trainer, tag(SECTION, "facts"), known)
    if as_scalars:
        log_scalars(trainer, {tag(FACTS, name): value for name, value in known.items()})


def markdown(finding: Finding) -> str:
    """Return a finding as Markdown: what, where and when, the advice, the numbers in a table."""
    layers = ", ".join(f"`{name}`" for name in finding.layers) or "the whole run"
    if finding.state == "withdrawn":
        return f"**withdrawn**, step {finding.withdrawn_at}, {layers}\n\n~~{finding.message}~~"
    head = f"**{finding.severity}**, step {finding.step}{_history(finding)}, {layers}"
    advice = "\n".join(numbered(finding.advice))
    rows = [
        f"| `{name}` | {e.value:.4g} | `{e.name}` {READ.get(e.sign, e.sign)} {e.threshold:g} |"
        for name, e in finding.evidence.items()
    ]
    # a table, because a list would continue the numbered one
    numbers = "\n".join(["| measured | value | threshold |", "| --- | --- | --- |", *rows])
    return "\n\n".join((head, finding.message, advice, numbers))


def _history(finding: Finding) -> str:
    """Return since when a finding holds and how often it was seen, where that is more than once."""
    if finding.seen < 2:
        return ""
    return f", since step {finding.since}, at {finding.seen} checks in a row"


def numbered(lines: Sequence[str]) -> list[str]:
    """Return the lines with their places in front.

    Example:
        >>> numbered(["Clip.", "Wait."])
        ['1. Clip.', '2. Wait.']
    """
    return [f"{place}. {line}" for place, line in enumerate(lines, start=1)]


def write_findings(
    trainer: Trainer, folder: str, findings: Sequence[Finding], place: Mapping[str, Any]
) -> bool:
    """Write findings, and the place of the run, as json; say whether it worked."""
    text = json.dumps({**place, "findings": [f.to_dict() for f in findings]}, indent=1)
    return write_file(trainer, f"{folder}/{FILE_NAME}", (text + "\n").encode())

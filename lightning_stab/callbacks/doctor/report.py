"""Where findings go: the terminal, the loggers, a json file in the run's folder."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.lightning_classes import inherits
from lightning_stab.callbacks._trainer.logging import (
    log_json,
    log_scalars,
    log_text,
    tag,
)
from lightning_stab.callbacks._trainer.places import reporting, write_file
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
    warnings and errors to the terminal's error stream. A progress bar in the way is told first.
    """
    for finding in findings if trainer.is_global_zero else ():
        if finding.state == "confirmed":  # it was said when it was found
            continue
        level = logging.INFO if finding.state == "withdrawn" else LEVELS[finding.severity]
        if LOGGER.isEnabledFor(level):
            failure = "A finding of `TrainingDoctor` cannot be printed"
            with reporting(trainer, failure), beside_bar(trainer):
                LOGGER.log(level, "%s", text_of(finding))


def text_of(finding: Finding) -> str:
    """Return a finding as plain text: a line for what and when, one for the message, the advice."""
    if finding.state == "withdrawn":
        cause = finding.explained_by
        why = f"`{cause}` explains it" if cause else "it holds no longer"
        return f"withdrawn: {finding.id} (step {finding.withdrawn_at}): {why}."
    head = f"{finding.severity}: {finding.id} (step {finding.step}{_history(finding)})"
    return "\n".join([head, finding.message, *(f"  {line}" for line in numbered(finding.advice))])


@contextmanager
def beside_bar(trainer: Trainer) -> Iterator[None]:
    """Let a text that is printed meanwhile begin on a line of its own.

    The line on which tqdm draws its bar is ended. Rich puts what goes to `sys.stderr` above its own
    bar; where a handler has kept the terminal itself, the bar is stopped and goes on below.
    """
    bar = getattr(trainer, "progress_bar_callback", None)
    is_shown = getattr(bar, "is_enabled", True) and sys.stderr.isatty() and sys.stdout.isatty()
    if is_shown and inherits(bar, "TQDMProgressBar"):
        sys.stdout.flush()
        sys.stderr.write("\n")
    progress = getattr(bar, "progress", None) if inherits(bar, "RichProgressBar") else None
    if progress is not None and not (_writes_to_terminal() and progress.live.is_started):
        progress = None
    if progress is not None:
        progress.stop()
    yield
    if progress is not None:
        progress.start()


def _writes_to_terminal() -> bool:
    """Say whether a handler of the logger holds a terminal that is not the present `sys.stderr`."""
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        for handler in logger.handlers:
            stream = getattr(handler, "stream", None)
            if stream is not None and stream not in (sys.stderr, sys.stdout) and stream.isatty():
                return True
        logger = logger.parent if logger.propagate else None
    return False


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

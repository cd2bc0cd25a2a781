"""Where findings go: the terminal, the loggers, a json file in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.logging import log_scalars, log_text, tag
from lightning_stab.callbacks._trainer.places import reporting, write_file
from lightning_stab.diagnosis import SEVERITIES, Facts, Finding
from lightning_stab.diagnosis.facts import BY_LAYER

FILE_NAME = "findings.json"
SECTION, FACTS = "diagnosis", "diagnosis_facts"
COLOURS = {"info": "cyan", "warning": "yellow", "error": "red"}
NOT_LOGGED = ("moment", "step", "epoch", "learning_rate", "warming_up")


def print_findings(trainer: Trainer, findings: Sequence[Finding]) -> None:
    """Print findings to the terminal's error stream, on the first rank."""
    for finding in findings if trainer.is_global_zero else ():
        with reporting(trainer, "A finding of `TrainingDoctor` cannot be printed"):
            print_finding(finding)


def print_finding(finding: Finding) -> None:
    """Print one finding to the terminal's error stream."""
    from rich.console import Console
    from rich.markup import escape

    name = f"[bold {COLOURS[finding.severity]}]{finding.severity}: {finding.id}[/]"
    lines = [f"{name} (step {finding.step})", escape(finding.message)]
    lines += [f"  {escape(line)}" for line in numbered(finding.advice)]
    Console(stderr=True, soft_wrap=True, highlight=False).print("\n".join(lines))


def log_findings(trainer: Trainer, findings: Sequence[Finding]) -> None:
    """Send findings to the loggers: text, and the severity (1, 2, 3) as a scalar by id."""
    for finding in findings:
        log_text(trainer, tag(SECTION, finding.id), markdown(finding))
    severities = {tag(SECTION, f.id): float(SEVERITIES.index(f.severity) + 1) for f in findings}
    log_scalars(trainer, severities)


def log_facts(trainer: Trainer, facts: Facts) -> None:
    """Send the facts of the whole run that are known to the loggers, as one event."""
    names = [f.name for f in fields(Facts) if f.name not in BY_LAYER and f.name not in NOT_LOGGED]
    values = {tag(FACTS, name): float(getattr(facts, name)) for name in names}
    log_scalars(trainer, {name: value for name, value in values.items() if value == value})


def markdown(finding: Finding) -> str:
    """Return a finding as Markdown."""
    advice = "\n".join(numbered(finding.advice))
    numbers = "\n".join(
        f"- `{name}` = {e.value:.4g} (threshold `{e.name}`: {e.threshold:g})"
        for name, e in finding.evidence.items()
    )
    layers = ", ".join(f"`{name}`" for name in finding.layers) or "the whole run"
    head = f"**{finding.severity}**, step {finding.step}, {layers}"
    return "\n\n".join((head, finding.message, advice, numbers))


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

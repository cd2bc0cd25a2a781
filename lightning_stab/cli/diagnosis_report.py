"""What a diagnosis found, as tables for people or as json for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab import TrainingDoctor
from lightning_stab.callbacks.doctor.report import COLOURS, numbered
from lightning_stab.diagnosis import IDS, RULES, THRESHOLDS, Facts, Finding
from lightning_stab.diagnosis.finding import SHOWN_LAYERS

WIDTH = 120  # columns where the output is no terminal
WIDE = 100  # columns from which the first advice stands in the table too; all follows below


@dataclass(frozen=True)
class Diagnosis:
    """What came of a watched fit.

    Attributes:
        findings: in the order in which they were found.
        steps: optimizer steps that were taken.
        epochs: passes over the data, with fractions; None for data without an end.
        unseen: what could not be seen, a sentence each.
        failure: what ended the fit, if it was not its end.
    """

    findings: tuple[Finding, ...]
    steps: int
    epochs: float | None
    unseen: tuple[str, ...]
    failure: BaseException | None = None

    @property
    def has_failed(self) -> bool:
        """Whether there is an error among the findings, or the fit failed."""
        return self.failure is not None or any(f.severity == "error" for f in self.findings)

    @property
    def stopped(self) -> str | None:
        """What ended the fit, in words; None if nothing did."""
        if self.failure is None:
            return None
        if isinstance(self.failure, SystemExit):
            return "an interruption"
        return f"{type(self.failure).__name__}: {self.failure}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; numbers that are not finite become None, as json has none."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "findings": [finding.to_dict() for finding in self.findings],
            "unseen": list(self.unseen),
            "stopped": self.stopped,
        }


def diagnosis(
    trainer: Trainer, doctor: TrainingDoctor, steps: int, failure: BaseException | None
) -> Diagnosis:
    """Return what a doctor found in a fit of some optimizer steps that is over."""
    batches = trainer.num_training_batches
    done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
    return Diagnosis(
        findings=tuple(doctor.findings),
        steps=steps,
        epochs=round(done / batches, 3) if 0 < batches < math.inf else None,
        unseen=(*doctor.unseen, *_unseen(trainer, doctor)) if steps else (),
        failure=failure,
    )


def show(found: Diagnosis, *, as_json: bool) -> None:
    """Print a diagnosis to the standard output."""
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
    epochs = "" if found.epochs is None else f" ({found.epochs:.1f} epochs)"
    place = f"{found.steps} optimizer steps{epochs}"
    if found.findings:
        console.print(_table(found, place, with_advice=console.width >= WIDE))
        for finding in found.findings:
            console.print(f"\n[bold]What to do about {finding.id}[/]")
            for line in numbered(finding.advice):
                console.print(f"  {escape(line)}", soft_wrap=True)
    else:
        end = ", until the fit failed" if found.failure else ""
        console.print(f"Nothing wrong was found in {place}{end}.")
    for sentence in (*found.unseen, *([f"Stopped by {found.stopped}"] if found.stopped else [])):
        console.print(f"\n{escape(sentence)}", soft_wrap=True)


def _table(found: Diagnosis, place: str, *, with_advice: bool) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Found in {place}", title_justify="left", show_lines=True)
    for name in ("severity", "id", "step"):
        table.add_column(name, no_wrap=True)
    table.add_column("layers", overflow="fold", ratio=2)
    table.add_column("message", overflow="fold", ratio=4)
    if with_advice:
        table.add_column("first advice", overflow="fold", ratio=4)
    for finding in found.findings:
        more = len(finding.layers) - SHOWN_LAYERS
        layers = [*finding.layers[:SHOWN_LAYERS], *([f"and {more} more"] if more > 0 else [])]
        table.add_row(
            f"[{COLOURS[finding.severity]}]{finding.severity}[/]",
            finding.id,
            str(finding.step),
            escape("\n".join(layers) or "the whole run"),
            escape(finding.message),
            *([escape(finding.advice[0])] if with_advice and finding.advice else []),
        )
    return table


def _unseen(trainer: Trainer, doctor: TrainingDoctor) -> Iterator[str]:
    """Say what this fit was too short or too unusual for."""
    facts, ignored = doctor._state.facts(trainer), doctor.options.ignore
    is_finite = all(f.id != "non-finite" for f in doctor.findings)
    if len(trainer.optimizers) < 2 and math.isnan(facts.unexplained) and is_finite:
        yield (
            "What a constant prediction would lose is not known for this loss: how much was learnt"
            " is judged by how far the loss came down."
        )
    too_early = [i for i in IDS if i not in ignored and _is_too_early(i, facts, doctor.thresholds)]
    if too_early:
        yield (
            f"It is too early for: {', '.join(too_early)}. They need more epochs: raise --steps,"
            " and max_epochs if the run ends by itself."
        )
    if "overfitting" not in ignored and doctor._state.validation.count < 2:
        yield "Fewer than two validations gave a loss or a metric: overfitting cannot be seen."


def _is_too_early(id_: str, facts: Facts, thresholds: Mapping[str, float]) -> bool:
    """Say whether every rule of an id asks for more epochs or steps than were watched."""
    limits = {**THRESHOLDS, **thresholds}
    return all(
        any(
            not c.holds(getattr(facts, c.fact), limits[c.threshold])
            for c in rule.conditions  # others ask for less time, as of a short run
            if c.fact in ("epoch", "step") and c.sign in (">", "not<")
        )
        for rule in RULES
        if rule.id == id_
    )

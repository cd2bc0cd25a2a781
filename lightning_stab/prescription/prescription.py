"""What came of a search for cures: the records, the text, the overlay."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_stab.diagnosis import Finding
from lightning_stab.diagnosis.finding import SHOWN_LAYERS
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.judgement import NOT_TRIED, Comparison
from lightning_stab.prescription.trial import Program

WIDTH = 110  # columns of the table
FILE_NAME = "cure.yaml"


@dataclass(frozen=True)
class CureRecord:
    """One cure, and what came of it.

    Attributes:
        id: its name; two that were tried together have both.
        for_finding: the id of the finding that it answers.
        what: what it does, in a sentence.
        overlay: what a second configuration file says for it; None where YAML cannot say it.
        code: lines to change where YAML cannot say it.
        outcome: ``cured`` (better than untreated by more than its noise, and the finding is gone),
            ``helps`` (better by more than the noise), ``no better``, ``worse`` or ``not tried``.
        metric: with it, the mean over the seeds; where it was stopped early, at that point.
        metric_untreated: without it, the mean over the same seeds at the same point.
        noise: how far the untreated metric gets by itself.
        steps: optimizer steps of all its runs.
        seeds: with how many seeds it was tried.
        cost: of all its runs, in runs of the program as it is.
        reason: why it was not tried, or what ended its run before its time.
        left: the ids of alarms that the doctor gives with it.
    """

    id: str
    for_finding: str
    what: str
    overlay: Mapping[str, Any] | None
    code: tuple[str, ...]
    outcome: str
    metric: float = math.nan
    metric_untreated: float = math.nan
    noise: float = math.nan
    steps: int = 0
    seeds: int = 0
    cost: float = 0.0
    reason: str = ""
    left: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; a number that is not finite is None, as json has none."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Prescription:
    """What is wrong with a program, what was tried, and what cures it.

    Attributes:
        cures: everything that was tried, the best first, and what was not.
        findings: of the watched run; their advice is without what was tried in vain.
        cost: of all trials, in runs of the program as it is; the watched run is not counted.
        steps: optimizer steps of the watched run.
        metric: its name.
        mode: ``min`` or ``max``.
        metric_untreated: the mean over the seeds without a cure.
        interrupted: whether the user ended the search.
    """

    cures: tuple[CureRecord, ...]
    findings: tuple[Finding, ...]
    cost: float
    steps: int
    metric: str
    mode: str
    metric_untreated: float
    interrupted: bool
    _best: int | None = field(default=None, repr=False)
    _program: Program | None = field(default=None, repr=False)
    _candidate: Candidate | None = field(default=None, repr=False)

    @property
    def best(self) -> CureRecord | None:
        """The best cure; None where nothing beat the untreated run by more than its noise."""
        return None if self._best is None else self.cures[self._best]

    @property
    def remaining(self) -> tuple[str, ...]:
        """What is left to do about the first finding: its advice that was not tried in vain."""
        return next((finding.advice for finding in self.findings if finding.is_alarm), ())

    @property
    def overlay(self) -> Mapping[str, Any] | None:
        """What a second configuration file says for the best cure."""
        return None if self.best is None else self.best.overlay

    @property
    def is_healthy(self) -> bool:
        """Whether the watched run had nothing to cure."""
        return not any(finding.is_alarm for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 where the program is healthy or a cure was found, 1 otherwise."""
        return int(self.best is None and not self.is_healthy)

    def yaml(self) -> str:
        """Return the overlay of the best cure as YAML; empty where there is none."""
        import yaml

        if self.overlay is None:
            return ""
        text: str = yaml.safe_dump(_plain(self.overlay), sort_keys=False)
        return text

    def to_yaml(self, path: str | Path = FILE_NAME) -> None:
        """Write the overlay of the best cure, for ``fit --config my.yaml --config cure.yaml``.

        Where there is nothing to write, the file says so in a comment.
        """
        Path(path).write_text(self.yaml() or f"# {self.sentence}\n{{}}\n", encoding="utf-8")

    def build(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return module, data and the Trainer's arguments, all new, with the best cure applied.

        As they were where no cure was found. ``Trainer(**arguments).fit(module, *data)`` trains.
        """
        assert self._program is not None
        return self._program.build(self._candidate)

    @property
    def sentence(self) -> str:
        """What came of it, as a person would say it."""
        if self.is_healthy and self.best is None:
            return f"Nothing to cure: nothing wrong was found in {self.steps} optimizer steps."
        found = ", ".join(dict.fromkeys(f.id for f in self.findings if f.is_alarm))
        ended = "The search was interrupted. " if self.interrupted else ""
        if self.best is None:
            tried = sum(cure.outcome != NOT_TRIED for cure in self.cures)
            beat = f"beat the program as it is by more than its noise ({self.metric}"
            ways = "no cure could be tried that" if not tried else f"none of {tried} cures tried"
            ways = "the one cure tried did not" if tried == 1 else ways
            return f"{ended}Not cured ({found}): {ways} {beat} {_number(self.metric_untreated)})."
        best = self.best
        verb = "cures" if best.outcome == "cured" else "helps with"
        seeds = f"{best.seeds} seeds" if best.seeds > 1 else "1 seed"
        left = f" What is found with it: {', '.join(best.left)}." if best.left else ""
        return (
            f"{ended}`{best.id}` {verb} {best.for_finding or found}: {self.metric} is"
            f" {_number(best.metric)} instead of {_number(best.metric_untreated)} (over {seeds};"
            f" the noise is {_number(best.noise)}).{left}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for json."""
        return {
            "sentence": self.sentence,
            "best": None if self.best is None else self.best.id,
            "overlay": None if self.overlay is None else _plain(self.overlay),
            "metric": self.metric,
            "metric_untreated": self.metric_untreated
            if math.isfinite(self.metric_untreated)
            else None,
            "cost": round(self.cost, 3),
            "steps": self.steps,
            "interrupted": self.interrupted,
            "findings": [finding.to_dict() for finding in self.findings],
            "cures": [_plain(cure.to_dict()) for cure in self.cures],
        }

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=WIDTH, highlight=False, no_color=True)
        self.show(console)
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, highlight=False, record=True)
        self.show(console)
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")

    def show(self, console: Any, command: str = "", output: str = FILE_NAME) -> None:
        """Print the table, the sentence, the overlay and the command to run.

        Args:
            console: of rich.
            command: by which the cured program is trained.
            output: the file that holds the overlay.
        """
        from rich.markup import escape

        for finding in self.findings:
            if finding.is_alarm:
                layers = ", ".join(finding.layers[:SHOWN_LAYERS])
                place = f" ({layers})" if layers else ""
                console.print(
                    escape(f"{finding.severity}: {finding.id}{place}. {finding.message}"),
                    soft_wrap=True,
                )
        if self.cures:
            console.print(_table(self))
            times = f"All trials took {self.cost:.1f} times as many batches as the run itself."
            console.print(times, soft_wrap=True)
        console.print(escape(self.sentence), soft_wrap=True)
        if self.best is None:
            lines = [f"  {number}. {line}" for number, line in enumerate(self.remaining, start=1)]
            for text in ["What is left to do:", *lines] if lines else ():
                console.print(escape(text), soft_wrap=True)
            return
        console.print(escape(self.best.what), soft_wrap=True)
        if self.overlay is not None:
            console.print(escape(f"\n# {output}\n") + escape(self.yaml().rstrip()), soft_wrap=True)
        for line in self.best.code if self.overlay is None else ():
            console.print(escape(line), soft_wrap=True)
        if command:
            console.print("\n" + escape(command), soft_wrap=True)


def record_of(comparison: Comparison) -> CureRecord:
    """Return the record of a cure that was tried."""
    return _record(
        comparison.candidate,
        outcome=comparison.outcome,
        metric=comparison.metric,
        metric_untreated=comparison.untreated,
        noise=comparison.noise,
        steps=comparison.steps,
        seeds=len(comparison.pairs),
        cost=comparison.cost,
        reason=comparison.failure,
        left=comparison.left,
    )


def untried_record(candidate: Candidate, reason: str) -> CureRecord:
    """Return the record of a cure that was not tried."""
    return _record(candidate, outcome=NOT_TRIED, reason=reason)


def _record(candidate: Candidate, **result: Any) -> CureRecord:
    return CureRecord(
        id=candidate.id,
        for_finding=candidate.for_finding,
        what=candidate.what,
        overlay=candidate.overlay,
        code=candidate.code,
        **result,
    )


def _table(prescription: Prescription) -> Any:
    from rich.markup import escape
    from rich.table import Table

    title = f"{prescription.metric} ({prescription.mode}), beside the program as it is"
    table = Table(title=title, title_justify="left")
    table.add_column("cure", overflow="fold")
    for name in ("with", "without", "outcome", "cost"):
        table.add_column(name, justify="left" if name == "outcome" else "right", no_wrap=True)
    for cure in prescription.cures:
        untried = cure.outcome == NOT_TRIED
        what = f"{cure.id}: {cure.what}" + (f" ({cure.reason})" if cure.reason else "")
        table.add_row(
            escape(what),
            "" if untried else _number(cure.metric),
            "" if untried else _number(cure.metric_untreated),
            cure.outcome,
            "" if untried else f"{cure.cost:.1f}",
        )
    return table


def _number(value: float) -> str:
    return f"{value:.4g}"


def _plain(value: Any) -> Any:
    """Return dicts and lists in place of mappings and tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value

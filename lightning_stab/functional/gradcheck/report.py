"""What a gradient check found: a record for each parameter, and a table of them."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from lightning_stab.functional.gradcheck.verdicts import VERDICTS

_FAILING = ("wrong", "unchecked", "nondeterministic")
_HEADINGS = ["verdict", "parameter", "shape", "rel. error", "worst at"]
_HEADINGS += ["autograd", "numeric", "step", "suspect"]


@dataclass(frozen=True)
class ParameterRecord:
    """What the check says about one parameter.

    Args:
        name: as in ``named_parameters()``.
        verdict: one of ``ok``, ``zero``, ``wrong``, ``kink``, ``unchecked``, ``nondeterministic``,
            ``precision-limited``, ``unused``, ``stop-gradient``.
        shape: of the parameter.
        relative_error: the largest one seen.
        coordinate: where it was seen; None when the error belongs to a direction.
        analytic: autograd's derivative there.
        numeric: the central difference there.
        step: the step that the central difference used.
        function: the ``autograd.Function`` that is suspected, where one is.
        loss: which loss of the step, counted from 0.
        note: a sentence, where there is more to say.
    """

    name: str
    verdict: str
    shape: tuple[int, ...]
    relative_error: float = 0.0
    coordinate: tuple[int, ...] | None = None
    analytic: float = 0.0
    numeric: float = 0.0
    step: float = 0.0
    function: str | None = None
    loss: int = 0
    note: str = ""


@dataclass(frozen=True)
class GradientReport:
    """The result of a gradient check; ``str()`` of it is a table, the worst first.

    Args:
        parameters: one record for each trainable parameter.
        notes: sentences about the whole check.
        num_forwards: how many forward passes it took.
        num_backwards: how many backward passes it took.
        seconds: how long it took.
        skipped: whether there was no way to check.
    """

    parameters: tuple[ParameterRecord, ...]
    notes: tuple[str, ...] = ()
    num_forwards: int = 0
    num_backwards: int = 0
    seconds: float = 0.0
    skipped: bool = False

    @property
    def passed(self) -> bool:
        """Whether the check was made, of every parameter, and no gradient is wrong."""
        return not (self.skipped or self.failed)

    @property
    def wrong(self) -> tuple[ParameterRecord, ...]:
        """The records whose verdict is ``wrong``, the largest error first."""
        return tuple(r for r in self.worst_first() if r.verdict == "wrong")

    @property
    def failed(self) -> tuple[ParameterRecord, ...]:
        """The records that do not let the check pass: what is ``wrong``, and what cannot be judged.

        The latter are ``unchecked``, and ``nondeterministic``.
        """
        return tuple(r for r in self.worst_first() if r.verdict in _FAILING)

    def worst_first(self) -> list[ParameterRecord]:
        """Return the records by verdict, then by error, the worst first."""
        return sorted(self.parameters, key=lambda r: (VERDICTS.index(r.verdict), -r.relative_error))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values, ready for json."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        return self._table(self.worst_first())

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def short(self) -> str:
        """Return the table without the parameters that are ``ok`` or ``zero``."""
        return self._table([r for r in self.worst_first() if r.verdict not in ("ok", "zero")])

    def _table(self, records: list[ParameterRecord]) -> str:
        rows = [_HEADINGS, *map(_row, records)] if records else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        notes = [f"{r.name}: {r.note}" for r in records if r.note]
        return "\n".join([self.summary(), *([""] if lines else []), *lines, *notes, *self.notes])

    def summary(self) -> str:
        """Return one line: passed or not, and how many parameters got which verdict."""
        if self.skipped:
            return "The gradients could not be checked."
        counts = Counter(record.verdict for record in self.parameters)
        parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
        state = "passed" if self.passed else "FAILED"
        return (
            f"Gradient check {state}: {', '.join(parts) or 'no trainable parameter'} "
            f"({self.num_forwards} forward passes, {self.seconds:.1f} s)."
        )


def describe(record: ParameterRecord) -> str:
    """Return one sentence about a gradient that failed: where, both values, which function."""
    if record.verdict != "wrong":
        return f"`{record.name}` is {record.verdict}. {record.note}".rstrip()
    where = "along a direction" if record.coordinate is None else f"at {list(record.coordinate)}"
    suspect = f" Suspect: {record.function}.backward." if record.function else ""
    return (
        f"`{record.name}` {where}: autograd says {record.analytic:.9g}, central differences say "
        f"{record.numeric:.9g} (relative error {record.relative_error:.1e}, "
        f"step {record.step:.0e}).{suspect}"
    )


def _row(record: ParameterRecord) -> list[str]:
    numbers = [f"{record.relative_error:.1e}", f"{record.analytic:.6g}", f"{record.numeric:.6g}"]
    error, analytic, numeric, step = (
        [*numbers, f"{record.step:.0e}"] if record.step > 0 else ["-"] * 4
    )
    where = "-" if record.coordinate is None else str(list(record.coordinate))
    shape, suspect = str(list(record.shape)), record.function or ""
    return [record.verdict, record.name, shape, error, where, analytic, numeric, step, suspect]

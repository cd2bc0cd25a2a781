"""The examination of one parameter after another, and the records that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.bisection import check_coordinate, worst_coordinate
from lightning_stab.functional.gradcheck.coordinates import (
    flat_view,
    sampled_coordinates,
    unravelled,
)
from lightning_stab.functional.gradcheck.lines import Line
from lightning_stab.functional.gradcheck.parts import Part, halves, line_through
from lightning_stab.functional.gradcheck.point import Point
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import ParameterRecord
from lightning_stab.functional.gradcheck.search import Reference, check_line
from lightning_stab.functional.gradcheck.verdicts import Judgement

_SUSPICIOUS = 0.1  # part of the tolerance beyond which more directions are tried
_MORE_DIRECTIONS = 2
_FAR = 1e-3  # how far to go to see whether anything depends on a parameter at all
_LOW_PRECISION_ERROR = 0.05  # larger errors are not a matter of rounding


@dataclass
class Examination:
    """Examines parameters at a point and keeps a record of each.

    Args:
        problem: the losses.
        point: where they are looked at.
        reference: what is known about the point.
        generator: draws directions and coordinates.
    """

    problem: Problem
    point: Point
    reference: Reference
    generator: torch.Generator
    records: dict[str, ParameterRecord] = field(default_factory=dict)

    def in_order(self) -> list[ParameterRecord]:
        """Return the records in the order of the module's parameters."""
        return [self.records[name] for name in self.problem.parameters]

    def note(self, name: str, verdict: str, note: str = "") -> None:
        """Record a verdict that has no numbers."""
        shape = tuple(self.problem.parameters[name].shape)
        self.records[name] = ParameterRecord(name, verdict, shape, note=note)

    def blame(self, suspects: Mapping[str, str | None]) -> None:
        """Write the suspected Functions into the records."""
        for name, function in suspects.items():
            self.records[name] = replace(self.records[name], function=function)

    def limit(self, name: str, function: str, how: str) -> None:
        """Call a record ``precision-limited`` because of a Function's backward."""
        record = self.records.get(name)
        if record is None or record.verdict not in ("ok", "wrong", "kink", "precision-limited"):
            return
        if record.verdict == "wrong" and record.relative_error > _LOW_PRECISION_ERROR:
            return
        note = f"{function}.backward leaves double precision ({how})."
        self.records[name] = replace(
            record, verdict="precision-limited", function=function, note=note
        )

    def part(self, part: Part, num_directions: int) -> None:
        """Examine tensors along common directions; on failure halve, down to the coordinate."""
        extra = 0
        worst: tuple[Judgement, int, Line] | None = None
        number = 0
        while number < num_directions + extra:
            number += 1
            line = line_through(self.problem, part, self.point.gradients, self.generator)
            judgement, loss = self._judged(line, len(part))
            if worst is None or judgement.badness > worst[0].badness:
                worst = judgement, loss, line
            if judgement.verdict not in ("ok", "zero"):
                break
            if judgement.error > _SUSPICIOUS * self.reference.tolerance:
                extra = _MORE_DIRECTIONS
        if worst is not None:
            self._conclude(part, num_directions, *worst)

    def silent(self, part: Part) -> None:
        """Examine tensors whose gradient is missing or zero: nothing may depend on them."""
        line = line_through(self.problem, part, self.point.gradients, self.generator)
        judgement, loss = self._judged(line, 1)
        if judgement.verdict != "zero":
            if len(part) > 1:
                for half in halves(part):
                    self.silent(half)
            else:
                self._conclude(part, 1, judgement, loss, line)
            return
        if len(part) > 1 and self._depends(line):
            for half in halves(part):
                self.silent(half)
            return
        stopped = len(part) == 1 and self._depends(line)
        for name in part:
            connected = any(g is not None for g in self._gradients(name).values())
            self.note(name, "stop-gradient" if stopped else "zero" if connected else "unused")

    def coordinates(self, name: str, number: int | None) -> None:
        """Examine single coordinates: the plain formula."""
        parameter = self.problem.parameters[name]
        gradients = self._gradients(name)
        chosen = sampled_coordinates(flat_view(parameter).numel(), number, self.generator)
        row_length = flat_view(parameter).numel() // max(
            1, len(parameter) if parameter.dim() else 1
        )
        frozen = set(self.problem.frozen_rows(name))
        chosen = [index for index in chosen if index // max(1, row_length) not in frozen]
        worst: tuple[Judgement, int, int] | None = None
        for index in chosen:
            found = check_coordinate(self.problem, name, index, gradients, self.reference)
            for loss, judgement in found.items():
                if worst is None or judgement.badness > worst[0].badness:
                    worst = judgement, loss, index
        if worst is None or worst[0].verdict == "zero":
            self._silent_or_zero(name)
        else:
            self._record(name, *worst)

    def _silent_or_zero(self, name: str) -> None:
        gradients = self._gradients(name)
        if any(g is not None and bool(g.any()) for g in gradients.values()):
            self.note(name, "zero")
        else:
            self.silent((name,))

    def _gradients(self, name: str) -> dict[int, Tensor | None]:
        """Return the parameter's gradient of each loss that is for it."""
        found = self.point.gradients
        return {loss: each[name] for loss, each in enumerate(found) if name in each}

    def _judged(self, line: Line, num_tensors: int) -> tuple[Judgement, int]:
        """Return the worst judgement over the losses, and the loss."""
        slopes = line.slopes(self.point.gradients)
        whole = self.reference.tolerance
        self.reference.tolerance = whole / num_tensors**0.5  # each tensor is heard through all
        try:
            found = check_line(line, slopes, self.reference)
        finally:
            self.reference.tolerance = whole
        worst = max(found, key=lambda loss: found[loss].badness)
        return found[worst], worst

    def _conclude(
        self, part: Part, num_directions: int, judgement: Judgement, loss: int, line: Line
    ) -> None:
        if judgement.verdict in ("ok", "zero"):
            for name in part:
                known = self.records.get(name)
                if known is None or known.relative_error < judgement.error:
                    self._record(name, judgement, loss, None)
        elif len(part) > 1:
            for half in halves(part):
                self.part(half, num_directions)
        elif judgement.verdict == "wrong":
            self._locate(part[0], judgement, loss, line)
        else:
            self._record(part[0], judgement, loss, None)

    def _locate(self, name: str, judgement: Judgement, loss: int, line: Line) -> None:
        """Find the worst coordinate of a wrong gradient, and record what holds there."""
        gradients = self._gradients(name)
        index = worst_coordinate(
            self.problem,
            name,
            line.directions[name],
            gradients[loss],
            loss,
            judgement.numeric - judgement.analytic,
            judgement.step,
        )
        alone = check_coordinate(self.problem, name, index, gradients, self.reference)[loss]
        decided = alone if alone.verdict == "wrong" else judgement
        self._record(name, decided, loss, index)

    def _record(self, name: str, judgement: Judgement, loss: int, index: int | None) -> None:
        parameter = self.problem.parameters[name]
        self.records[name] = ParameterRecord(
            name,
            judgement.verdict,
            tuple(parameter.shape),
            judgement.error,
            None if index is None else unravelled(index, parameter),
            judgement.analytic,
            judgement.numeric,
            judgement.step,
            loss=loss,
        )

    def _depends(self, line: Line) -> bool:
        """Tell whether a loss changes along the line when nothing is held constant."""
        if not self.problem.recording.matters:
            return False
        with line:
            rows = [line.losses_at(sign * _FAR, replay=False) for sign in (1, -1)]
        return any(_differs(row, self.point.losses, self.point.noise) for row in rows)


def _differs(row: Sequence[float], here: Sequence[float], noise: float) -> bool:
    return len(row) != len(here) or any(
        abs(a - b) > 100 * noise for a, b in zip(row, here, strict=True)
    )

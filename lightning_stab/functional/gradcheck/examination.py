"""The examination of one parameter after another, and the records that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.differences import central_difference
from lightning_stab.functional.gradcheck.lines import (
    Line,
    Part,
    Point,
    Slope,
    flat_view,
    line_through,
)
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import ParameterRecord
from lightning_stab.functional.gradcheck.search import Comparisons, check_line
from lightning_stab.functional.gradcheck.verdicts import Comparison

_SUSPICIOUS = 0.1  # part of the tolerance beyond which more directions are tried
_MORE_DIRECTIONS = 2
_FAR = 1e-3  # how far to go to see whether anything depends on a parameter at all
_LOW_PRECISION_ERROR = 0.05  # larger errors are not a matter of rounding
_PRECISE = ("ok", "kink", "precision-limited")
_LOST = "Could not be checked: a run of the step did other operations than the one before it."


@dataclass
class Examination:
    """Examines the parameters of a problem at a point and keeps a record of each."""

    problem: Problem
    point: Point
    tolerance: float
    generator: torch.Generator
    records: dict[str, ParameterRecord] = field(default_factory=dict)

    def in_order(self) -> list[ParameterRecord]:
        """Return the records in the order of the module's parameters."""
        return [self.records[name] for name in self.problem.parameters]

    def note(self, name: str, verdict: str, note: str = "", error: float = 0.0) -> None:
        """Record a verdict that no central difference gave."""
        shape = tuple(self.problem.parameters[name].shape)
        self.records[name] = ParameterRecord(name, verdict, shape, error, note=note)

    def limit_precision(self, name: str, function: str, how: str) -> None:
        """Call a record ``precision-limited`` because of a Function's backward."""
        record = self.records.get(name)
        accused = record is not None and record.verdict in ("wrong", "nondeterministic")
        if record is None or not (accused or record.verdict in _PRECISE):
            return
        if accused and record.relative_error > _LOW_PRECISION_ERROR:
            return
        note = f"{function}.backward leaves double precision ({how})."
        self.records[name] = replace(
            record, verdict="precision-limited", function=function, note=note
        )

    def examine_part(self, part: Part, num_directions: int) -> None:
        """Examine tensors along common directions; on failure halve, down to the coordinate."""
        extra = 0
        worst: tuple[Comparison, int, Line] | None = None
        number = 0
        while number < num_directions + extra:
            number += 1
            line = line_through(self.problem, part, self.point.gradients, self.generator)
            comparison, loss = self._compare(line, len(part))
            if worst is None or comparison.severity > worst[0].severity:
                worst = comparison, loss, line
            if comparison.verdict not in ("ok", "zero"):
                break
            if comparison.error > _SUSPICIOUS * self.tolerance:
                extra = _MORE_DIRECTIONS
        if worst is not None:
            self._conclude(part, num_directions, *worst)

    def examine_zero_gradients(self, part: Part) -> None:
        """Examine tensors whose gradient is missing or zero: nothing may depend on them."""
        line = line_through(self.problem, part, self.point.gradients, self.generator)
        comparison, loss = self._compare(line, 1)
        middle = len(part) // 2
        if middle and (comparison.verdict != "zero" or self._depends(line)):
            for half in (part[:middle], part[middle:]):
                self.examine_zero_gradients(half)
        elif comparison.verdict != "zero":
            self._conclude(part, 1, comparison, loss, line)
        else:
            detached = len(part) == 1 and self._depends(line)
            for name in part:
                connected = any(g is not None for g in self._gradients(name).values())
                self.note(name, "stop-gradient" if detached else "zero" if connected else "unused")

    def examine_coordinates(self, name: str, number: int | None) -> None:
        """Examine so many coordinates of a tensor, or all, one by one: the plain formula."""
        parameter = self.problem.parameters[name]
        gradients = self._gradients(name)
        size = flat_view(parameter).numel()
        chosen = list(range(size))
        if number is not None and number < size:
            chosen = sorted(torch.randperm(size, generator=self.generator)[:number].tolist())
        row_length = max(1, size // max(1, len(parameter) if parameter.dim() else 1))
        padding = set(self.problem.padding_rows(name))
        worst: tuple[Comparison, int, int] | None = None
        for index in chosen:
            if index // row_length in padding:
                continue
            for loss, comparison in self._compare_coordinate(name, index, gradients).items():
                if worst is None or comparison.severity > worst[0].severity:
                    worst = comparison, loss, index
        if worst is not None and worst[0].verdict != "zero":
            self._record(name, *worst)
        elif any(g is not None and bool(g.any()) for g in gradients.values()):
            self.note(name, "zero")
        else:
            self.examine_zero_gradients((name,))

    def _gradients(self, name: str) -> dict[int, Tensor | None]:
        """Return the parameter's gradient of each loss that is for it."""
        found = self.point.gradients
        return {loss: each[name] for loss, each in enumerate(found) if name in each}

    def _compare(self, line: Line, num_tensors: int) -> tuple[Comparison, int]:
        """Return the worst comparison over the losses, and the loss."""
        slopes = line.slopes(self.point.gradients)
        # each tensor's error has to show through all the others
        found = check_line(line, slopes, self.point, self.tolerance / num_tensors**0.5)
        worst = max(found, key=lambda loss: found[loss].severity)
        return found[worst], worst

    def _conclude(
        self, part: Part, num_directions: int, comparison: Comparison, loss: int, line: Line
    ) -> None:
        middle = len(part) // 2
        if comparison.verdict in ("ok", "zero"):
            for name in part:
                known = self.records.get(name)
                if known is None or known.relative_error < comparison.error:
                    self._record(name, comparison, loss, None)
        elif middle:
            for half in (part[:middle], part[middle:]):
                self.examine_part(half, num_directions)
        else:
            (name,), index = part, None
            if comparison.verdict == "wrong":
                gradients = self._gradients(name)
                index = self._worst_coordinate(name, comparison, gradients[loss], loss, line)
                if index is not None:
                    alone = self._compare_coordinate(name, index, gradients)[loss]
                    comparison = alone if alone.verdict == "wrong" else comparison
            self._record(name, comparison, loss, index)

    def _worst_coordinate(
        self, name: str, found: Comparison, gradient: Tensor | None, loss: int, line: Line
    ) -> int | None:
        """Return the flat index at the end of the larger errors, halving the tensor each time."""
        direction = line.directions[name]
        flat = None if gradient is None else flat_view(gradient.contiguous())
        error = found.numeric - found.analytic
        low, high = 0, direction.numel()
        while high - low > 1:
            middle = (low + high) // 2
            half = torch.zeros_like(direction)
            half[low:middle] = direction[low:middle]
            with Line(self.problem, {name: half}) as part:
                plus, minus = part.losses_at(found.step), part.losses_at(-found.step)
            if not len(plus) == len(minus) == len(self.point.losses):
                return None
            analytic = 0.0 if flat is None else float((flat * half).sum())
            left = central_difference(plus[loss], minus[loss], found.step) - analytic
            if abs(left) >= abs(error - left):
                high, error = middle, left
            else:
                low, error = middle, error - left
        return low

    def _compare_coordinate(
        self, name: str, index: int, gradients: Mapping[int, Tensor | None]
    ) -> Comparisons:
        """Check autograd's derivative of each loss by one coordinate, in the coordinate's own unit.

        The error is relative to max(|numeric|, |analytic|, the RMS of the tensor's gradient).
        """
        values = flat_view(self.problem.parameters[name])
        direction = torch.zeros(values.shape, dtype=torch.float32, device=values.device)
        direction[index] = float(values.square().mean().sqrt()) or 1.0
        length = float(direction[index])
        slopes = {}
        for loss, gradient in gradients.items():
            flat = None if gradient is None else flat_view(gradient.contiguous())
            value = 0.0 if flat is None else float(flat[index])
            size = 0.0 if flat is None else float(flat.square().mean().sqrt())
            slopes[loss] = Slope(value * length, size * length)
        found = check_line(
            Line(self.problem, {name: direction}), slopes, self.point, self.tolerance
        )
        return {
            loss: Comparison(
                c.verdict, c.analytic / length, c.numeric / length, c.error, c.step * length
            )
            for loss, c in found.items()
        }

    def _record(self, name: str, comparison: Comparison, loss: int, index: int | None) -> None:
        parameter, place = self.problem.parameters[name], None
        shape: tuple[int, ...] = tuple(parameter.shape)
        if index is not None:
            axes = (*shape, 2) if parameter.is_complex() else shape
            place = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), axes))
        self.records[name] = ParameterRecord(
            name,
            comparison.verdict,
            shape,
            comparison.error,
            place,
            comparison.analytic,
            comparison.numeric,
            comparison.step,
            loss=loss,
            note=_LOST if comparison.verdict == "unchecked" else "",
        )

    def _depends(self, line: Line) -> bool:
        """Say whether a loss changes along the line when nothing is held constant."""
        if not self.problem.detached.matters:
            return False
        here, noise = self.point.losses, self.point.noise
        with line:
            rows = [line.losses_at(sign * _FAR, replay=False) for sign in (1, -1)]
        return any(
            len(row) != len(here)
            or any(abs(a - b) > 100 * noise for a, b in zip(row, here, strict=True))
            for row in rows
        )

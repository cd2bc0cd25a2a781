"""What every baseline returns, and what they all read from a Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch import Tensor


@dataclass(frozen=True)
class Finding:
    """One alarm: the suite's id where it has an equivalent, else the tool's own name.

    `step` is the Trainer's count of optimizer steps; `rule` is what the tool itself calls it.
    """

    id: str
    step: int
    rule: str = ""


class Baseline(pl.Callback):
    """A callback with `findings`; each pair of id and rule is reported once, when it first holds.

    The tools judged here act on the first alarm of a rule (they stop, repair, or end the rule), so
    a repetition means nothing.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def report(self, id: str, rule: str, step: int) -> None:
        """Add a finding, unless this rule has reported this id before."""
        if not any((known.id, known.rule) == (id, rule) for known in self.findings):
            self.findings.append(Finding(id, step, rule))


def loss_of(outputs: Any) -> Tensor | None:
    """Return the scalar loss that a training step returned, or None where it returned none."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        return None
    return loss.detach().float().reshape(())


def metric_of(trainer: pl.Trainer, *names: str) -> float | None:
    """Return the first of these logged metrics that there is."""
    for name in names:
        if name in trainer.callback_metrics:
            return float(trainer.callback_metrics[name])
    return None


class RunningMean:
    """A mean that stays on the device until it is read."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, value: Tensor | None) -> None:
        """Take one more value in; None is left out."""
        if value is not None:
            self.total = self.total + value
            self.count += 1

    def take(self) -> float | None:
        """Return the mean and start anew; None where nothing came in."""
        mean = float(self.total) / self.count if self.count else None
        self.total, self.count = 0.0, 0
        return mean

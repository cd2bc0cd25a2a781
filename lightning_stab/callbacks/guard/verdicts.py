"""Is this step worth taking? Facts of one step in, a named verdict out, equal on every rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_stab.arguments import integer, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.spikes import SpikeDetector

NONFINITE_LOSS = "non-finite loss"
NONFINITE_GRADIENT = "non-finite gradient"
NONFINITE_STATISTICS = "non-finite running statistics"
LOSS_SPIKE = "loss spike"
GRADIENT_SPIKE = "gradient spike"
STATISTICS_SPIKE = "spike of the running statistics"


@dataclass(frozen=True)
class StepFacts:
    """What all ranks know of a step.

    Attributes:
        loss: the mean of the ranks' losses; not finite if one of them is not.
        norm: the norm of the whole gradient, the same on all ranks after their reduction.
        running: the norm of batch normalisation's running statistics after the batch, the
            largest of the ranks'; 0 where there are none.
        has_loss: whether a loss was seen; ``raw`` backward passes show none.
    """

    loss: float
    norm: float
    running: float
    has_loss: bool


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a step.

    Attributes:
        kind: one of the six names of this module.
        value: the loss or the norm that tells.
        limit: the largest value that would have passed; infinity for non-finite ones.
    """

    kind: str
    value: float
    limit: float = math.inf

    @property
    def is_spike(self) -> bool:
        """Whether the value is finite but out of line."""
        return self.kind in (LOSS_SPIKE, GRADIENT_SPIKE, STATISTICS_SPIKE)


class SpikeJudge:
    """The spike detectors of one optimizer's steps: loss, gradient norm, running statistics."""

    def __init__(self, loss: SpikeDetector, norm: SpikeDetector, running: SpikeDetector) -> None:
        self.loss = loss
        self.norm = norm
        self.running = running

    def verdict(self, facts: StepFacts) -> Verdict | None:
        """Return the spike that a finite step shows, None for a good one."""
        if facts.has_loss and self.loss.is_spike(facts.loss):
            return Verdict(LOSS_SPIKE, facts.loss, self.loss.limit())
        if self.norm.is_spike(facts.norm):
            return Verdict(GRADIENT_SPIKE, facts.norm, self.norm.limit())
        if self.running.is_spike(facts.running):
            return Verdict(STATISTICS_SPIKE, facts.running, self.running.limit())
        return None

    def learn(self, facts: StepFacts) -> None:
        """Learn from a step that is taken."""
        if facts.has_loss:
            self.loss.accept(facts.loss)
        self.norm.accept(facts.norm)
        self.running.accept(facts.running)

    def state_dict(self) -> dict[str, Any]:
        """Return the memories as plain values."""
        return {name: getattr(self, name).state_dict() for name in ("loss", "norm", "running")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved memories."""
        for name, saved in state.items():
            getattr(self, name).load_state_dict(saved)


class Judges:
    """A judge for each optimizer, made when it is first asked for.

    Args:
        window: accepted steps that are remembered.
        min_window: how many of them the window's rule needs.
        deviations: standard deviations above the mean that make a spike.
        loss_jump: the least rise of a loss that matters, in units of the first loss.
        gradient_factor: the least ratio of a norm to the median that matters.
        early_factor: the ratio to the median that is a spike before the window is filled, and
            always for running statistics, which move slowly.

    Raises:
        InvalidArgumentError: for a number outside its range.
    """

    def __init__(
        self,
        *,
        window: int,
        min_window: int,
        deviations: float,
        loss_jump: float,
        gradient_factor: float,
        early_factor: float,
    ) -> None:
        common = partial(
            SpikeDetector,
            window=integer("window", window, minimum=2),
            minimum=_at_most(window, integer("min_window", min_window, minimum=2)),
            deviations=real("deviations", deviations, above=0),
            early_factor=real("early_factor", early_factor, above=1),
        )
        self._loss = partial(common, jump=real("loss_jump", loss_jump, minimum=0))
        factor = real("gradient_factor", gradient_factor, minimum=1)
        self._norm = partial(common, factor=factor)
        self._running = partial(common, factor=early_factor)
        self._judges: dict[int, SpikeJudge] = {}

    def forget(self) -> None:
        """Begin with no past."""
        self._judges = {}

    def of(self, index: int) -> SpikeJudge:
        """Return the judge of the optimizer at this place of the Trainer's list."""
        if index not in self._judges:
            self._judges[index] = SpikeJudge(self._loss(), self._norm(), self._running())
        return self._judges[index]

    def state_dict(self) -> dict[int, Any]:
        """Return every judge's memory as plain values."""
        return {index: judge.state_dict() for index, judge in self._judges.items()}

    def load_state_dict(self, state: dict[int, Any]) -> None:
        """Continue from saved memories, and forget any others."""
        self._judges = {}
        for index, saved in state.items():
            self.of(index).load_state_dict(saved)


def nonfinite_verdict(facts: StepFacts) -> Verdict | None:
    """Return what is not finite, the loss before the gradient that it spoils."""
    if facts.has_loss and not math.isfinite(facts.loss):
        return Verdict(NONFINITE_LOSS, facts.loss)
    if not math.isfinite(facts.norm):
        return Verdict(NONFINITE_GRADIENT, facts.norm)
    if not math.isfinite(facts.running):
        return Verdict(NONFINITE_STATISTICS, facts.running)
    return None


def gather_facts(
    trainer: Trainer, loss: Tensor | None, norm: float, running: Tensor | None, device: torch.device
) -> StepFacts:
    """Return this step's facts, after one small exchange where there are several ranks.

    Args:
        trainer: the Trainer.
        loss: this rank's loss, None if none was seen.
        norm: the gradient's norm, exact where float32 overflowed.
        running: the norm of the running statistics, None if there are none.
        device: where the ranks exchange.
    """
    own_loss = 0.0 if loss is None else float(loss)
    own_running = 0.0 if running is None else float(running)
    has_loss = loss is not None
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return StepFacts(own_loss, norm, own_running, has_loss)
    mine = torch.tensor([own_loss, norm, own_running], dtype=torch.float64, device=device)
    ranks = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(ranks, mine)
    losses, norms, runnings = torch.stack(ranks).T.tolist()
    mean = sum(losses) / len(losses)
    return StepFacts(mean, _largest(norms), _largest(runnings), has_loss)


def _largest(values: list[float]) -> float:
    """Return the largest value, NaN if one is not finite."""
    return max(values) if all(map(math.isfinite, values)) else math.nan


def _at_most(window: int, min_window: int) -> int:
    if min_window > window:
        raise InvalidArgumentError(
            f"`min_window` must be <= `window`, which is {window}, got {min_window}. The window"
            " never holds more steps than its size."
        )
    return min_window

"""Is this step worth taking? Facts of one step in, a named verdict out, equal on every rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_stab.functional.spikes import SpikeDetector

NONFINITE_LOSS = "non-finite loss"
NONFINITE_GRADIENT = "non-finite gradient"
LOSS_SPIKE = "loss spike"
GRADIENT_SPIKE = "gradient spike"


@dataclass(frozen=True)
class StepFacts:
    """What all ranks know of a step.

    Attributes:
        loss: the mean of the ranks' losses; not finite if one of them is not.
        norm: the norm of the whole gradient, the same on all ranks after their reduction.
        has_loss: whether a loss was seen; ``raw`` backward passes show none.
    """

    loss: float
    norm: float
    has_loss: bool


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a step.

    Attributes:
        kind: one of the four names of this module.
        value: the loss or the norm.
        limit: the largest value that would have passed; infinity for non-finite ones.
    """

    kind: str
    value: float
    limit: float = math.inf

    @property
    def is_spike(self) -> bool:
        """Whether the value is finite but out of line."""
        return self.kind in (LOSS_SPIKE, GRADIENT_SPIKE)


class SpikeJudge:
    """The spike detectors of one optimizer's steps, for the loss and the gradient norm."""

    def __init__(self, loss: SpikeDetector, norm: SpikeDetector) -> None:
        self.loss = loss
        self.norm = norm

    def verdict(self, facts: StepFacts) -> Verdict | None:
        """Return the spike that a finite step shows, None for a good one."""
        if facts.has_loss and self.loss.is_spike(facts.loss):
            return Verdict(LOSS_SPIKE, facts.loss, self.loss.limit())
        if self.norm.is_spike(facts.norm):
            return Verdict(GRADIENT_SPIKE, facts.norm, self.norm.limit())
        return None

    def learn(self, facts: StepFacts) -> None:
        """Learn from a step that is taken."""
        if facts.has_loss:
            self.loss.accept(facts.loss)
        self.norm.accept(facts.norm)

    def state_dict(self) -> dict[str, Any]:
        """Return both memories as plain values."""
        return {"loss": self.loss.state_dict(), "norm": self.norm.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved memories."""
        self.loss.load_state_dict(state["loss"])
        self.norm.load_state_dict(state["norm"])


class Judges:
    """A judge for each optimizer, made when it is first asked for.

    Args:
        window: accepted steps that are remembered.
        minimum: how many of them the window's rule needs.
        deviations: standard deviations above the mean that make a spike.
        loss_jump: the least rise of a loss that matters, in units of the first loss.
        gradient_factor: the least ratio of a norm to the median that matters.
        early_factor: the ratio to the median that is a spike before the window is filled.
    """

    def __init__(
        self,
        *,
        window: int,
        minimum: int,
        deviations: float,
        loss_jump: float,
        gradient_factor: float,
        early_factor: float,
    ) -> None:
        common = partial(
            SpikeDetector,
            window=window,
            minimum=minimum,
            deviations=deviations,
            early_factor=early_factor,
        )
        self._loss = partial(common, jump=loss_jump)
        self._norm = partial(common, factor=gradient_factor)
        self._judges: dict[int, SpikeJudge] = {}

    def of(self, index: int) -> SpikeJudge:
        """Return the judge of the optimizer at this place of the Trainer's list."""
        if index not in self._judges:
            self._judges[index] = SpikeJudge(self._loss(), self._norm())
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
    return None


def gather_facts(trainer: Trainer, loss: Tensor | None, norm: Tensor, exact: float) -> StepFacts:
    """Return this step's facts, after one small exchange where there are several ranks.

    Args:
        trainer: the Trainer.
        loss: this rank's loss, None if none was seen.
        norm: the gradient's norm on its device.
        exact: the same on the host, exact where float32 overflowed.
    """
    has_loss = loss is not None
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return StepFacts(float(loss) if loss is not None else 0.0, exact, has_loss)
    own = torch.tensor([float(loss) if loss is not None else 0.0, exact], dtype=torch.float64)
    own = own.to(norm.device)
    ranks = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(ranks, own)
    losses, norms = torch.stack(ranks).T.tolist()
    finite = all(map(math.isfinite, norms))
    return StepFacts(sum(losses) / len(losses), max(norms) if finite else math.nan, has_loss)

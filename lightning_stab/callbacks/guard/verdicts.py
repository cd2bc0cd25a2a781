"""Is this step worth taking? Facts of one step in, a verdict out, equal on every rank."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import LBFGS

from lightning_stab.callbacks._trainer.device_values import is_remote
from lightning_stab.callbacks._trainer.logging import num_steps
from lightning_stab.callbacks._trainer.ranks import gather_numbers, gather_rows, largest
from lightning_stab.callbacks._trainer.step import OptimizerStep
from lightning_stab.callbacks.guard.options import GuardOptions
from lightning_stab.callbacks.guard.restoring import BufferKeeper
from lightning_stab.functional.norms import first_nonfinite
from lightning_stab.functional.spikes import SpikeDetector

EXCHANGED = ("loss", "running", "norm")  # in this order, 0 where one is not known
NAMES = {  # of a quantity: its own, that of a non-finite value, that of a spike
    "loss": ("loss", "non-finite loss", "loss spike"),
    "norm": ("gradient norm", "non-finite gradient", "gradient spike"),
    "running": (
        "norm of the running statistics",
        "non-finite running statistics",
        "spike of the running statistics",
    ),
}


@dataclass(frozen=True)
class StepFacts:
    """What all ranks know of a step.

    Attributes:
        loss: the mean of the ranks' losses; not finite if one of them is not.
        norm: the norm of the whole gradient, the same on all ranks after their reduction.
        running: the norm of batch normalisation's running statistics after the batch, the
            largest of the ranks'; 0 where there are none.
        has_loss: whether the loss is known to be that of this step: ``raw`` backward passes show
            none, and those of several optimizers are not told apart.
        is_line_search: whether LBFGS steps: the points that its line search tries, far from the
            weights that it keeps, move the running statistics of a healthy run at will.
    """

    loss: float
    norm: float
    running: float
    has_loss: bool
    is_line_search: bool = False

    def quantities(self) -> dict[str, float]:
        """Return what is examined, the loss before the gradient, which it makes non-finite."""
        loss = {"loss": self.loss} if self.has_loss else {}
        return {**loss, "norm": self.norm, "running": self.running}


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a step.

    Attributes:
        quantity: ``loss``, ``norm`` or ``running``.
        value: its value.
        limit: the largest value that would have passed; infinity for one that is not finite.
    """

    quantity: str
    value: float
    limit: float = math.inf

    @property
    def is_spike(self) -> bool:
        """Whether the value is finite but out of line."""
        return math.isfinite(self.value)

    def is_overflow(self, facts: StepFacts) -> bool:
        """Say whether the gradient alone is not finite, as where a loss scale is too high."""
        forward = (facts.loss, facts.running)  # which the scale does not change
        return self.quantity == "norm" and all(map(math.isfinite, forward))

    def describe(self, facts: StepFacts, at: str, where: str = "") -> str:
        """Return what is wrong.

        Args:
            facts: those of the step.
            at: which step it is, in words.
            where: the place of what is not finite, in words.
        """
        name, nonfinite, spike = NAMES[self.quantity]
        seen = f"loss {facts.loss:.6g}, " if facts.has_loss else ""
        numbers = f"{seen}gradient norm {facts.norm:.6g}"
        if self.is_spike:
            return (
                f"{spike} at {at}: the {name} is {self.value:.6g}, and the run's own past allows"
                f" up to {self.limit:.6g} ({numbers})"
            )
        return f"{nonfinite} at {at} ({numbers}){where}"


def moment(trainer: Trainer) -> str:
    """Return which step comes next, in words."""
    return f"step {num_steps(trainer)} (epoch {trainer.current_epoch})"


def place_of(verdict: Verdict, step: OptimizerStep, buffers: BufferKeeper) -> str:
    """Return where what is not finite stands, in words; called before anything is put back."""
    if verdict.is_spike:
        return ""
    if verdict.quantity == "running":
        return f"; first in {buffers.first_nonfinite()!r}"
    index = first_nonfinite(step.gradients)
    if index is None:
        return ""
    shape = tuple(step.params[index].shape)
    return f"; first non-finite gradient in {step.names()[index]!r} of shape {shape}"


class OptimizerSpikeDetector:
    """Finds the spikes of one optimizer's loss, gradient norm and running statistics."""

    def __init__(self, options: GuardOptions) -> None:
        detector = partial(
            SpikeDetector,
            window=options.window,
            minimum=options.min_window,
            deviations=options.deviations,
            early_factor=options.early_factor,
        )
        self._detectors = {
            "loss": detector(jump=options.loss_jump),
            "norm": detector(factor=options.gradient_factor),
            "running": detector(factor=options.early_factor),  # they move slowly
        }

    def verdict(self, facts: StepFacts) -> Verdict | None:
        """Return the spike that a finite step shows, None for a good one."""
        for name, value in facts.quantities().items():
            if name == "running" and facts.is_line_search:
                continue
            if self._detectors[name].is_spike(value):
                return Verdict(name, value, self._detectors[name].limit())
        return None

    @property
    def is_filled(self) -> bool:
        """Whether the window's rule judges everything: before that, few values say little."""
        windows = {name: (len(d.window), d.minimum) for name, d in self._detectors.items()}
        seen, minimum = windows["norm"]
        return seen >= minimum and all(n >= least or not n for n, least in windows.values())

    def limits(self) -> dict[str, float]:
        """Return the largest value of each quantity that is no spike."""
        return {name: detector.limit() for name, detector in self._detectors.items()}

    def learn(self, facts: StepFacts) -> None:
        """Learn from a step that is taken."""
        for name, value in facts.quantities().items():
            self._detectors[name].accept(value)

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as plain values."""
        return {name: detector.state_dict() for name, detector in self._detectors.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what was saved."""
        for name, saved in state.items():
            self._detectors[name].load_state_dict(saved)


def nonfinite_verdict(facts: StepFacts) -> Verdict | None:
    """Return what is not finite, None where all is."""
    bad = (Verdict(n, value) for n, value in facts.quantities().items() if not math.isfinite(value))
    return next(bad, None)


def gather_facts(step: OptimizerStep, quantities: dict[str, Tensor]) -> StepFacts:
    """Return this step's facts, from one transfer, after one small exchange of several ranks.

    Args:
        step: the step.
        quantities: this rank's own, scalars by name.
    """
    if step.trainer.world_size == 1 and not is_remote(step.total):
        rows = [[float(quantities[n]) if n in quantities else 0.0 for n in EXCHANGED]]
    else:  # a rank without a loss takes part in the exchange all the same
        own = [quantities.get(n, step.total.new_zeros(())) for n in EXCHANGED]
        rows = gather_rows(step.trainer, packed(own)).tolist()
    if any(norm == math.inf for *_, norm in rows):  # entries of float32 may be finite all the same
        mine = rows[step.trainer.global_rank if len(rows) > 1 else 0]
        exact = [*mine[:-1], step.total_value]
        rows = gather_numbers(step.trainer, exact, step.total.device)
    losses, runnings, norms = zip(*rows, strict=True)
    mean, has_loss = sum(losses) / len(losses), "loss" in quantities
    searches = isinstance(step.optimizer, LBFGS)
    if len(rows) == 1:
        return StepFacts(mean, norms[0], runnings[0], has_loss, searches)
    return StepFacts(mean, largest(norms), largest(runnings), has_loss, searches)


def packed(scalars: Iterable[Tensor]) -> Tensor:
    """Return scalars as one tensor, on the device of the last one."""
    values = [value.detach().reshape(()) for value in scalars]
    wide = any(value.dtype is torch.float64 for value in values)
    dtype = torch.float64 if wide else torch.float32
    return torch.stack([value.to(values[-1].device, dtype) for value in values])

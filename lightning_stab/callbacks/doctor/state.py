"""What the doctor has measured of one run: the moments to look, and the facts that they give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lightning_stab.callbacks._trainer.device_values import Reading, cross
from lightning_stab.callbacks._trainer.step import OptimizerStep, gradient_scaler
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts
from lightning_stab.callbacks.doctor.input_facts import InputPeaks
from lightning_stab.callbacks.doctor.loss_facts import LossHistory
from lightning_stab.callbacks.doctor.probe import DoctorProbe
from lightning_stab.callbacks.doctor.schedule import Schedule
from lightning_stab.callbacks.doctor.step_facts import EARLY, StepReader
from lightning_stab.callbacks.doctor.uncleared_gradients import StaleGradients
from lightning_stab.callbacks.doctor.unit_facts import UnitFacts
from lightning_stab.callbacks.doctor.validation_facts import ValidationHistory
from lightning_stab.diagnosis.facts import NAMES, Facts
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import local, tensor_norms


class Patient:
    """One run under observation.

    Args:
        every_n_steps: optimizer steps between two full looks.

    Attributes:
        module: the module, once a batch has begun.
        is_looking: whether the current batch is looked at.
        is_first: whether it is the first one that is looked at.
        epoch: epochs done, with fractions.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.module: LightningModule | None = None
        self.is_looking = False
        self.is_first = True
        self._hidden = ""
        self._optimizers = 1
        self.epoch = 0.0
        self._schedule = Schedule(every_n_steps, EARLY)
        self._losses = LossHistory()
        self._steps = StepReader()
        self._batches = BatchFacts()
        self._units = UnitFacts()
        self._validation = ValidationHistory()
        self._inputs = InputPeaks()
        self._stale = StaleGradients()
        self._probe: DoctorProbe | None = None
        self._is_full = self._is_early = self._is_watching = self._has_stepped = False
        self._loss: Tensor | None = None

    def begin_batch(self, trainer: Trainer, module: LightningModule, batch: Any, step: int) -> None:
        """Decide whether this batch is looked at, and put the hooks on if so."""
        self.leave()
        if self._schedule.takes_input(step):
            self._inputs.add(batch)
        self.module, self._loss, self._has_stepped = module, None, False
        self._losses.epoch_steps = _epoch_batches(trainer)
        self.epoch = _epoch(trainer)
        self._schedule.begin_step(trainer)
        self._is_full = self._schedule.is_full(step)
        self._is_early = self._schedule.is_early(self._steps.early_seen)
        self.is_looking = self._is_full or self._is_early
        if self._is_full:
            self._is_watching = True
            self._probe = DoctorProbe(self._batches.targets)
            self._hidden = self._probe.install(module)
            self._optimizers = len(trainer.optimizers)
            self._units.start(module)

    def see_loss(self, trainer: Trainer, loss: Tensor) -> None:
        """Note a loss; where there are several optimizers there is no one loss."""
        self._stale.before_backward()
        if self.is_first and self.is_looking and self.module is not None:
            self._steps.find_unregistered(loss, self.module)
        if len(trainer.optimizers) != 1:
            return
        value, scaler = loss.detach(), gradient_scaler(trainer)
        if scaler is not None and scaler._scale is not None:
            value = value / scaler._scale.to(value.device)
        is_divided = self.module is not None and self.module.automatic_optimization
        if is_divided and trainer.accumulate_grad_batches > 1:
            value = value * trainer.accumulate_grad_batches  # by which Lightning has divided it
        self._loss = value
        self._losses.add(value)

    def after_backward(self, trainer: Trainer) -> None:
        """Take the hooks off; with manual optimisation they serve until the batch ends."""
        if self.module is not None and self.module.automatic_optimization:
            self.leave()

    def measure(self, step: OptimizerStep) -> None:
        """Read a step before it is taken."""
        self._has_stepped = True
        self._steps.measure(step, first=self.is_first)
        if self.is_first:
            self._steps.find_unoptimized(step.trainer, step.module)
            self._cross(is_taken=False)

    @property
    def unseen(self) -> tuple[str, ...]:
        """What cannot be seen, a sentence each."""
        several = "There are several optimizers and no one loss: what the loss does is not judged."
        return tuple(filter(None, (self._hidden, several if self._optimizers > 1 else "")))

    def before_step(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Look whether there is a gradient, and whether it is this step's alone."""
        if self.is_looking and self.module is not None:
            places = (str(i) for i, o in enumerate(trainer.optimizers) if _is_same(o, optimizer))
            self._steps.count_missing(self.module, optimizer, next(places, "0"))
        self._stale.before_step(optimizer, watch=self.is_looking)

    def drop_step(self) -> None:
        """Forget a step that is not taken."""
        self._steps.drop()

    def end_batch(self, trainer: Trainer) -> bool:
        """Take in what the batch showed; say whether it was looked at in full.

        Of a step that is accumulated over several batches the last one is looked at.
        """
        self.leave()
        self.epoch = _epoch(trainer)
        if not self.is_looking:
            return False
        self.is_looking = False
        if not self._has_stepped and trainer.accumulate_grad_batches > 1:
            self._probe = None
            return False
        self._cross(is_taken=True)
        self.is_first = self.is_first and not self._has_stepped
        return self._is_full  # an update alone is judged with the next full look

    def see_validation(self, trainer: Trainer) -> bool:
        """Take in validation metrics; say whether there were any."""
        self._losses.crossed(self._losses.pending().tolist(), epoch=self.epoch)
        return self._validation.add(trainer.callback_metrics)

    def look_at_the_end(self, module: LightningModule, *, alone: bool) -> None:
        """Take in the last losses, and look whether the weights are finite.

        Args:
            module: the module that was trained.
            alone: whether other ranks may be elsewhere, so that nothing is asked of them.
        """
        self._stale.forget()
        self._losses.crossed(self._losses.pending().tolist(), epoch=self.epoch)
        made = [(n, p) for n, p in module.named_parameters() if not is_lazy(p)]
        real = [(n, p) for n, p in made if p.is_floating_point() or p.is_complex()]
        named = [(plain_name(n), p) for n, p in real if p.numel()]
        weights = [local(p.detach()) if alone else p.detach() for _, p in named]
        self._steps.know("nonfinite_weights", _nonfinite([n for n, _ in named], weights))
        if alone:  # the run has failed, and its last gradients are still there
            left = [(n, local(p.grad)) for n, p in named if p.grad is not None]
            bad = _nonfinite([n for n, _ in left], [g for _, g in left])
            self._steps.know("nonfinite_gradients", bad)

    def leave(self) -> None:
        """Take every hook away."""
        if self._is_watching:
            self._is_watching = False
            self._units.stop()
            if self._probe is not None:
                self._probe.remove()

    def facts(self, trainer: Trainer, moment: str = "") -> Facts:
        """Return what is known now."""
        known: dict[str, Any] = {
            "moment": moment,
            "step": trainer.global_step,
            "epoch": self.epoch,
            "warming_up": float(self._schedule.is_rising),
            "learning_rate": self._schedule.rate,
            "rate_left": self._schedule.rate_left,
            "progress": _progress(trainer),
            **self._batches.known,
            **self._inputs.facts(),
            **self._stale.facts(),
            **self._units.facts(),
            **self._steps.facts(),
            **self._losses.facts(self._batches.baseline, self._batches.blind),
            **self._validation.facts(self._batches.baseline),
        }
        best = 1 - known.get("validation_learnt", math.nan)
        known["generalization_gap"] = best - known.get("unexplained", math.nan)
        return Facts(**{name: value for name, value in known.items() if name in NAMES})

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {
            "losses": self._losses.state_dict(),
            "steps": self._steps.state_dict(),
            "batches": self._batches.state_dict(),
            "validation": self._validation.state_dict(),
            "inputs": self._inputs.state_dict(),
            "units": self._units.state_dict(),
            "highest_rate": self._schedule.highest,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._losses.load_state_dict(state["losses"])
        self._steps.load_state_dict(state["steps"])
        self._batches.load_state_dict(state["batches"])
        self._validation.load_state_dict(state["validation"])
        self._inputs.load_state_dict(state["inputs"])
        self._units.load_state_dict(state["units"])
        self._schedule.highest = state["highest_rate"]
        self.is_first = False

    def _cross(self, *, is_taken: bool) -> None:
        """Move everything that was measured to the host, in one transfer."""
        readings: list[Reading] = []
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.remove()
            readings = [*self._batches.readings(probe, self._loss), *self._units.readings()]
        readings += self._steps.readings(is_taken=is_taken)
        losses: list[float] = []
        readings += self._inputs.readings()
        pending = self._losses.pending()
        readings.append(Reading(pending, lambda values: losses.extend(values) or {}))  # type: ignore[func-returns-value]
        numbers = cross(readings)
        self._batches.crossed(numbers)
        self._inputs.crossed(numbers)
        self._units.crossed(numbers)
        self._steps.crossed(numbers, early=self._is_early)
        self._losses.crossed(losses, epoch=self.epoch)


def _nonfinite(names: list[str], tensors: list[Tensor]) -> dict[str, float]:
    norms = tensor_norms(tensors).tolist()
    return {n: 1.0 for n, v in zip(names, norms, strict=True) if not math.isfinite(v)}


def _is_same(known: Any, optimizer: Optimizer) -> bool:
    return known is optimizer or getattr(known, "optimizer", None) is optimizer


def _epoch_batches(trainer: Trainer) -> int:
    batches = trainer.num_training_batches
    return int(batches) if math.isfinite(batches) and batches > 0 else 1000


def _epoch(trainer: Trainer) -> float:
    done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
    return float(done / _epoch_batches(trainer))


def _progress(trainer: Trainer) -> float:
    """Return how much of the planned run is done; NaN where no end is planned."""
    planned = trainer.estimated_stepping_batches
    return trainer.global_step / planned if 0 < planned < math.inf else math.nan

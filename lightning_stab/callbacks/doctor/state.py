"""What the doctor knows of one fit: which steps are sampled, and the facts that they give."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_stab.callbacks._hooks.compiled import Hookable
from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks._trainer.logging import is_due, log_step, num_steps
from lightning_stab.callbacks._trainer.losses import true_loss
from lightning_stab.callbacks._trainer.step import OptimizerStep, first_group
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts, InputPeaks, UnitFacts
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.callbacks.doctor.loss_facts import LossHistory
from lightning_stab.callbacks.doctor.metric_level import MetricLevel
from lightning_stab.callbacks.doctor.module_facts import ModuleFacts
from lightning_stab.callbacks.doctor.pairs import NeighbourRows
from lightning_stab.callbacks.doctor.step_facts import EARLY_UPDATES, StepFacts
from lightning_stab.callbacks.doctor.validation_facts import RowMoments, ValidationHistory
from lightning_stab.diagnosis import Facts

FIRST_STEPS = (0, 4, 9, 19)  # always sampled
EARLY_PHASE_STEPS, EARLY_PHASE_INTERVAL = 500, 50  # a run is sampled more often at its beginning
OUT_OF_RANGE = re.compile(r"Target -?\d+ is out of bounds")  # in torch's own words
NO_BASELINE = (
    "The loss is not what a loss function of torch returned, and the module has no `training_step`"
    " to be run on exchanged targets: what a constant prediction loses is not known."
)
# the largest values are noted of each of the first batches, then of one in so many: in the early
# phase, and after it
EACH_INPUT, EARLY_INPUT_INTERVAL, INPUT_INTERVAL = 100, 3, 8
FIRST_TARGETS = 20  # batches whose targets are compared with each other; then of sampled steps


class DoctorState:
    """What is known of one fit.

    A step is sampled in full, with hooks on its batch, or only for its update.

    Args:
        every_n_steps: optimizer steps between two that are sampled in full.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.module: LightningModule | None = None  # once a batch has begun
        self.is_sampled = False  # of the current step
        self.is_first = True  # no sampled step has been taken yet
        self._every_n_steps = every_n_steps
        self._batches = BatchFacts()
        self._units = UnitFacts()
        self.steps = StepFacts()
        self._inputs = InputPeaks()
        self._losses = LossHistory(self._batches)
        self.validation = ValidationHistory(self._losses)
        self.rows = RowMoments()
        self.level = MetricLevel()
        self._neighbours = NeighbourRows()
        self._layers = ModuleFacts()
        self._sources: dict[str, FactSource] = {  # by their keys in a checkpoint
            "batches": self._batches,
            "units": self._units,
            "steps": self.steps,
            "inputs": self._inputs,
            "losses": self._losses,
            "validation": self.validation,
            "rows": self.rows,
            "level": self.level,
            "layers": self._layers,
            "pairs": self._batches.pairs,
            "neighbours": self._neighbours,
        }
        self._num_batches = 0  # of the run so far
        self._failure: dict[str, float] = {}
        self._rate, self._highest_rate, self._is_warming_up = math.nan, 0.0, True
        self._is_full = self._is_early = self.has_hooks = False
        self._has_stepped = self._has_one_loss = False
        self._knew_baseline = False  # once; a loss of NaN hides it for a while
        self._hidden, self._unknown, self._num_optimizers = "", "", 1

    @property
    def unseen(self) -> tuple[str, ...]:
        """What cannot be seen, a sentence each."""
        several = "There are several optimizers and no one loss: the loss is not judged."
        several = several if self._num_optimizers > 1 else ""
        return tuple(filter(None, (self._hidden, several, self._unknown)))

    def begin_batch(self, trainer: Trainer, module: LightningModule, batch: Any, step: int) -> None:
        """Decide whether this batch's step is sampled, and put the hooks on if it is in full."""
        self.remove_hooks()
        optimizers = trainer.optimizers
        self._has_one_loss = len(optimizers) == 1
        self._neighbours.add(batch, trainer.current_epoch)
        self.module, self._has_stepped = module, False
        if group := first_group(optimizers):
            rate = group.get("lr")  # some optimizers choose their steps without one
            before, self._rate = self._rate, math.nan if rate is None else float(rate)
            # a constant rate has no warm-up; the first step of a ramp looks the same
            self._highest_rate = max(self._highest_rate, self._rate)
            self._is_warming_up = self._rate > before * (1 + 1e-9) or self._rate == 0
        interval, inputs_interval = self._every_n_steps, INPUT_INTERVAL
        if step < EARLY_PHASE_STEPS:
            interval = min(interval, EARLY_PHASE_INTERVAL)
            inputs_interval = EARLY_INPUT_INTERVAL
        self._is_full = step in FIRST_STEPS or is_due(step, interval)
        self._is_early = self.steps.early_seen < EARLY_UPDATES and not self._is_warming_up
        self.is_sampled = self._is_full or self._is_early
        if self.is_sampled:
            self._note_epoch(trainer)
        if self._is_full or step < EACH_INPUT or is_due(step, inputs_interval):
            self._inputs.add(batch, sampled=self._is_full)
        if self._is_full or step < FIRST_TARGETS:
            self._batches.pairs.note(batch)
        if self._is_full:
            self.has_hooks = True
            parts = Hookable(module)
            self._hidden = self._batches.start(parts, batch)
            self._num_optimizers = len(optimizers)
            self._layers.start(parts)
            self._losses.rows = rows_of(batch) or self._losses.rows
            self.rows.add("training", batch)
            self._units.start(parts)

    def before_backward(self, trainer: Trainer, module: LightningModule, loss: Tensor) -> None:
        """Note a loss; where there are several optimizers there is no one loss."""
        is_first = self.is_first and self.is_sampled
        self.steps.before_backward(loss, module, first=is_first)
        if self._has_one_loss:
            self._batches.loss = true_loss(trainer, module, loss)
            self._losses.add(self._batches.loss)

    def measure(self, step: OptimizerStep) -> None:
        """Measure a step before it is taken."""
        self._has_stepped = True
        self.steps.measure(step, first=self.is_first)
        if self.is_first:
            self._transfer()

    def end_batch(self, trainer: Trainer, batch: Any = None, batch_idx: int = 0) -> bool:
        """Take in what the batch showed; say whether it was sampled in full."""
        self.remove_hooks()
        self._note_epoch(trainer)
        if not self.is_sampled:
            return False
        self.is_sampled = False
        if not self._has_stepped and trainer.accumulate_grad_batches > 1:  # the last one counts
            self._batches.drop()
            self._units.drop()
            return False
        self.steps.compare(num_steps(trainer), early=self._is_early, full=self._is_full)
        self._knew_baseline |= self._batches.knows_baseline
        is_unknown = not (self._batches.knows_baseline or self._hidden)
        if self._is_full and is_unknown and self._num_optimizers == 1 and self.module is not None:
            self._batches.pairs.measure(self.module, batch, batch_idx)
            has_step = hasattr(self.module, "training_step")
            self._unknown = "" if has_step or self._knew_baseline else NO_BASELINE
        self._transfer()
        self.is_first = self.is_first and not self._has_stepped
        return self._is_full  # an update alone is judged at the next step that is sampled in full

    def end_validation(self, trainer: Trainer) -> bool:
        """Take in validation metrics; say whether there were any."""
        self._neighbours.ask()
        sources = (self._losses, self.rows, self.level, self._neighbours)
        to_host(scalars for source in sources for scalars in source.pending())
        self.level.note(trainer.callback_metrics)
        return self.validation.add(trainer.callback_metrics)

    def end_fit(self, module: LightningModule, *, alone: bool) -> None:
        """Take in the last losses and check the weights; ``alone`` where the run has failed."""
        self.remove_hooks()
        self.steps.measure_end(module, alone=alone)
        self._neighbours.ask()
        to_host([*self._losses.pending(), *self._neighbours.pending()])

    def note_failure(self, failure: BaseException) -> None:
        """Note what ended the run, as far as that is a fact about its data."""
        is_class = isinstance(failure, IndexError | RuntimeError) and OUT_OF_RANGE.search(
            str(failure)
        )
        self._failure = {"class_out_of_range": 1.0} if is_class else {}
        self._failure["failed"] = float(isinstance(failure, Exception))  # else it was interrupted

    def end_forward(self) -> None:
        """See no function and no activation from here on, where hooks are on."""
        if self.has_hooks:
            self._batches.end_forward()
            self._units.end_forward()

    def remove_hooks(self) -> None:
        """Take every hook off."""
        if self.has_hooks:
            self.has_hooks = False
            self._units.stop()
            self._layers.stop()
            self._batches.stop()

    def facts(self, trainer: Trainer, moment: str = "") -> Facts:
        """Return what is known now."""
        planned, steps = trainer.estimated_stepping_batches, num_steps(trainer)
        # planned are batches, and each may be a step of several optimizers
        stepped = log_step(trainer) if len(trainer.optimizers) > 1 else steps
        known: dict[str, Any] = {
            "moment": moment,
            "step": steps,
            "epoch": self._losses.epoch,
            "warming_up": float(self._is_warming_up),
            "learning_rate": self._rate,
            "rate_left": self._rate / self._highest_rate if self._highest_rate > 0 else math.nan,
            "progress": stepped / planned if 0 < planned < math.inf else math.nan,
        }
        options = (getattr(trainer, name, 0) for name in ("overfit_batches", "fast_dev_run"))
        known["on_purpose"] = float(any(options))
        batches = trainer.num_training_batches
        known["epoch_rows"] = float(batches * self._losses.rows) if batches else math.nan
        known["highest_rate"] = self._highest_rate
        known["samples"] = float(self._num_batches * self._losses.rows)
        planned = planned if 0 < planned < math.inf else math.nan
        known["reach"] = self.steps.largest_ratio * planned
        for source in self._sources.values():
            known |= source.facts()
        return Facts(**{**known, **self._failure})

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values, with what waits on the device."""
        self._neighbours.ask(again=False)  # the rows themselves are not saved
        self._transfer()
        states: dict[str, Any] = {key: each.state_dict() for key, each in self._sources.items()}
        return {**states, "highest_rate": self._highest_rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        for key, source in self._sources.items():
            if key not in state:  # of an earlier version
                continue
            source.load_state_dict(state[key])
        self._highest_rate = state["highest_rate"]
        self.is_first = False

    def _transfer(self) -> None:
        """Move everything that was measured to the host, in one transfer."""
        to_host(scalars for source in self._sources.values() for scalars in source.pending())

    def _note_epoch(self, trainer: Trainer) -> None:
        batches = trainer.num_training_batches
        steps = int(batches) if math.isfinite(batches) and batches > 0 else 1000
        done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        self._losses.epoch_steps, self._losses.epoch = steps, done / steps
        self._num_batches = done


def rows_of(batch: Any) -> int:
    """Return the rows of a batch: the length of its first tensor, 0 where there is none.

    Example:
        >>> import torch
        >>> rows_of({"x": torch.zeros(4, 2)})
        4
    """
    leaves = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim())
    first = next(leaves, None)
    return 0 if first is None else len(first)

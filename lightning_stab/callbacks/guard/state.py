"""The state of a guard during one fit: the latest loss, what can be put back, what is due."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import LBFGS

from lightning_stab.callbacks._trainer.losses import unscaled_loss
from lightning_stab.callbacks._trainer.step import OptimizerStep, gradient_scaler
from lightning_stab.callbacks.guard.forensics import NonfiniteTracer
from lightning_stab.callbacks.guard.options import GuardOptions
from lightning_stab.callbacks.guard.restoring import (
    BufferKeeper,
    LineSearchBackup,
    SchedulerHold,
    fits_into_checkpoint,
    restore_snapshot,
    take_snapshot,
)
from lightning_stab.callbacks.guard.verdicts import StepFacts, Verdict, gather_facts


class GuardState:
    """What the guard holds during one fit.

    Args:
        module: the module in training.
        options: those of the guard.
    """

    def __init__(self, module: LightningModule, options: GuardOptions) -> None:
        self.buffers = BufferKeeper(module)
        self.schedulers = SchedulerHold()
        self.snapshots: deque[dict[str, Any]] = deque(maxlen=2)
        self.num_accepted_since_snapshot = 0
        self.rewind_due = False
        self._undoes = options.undoes
        self._forensics = NonfiniteTracer() if options.forensics else None
        self._losses: list[Tensor] = []
        self._window_is_open = False
        self._line_searches: dict[int, LineSearchBackup] = {}
        self._snapshot_is_unused = False
        self._scaler_state: dict[str, Any] | None = None

    def begin_batch(self, batch: Any, batch_idx: int) -> None:
        """Keep the buffers as they are before an accumulation window, and the batch if asked."""
        begins = not self._window_is_open
        if begins and self._undoes:
            self.buffers.keep()
        if self._forensics is not None:
            self._forensics.remember(batch, batch_idx, begins=begins)
        self._window_is_open = True

    def end_window(self) -> None:
        """Note that this batch steps, taken or not: the next one begins a window."""
        self._window_is_open = False

    def add_loss(self, trainer: Trainer, loss: Tensor) -> None:
        """Add the loss of a backward pass to those of the coming step."""
        self._losses.append(unscaled_loss(trainer, loss))

    def facts(self, step: OptimizerStep) -> StepFacts | None:
        """Return what all ranks know of this step; None for a further evaluation of LBFGS."""
        losses, self._losses = self._losses, []
        if step.is_line_search:
            return None
        if len(step.trainer.optimizers) > 1:
            losses = []  # whose losses they are is not known: the gradient decides
        means = [loss.float().mean() for loss in losses]
        loss = torch.stack(means).sum() if means else None
        return gather_facts(step, loss, self.buffers.running_norm())

    def investigate(self, step: OptimizerStep, verdict: Verdict) -> str:
        """Return where the first non-finite step went wrong, if that was asked for."""
        if self._forensics is None or self._forensics.done or verdict.is_spike:
            return ""
        return self._forensics.investigate(step.trainer, step.module)

    def accept(self, step: OptimizerStep) -> None:
        """Note that a step is taken; keep what an LBFGS step could ruin by itself."""
        self.num_accepted_since_snapshot += 1
        if self._undoes and isinstance(step.optimizer, LBFGS):
            self._line_searches[id(step.optimizer)] = LineSearchBackup(step)
        if self._undoes and not step.module.automatic_optimization:
            self.buffers.keep()  # another optimizer's step may follow in this very batch

    def reject(self, step: OptimizerStep) -> None:
        """Drop a step's gradients, put the buffers back and hold the schedulers."""
        step.reject()
        self.schedulers.hold(step.trainer, step.optimizer)
        self.buffers.restore()
        scaler = gradient_scaler(step.trainer)
        if scaler is not None:
            self._scaler_state = scaler.state_dict()  # a bad batch says nothing about the scale

    def end_batch(self, trainer: Trainer) -> bool:
        """Let the schedulers go on, and put back the loss scale, which a rejected step may lower.

        Returns whether weights were put back, too, which an LBFGS step has made non-finite.
        """
        self.schedulers.release(plateaus=False)
        scaler = gradient_scaler(trainer)
        if scaler is not None and self._scaler_state is not None:
            scaler.load_state_dict(self._scaler_state)
        self._scaler_state = None
        ruined = [backup for backup in self._line_searches.values() if backup.is_needed()]
        for backup in ruined:
            backup.restore()
        self._line_searches.clear()
        return bool(ruined)

    def keep_snapshot(self, trainer: Trainer, module: LightningModule, guard: Any) -> None:
        """Take a snapshot; the two newest are kept."""
        snapshot = take_snapshot(trainer, module, guard)
        self.snapshots.append({**snapshot, "num_rewound": guard.num_rewound})
        self.num_accepted_since_snapshot = 0
        self._snapshot_is_unused = True

    def add_saved_snapshot(self, saved: dict[str, Any]) -> None:
        """Take over the newest snapshot of a run that a checkpoint continues."""
        self.snapshots.append(saved)
        self.num_accepted_since_snapshot = saved["age"]
        self._snapshot_is_unused = saved["fresh"]

    def newest_snapshot(self) -> dict[str, Any] | None:
        """Return the newest snapshot for a checkpoint, with its age, if there is one to carry."""
        if not self.snapshots or not fits_into_checkpoint(self.snapshots[-1]):
            return None
        age = {"age": self.num_accepted_since_snapshot, "fresh": self._snapshot_is_unused}
        return {**self.snapshots[-1], **age}

    def rewind(self, trainer: Trainer, module: LightningModule, guard: Any) -> int:
        """Put the newest snapshot back, or the older one where the newest did not help.

        Returns how many rewinds there had been when it was taken.
        """
        self.rewind_due = False
        if not self._snapshot_is_unused and len(self.snapshots) > 1:
            self.snapshots.pop()
        self._snapshot_is_unused = False
        self.num_accepted_since_snapshot = 0
        restore_snapshot(trainer, module, guard, self.snapshots[-1])
        return int(self.snapshots[-1]["num_rewound"])

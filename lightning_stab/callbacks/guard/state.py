"""The state of a guard during one fit: the latest loss, what can be put back, what is due."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from lightning_stab.callbacks._trainer.lightning_classes import is_automatic
from lightning_stab.callbacks._trainer.losses import unscaled_loss
from lightning_stab.callbacks._trainer.step import OptimizerStep, hold_scale
from lightning_stab.callbacks.guard.deferred import DeferredStep, can_defer, take_off
from lightning_stab.callbacks.guard.forensics import NonfiniteTracer
from lightning_stab.callbacks.guard.options import GuardOptions
from lightning_stab.callbacks.guard.restoring import (
    BufferKeeper,
    SchedulerHold,
    StepBackup,
    fits_into_checkpoint,
    restore_snapshot,
    take_snapshot,
)
from lightning_stab.callbacks.guard.verdicts import Verdict

PROBED_STEPS = 3  # after which an optimizer that evaluated once, where it stood, goes on so


class GuardState:
    """What the guard holds during one fit.

    Args:
        trainer: the Trainer.
        module: the module in training.
        options: those of the guard.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, options: GuardOptions) -> None:
        self.trainer = trainer
        self.buffers = BufferKeeper(module)
        self.schedulers = SchedulerHold()
        self.snapshots: deque[dict[str, Any]] = deque(maxlen=2)
        self.num_accepted_since_snapshot = 0
        self.rewind_due = False
        self.deferred: DeferredStep | None = None
        self._carrier: Optimizer | None = None  # has the verdict on its present step
        self._undoes = options.undoes
        self._forensics = NonfiniteTracer() if options.forensics else None
        self._losses: list[Tensor] = []
        self._window_is_open = False
        self._backups: dict[int, StepBackup] = {}  # by the place of the optimizer
        self._rejected: set[int] = set()  # places of those whose present step is not taken
        self._single: dict[int, int] = {}  # steps that evaluated once, where the weights stood
        self._moving: set[int] = set()  # places of those that evaluate again, or elsewhere
        self._snapshot_is_unused = False

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

    def begin_step(self, optimizer: Optimizer, index: int) -> None:
        """Keep weights and state before a step in which they may be moved before it is judged."""
        self._rejected.discard(index)
        self._backups.pop(index, None)
        is_plain = type(optimizer).__module__.startswith("torch.optim.")
        may_move = index in self._moving or self._single.get(index, 0) < PROBED_STEPS
        if self._undoes and (isinstance(optimizer, LBFGS) or (may_move and not is_plain)):
            self._backups[index] = StepBackup(optimizer)

    def quantities(self, step: OptimizerStep) -> dict[str, Tensor] | None:
        """Return what is judged, this rank's own, on the device: ``loss``, ``running``, ``norm``.

        The loss only where it is known to be that of this step, ``running`` only where there are
        running statistics. None where a further evaluation of a step says nothing: a line search of
        LBFGS may try anything, and a rejected step stays rejected.
        """
        losses, self._losses = self._losses, []
        if step.is_repeated and step.index in self._rejected:
            self._drop(step)
            return None
        if step.is_repeated and isinstance(step.optimizer, LBFGS):
            return None
        backup = self._backups.get(step.index)
        if step.is_repeated or (
            backup is not None and step.index not in self._moving and backup.has_moved()
        ):
            self._moving.add(step.index)
        found: dict[str, Tensor] = {}
        if (
            losses and not step.suffix
        ):  # of several optimizers it is not known whose losses these are
            means = [loss.float().mean() if loss.dim() else loss.float() for loss in losses]
            found["loss"] = torch.stack(means).sum() if len(means) > 1 else means[0]
        running = self.buffers.running_norm()
        if running is not None:
            found["running"] = running
        return {**found, "norm": step.total}

    def can_defer(self, step: OptimizerStep) -> bool:
        """Say whether the device can decide about this step, and put back what has to be."""
        return self._forensics is None and can_defer(step) and self.buffers.can_choose()

    def defer(self, deferred: DeferredStep, step: OptimizerStep) -> None:
        """Leave a step to the device, buffers included, until its verdict is read."""
        assert step.bad is not None
        self.deferred, self._carrier = deferred, step.optimizer
        self.buffers.restore_where(step.bad)

    def take_deferred(self) -> DeferredStep | None:
        """Return the step whose verdict has not been read yet, once."""
        deferred, self.deferred = self.deferred, None
        return deferred

    def investigate(self, step: OptimizerStep, verdict: Verdict) -> str:
        """Return where the first non-finite step went wrong, if that was asked for."""
        if self._forensics is None or self._forensics.done or verdict.is_spike:
            return ""
        return self._forensics.investigate(step.trainer, step.module)

    def can_put_back(self, step: OptimizerStep) -> bool:
        """Say whether a step can still be rejected: not where the weights were moved unkept."""
        return not self._undoes or not step.is_repeated or step.index in self._backups

    def accept(self, *, is_repeated: bool = False) -> None:
        """Note that a step is taken."""
        self.num_accepted_since_snapshot += not is_repeated

    def reject(self, step: OptimizerStep) -> None:
        """Drop a step's gradients, put the buffers back and hold the schedulers."""
        self.num_accepted_since_snapshot -= step.is_repeated
        self._rejected.add(step.index)
        self._drop(step)
        self.schedulers.hold(step.trainer, step.optimizer)
        hold_scale(step)

    def _drop(self, step: OptimizerStep) -> None:
        step.reject(as_zero=step.index in self._backups)
        self.buffers.restore()

    def end_step(self, trainer: Trainer, index: int) -> bool:
        """Put back what a rejected step has changed all the same.

        Returns whether weights were put back, too, which an LBFGS step has made non-finite.
        """
        self._take_verdict_off()
        backup, is_rejected = self._backups.pop(index, None), index in self._rejected
        if index not in self._moving:
            self._single[index] = self._single.get(index, 0) + 1
        several = not is_automatic(trainer, trainer.lightning_module)
        if self._undoes and not is_rejected and several:
            self.buffers.keep()  # another optimizer's step may follow in this very batch
        self._rejected.discard(index)
        is_ruined = backup is not None and not is_rejected and backup.is_ruined()
        if backup is not None and (is_rejected or is_ruined):
            backup.restore()
        return is_ruined

    def end_batch(self, trainer: Trainer) -> bool:
        """Let the schedulers go on.

        Returns whether weights were put back, too, by steps that nobody saw end.
        """
        self._take_verdict_off()
        self.schedulers.release(plateaus=False)
        ruined = [self.end_step(trainer, index) for index in list(self._backups)]
        return any(ruined)

    def _take_verdict_off(self) -> None:
        if self._carrier is not None:
            take_off(self._carrier)
        self._carrier = None

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

    def rewind(self, trainer: Trainer, module: LightningModule, guard: Any) -> dict[str, Any]:
        """Put the newest snapshot back, or the older one where the newest did not help.

        Returns that snapshot.
        """
        self.rewind_due = False
        if not self._snapshot_is_unused and len(self.snapshots) > 1:
            self.snapshots.pop()
        self._snapshot_is_unused = False
        self.num_accepted_since_snapshot = 0
        restore_snapshot(trainer, module, guard, self.snapshots[-1])
        return self.snapshots[-1]

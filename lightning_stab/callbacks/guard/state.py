"""What the guard holds during one fit: the latest loss, what can be put back, what was decided."""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import LBFGS

from lightning_stab.callbacks._trainer.step import OptimizerStep, gradient_scaler
from lightning_stab.callbacks.guard.buffers import BufferKeeper
from lightning_stab.callbacks.guard.forensics import NonfiniteTracer
from lightning_stab.callbacks.guard.restoring import portable, restore_snapshot, take_snapshot
from lightning_stab.callbacks.guard.schedulers import SchedulerHold
from lightning_stab.callbacks.guard.verdicts import StepFacts, Verdict, gather_facts
from lightning_stab.functional.norms import first_nonfinite


class GuardRun:
    """The guard's working memory of one fit.

    Args:
        module: the module in training.
        undoes: whether a policy puts things back, so that buffers have to be kept.
        forensics: whether batches are remembered, to run a bad one again.
    """

    def __init__(
        self, module: LightningModule, *, undoes: bool = False, forensics: bool = False
    ) -> None:
        self.buffers = BufferKeeper(module)
        self.hold = SchedulerHold()
        self.forensics = NonfiniteTracer() if forensics else None
        self.snapshots: deque[dict[str, Any]] = deque(maxlen=2)
        self.num_accepted_since_snapshot = 0
        self.rewind_due = False
        self._undoes = undoes
        self._losses: list[Tensor] = []
        self._window_open = False
        self._searches: dict[int, _Search] = {}
        self._fresh_snapshot = False
        self._scale: dict[str, Any] | None = None

    def begin_batch(self, batch: Any, batch_idx: int) -> None:
        """Keep the buffers as they are before an accumulation window, and the batch if asked."""
        begins = not self._window_open
        if begins and self._undoes:
            self.buffers.keep()
        if self.forensics is not None:
            self.forensics.remember(batch, batch_idx, begins=begins)
        self._window_open = True

    def end_window(self) -> None:
        """Note that this batch steps, whatever becomes of the step: the next begins a window."""
        self._window_open = False

    def add_loss(self, trainer: Trainer, loss: Tensor) -> None:
        """Add the loss of a backward pass, without its scale, to those of the coming step."""
        scaler = gradient_scaler(trainer)
        value = loss.detach()
        if scaler is not None and scaler._scale is not None:
            value = value / scaler._scale.to(value.device)
        self._losses.append(value)

    def facts(self, step: OptimizerStep) -> StepFacts | None:
        """Return what all ranks know of this step; None for a further evaluation of LBFGS."""
        losses, self._losses = self._losses, []
        if step.is_line_search:
            return None
        if len(step.trainer.optimizers) > 1:
            losses = []  # whose loss it was, nobody can tell: the gradient decides
        whole = [loss.float().mean() for loss in losses]
        loss = torch.stack(whole).sum() if whole else None
        running = self.buffers.running_norm()
        return gather_facts(step.trainer, loss, step.total_value, running, step.total.device)

    def investigate(self, step: OptimizerStep, bad: Verdict) -> str:
        """Return where the first non-finite step went wrong, if that was asked for."""
        if self.forensics is None or self.forensics.done or bad.is_spike:
            return ""
        return self.forensics.investigate(step.trainer, step.module)

    def accept(self, step: OptimizerStep) -> None:
        """Note that a step is taken; keep what an LBFGS step could ruin by itself."""
        self._window_open = False
        self.num_accepted_since_snapshot += 1
        if self._undoes and isinstance(step.optimizer, LBFGS):
            self._searches[id(step.optimizer)] = _Search(step)
        if self._undoes and not step.module.automatic_optimization:
            self.buffers.keep()  # another optimizer's step may follow in this very batch

    def reject(self, step: OptimizerStep) -> None:
        """Drop a step's gradients, put the buffers back and hold the schedulers."""
        self._window_open = False
        step.reject()
        self.hold.hold(step.trainer, step.optimizer)
        self.buffers.restore()
        scaler = gradient_scaler(step.trainer)
        if scaler is not None:
            self._scale = scaler.state_dict()  # a bad batch says nothing about the scale

    def end_batch(self, trainer: Trainer) -> None:
        """Let the schedulers go on, and put the loss scale back where a step was rejected."""
        self.hold.release(plateaus=False)
        scaler = gradient_scaler(trainer)
        if scaler is not None and self._scale is not None:
            scaler.load_state_dict(self._scale)
        self._scale = None

    def undo_ruined_searches(self) -> bool:
        """Put back weights that an LBFGS step itself has made non-finite; say whether any were."""
        ruined = [search for search in self._searches.values() if search.ruined()]
        for search in ruined:
            search.undo()
        self._searches.clear()
        return bool(ruined)

    def keep_snapshot(self, trainer: Trainer, module: LightningModule, guard: Any) -> None:
        """Take a snapshot; the two newest are kept."""
        snapshot = take_snapshot(trainer, module, guard)
        self.snapshots.append({**snapshot, "num_rewound": guard.num_rewound})
        self.num_accepted_since_snapshot = 0
        self._fresh_snapshot = True

    def start_snapshots(
        self,
        trainer: Trainer,
        module: LightningModule,
        guard: Any,
        saved: dict[str, Any] | None,
    ) -> None:
        """Begin with a snapshot of the start, or with the one that a checkpoint brought."""
        self.keep_snapshot(trainer, module, guard)
        if saved is not None:
            self.snapshots.append(saved)
            self.num_accepted_since_snapshot = saved["age"]
            self._fresh_snapshot = saved["fresh"]

    def newest_snapshot(self) -> dict[str, Any] | None:
        """Return the newest snapshot for a checkpoint, with its age, if there is one to carry."""
        newest = portable(self.snapshots[-1]) if self.snapshots else None
        if newest is None:
            return None
        age = {"age": self.num_accepted_since_snapshot, "fresh": self._fresh_snapshot}
        return {**newest, **age}

    def rewind(self, trainer: Trainer, module: LightningModule, guard: Any) -> int:
        """Put the newest snapshot back, or the older one where the newest did not help.

        Returns how many rewinds there had been when it was taken.
        """
        self.rewind_due = False
        if not self._fresh_snapshot and len(self.snapshots) > 1:
            self.snapshots.pop()
        self._fresh_snapshot = False
        self.num_accepted_since_snapshot = 0
        restore_snapshot(trainer, module, guard, self.snapshots[-1])
        return int(self.snapshots[-1]["num_rewound"])


class _Search:
    """Weights and state before an LBFGS step, which evaluates and moves many times in one step."""

    def __init__(self, step: OptimizerStep) -> None:
        self.optimizer = step.optimizer
        self.params = list(step.params)
        self.copies = [p.detach().clone() for p in step.params]
        self.state = deepcopy(step.optimizer.state_dict())

    def ruined(self) -> bool:
        return first_nonfinite(self.params) is not None

    def undo(self) -> None:
        with torch.no_grad():
            for p, kept in zip(self.params, self.copies, strict=True):
                p.copy_(kept)
        self.optimizer.load_state_dict(self.state)

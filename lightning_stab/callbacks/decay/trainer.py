"""What `LearningRateDecay` asks of the Trainer."""

from __future__ import annotations

import math

from lightning.pytorch import LightningModule, Trainer

from lightning_stab.callbacks.decay.rules import DecayRules
from lightning_stab.errors import ConflictError
from lightning_stab.functional.decay import NEEDS_TOTAL


def refuse_two_schedules(trainer: Trainer, module: LightningModule, combine: str) -> None:
    """Refuse to stand beside a scheduler of the module unless told how they combine.

    Raises:
        ConflictError: before the first step.
    """
    configs = trainer.lr_scheduler_configs
    if not configs:
        return
    name = type(configs[0].scheduler).__name__
    if combine == "refuse":
        raise ConflictError(
            f"`configure_optimizers` already returns a learning rate scheduler, {name}; set "
            "`combine='multiply'` to apply both, `combine='replace'` to leave it out, or remove "
            "one of them."
        )
    if combine == "replace":
        if not module.automatic_optimization:
            raise ConflictError(
                f"`combine='replace'` cannot leave out {name}, because under manual optimisation "
                "the module steps it by itself; use `combine='multiply'` or remove it."
            )
        trainer.strategy.lr_scheduler_configs = []


def total_length(trainer: Trainer, rules: DecayRules) -> int:
    """Return how many epochs or steps the schedule has after the warm-up.

    Raises:
        ConflictError: if it is needed and the Trainer has no end.
    """
    if rules.schedule not in NEEDS_TOTAL:
        return 1
    steps = trainer.estimated_stepping_batches
    batches = trainer.num_training_batches
    per_epoch = max(1, math.ceil(batches / trainer.accumulate_grad_batches))
    if rules.interval == "step":
        total, before = (rules.total or steps), rules.warmup_steps
    else:
        epochs = trainer.max_epochs or -1
        by_steps = math.ceil(steps / per_epoch) if math.isfinite(steps) else math.inf
        total = rules.total or (min(epochs, by_steps) if epochs > 0 else by_steps)
        before = rules.warmup_steps // per_epoch
    if not math.isfinite(total) or total <= 0:
        raise ConflictError(
            f"`total` must be given for `schedule={rules.schedule!r}`, because the Trainer has "
            f"neither `max_epochs` nor `max_steps`; it counts {rules.interval}s."
        )
    return max(1, int(total) - before)

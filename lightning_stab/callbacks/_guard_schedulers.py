"""Schedulers that do not advance on a step that was not taken."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer


class SchedulerHold:
    """Hold an optimizer's step-wise schedulers for one batch.

    Lightning advances every scheduler whose interval is ``step`` after the batch; for that moment
    the interval reads otherwise. Schedulers that a module advances by itself under manual
    optimisation cannot be held.
    """

    def __init__(self) -> None:
        self._held: list[Any] = []

    def hold(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Keep the schedulers of ``optimizer`` where they are until :meth:`release`."""
        for config in trainer.lr_scheduler_configs:
            if config.interval == "step" and config.scheduler.optimizer is optimizer:
                config.interval = "held"
                self._held.append(config)

    def release(self) -> None:
        """Let them advance again."""
        for config in self._held:
            config.interval = "step"
        self._held.clear()


def scale_learning_rates(trainer: Trainer, factor: float) -> None:
    """Multiply every learning rate, and what schedulers compute later ones from, by ``factor``.

    Callbacks that set learning rates take part with a method ``scale_learning_rates(factor)``.
    """
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                if key in group:
                    group[key] = group[key] * factor
    for config in trainer.lr_scheduler_configs:
        if hasattr(config.scheduler, "base_lrs"):
            config.scheduler.base_lrs = [rate * factor for rate in config.scheduler.base_lrs]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        scale = getattr(callback, "scale_learning_rates", None)
        if callable(scale):
            scale(factor)

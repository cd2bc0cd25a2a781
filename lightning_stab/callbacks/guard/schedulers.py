"""Schedulers that do not advance on a step that was not taken."""

from __future__ import annotations

from collections.abc import Iterator
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

    def release(self, *, plateaus: bool) -> None:
        """Let them advance again; those on a plateau, which advance last in a batch, if said so."""
        waiting = [c for c in self._held if c.reduce_on_plateau and not plateaus]
        for config in self._held:
            config.interval = "held" if config in waiting else "step"
        self._held = waiting


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
        for scheduler in _with_inner(config.scheduler):
            if hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        scale = getattr(callback, "scale_learning_rates", None)
        if callable(scale):
            scale(factor)


def _with_inner(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and those that it is made of (sequential and chained ones)."""
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", ()):
        yield from _with_inner(inner)

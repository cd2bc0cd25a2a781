"""The loss scale of mixed precision, and the steps that its scaler skipped."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_stab.callbacks._trainer.logging import is_due, log_scalars, log_step, tag
from lightning_stab.callbacks._trainer.step import will_step


class ScalerWatch:
    """Counts overflows on their device, and moves the count only where it is logged."""

    def __init__(self) -> None:
        self._skipped: Tensor | None = None

    def begin(self) -> None:
        """Forget an earlier fit."""
        self._skipped = None

    def count(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Count a step that the scaler will pass over."""
        scaler = _scaler(trainer)
        states = getattr(scaler, "_per_optimizer_states", {})
        found = states[id(optimizer)]["found_inf_per_device"] if id(optimizer) in states else {}
        for each in found.values():
            overflow = each.detach().reshape(()) > 0
            self._skipped = overflow + (0 if self._skipped is None else self._skipped)

    def log(self, trainer: Trainer) -> None:
        """Log scale and count after a step that ends one of Lightning's intervals."""
        scaler = _scaler(trainer)
        every: int = getattr(trainer, "log_every_n_steps", 1)  # set where a type checker is blind
        if scaler is not None and will_step(trainer) and is_due(log_step(trainer), max(every, 1)):
            skipped = 0.0 if self._skipped is None else float(self._skipped)
            values = {tag("precision", "scale"): float(scaler.get_scale())}
            log_scalars(trainer, {**values, tag("precision", "skipped"): skipped})


def is_scaled(trainer: Trainer) -> bool:
    """Tell whether losses are scaled for mixed precision."""
    return _scaler(trainer) is not None


def _scaler(trainer: Trainer) -> Any | None:
    """Return the loss scaler of mixed precision, if it is on."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None

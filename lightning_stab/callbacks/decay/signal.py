"""The value by which `LearningRateDecay` decays: a smoothed training loss or a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_stab.functional.decay_by_loss import smooth


class SmoothedLoss:
    """The exponential mean of the training loss, kept on the device until it is read."""

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self._mean: Tensor | None = None
        self._weight: Tensor | None = None

    @property
    def seen(self) -> bool:
        """Whether there was any loss at all."""
        return self._mean is not None

    @torch.no_grad()
    def add(self, outputs: Any) -> None:
        """Take in what ``training_step`` returned; without a loss in it, nothing happens."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        loss = loss.detach().double().mean()
        if self._mean is None or self._weight is None:
            self._mean, self._weight = torch.zeros_like(loss), torch.zeros_like(loss)
        mean, weight = self._mean.to(loss.device), self._weight.to(loss.device)
        self._mean, self._weight = smooth(mean, weight, loss, self._smoothing)

    def read(self, trainer: Trainer) -> float:
        """Return the mean over all processes, NaN before there is a finite loss."""
        if self._mean is None or self._weight is None:
            return math.nan
        return mean_over_processes(trainer, self._mean / self._weight)

    def state(self) -> dict[str, Any]:
        """Return the mean and its weight as plain numbers."""
        if self._mean is None or self._weight is None:
            return {}
        return {"mean": float(self._mean), "weight": float(self._weight)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` described."""
        if state:
            self._mean = torch.tensor(state["mean"], dtype=torch.float64)
            self._weight = torch.tensor(state["weight"], dtype=torch.float64)


def mean_over_processes(trainer: Trainer, value: Tensor) -> float:
    """Return the mean of a scalar over all processes, so that all of them decide alike."""
    if trainer.world_size > 1:
        value = trainer.strategy.reduce(value.to(trainer.strategy.root_device), reduce_op="mean")
    return float(value)

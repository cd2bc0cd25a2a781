"""The gradient noise scale, from the two batch sizes that accumulation offers for free."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torch.nn import Module

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks._trainer.logging import tag
from lightning_stab.callbacks._trainer.step import OptimizerStep, gradient_scaler
from lightning_stab.functional.gradient_statistics import noise_and_signal
from lightning_stab.functional.norms import tensor_norms, total_norm
from lightning_stab.functional.statistics import ExponentialStatistics


class NoiseScale:
    """Compare the gradient of the first micro-batch of a window with that of the whole window.

    Lightning divides each micro-batch's loss by the number of micro-batches, so the first one's
    gradient is that fraction of its mean gradient. Noise and signal are averaged apart.
    """

    def __init__(self) -> None:
        self.noise = ExponentialStatistics(decay=0.9, warmup=10)
        self.signal = ExponentialStatistics(decay=0.9, warmup=10)
        self._first: Tensor | None = None
        self._sizes: list[int] = []

    def start_batch(self, batch: Any) -> None:
        """Note the size of a micro-batch of a window that will be read."""
        self._sizes.append(_batch_size(batch))

    def after_backward(self, trainer: Trainer, module: Module) -> None:
        """Measure the gradient while it holds the first micro-batch alone."""
        if len(self._sizes) != 1 or self._first is not None:
            return
        with torch.no_grad():
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            scaler = gradient_scaler(trainer)
            scale = scaler.get_scale() if scaler is not None else 1.0
            self._first = total_norm(tensor_norms(gradients)) / scale

    def readings(self, step: OptimizerStep) -> list[DeviceScalars]:
        """Read noise, signal and their ratio from a window of at least two micro-batches."""
        first, sizes = self._first, self._sizes
        self.forget()
        if first is None or len(sizes) < 2 or 0 in sizes:
            return []
        share = step.trainer.accumulate_grad_batches
        pair = torch.stack([first.to(step.total) * share, step.total * share / len(sizes)])
        large = sum(sizes) * step.trainer.world_size
        return [DeviceScalars(pair, lambda norms: self._learn(norms, sizes[0], large))]

    def forget(self) -> None:
        """Drop an unfinished window."""
        self._first = None
        self._sizes = []

    def _learn(self, norms: list[float], small: int, large: int) -> dict[str, float]:
        noise, signal = noise_and_signal(norms[0], norms[1], small, large)
        self.noise.add(noise)
        self.signal.add(signal)
        usable = self.noise.count and self.signal.mean > 0
        scale = self.noise.mean / self.signal.mean if usable else float("nan")
        return {tag("grad_noise", "scale"): scale}

    def state_dict(self) -> dict[str, Any]:
        """Return the averages as plain values."""
        return {"noise": self.noise.state_dict(), "signal": self.signal.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved averages."""
        self.noise.load_state_dict(state["noise"])
        self.signal.load_state_dict(state["signal"])


def _batch_size(batch: Any) -> int:
    """Return the size that Lightning's own logging would take, 0 for a batch that shows none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tensors of several sizes: the first one counts
        try:
            return int(extract_batch_size(batch))
        except MisconfigurationException:
            return 0

"""Optimizers and schedules by name, and which parameters an optimizer is given."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.optim import lr_scheduler

Settings = dict[str, Any]


def optimizer_for(
    parameters: Any, settings: Settings, rate: float | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer that the settings name."""
    rate = settings["lr"] if rate is None else rate
    decay = settings.get("weight_decay", 0.0)
    name = settings.get("optimizer", "adam")
    if name == "sgd":
        momentum = settings.get("momentum", 0.0)
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    return kinds[name](parameters, lr=rate, weight_decay=decay)


def chosen(module: nn.Module, settings: Settings) -> list[nn.Parameter]:
    """Return what the optimizer gets: all, or (`optimize`) what begins with these names."""
    prefixes = tuple(settings.get("optimize", [""]))
    return [p for name, p in module.named_parameters() if name.startswith(prefixes)]


def configured(module: LightningModule, settings: Settings) -> Any:
    """Return what `configure_optimizers` is to return."""
    optimizer = optimizer_for(chosen(module, settings), settings)
    schedule = settings.get("schedule")
    if schedule is None:
        return optimizer
    kind, *arguments = schedule.split(":")
    numbers = [float(a) for a in arguments]
    if kind == "plateau":
        reduce = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": reduce, "monitor": "val_loss"},
        }
    if kind == "exponential":  # by the epoch
        return [optimizer], [lr_scheduler.ExponentialLR(optimizer, numbers[0])]
    steps = int(module.trainer.estimated_stepping_batches)
    stepped = step_schedule(kind, numbers, optimizer, steps)
    return [optimizer], [{"scheduler": stepped, "interval": "step"}]


def step_schedule(
    kind: str, numbers: list[float], optimizer: torch.optim.Optimizer, steps: int
) -> Any:
    """Return a schedule that moves on with every step.

    cosine; warmup:STEPS from 0; warmup_cosine:STEPS; onecycle; decay:GAMMA at every step;
    jump:STEP:FACTOR, from that step on; cyclic:PERIOD:FACTOR.
    """
    if kind == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if kind == "onecycle":
        return lr_scheduler.OneCycleLR(optimizer, optimizer.defaults["lr"], total_steps=steps)

    def factor(step: int) -> float:
        if kind == "warmup":
            return min(1.0, step / numbers[0])
        if kind == "warmup_cosine":
            fraction = min(1.0, step / steps)
            return min(1.0, step / numbers[0]) * (1 + math.cos(math.pi * fraction)) / 2
        if kind == "decay":
            return numbers[0] ** step
        if kind == "jump":
            return numbers[1] if step >= numbers[0] else 1.0
        if kind == "cyclic":
            return numbers[1] if step % numbers[0] < 1 else 1.0
        raise KeyError(kind)

    return lr_scheduler.LambdaLR(optimizer, factor)


def freeze(module: nn.Module, prefixes: list[str]) -> None:
    """Freeze the parameters that begin with these names."""
    for name, parameter in module.named_parameters():
        if name.startswith(tuple(prefixes)):
            parameter.requires_grad_(False)

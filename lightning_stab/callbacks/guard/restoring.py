"""A training state in memory: taken after good steps, put back after a bad one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_stab.callbacks._trainer.step import gradient_scaler, step_members
from lightning_stab.functional.norms import is_sharded


def take_snapshot(trainer: Trainer, module: LightningModule, guard: object) -> dict[str, Any]:
    """Return copies of parameters, buffers, optimizers, schedulers, scaler and callback state.

    Plain values and tensors where the schedulers' own state is; it costs the memory of the model
    and of its optimizers once more, on the same devices.
    """
    scaler = gradient_scaler(trainer)
    return {
        "module": {name: _copied(t) for name, t in _tensors(module).items()},
        "optimizers": [_copied(o.state_dict()) for o in trainer.optimizers],
        "schedulers": [_copied(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs],
        "scaler": None if scaler is None else _copied(scaler.state_dict()),
        "callbacks": {
            member.state_key: _copied(member.state_dict())
            for member in step_members(trainer)
            if member is not guard
        },
    }


@torch.no_grad()
def restore_snapshot(
    trainer: Trainer, module: LightningModule, guard: object, snapshot: dict[str, Any]
) -> None:
    """Put a snapshot back in place; the snapshot stays as it is."""
    for name, tensor in _tensors(module).items():
        if name in snapshot["module"]:
            tensor.copy_(snapshot["module"][name])
    for optimizer, state in zip(trainer.optimizers, snapshot["optimizers"], strict=True):
        optimizer.load_state_dict(copy.deepcopy(state))
    for config, state in zip(trainer.lr_scheduler_configs, snapshot["schedulers"], strict=True):
        config.scheduler.load_state_dict(copy.deepcopy(state))
    scaler = gradient_scaler(trainer)
    if scaler is not None and snapshot["scaler"] is not None:
        scaler.load_state_dict(snapshot["scaler"])
    for member in step_members(trainer):
        state = snapshot["callbacks"].get(member.state_key)
        if member is not guard and state is not None:
            member.load_state_dict(copy.deepcopy(state))


def portable(snapshot: dict[str, Any]) -> dict[str, Any] | None:
    """Return the snapshot if a checkpoint can hold it, None if it has pieces of sharded tensors."""
    return None if any(map(is_sharded, snapshot["module"].values())) else snapshot


def _tensors(module: LightningModule) -> dict[str, Tensor]:
    """Return every parameter and buffer once, persistent or not."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return copy.deepcopy(value)

"""Cutting a copied module off from Trainer, loggers, other processes and other callbacks."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from lightning_stab.callbacks._trainer.trainer_stub import (
    IdleOptimizer,
    IdleScheduler,
    TrainerStandIn,
    idle_optimizers,
    ignore,
)

_MUTED = ("log", "log_dict", "print", "clip_gradients", "lr_scheduler_step")
_STEPS = ("forward", "training_step", "validation_step", "test_step", "predict_step")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def isolate(twin: nn.Module, stand_in: TrainerStandIn, optimizers: list[IdleOptimizer]) -> None:
    """Change a copy so that nothing it does reaches beyond it."""
    for part in twin.modules():
        _drop_hooks_of_callbacks(part)
        if isinstance(part, nn.SyncBatchNorm):
            part.__dict__["forward"] = MethodType(_BatchNorm.forward, part)
        if hasattr(part, "sync_on_compute"):  # a metric
            part.__dict__.update(sync_on_compute=False, _to_sync=False, dist_sync_on_step=False)
        if hasattr(part, "training_step") and hasattr(part, "manual_backward"):
            _isolate_lightning(part, stand_in, optimizers)


def _isolate_lightning(
    part: Any, stand_in: TrainerStandIn, optimizers: list[IdleOptimizer]
) -> None:
    own = part.__dict__
    if "_compiler_ctx" in own and any(name in own for name in _STEPS):
        for name in _STEPS:  # compiled variants hide the eager methods of the class
            own.pop(name, None)
    own.update(_trainer=stand_in, _fabric=None, **dict.fromkeys(_MUTED, ignore))
    own["optimizers"] = lambda use_pl_optimizer=True: _one_or_all(_filled(optimizers, part))
    own["lr_schedulers"] = lambda: _one_or_all(_schedulers(part)) or None
    own["all_gather"] = lambda data, *_, **__: _as_if_from_all(data, stand_in.world_size)


def _filled(optimizers: list[IdleOptimizer], part: Any) -> list[IdleOptimizer]:
    """Ask the module itself for its optimizers where there is no Trainer."""
    if not optimizers and part._trainer._trainer is None:
        optimizers.extend(idle_optimizers(_configured(part)[0], {}))
    return optimizers


def _schedulers(part: Any) -> list[IdleScheduler]:
    trainer = part._trainer._trainer
    found = _configured(part)[1] if trainer is None else trainer.lr_scheduler_configs
    plain = [each["scheduler"] if isinstance(each, dict) else each for each in found]
    return [IdleScheduler(getattr(each, "scheduler", each)) for each in plain]


def _configured(part: Any) -> tuple[list[Any], list[Any]]:
    """Return the optimizers and schedulers that a module without a Trainer would get."""
    from lightning.pytorch.core.optimizer import _configure_optimizers

    found = part.configure_optimizers()
    return ([], []) if found is None else _configure_optimizers(found)[:2]


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _as_if_from_all(data: Any, world_size: int) -> Any:
    """Repeat this process's values, because the other processes do not take part."""
    if world_size == 1:
        return data
    return tree_map_only(Tensor, lambda tensor: torch.stack([tensor] * world_size), data)


def _drop_hooks_of_callbacks(part: nn.Module) -> None:
    """Remove hooks that only watch; those of the module's author are part of it."""
    for kind in _HOOKS:
        hooks: dict[int, Any] = vars(part).get(kind) or {}
        for key in [key for key, hook in hooks.items() if _watches(hook)]:
            del hooks[key]


def _watches(hook: Any) -> bool:
    inner = getattr(hook, "func", hook)
    owner = getattr(inner, "__self__", None)
    module = getattr(inner, "__module__", "") or type(inner).__module__
    return isinstance(owner, Callback) or module.startswith("lightning_stab.callbacks")

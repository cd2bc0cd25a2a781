"""A copied module whose training step runs alone: no Trainer acts, no logger hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_stab.callbacks._gradcheck_trainer import (
    IdleOptimizer,
    TrainerStandIn,
    idle_optimizers,
    ignore,
    scalar_loss,
)
from lightning_stab.functional.gradcheck import Problem, double_copy

_MUTED = ("log", "log_dict", "print", "lr_schedulers", "clip_gradients", "lr_scheduler_step")


def step_problem(module: Any, batch: Any, batch_index: int = 0) -> Problem:
    """Return the losses of one training step of a copy of a LightningModule.

    Works inside a Trainer's fit and without a Trainer.
    """
    trainer = module._trainer
    twin, memo = _copy_without_trainer(module, trainer)
    stand_in = TrainerStandIn(trainer, [])
    optimizers = stand_in.optimizers
    if trainer is not None:
        optimizers.extend(idle_optimizers(trainer.optimizers, memo))
    for part in twin.modules():
        if _is_lightning(part):
            _isolate(part, stand_in, optimizers)
    if trainer is None and not twin.automatic_optimization:
        optimizers.extend(idle_optimizers(_configured_optimizers(twin), {}))
    inputs, _ = double_copy(batch)
    return Problem(twin, _program(twin, batch_index), (inputs,))


def loss_problem(
    module: nn.Module, batch: Any, loss_fn: Callable[[nn.Module, Any], Tensor]
) -> Problem:
    """Return ``loss_fn(module, batch)`` of a copy of ``module`` as a problem."""
    trainer = getattr(module, "_trainer", None)
    twin, _ = _copy_without_trainer(module, trainer)
    inputs, _ = double_copy(batch)

    def program(on_loss: Callable[[Tensor], None], data: Any) -> None:
        on_loss(loss_fn(twin, data))

    return Problem(twin, program, (inputs,))


def _copy_without_trainer(module: nn.Module, trainer: Any) -> tuple[Any, dict[int, Any]]:
    return double_copy(module, {} if trainer is None else {id(trainer): trainer})


def _is_lightning(part: nn.Module) -> bool:
    """Ask for behaviour, because two packages define a LightningModule."""
    return hasattr(part, "training_step") and hasattr(part, "manual_backward")


def _isolate(part: Any, stand_in: TrainerStandIn, optimizers: list[IdleOptimizer]) -> None:
    part.__dict__["_trainer"] = stand_in
    part.__dict__["_fabric"] = None
    for name in _MUTED:
        part.__dict__[name] = ignore

    def own_optimizers(use_pl_optimizer: bool = True) -> Any:
        return optimizers[0] if len(optimizers) == 1 else optimizers

    part.__dict__["optimizers"] = own_optimizers


def _configured_optimizers(twin: Any) -> list[Any]:
    from lightning.pytorch.core.optimizer import _configure_optimizers

    found = twin.configure_optimizers()
    return list(_configure_optimizers(found)[0]) if found is not None else []


def _program(twin: Any, batch_index: int) -> Callable[..., None]:
    def program(on_loss: Callable[[Tensor], None], batch: Any) -> None:
        twin.__dict__["manual_backward"] = lambda loss, *_, **__: on_loss(loss)
        loss = scalar_loss(twin.training_step(*_arguments(twin, batch, batch_index)))
        if twin.automatic_optimization and loss is not None:
            on_loss(loss)

    return program


def _arguments(twin: Any, batch: Any, batch_index: int) -> tuple[Any, ...]:
    import inspect

    parameters = inspect.signature(twin.training_step).parameters
    takes_index = "batch_idx" in parameters or len(parameters) > 1
    return (batch, batch_index) if takes_index else (batch,)

"""A copied module whose training step runs alone: no Trainer acts, no logger hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_stab.callbacks._trainer.isolated import isolate
from lightning_stab.callbacks._trainer.trainer_stub import (
    IdleOptimizer,
    TrainerStandIn,
    idle_optimizers,
)
from lightning_stab.callbacks.gradcheck.program import step_program
from lightning_stab.functional.gradcheck import Problem, double_copy


def step_problem(module: Any, batch: Any, batch_index: int = 0) -> Problem:
    """Return the losses of one training step of a copy of a LightningModule.

    Works inside a Trainer's fit and without a Trainer.
    """
    trainer = module._trainer
    optimizers: list[IdleOptimizer] = []
    stand_in = TrainerStandIn(trainer, optimizers)
    twin, memo = double_copy(module, _replacements(module, trainer, stand_in))
    if trainer is not None:
        optimizers.extend(idle_optimizers(trainer.optimizers, memo))
    isolate(twin, stand_in, optimizers)
    inputs, _ = double_copy(batch)
    problem = Problem(twin, step_program(twin, batch_index), (inputs,))
    problem.notes.extend(_notes(module))
    return problem


def loss_problem(
    module: nn.Module, batch: Any, loss_fn: Callable[[nn.Module, Any], Tensor]
) -> Problem:
    """Return ``loss_fn(module, batch)`` of a copy of ``module`` as a problem."""
    trainer = getattr(module, "_trainer", None)
    optimizers: list[IdleOptimizer] = []
    stand_in = TrainerStandIn(trainer, optimizers)
    twin, _ = double_copy(module, _replacements(module, trainer, stand_in))
    isolate(twin, stand_in, optimizers)
    inputs, _ = double_copy(batch)

    def program(on_loss: Callable[[Tensor], None], data: Any) -> None:
        on_loss(loss_fn(twin, data))

    problem = Problem(twin, program, (inputs,))
    problem.notes.extend(_notes(module))
    return problem


def _notes(module: nn.Module) -> list[str]:
    compiled = any(
        hasattr(part, "_orig_mod")
        or vars(part).get("_compiled_call_impl") is not None
        or vars(part).get("_compiler_ctx") is not None
        for part in module.modules()
    )
    return ["Compiled parts were checked as they run in eager mode."] if compiled else []


def shards(module: nn.Module) -> str:
    """Return a sentence if the module's parameters are sharded over processes, else nothing."""
    for part in module.modules():
        if type(part).__name__ in ("FullyShardedDataParallel", "DeepSpeedEngine"):
            return _SHARDED
    for parameter in module.parameters():
        if hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id"):
            return _SHARDED
    return ""


_SHARDED = (
    "The parameters are sharded over processes, and no process has a whole gradient to check. "
    "Check the module before it is sharded, with `lightning_stab.check_gradients`."
)


def _replacements(module: nn.Module, trainer: Any, stand_in: TrainerStandIn) -> dict[int, Any]:
    """Return what is not to be copied, by ``id``, and what takes its place."""
    replace: dict[int, Any] = {}
    for part in module.modules():
        compiler = vars(part).get("_compiler_ctx")
        if compiler is not None:
            replace[id(compiler)] = None
        data = [v for v in vars(part).values() if isinstance(v, (Dataset, DataLoader))]
        replace |= {id(each): each for each in data}
    if trainer is None:
        return replace
    shared = [*trainer.callbacks, trainer.datamodule, trainer.strategy]
    replace |= {id(each): each for each in shared if each is not None}
    replace[id(trainer)] = stand_in
    for logger in trainer.loggers:
        replace[id(logger)] = stand_in.logger
        writer = vars(logger).get("_experiment")
        if writer is not None:
            replace[id(writer)] = stand_in.logger.experiment
    return replace

"""A batch as a program for initialisation: it runs through copies, and leaves no other trace."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer
from torch.utils._pytree import tree_map

from lightning_stab.callbacks._trainer.trainer_stub import (
    IdleOptimizer,
    IdleScheduler,
    TrainerStandIn,
    idle_optimizers,
    ignore,
)
from lightning_stab.functional.initialization import Program

LossFunction = Callable[[nn.Module, Any], Tensor]
_MUTED = ("log", "log_dict", "print", "clip_gradients", "lr_scheduler_step")


def program_of(module: nn.Module, batch: Any, loss_fn: LossFunction | None = None) -> Program:
    """Return what ``batch`` does to copies of ``module``.

    Args:
        module: a LightningModule, inside a Trainer's fit or not, or any module.
        batch: what its ``training_step``, or ``loss_fn``, or its forward takes.
        loss_fn: called with a copy of the module and the batch. Without it, the training step's
            loss counts, and for a plain module its result along a random direction.
    """
    twins = _Twins(module)
    if loss_fn is not None:
        return Program(twins.new, lambda twin: loss_fn(twin, _apart(batch)))
    if hasattr(module, "training_step"):
        return Program(twins.new, lambda twin: _training_loss(twin, _apart(batch), twins))
    return Program(twins.new, lambda twin: _random_direction(twin, _apart(batch)))


class _Twins:
    """Makes copies of a module that share nothing with it, one after another.

    A new copy takes over the memory of the last one's parameters, which saves a large model the
    time of being given new memory.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.optimizers: list[IdleOptimizer] = []
        self._parameters: dict[int, Tensor] = {}

    @torch.no_grad()
    def new(self) -> nn.Module:
        """Return a copy of the module as it is now."""
        trainer = getattr(self.module, "_trainer", None)
        memo: dict[int, Any] = {} if trainer is None else {id(trainer): trainer}
        for parameter in self.module.parameters():
            old = self._parameters.get(id(parameter))
            if old is not None and _alike(old, parameter):
                old.grad = None
                memo[id(parameter)] = old.copy_(parameter)
        for buffer in self.module.buffers():
            if isinstance(buffer, UninitializedBuffer):  # torch cannot copy it
                blank: Any = type(buffer)
                memo[id(buffer)] = blank(False, buffer.device, buffer.dtype)
        twin = copy.deepcopy(self.module, memo)
        self._parameters = {
            id(parameter): memo[id(parameter)]
            for parameter in self.module.parameters()
            if id(parameter) in memo
        }
        stand_in = TrainerStandIn(trainer, self.optimizers)
        real = _configured(twin) if trainer is None else trainer.optimizers
        self.optimizers[:] = idle_optimizers(real, memo)
        for part in twin.modules():
            # Ask for behaviour, because two packages define a LightningModule.
            if hasattr(part, "training_step") and hasattr(part, "manual_backward"):
                muted = dict.fromkeys(_MUTED, ignore)
                part.__dict__.update(_trainer=stand_in, _fabric=None, **muted)
        return twin


def _alike(old: Tensor, parameter: Tensor) -> bool:
    """Return whether one can hold the values of the other; a lazy one has no shape to compare."""
    if nn.parameter.is_lazy(old) or nn.parameter.is_lazy(parameter):
        return False
    kinds = (old.shape, old.dtype, old.device, old.stride(), old.requires_grad)
    mine = parameter
    return kinds == (mine.shape, mine.dtype, mine.device, mine.stride(), mine.requires_grad)


def _configured(twin: Any) -> list[Any]:
    """Return the optimizers that a module steps by itself, where no Trainer has asked for them."""
    if getattr(twin, "automatic_optimization", True):
        return []
    from lightning.pytorch.core.optimizer import _configure_optimizers

    return list(_configure_optimizers(twin.configure_optimizers())[0])


def _schedulers(module: Any) -> Any:
    trainer = getattr(module, "_trainer", None)
    found = [IdleScheduler(c.scheduler) for c in getattr(trainer, "lr_scheduler_configs", [])]
    return (found[0] if len(found) == 1 else found) or None


def _training_loss(twin: Any, batch: Any, twins: _Twins) -> Tensor | None:
    losses: list[Tensor] = []
    module, optimizers = twins.module, twins.optimizers
    twin.__dict__["manual_backward"] = lambda loss, *_, **__: losses.append(loss)
    twin.__dict__["optimizers"] = lambda use_pl_optimizer=True: (
        optimizers[0] if len(optimizers) == 1 else optimizers
    )
    twin.__dict__["lr_schedulers"] = lambda: _schedulers(module)
    parameters = inspect.signature(twin.training_step).parameters
    takes_index = "batch_idx" in parameters or len(parameters) > 1
    with _eager(), _precision(module):
        output = twin.training_step(*((batch, 0) if takes_index else (batch,)))
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if losses:
        return torch.stack([each.reshape(()).float() for each in losses]).sum()
    return loss if isinstance(loss, Tensor) else None


def _random_direction(twin: nn.Module, batch: Any) -> Tensor | None:
    with _eager():
        if isinstance(batch, Mapping):
            output = twin(**batch)
        elif isinstance(batch, (list, tuple)):
            output = twin(batch[0])
        else:
            output = twin(batch)
    if not isinstance(output, Tensor):
        return None
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(output.shape, generator=generator).to(output)
    loss: Tensor = (output * direction).sum() / direction.norm()
    return loss


def _eager() -> AbstractContextManager[Any]:
    """Return a context in which compiled parts run as they were written."""
    stance: Any = torch.compiler.set_stance("force_eager")
    return stance if hasattr(stance, "__enter__") else nullcontext()


def _precision(module: Any) -> AbstractContextManager[Any]:
    trainer = getattr(module, "_trainer", None)
    plugin = getattr(trainer, "precision_plugin", None)
    return nullcontext() if plugin is None else plugin.train_step_context()


def _apart(batch: Any) -> Any:
    """Return a batch whose tensors may be written to."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, batch)

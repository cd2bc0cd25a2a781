"""A copy of a module whose training step runs alone: no Trainer acts, nothing is logged.

For what is run besides the training: initialisation, the gradient check, and, on the module itself
and in all processes, the search for the origin of a non-finite value.
"""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from types import MethodType
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import Precision
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset

from lightning_stab.callbacks._trainer.losses import loss_of_output, training_step_arguments
from lightning_stab.callbacks._trainer.trainer_stub import (
    LoneStrategyStub,
    TrainerStub,
    ignore,
    lightning_parts,
)
from lightning_stab.errors import ConflictError
from lightning_stab.functional.function_mode import unwatched
from lightning_stab.functional.gradcheck import ClassAttributes, deep_copy, double_copy

Module = TypeVar("Module", bound=nn.Module)
OnLoss = Callable[[Tensor], None]
_MUTED = ("log", "log_dict", "print", "clip_gradients", "lr_scheduler_step")
_STEPS = ("forward", "training_step", "validation_step", "test_step", "predict_step")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def isolated_copy(module: Module, *, double: bool = False, memory: Iterable[Tensor] = ()) -> Module:
    """Return a copy of a module, inside a Trainer's fit or without one, that shares no tensor.

    What the copy reads of the Trainer is there; what it writes, logs and steps goes nowhere. Hooks
    of callbacks are left out, metrics and normalisation are those of this process alone, compiled
    steps are those that were written. Data sets, and what cannot be copied (a lock), are shared.

    Args:
        module: a LightningModule, or any module.
        double: whether the copy is in double precision; mixed precision is then off. From a device
            without double precision it comes to the CPU.
        memory: the parameters of an earlier copy that is no longer used, to be used again.
    """
    trainer = _trainer_of(module)
    stub = TrainerStub(trainer, LoneStrategyStub(trainer))
    if double or trainer is None:
        stub.precision_plugin = Precision()
    known = _replacements(module, trainer, stub) | _reuse(memory, module)
    module_copy, memo = (double_copy if double else deep_copy)(module, known)
    stub.make_optimizers(module_copy, memo)
    for part in module_copy.modules():
        for kind in _HOOKS:  # of callbacks; those of the module's author are part of it
            hooks: dict[int, Any] = vars(part).get(kind) or {}
            for key in [key for key, hook in hooks.items() if _is_of_callback(hook)]:
                del hooks[key]
        if isinstance(part, nn.SyncBatchNorm):
            part.__dict__["forward"] = MethodType(nn.BatchNorm1d.forward, part)
        if hasattr(part, "sync_on_compute"):  # a metric
            part.__dict__.update(sync_on_compute=False, _to_sync=False, dist_sync_on_step=False)
    _drop_compiled_steps(module, memo)
    for part in lightning_parts(module_copy):
        own = part.__dict__
        part.fabric, part.trainer = None, stub
        own.update(dict.fromkeys(_MUTED, ignore))
        own["optimizers"] = stub.one_or_all_optimizers
    return module_copy


def _drop_compiled_steps(module: nn.Module, copies: Mapping[int, Any]) -> None:
    """Take compiled steps, which hide the methods of the class, off the copies of a module."""
    for part in module.modules():
        if vars(part).get("_compiler_ctx") is not None:
            for name in _STEPS:
                vars(copies[id(part)]).pop(name, None)


@contextmanager
def silence(module: nn.Module) -> Iterator[None]:
    """Log and print nothing that the module itself does while the body runs, in all processes.

    For modules that cannot be copied, because their parameters are sharded or too large.
    """
    trainer, parts = _trainer_of(module), lightning_parts(module)
    kept = [{name: vars(part)[name] for name in _MUTED if name in vars(part)} for part in parts]
    stub = TrainerStub(trainer, getattr(trainer, "strategy", None))
    try:
        for part in parts:
            part.trainer = stub
            part.__dict__.update(dict.fromkeys(_MUTED, ignore))
        yield
    finally:
        for part, own in zip(parts, kept, strict=True):
            part.trainer = trainer
            for name in _MUTED:
                part.__dict__.pop(name, None)
            part.__dict__.update(own)


@contextmanager
def run_apart(module: nn.Module | None = None) -> Iterator[None]:
    """Run compiled parts as they were written, and print nothing, while the body runs.

    Watchers of the batch that is on see none of it. Prints of other threads are lost too.

    Args:
        module: what stands on its classes, which a copy shares with it, is put back at the end.
    """
    with ExitStack() as stack:
        if module is not None:
            stack.enter_context(ClassAttributes(module))
        stack.enter_context(unwatched())
        stack.enter_context(redirect_stdout(io.StringIO()))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def run_training_step(
    module: Any, batch: Any, batch_idx: int = 0, on_loss: OnLoss | None = None
) -> list[Tensor]:
    """Run one training step, as Lightning would, and return its losses.

    Args:
        module: an `isolated_copy`, or a module inside `silence`.
        batch: as the training step takes it.
        batch_idx: its number in the epoch.
        on_loss: gets each loss, instead of the list, when its gradient would be taken.

    Returns:
        Each loss of manual optimisation, the one loss of automatic; none where there is no loss, or
        where ``on_train_batch_start`` says to leave out the rest of the epoch.

    Raises:
        ConflictError: for a step that takes its batches from an iterator.
    """
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        raise ConflictError(
            "A `training_step(dataloader_iter)` takes its batches itself, so it cannot be run on "
            "one batch. Check the module with `check_gradients` and a `loss_fn`."
        )
    losses: list[Tensor] = []
    take = losses.append if on_loss is None else on_loss
    plugin = getattr(getattr(module, "trainer", None), "precision_plugin", None)
    starts = getattr(module, "on_train_batch_start", ignore)
    with run_apart():
        if starts(batch, batch_idx) == -1:
            return losses
        with nullcontext() if plugin is None else plugin.train_step_context():
            arguments = training_step_arguments(module, batch, batch_idx)
            if not getattr(module, "automatic_optimization", True):
                with _BackwardCapture(take):
                    module.training_step(*arguments)
                return losses
            loss = loss_of_output(module.training_step(*arguments))
        if loss is not None:
            take(loss)
    return losses


class _BackwardCapture(TorchFunctionMode):
    """Takes a loss where ``loss.backward()`` is called in this thread, instead of its gradient."""

    def __init__(self, on_loss: OnLoss) -> None:
        super().__init__()
        self._on_loss = on_loss

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.backward:
            return self._on_loss(args[0])
        return func(*args, **(kwargs or {}))


def _trainer_of(module: nn.Module) -> Any:
    """Return the Trainer that a LightningModule in it belongs to, None where there is none."""
    for part in lightning_parts(module):
        with suppress(RuntimeError):  # what its property raises outside a Trainer
            if getattr(part, "fabric", None) is None:
                return part.trainer
    return None


def _replacements(module: nn.Module, trainer: Any, stub: TrainerStub) -> dict[int, Any]:
    """Return what is not to be copied, by ``id``, and what takes its place."""
    known: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, (Dataset, DataLoader)):
                known[id(value)] = value
        if vars(part).get("_compiler_ctx") is not None:
            known[id(part._compiler_ctx)] = None
    for buffer in module.buffers():
        if isinstance(buffer, UninitializedBuffer):  # torch cannot copy it
            blank: Any = type(buffer)
            known[id(buffer)] = blank(False, buffer.device, buffer.dtype)
    if trainer is None:
        return known
    shared = [*trainer.callbacks, trainer.datamodule, trainer.strategy]
    known |= {id(each): each for each in shared if each is not None}
    known[id(trainer)] = stub
    for logger in trainer.loggers:
        known[id(logger)] = stub.logger
        writer = vars(logger).get("_experiment")  # asking for it would start the experiment
        if writer is not None:
            known[id(writer)] = stub.logger.experiment
    return known


@torch.no_grad()
def _reuse(memory: Iterable[Tensor], module: nn.Module) -> dict[int, Any]:
    """Return parameters of an earlier copy with the values of now, by the ``id`` of the original.

    Only where one can hold the values of the other; a lazy one has no shape to compare.
    """
    known: dict[int, Any] = {}
    for pair in zip(module.parameters(), memory, strict=False):
        if any(map(is_lazy, pair)):
            continue
        parameter, old = pair
        kinds = {(p.shape, p.dtype, p.device, p.stride(), p.requires_grad) for p in pair}
        if len(kinds) == 1:
            old.grad = None
            known[id(parameter)] = old.copy_(parameter)
    return known


def _is_of_callback(hook: Any) -> bool:
    inner = getattr(hook, "func", hook)
    where = getattr(inner, "__module__", "") or type(inner).__module__
    is_method = isinstance(getattr(inner, "__self__", None), Callback)
    return is_method or where.startswith("lightning_stab.callbacks")

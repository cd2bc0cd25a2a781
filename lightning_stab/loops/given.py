"""What `watch` is given: unwrapped, and refused at once where it cannot work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lightning_stab import callbacks as suite
from lightning_stab.arguments import is_list
from lightning_stab.callbacks._trainer.lightning_classes import inherits
from lightning_stab.callbacks._trainer.loop_trainer import FunctionLogger
from lightning_stab.errors import ConflictError, InvalidArgumentError

WATCHING = (
    suite.ActivationMonitor,
    suite.GradientClipping,
    suite.GradientMonitor,
    suite.StepGuard,
    suite.TrainingDoctor,
)
INSTEAD = {  # of callbacks that need a Trainer
    "WeightInitialization": "Call `lightning_stab.initialize(module, batch)` before the loop.",
    "GradientCheck": "Call `lightning_stab.check_gradients(module, batch, loss_fn)` first.",
    "LearningRateDecay": "Give `scheduler` one of torch's.",
    "BestWeightsEarlyStopping": "Keep the best weights in the loop.",
    "StabilityReport": "Give `log` a `SummaryWriter`, then run `lightning-stab report FOLDER`.",
}


def plain_module(module: Any, fabric: Any) -> nn.Module:
    """Return the user's own module, without what Fabric and torch have wrapped around it."""
    if fabric is not None and not inherits(fabric, "Fabric"):
        raise InvalidArgumentError(f"`fabric` must be a Fabric of Lightning, got {fabric!r}.")
    if not isinstance(module, nn.Module):
        raise InvalidArgumentError(f"`module` must be a torch module, got {module!r}.")
    if any(inherits(m, "FullyShardedDataParallel", "DeepSpeedEngine") for m in module.modules()):
        raise ConflictError(
            "`watch` needs whole gradients, got a module that FSDP1 or DeepSpeed has sharded into"
            " flat pieces. Use DDP or FSDP2 (`fully_shard`)."
        )
    if inherits(module, "_FabricModule"):
        if fabric is None:
            raise InvalidArgumentError(
                "`fabric` must be the Fabric that has set up the module, got None."
            )
        module = module.module
    own: nn.Module = module
    if isinstance(own, DistributedDataParallel):
        own = own.module
    return own


def listed(callbacks: Any) -> list[Any]:
    """Return the callbacks as a list."""
    if not is_list(callbacks):
        raise InvalidArgumentError(f"`callbacks` must be a list of callbacks, got {callbacks!r}.")
    return list(callbacks)


def check_callbacks(callbacks: Sequence[Any], module: nn.Module) -> None:
    """Refuse callbacks that cannot work without a Trainer."""
    names = ", ".join(f"`{kind.__name__}`" for kind in WATCHING)
    for callback in callbacks:
        kind = type(callback).__name__
        if not isinstance(callback, WATCHING):
            instead = INSTEAD.get(kind, "Call it from the loop.")
            raise ConflictError(f"`callbacks` must be some of {names}, got `{kind}`. {instead}")
        traces = isinstance(callback, suite.StepGuard) and callback.options.forensics
        if traces and not hasattr(module, "training_step"):
            raise ConflictError(
                "`StepGuard(forensics=True)` runs the module's `training_step` again, which"
                f" `{type(module).__name__}` does not have. Leave `forensics` out."
            )
    keys = [callback.state_key for callback in callbacks]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ConflictError(
            f"Two `callbacks` would overwrite each other's state under {twice!r}. Remove one."
        )


def optimizers(given: Any, accumulate_grad_batches: int) -> list[Any]:
    """Return the optimizers, as Fabric has wrapped them."""
    found = list(given) if isinstance(given, (list, tuple)) else [given]
    if not found or not all(isinstance(each, Optimizer) for each in found):
        raise InvalidArgumentError(
            f"`optimizer` must be an optimizer of torch, or a list of them, got {given!r}."
        )
    if len(found) > 1 and accumulate_grad_batches > 1:
        raise ConflictError(
            "`accumulate_grad_batches` works with one optimizer only. With several call `backward`"
            " for each batch, and `step(optimizer=...)` after the last."
        )
    return found


def plain_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that Fabric has wrapped, if it has."""
    return optimizer.optimizer if inherits(optimizer, "_FabricOptimizer") else optimizer


def one_of_optimizers(wanted: Any, known: Sequence[Any]) -> Any:
    """Return which optimizer is to step."""
    if wanted is None and len(known) == 1:
        return known[0]
    plain = plain_optimizer(wanted)
    own = next((each for each in known if plain_optimizer(each) is plain), None)
    if own is None:
        raise InvalidArgumentError(
            f"`optimizer` must be one of those that `watch` was given, got {wanted!r}."
        )
    return own


def scaler(given: Any, fabric: Any) -> Any:
    """Return the enabled loss scaler of the loop or of Fabric, or None."""
    if fabric is not None and given is not None:
        raise ConflictError("`scaler` is for plain loops: Fabric has its own. Leave it out.")
    if given is not None and not hasattr(given, "is_enabled"):
        raise InvalidArgumentError(f"`scaler` must be a GradScaler of torch, got {given!r}.")
    own = given if fabric is None else getattr(fabric.strategy.precision, "scaler", None)
    return own if own is not None and own.is_enabled() else None


def loggers(log: Any, fabric: Any) -> list[Any]:
    """Return what takes scalars."""
    if log is None:
        return [] if fabric is None else [x for x in fabric.loggers if hasattr(x, "log_metrics")]
    found = list(log) if isinstance(log, (list, tuple)) else [log]
    return [_logger(each) for each in found]


def _logger(log: Any) -> Any:
    is_writer = inherits(log, "SummaryWriter") and type(log).__module__.startswith("torch.")
    if is_writer or hasattr(log, "log_metrics"):
        return log
    if callable(log):
        return FunctionLogger(log)
    raise InvalidArgumentError(
        "`log` must be a function `log(values, step)`, a `SummaryWriter` of"
        f" `torch.utils.tensorboard` or a logger of Lightning, got {log!r}."
    )


def schedules(given: Any, known: Sequence[Optimizer]) -> list[Any]:
    """Return schedules that advance with each step."""
    found = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    for each in found:
        if inherits(each, "ReduceLROnPlateau"):
            raise ConflictError(
                "`scheduler` must be one that advances with each step, got a `ReduceLROnPlateau`,"
                " which follows a metric. Call its `step(metric)` in the loop."
            )
        if not any(getattr(each, "optimizer", None) is optimizer for optimizer in known):
            raise InvalidArgumentError(
                "`scheduler` must be made of a plain optimizer that `watch` is given, got"
                f" {each!r}. Make it before `fabric.setup`."
            )
    return [LRSchedulerConfig(each, interval="step") for each in found]


def check_loss(loss: Any) -> None:
    """Refuse what cannot be differentiated."""
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise InvalidArgumentError(
            f"`loss` must be one number that depends on a parameter, or a function that returns it,"
            f" got {got}."
        )


def with_end(loader: Iterable[Any], *, ahead: bool) -> Iterator[tuple[Any, bool]]:
    """Yield each batch, and whether it is the last; of unsized loaders known only by looking ahead.

    Args:
        loader: the batches.
        ahead: whether the end has to be known.
    """
    length: Callable[[], int] | None = getattr(loader, "__len__", None)
    if length is not None or not ahead:
        count = length() if length is not None else -1
        yield from ((batch, number == count) for number, batch in enumerate(loader, start=1))
        return
    batches = iter(loader)
    present = next(batches, batches)  # the iterator itself stands for the end
    while present is not batches:
        following = next(batches, batches)
        yield present, following is batches
        present = following

"""Which strategy trains, and what is refused under it, before the first step."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer
from torch import nn

from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of, inherits
from lightning_stab.errors import ConflictError

DEEPSPEED, FSDP1, FSDP2 = "DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy"


def refuse_hidden_gradients(trainer: Trainer, callback: object) -> None:
    """Refuse strategies that keep the gradients out of reach of ``on_before_optimizer_step``.

    Raises:
        ConflictError: under DeepSpeed, whose engine holds the gradients.
    """
    if inherits(trainer.strategy, DEEPSPEED):
        raise ConflictError(
            f"`{type(callback).__name__}` cannot work under DeepSpeed, got"
            f" `strategy={DEEPSPEED}`: its engine keeps the gradients to itself. Use DDP or"
            f" `{FSDP2}` (FSDP2), or DeepSpeed's own settings."
        )


def refuse_partial_norms(trainer: Trainer, callback: object, what: str) -> None:
    """Refuse every strategy under which the norms of whole gradients cannot be measured.

    Args:
        trainer: the Trainer that is about to start.
        callback: who asks, for the message.
        what: what needs whole norms, for the message.

    Raises:
        ConflictError: under DeepSpeed, and under FSDP1, where each rank sees flat pieces.
    """
    refuse_hidden_gradients(trainer, callback)
    if inherits(trainer.strategy, FSDP1):
        raise ConflictError(
            f"`{type(callback).__name__}` ({what}) needs the norm of whole gradients, got"
            f" `strategy={FSDP1}`, where each rank holds flat pieces of them. Use"
            f" `{FSDP2}` (FSDP2)."
        )


def refuse_sharded_weights(trainer: Trainer, callback: object) -> None:
    """Refuse strategies that shard the weights before the fit starts.

    Raises:
        ConflictError: under FSDP1, FSDP2 and DeepSpeed.
    """
    name = inherits(trainer.strategy, FSDP1, FSDP2, DEEPSPEED)
    if name:
        raise ConflictError(
            f"`{type(callback).__name__}` cannot work with `{name}`, which shards the weights "
            "before the fit starts. Call `lightning_stab.initialize` on the module "
            "before you hand it to the Trainer, and leave the callback out."
        )


def refuse_unrestorable_weights(trainer: Trainer) -> None:
    """Refuse what keeps the best weights from being restored.

    Raises:
        ConflictError: with FSDP1, DeepSpeed and stochastic weight averaging.
    """
    name = inherits(trainer.strategy, FSDP1, DEEPSPEED)
    if name:
        raise ConflictError(
            f"`restore_best` cannot work with {name}, which hides the weights in its own flat "
            f"shards; use {FSDP2} (FSDP2) or set `restore_best=False`."
        )
    if any(inherits(c, "StochasticWeightAveraging") for c in callbacks_of(trainer)):
        raise ConflictError(
            "`restore_best` would throw away the averaged weights with which "
            "StochasticWeightAveraging ends the run; use WeightAveraging instead, or set "
            "`restore_best=False`."
        )


def refuse_shared_state_key(trainer: Trainer, callback: Callback) -> None:
    """Refuse a second callback with the key of this one, which the module may have brought.

    Raises:
        ConflictError: because the Trainer refuses that in its own list only.
    """
    others = [c for c in callbacks_of(trainer) if c is not callback]
    if any(other.state_key == callback.state_key for other in others):
        raise ConflictError(
            f"`{type(callback).__name__}` and a callback that the module brings in "
            "`configure_callbacks` would overwrite each other's state in checkpoints, under "
            f"{callback.state_key!r}; remove one of them."
        )


def averages_weights(trainer: Trainer) -> bool:
    """Say whether a ``WeightAveraging`` callback is there, also before it has made its model."""
    return any(inherits(c, "WeightAveraging") for c in callbacks_of(trainer))


def is_sharded_module(module: nn.Module) -> bool:
    """Say whether the module's parameters are sharded over processes."""
    wrapped = any(
        inherits(m, "FullyShardedDataParallel", "DeepSpeedEngine") for m in module.modules()
    )
    return wrapped or any(
        hasattr(p, "full_tensor") or hasattr(p, "ds_id") for p in module.parameters()
    )

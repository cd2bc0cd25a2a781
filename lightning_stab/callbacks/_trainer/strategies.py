"""Where a callback cannot work, it says so before the first step."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_stab.errors import ConflictError


def refuse_hidden_gradients(trainer: Trainer, callback: object) -> None:
    """Refuse strategies that keep the gradients out of reach of ``on_before_optimizer_step``.

    Raises:
        ConflictError: under DeepSpeed, whose engine holds the gradients.
    """
    if _strategy(trainer) == "DeepSpeedStrategy":
        raise ConflictError(
            f"`{type(callback).__name__}` cannot work under DeepSpeed, got"
            " `strategy=DeepSpeedStrategy`: its engine keeps the gradients to itself. Use DDP or"
            " `ModelParallelStrategy` (FSDP2), or DeepSpeed's own settings."
        )


def refuse_flat_shards(trainer: Trainer, callback: object, what: str) -> None:
    """Refuse FSDP1, where each rank sees flat pieces of parameters and no whole norm.

    Args:
        trainer: the Trainer that is about to start.
        callback: who asks, for the message.
        what: what needs whole norms, for the message.

    Raises:
        ConflictError: under ``FSDPStrategy``.
    """
    if _strategy(trainer) == "FSDPStrategy":
        raise ConflictError(
            f"`{type(callback).__name__}` ({what}) needs the norm of whole gradients, got"
            " `strategy=FSDPStrategy`, where each rank holds flat pieces of them. Use"
            " `ModelParallelStrategy` (FSDP2)."
        )


def refuse_unseen_norms(trainer: Trainer, callback: object, what: str) -> None:
    """Refuse every strategy under which the norms of whole gradients cannot be seen.

    Raises:
        ConflictError: under DeepSpeed and FSDP1.
    """
    refuse_hidden_gradients(trainer, callback)
    refuse_flat_shards(trainer, callback, what)


def _strategy(trainer: Trainer) -> str:
    names = [base.__name__ for base in type(trainer.strategy).__mro__]
    known = ("DeepSpeedStrategy", "FSDPStrategy")
    return next((name for name in names if name in known), "")

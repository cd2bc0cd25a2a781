"""What `BestWeightsEarlyStopping` asks of the Trainer and of the other processes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer

from lightning_stab.errors import ConflictError
from lightning_stab.functional.stopping import Position

T = TypeVar("T")
_SHARDED_WITHOUT_DTENSOR = ("FSDPStrategy", "DeepSpeedStrategy")


def next_position(trainer: Trainer, checks: int) -> Position:
    """Return the position of the check that is being made, after ``checks`` earlier ones."""
    whole = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return Position(checks + 1, trainer.current_epoch + whole, trainer.global_step)


def may_stop(trainer: Trainer) -> bool:
    """Say whether ``min_epochs`` and ``min_steps`` allow the Trainer to stop now."""
    return bool(trainer.fit_loop._can_stop_early)


def is_fresh(trainer: Trainer) -> bool:
    """Say whether this run starts from nothing: no checkpoint, no earlier ``fit``."""
    return trainer.global_step == 0 and trainer.current_epoch == 0 and not trainer.ckpt_path


def require_metrics(trainer: Trainer, names: Iterable[str]) -> None:
    """Raise unless every metric of ``names`` has been logged.

    Raises:
        ConflictError: with the metrics that there are.
    """
    logged = sorted(trainer.callback_metrics)
    for name in names:
        if name in trainer.callback_metrics:
            continue
        near = get_close_matches(name, logged, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Call `self.log({name!r}, ...)`."
        have = ", ".join(repr(m) for m in logged) or "no metric"
        raise ConflictError(
            f"`monitor` must be a metric that is logged before the check, got {name!r}; "
            f"available: {have}. {hint}"
        )


def has_averaging(trainer: Trainer) -> bool:
    """Say whether a ``WeightAveraging`` callback is there, also before it has made its model."""
    return any(_inherits(c, "WeightAveraging") for c in trainer.callbacks)  # type: ignore[attr-defined]


def refuse_unrestorable(trainer: Trainer) -> None:
    """Raise where the best weights could not be restored.

    Raises:
        ConflictError: with FSDP1, DeepSpeed and stochastic weight averaging.
    """
    for name in _SHARDED_WITHOUT_DTENSOR:
        if _inherits(trainer.strategy, name):
            raise ConflictError(
                f"`restore_best` cannot work with {name}, which hides the weights in its own flat "
                "shards; use ModelParallelStrategy (FSDP2) or set `restore_best=False`."
            )
    if any(_inherits(c, "StochasticWeightAveraging") for c in trainer.callbacks):  # type: ignore[attr-defined]
        raise ConflictError(
            "`restore_best` would throw away the averaged weights with which "
            "StochasticWeightAveraging ends the run; use WeightAveraging instead, or set "
            "`restore_best=False`."
        )


def agree_on_improvement(trainer: Trainer, improved: bool) -> bool:
    """Return what the first process found, so that all keep the weights of the same check."""
    if trainer.world_size == 1:
        return improved
    return bool(trainer.strategy.broadcast(improved, src=0))


def agree_on_stop(trainer: Trainer, stop: bool, reason: T) -> tuple[bool, T]:
    """Stop if any process wants to, for the reason of the first of those that do."""
    strategy = trainer.strategy
    any_stop = bool(strategy.reduce_boolean_decision(stop, all=False))
    if trainer.world_size == 1 or not any_stop:
        return any_stop, reason
    mine = trainer.global_rank if stop else trainer.world_size
    first = torch.tensor(mine, device=strategy.root_device)
    speaker = int(strategy.reduce(first, reduce_op="min"))
    return any_stop, strategy.broadcast(reason, src=speaker)


def first_free_number(callback: Any, others: Iterable[Any]) -> int:
    """Return the smallest number that no twin of ``callback`` among ``others`` has."""
    taken = {other._instance for other in others if _are_twins(other, callback)}
    return next(n for n in range(1, len(taken) + 2) if n not in taken)


def place_among_twins(callback: Any, trainer: Trainer) -> int:
    """Return the callback's place, from 1, among those of its class, metric and mode."""
    twins = [c for c in trainer.callbacks if _are_twins(c, callback)]  # type: ignore[attr-defined]
    return next((n for n, c in enumerate(twins, start=1) if c is callback), 1)


def _are_twins(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one.monitor, one.mode) == (other.monitor, other.mode)


def _inherits(thing: Any, class_name: str) -> bool:
    # By name, because the two Lightning packages define different classes of the same names.
    return any(base.__name__ == class_name for base in type(thing).__mro__)

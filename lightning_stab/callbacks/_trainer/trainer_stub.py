"""Stand-ins for a Trainer and its optimizers: reading works, nothing is logged, nothing steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.loggers.logger import DummyLogger

_WITHOUT_TRAINER = {
    "current_epoch": 0,
    "global_step": 0,
    "max_epochs": 1,
    "max_steps": -1,
    "training": True,
    "sanity_checking": False,
    "barebones": False,
    "world_size": 1,
    "global_rank": 0,
    "local_rank": 0,
    "is_global_zero": True,
    "estimated_stepping_batches": 1,
    "num_training_batches": math.inf,
    "accumulate_grad_batches": 1,
}


def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


class IdleOptimizer(torch.optim.Optimizer):
    """Has the parameter groups of an optimizer, and never changes a parameter."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(list(groups), {})

    @property
    def optimizer(self) -> IdleOptimizer:
        """Return itself, as Lightning's wrapped optimizers return what they wrap."""
        return self

    def step(self, closure: Callable[[], Any] | None = None, **_: Any) -> Any:
        """Call the closure, which may hold a backward pass, and leave everything as it is."""
        return None if closure is None else closure()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: gradients are taken without ``.grad``."""

    def toggle_model(self, sync_grad: bool = True) -> Any:
        """Return a context that does nothing."""
        return torch.enable_grad()

    def __deepcopy__(self, memo: dict[int, Any]) -> IdleOptimizer:
        return self


class IdleScheduler:
    """Reads like a learning rate scheduler, and never steps."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def step(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def __deepcopy__(self, memo: dict[int, Any]) -> IdleScheduler:
        return self


def idle_optimizers(optimizers: Iterable[Any], memo: Mapping[int, Any]) -> list[IdleOptimizer]:
    """Return an idle optimizer for each, over the copies of its parameters."""
    return [
        IdleOptimizer(
            {
                **{k: v for k, v in group.items() if k != "params"},
                "params": [memo.get(id(p), p) for p in group["params"]],
            }
            for group in optimizer.param_groups
        )
        for optimizer in optimizers
    ]


class _IdleStrategy:
    """The strategy as a module sees it from its training step."""

    def __init__(self, strategy: Any, optimizers: list[IdleOptimizer]) -> None:
        self._strategy = strategy
        self._lightning_optimizers = optimizers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> _IdleStrategy:
        return self


class TrainerStandIn:
    """Forwards what is read to a real Trainer, keeps what is written to itself, logs nowhere.

    Args:
        trainer: the real one, or None.
        optimizers: the idle optimizers that the module gets to see; may be filled later.
    """

    def __init__(self, trainer: Any, optimizers: list[IdleOptimizer]) -> None:
        self.logger = DummyLogger()
        self.loggers = [self.logger]
        self.optimizers = optimizers
        self.strategy = _IdleStrategy(getattr(trainer, "strategy", None), optimizers)
        self.callback_metrics = dict(getattr(trainer, "callback_metrics", {}))
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        trainer = vars(self).get("_trainer")
        if trainer is not None:
            return getattr(trainer, name)
        if name in _WITHOUT_TRAINER:
            return _WITHOUT_TRAINER[name]
        raise AttributeError(f"There is no Trainer here to ask for `{name}`.")

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainerStandIn:
        return self

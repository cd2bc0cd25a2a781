"""Stand-ins for a Trainer and its optimizers: reading works, nothing is logged, nothing steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor


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
        optimizers: the idle optimizers that the module gets to see.
    """

    def __init__(self, trainer: Any, optimizers: list[IdleOptimizer]) -> None:
        logger = DummyLogger()
        vars(self).update(
            _trainer=trainer,
            logger=logger,
            loggers=[logger],
            optimizers=optimizers,
            strategy=_IdleStrategy(getattr(trainer, "strategy", None), optimizers),
            lr_scheduler_configs=[],
            callback_metrics=dict(getattr(trainer, "callback_metrics", {})),
        )

    def __getattr__(self, name: str) -> Any:
        if self._trainer is None:
            defaults = {"current_epoch": 0, "global_step": 0, "max_epochs": 1, "training": True,
                        "world_size": 1, "global_rank": 0, "local_rank": 0, "barebones": False,
                        "estimated_stepping_batches": 1, "max_steps": -1, "sanity_checking": False,
                        "num_training_batches": math.inf, "is_global_zero": True}  # fmt: skip
            if name in defaults:
                return defaults[name]
            raise AttributeError(f"There is no Trainer here to ask for `{name}`.")
        return getattr(self._trainer, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainerStandIn:
        return self


def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


def scalar_loss(output: Any) -> Tensor | None:
    """Return the loss in what a training step returned, or None if it asked to be skipped."""
    return output.get("loss") if isinstance(output, Mapping) else output

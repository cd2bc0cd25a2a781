"""What stands in for a Trainer and its optimizers: reading works, nothing is logged or stepped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

_WITHOUT_TRAINER = {
    **dict.fromkeys(("current_epoch", "global_step", "global_rank", "local_rank"), 0),
    **dict.fromkeys(("max_epochs", "world_size", "accumulate_grad_batches"), 1),
    **dict.fromkeys(("training", "is_global_zero"), True),
    **dict.fromkeys(("sanity_checking", "barebones"), False),
    "max_steps": -1,
    "estimated_stepping_batches": 1,
    "num_training_batches": math.inf,
}


def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


class _Stub:
    """Stays the same object when what refers to it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class NoOpOptimizer(_Stub, torch.optim.Optimizer):
    """Has the parameter groups of an optimizer, of copies by ``id``, and never changes them."""

    def __init__(self, optimizer: Any, copies: Mapping[int, Any]) -> None:
        groups = [
            {**group, "params": [copies.get(id(p), p) for p in group["params"]]}
            for group in optimizer.param_groups
        ]
        super().__init__(groups, {})

    @property
    def optimizer(self) -> NoOpOptimizer:
        """Return itself, as Lightning's wrapped optimizers return what they wrap."""
        return self

    def step(self, closure: Callable[[], Any] | None = None, **_: Any) -> Any:
        """Call the closure, which may hold a backward pass, and leave everything as it is."""
        return None if closure is None else closure()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: gradients are taken without ``.grad``."""

    def toggle_model(self, sync_grad: bool = True) -> Any:
        """Return a context that does nothing."""
        return nullcontext()


class NoOpScheduler(_Stub):
    """Reads like a learning rate scheduler, and never steps."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    step = ignore


class LoneStrategyStub(_Stub):
    """The strategy as a module sees it from its training step; no other process takes part."""

    def __init__(self, trainer: Any) -> None:
        self._strategy = getattr(trainer, "strategy", None)
        self._world_size = getattr(trainer, "world_size", 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)

    def backward(self, loss: Any, *_: Any, **__: Any) -> None:
        """Differentiate a loss of manual optimisation, without callbacks and scales."""
        loss.backward()

    def all_gather(self, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        """Repeat this process's values for each of the others."""
        return tensor if self._world_size == 1 else torch.stack([tensor] * self._world_size)

    def broadcast(self, value: Any, *_: Any, **__: Any) -> Any:
        """Return this process's own value."""
        return value

    reduce = broadcast
    barrier = ignore


class TrainerStub(_Stub):
    """Forwards what is read to a real Trainer, if any, keeps what is written, logs nowhere."""

    precision_plugin: Any
    optimizers: list[NoOpOptimizer]
    lr_scheduler_configs: list[Any]

    def __init__(self, trainer: Any, strategy: Any) -> None:
        self.logger = DummyLogger()
        self.loggers = [self.logger]
        self.strategy = strategy
        self.callback_metrics = dict(getattr(trainer, "callback_metrics", {}))
        self._trainer = trainer
        self._module_copy: nn.Module | None = None

    def make_optimizers(self, module_copy: nn.Module, copies: Mapping[int, Any]) -> None:
        """Give the copy optimizers and schedulers that do nothing.

        Those of the Trainer; without one the module's own, as soon as something asks for them.
        """
        if self._trainer is None:
            self._module_copy = module_copy
            return
        self.optimizers = [NoOpOptimizer(each, copies) for each in self._trainer.optimizers]
        self.lr_scheduler_configs = [
            replace(config, scheduler=NoOpScheduler(config.scheduler))
            for config in self._trainer.lr_scheduler_configs
        ]

    def one_or_all_optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """Return what a LightningModule's ``optimizers()`` does."""
        return self.optimizers[0] if len(self.optimizers) == 1 else self.optimizers

    def __getattr__(self, name: str) -> Any:
        trainer, module_copy = vars(self).get("_trainer"), vars(self).get("_module_copy")
        if trainer is not None:
            return getattr(trainer, name)
        if name in ("optimizers", "lr_scheduler_configs") and module_copy is not None:
            part = next(iter(lightning_parts(module_copy)))
            optimizers, schedulers = _read_configuration(part.configure_optimizers())
            self.optimizers = [NoOpOptimizer(each, {}) for each in optimizers]
            self.lr_scheduler_configs = [
                SimpleNamespace(scheduler=NoOpScheduler(each)) for each in schedulers
            ]
            return vars(self)[name]
        if name in _WITHOUT_TRAINER:
            return _WITHOUT_TRAINER[name]
        raise AttributeError(f"There is no Trainer here to ask for `{name}`.")


def _read_configuration(found: Any) -> tuple[list[Any], list[Any]]:
    """Return optimizers and schedulers out of whichever form ``configure_optimizers`` returns."""
    schedulers: Any = []
    if isinstance(found, (list, tuple)) and len(found) == 2 and isinstance(found[0], list):
        found, schedulers = found
    given = [] if found is None else list(found) if isinstance(found, (list, tuple)) else [found]
    schedulers = list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers]
    settings = [each for each in given if isinstance(each, Mapping)]
    schedulers += [each["lr_scheduler"] for each in settings if "lr_scheduler" in each]
    return (
        [each["optimizer"] if isinstance(each, Mapping) else each for each in given],
        [each["scheduler"] if isinstance(each, Mapping) else each for each in schedulers],
    )


def lightning_parts(module: nn.Module) -> list[Any]:
    """Return the LightningModules in a module; by behaviour, because two packages define one."""
    return [
        part
        for part in module.modules()
        if hasattr(part, "training_step") and hasattr(part, "manual_backward")
    ]

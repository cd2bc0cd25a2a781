"""All that the callbacks ask of a Trainer, answered for a loop that has none.

`lightning_stab.watch` keeps one and calls the callbacks' hooks with it, so that what runs under a
Trainer runs in a plain loop: there is no second implementation of anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

T = TypeVar("T")


class FunctionLogger:
    """Gives scalars to a function ``log(values, step)``."""

    def __init__(self, log: Callable[[dict[str, float], int], object]) -> None:
        self._log = log

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand over what was logged at one step."""
        self._log(dict(metrics), step)


class LoopStrategy:
    """The processes of ``torch.distributed``, where it is in use; else this one alone."""

    restore_checkpoint_after_setup = handles_gradient_accumulation = False

    def __init__(self, optimizers: list[Optimizer], device: torch.device) -> None:
        self.optimizers, self.root_device = optimizers, device

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Say whether all processes, or any, have decided so."""
        votes = int(self.reduce(torch.tensor(int(decision), device=self.root_device), "sum"))
        return votes == world_size() if all else votes > 0

    def broadcast(self, value: T, src: int = 0) -> T:
        """Return the value of one process."""
        values = [value]
        if world_size() > 1:
            torch.distributed.broadcast_object_list(values, src, device=self.root_device)
        return values[0]

    def reduce(self, tensor: Tensor, reduce_op: str = "mean") -> Tensor:
        """Return the mean, the sum or the least value over the processes."""
        if world_size() == 1:
            return tensor
        name = "sum" if reduce_op == "mean" else reduce_op
        total = tensor.clone()
        torch.distributed.all_reduce(total, getattr(torch.distributed.ReduceOp, name.upper()))
        return total / world_size() if reduce_op == "mean" else total

    def on_exception(self, exception: BaseException) -> None:
        """Do nothing: callbacks put what comes last in its place."""


@dataclass
class _Count:
    ready: int = 0
    completed: int = 0


@dataclass
class _BatchProgress:
    current: _Count = field(default_factory=_Count)
    total: _Count = field(default_factory=_Count)


class LoopTrainer:
    """Stands in for a Trainer while somebody else runs the loop.

    Args:
        module: what is trained, without wrappers around it.
        optimizers: plain ones.
        callbacks: whose hooks are called.
        loggers: ``SummaryWriter``s, or objects with ``log_metrics(values, step)``.
        lr_scheduler_configs: schedules that advance with each step.
        scaler: the loss scaler, if any.
        accumulate_grad_batches: batches of one step.
        total_steps: of the whole run, where that is known.
    """

    state = SimpleNamespace(fn="fit")
    sanity_checking = barebones = False
    gradient_clip_val = datamodule = progress_bar_callback = None
    num_nodes = num_devices = 1

    def __init__(
        self,
        module: nn.Module,
        optimizers: list[Optimizer],
        callbacks: list[Any],
        *,
        loggers: Sequence[Any] = (),
        lr_scheduler_configs: Sequence[Any] = (),
        scaler: Any = None,
        accumulate_grad_batches: int = 1,
        total_steps: int | None = None,
    ) -> None:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.lightning_module: Any = module
        self.optimizers, self.callbacks, self.loggers = optimizers, callbacks, list(loggers)
        self.lr_scheduler_configs = list(lr_scheduler_configs)
        self.strategy = LoopStrategy(optimizers, device)
        self.precision_plugin = SimpleNamespace(scaler=scaler)
        self.accumulate_grad_batches = accumulate_grad_batches
        self.estimated_stepping_batches = math.inf if total_steps is None else total_steps
        self.takes_one_step = len(optimizers) == 1
        self.num_training_batches: float = math.inf
        self.is_last_batch = self.training = False
        self.ckpt_path: str | None = None
        self.global_step = self.current_epoch = 0
        self.callback_metrics: dict[str, Any] = {}
        self.progress_bar_metrics: dict[str, Any] = {}
        self.progress = _BatchProgress()
        epoch_loop = SimpleNamespace(batch_progress=self.progress, _batches_that_stepped=0)
        self.fit_loop = SimpleNamespace(epoch_loop=epoch_loop)

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return world_size()

    @property
    def global_rank(self) -> int:
        """The place of this process among them."""
        return torch.distributed.get_rank() if world_size() > 1 else 0

    @property
    def is_global_zero(self) -> bool:
        """Whether this process is the first."""
        return self.global_rank == 0

    @property
    def log_dir(self) -> str | None:
        """The folder of the first logger, on every rank."""
        first: Any = self.loggers[0] if self.loggers else None
        folder = getattr(first, "log_dir", None) or getattr(first, "save_dir", None)
        return self.strategy.broadcast(None if folder is None else str(folder))

    def state_dict(self) -> dict[str, int]:
        """Return how far the run is."""
        return {
            "global_step": self.global_step,
            "epoch": self.current_epoch,
            "batches": self.progress.total.completed,
            "batches_that_stepped": self.fit_loop.epoch_loop._batches_that_stepped,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self.global_step, self.current_epoch = state["global_step"], state["epoch"]
        self.progress.total = _Count(state["batches"], state["batches"])
        self.fit_loop.epoch_loop._batches_that_stepped = state["batches_that_stepped"]
        self.ckpt_path = "state_dict"  # a resumed run has one


def world_size() -> int:
    """Return how many processes train together."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1

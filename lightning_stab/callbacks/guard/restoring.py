"""What a bad step must not change, and how it is put back: buffers, schedules, a whole state."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of
from lightning_stab.callbacks._trainer.step import gradient_scaler, step_members
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import (
    first_nonfinite,
    is_sharded,
    local_shard,
    tensor_norms,
    total_norm,
)


class BufferKeeper:
    """A copy of a module's buffers as they were before a batch, refreshed cheaply.

    A forward pass over a bad batch ruins running statistics, which no optimizer protects. Only
    buffers that change are copied again: a version counter tells for all but batch normalisation's,
    whose kernels write past it.

    Args:
        module: the module whose buffers are kept; those that it gains later are not.
    """

    def __init__(self, module: nn.Module) -> None:
        self._places: dict[str, tuple[nn.Module, str]] = {}
        self._running_statistics: dict[str, None] = {}  # an ordered set of places
        for path, owner in module.named_modules():
            names = [n for n, _ in owner.named_buffers(recurse=False, remove_duplicate=False)]
            places = {f"{path}.{name}": (owner, name) for name in names}
            self._places.update(places)
            if {"running_mean", "running_var"} <= set(names):  # batch normalisation, also a user's
                self._running_statistics.update(dict.fromkeys(places))
        self._kept: dict[str, tuple[Tensor, int, Tensor]] = {}

    @torch.no_grad()
    def running_norm(self) -> Tensor | None:
        """Return the norm of all running statistics, on the device; None where there are none.

        A batch can ruin them although its loss and gradient are finite, because normalisation
        divides its scale away.
        """
        running = self._running()
        return total_norm(tensor_norms(list(running.values()))) if running else None

    def first_nonfinite(self) -> str:
        """Return the name of the first running statistic that is not finite, or nothing."""
        running = self._running()
        index = first_nonfinite(running.values())
        return "" if index is None else plain_name(list(running)[index])

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the buffers as they are now."""
        for place, buffer in self._present(self._places):
            old, version, kept = self._kept.get(place, (None, -1, None))
            if old is not buffer or kept is None or kept.shape != buffer.shape:
                self._kept[place] = (buffer, buffer._version, buffer.detach().clone())
            elif place in self._running_statistics or buffer._version != version:
                kept.copy_(buffer)
                self._kept[place] = (buffer, buffer._version, kept)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the remembered values back, in place where the buffer is still the same object."""
        for place, (buffer, _, kept) in self._kept.items():
            owner, name = self._places[place]
            buffer.copy_(kept)
            setattr(owner, name, buffer)
            self._kept[place] = (buffer, buffer._version, kept)

    def can_choose(self) -> bool:
        """Say whether each kept buffer is still there, in its shape, for `restore_where`."""
        present = dict(self._present(self._kept))
        return len(present) == len(self._kept) and all(
            now.shape == self._kept[place][2].shape and now.device == self._kept[place][2].device
            for place, now in present.items()
        )

    @torch.no_grad()
    def restore_where(self, bad: Tensor) -> None:
        """Put the remembered values back where ``bad``, a scalar on the device, is not 0."""
        for place, now in self._present(self._kept):
            buffer, version, kept = self._kept[place]
            moves = place in self._running_statistics or now is not buffer
            if moves or buffer._version != version:
                now.copy_(torch.where(bad > 0, kept, now))
                self._kept[place] = (now, -1, kept)  # what it holds now is not known here

    def _running(self) -> dict[str, Tensor]:
        return {p: b for p, b in self._present(self._running_statistics) if b.is_floating_point()}

    def _present(self, places: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for place in places:
            owner, name = self._places[place]
            buffer = getattr(owner, name, None)
            if buffer is not None:
                yield place, buffer


class SchedulerHold:
    """Holds an optimizer's step-wise schedulers for one batch, whose step is not taken.

    Lightning advances every scheduler whose interval is ``step`` after the batch; for that moment
    the interval reads otherwise. Schedulers that a module advances by itself under manual
    optimisation cannot be held.
    """

    def __init__(self) -> None:
        self._held: list[Any] = []

    def hold(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Keep the schedulers of ``optimizer`` where they are until :meth:`release`."""
        for config in trainer.lr_scheduler_configs:
            if config.interval == "step" and config.scheduler.optimizer is optimizer:
                config.interval = "held"
                self._held.append(config)

    def release(self, *, plateaus: bool) -> None:
        """Let them advance again; those on a plateau, which advance last, with ``plateaus``."""
        waiting = [c for c in self._held if c.reduce_on_plateau and not plateaus]
        for config in self._held:
            config.interval = "held" if config in waiting else "step"
        self._held = waiting


class StepBackup:
    """Weights and state before a step of an optimizer that may move the weights in between."""

    def __init__(self, optimizer: Optimizer) -> None:
        inner = (v for v in vars(optimizer).values() if isinstance(v, Optimizer))
        self._optimizers = [o for o in (optimizer, *inner) if isinstance(o, Optimizer)]
        self._params = [p for group in optimizer.param_groups for p in group["params"]]
        self._copies = [_clone(p) for p in self._params]
        self._states = [_clone(dict(o.state)) for o in self._optimizers]
        self._groups = [
            [{k: _clone(v) for k, v in group.items() if k != "params"} for group in o.param_groups]
            for o in self._optimizers
        ]

    def is_ruined(self) -> bool:
        """Say whether a weight is not finite."""
        return first_nonfinite(self._params) is not None

    def has_moved(self) -> bool:
        """Say whether a weight is another one now."""
        pairs = zip(self._params, self._copies, strict=True)
        return any(not torch.equal(local_shard(p), local_shard(kept)) for p, kept in pairs)

    @torch.no_grad()
    def restore(self) -> None:
        """Put weights and state back, and drop the gradients."""
        for p, kept in zip(self._params, self._copies, strict=True):
            p.copy_(kept)
            p.grad = None
        saved = zip(self._optimizers, self._states, self._groups, strict=True)
        for optimizer, state, groups in saved:
            optimizer.state.clear()
            optimizer.state.update(state)
            for group, kept in zip(optimizer.param_groups, groups, strict=True):
                group.update(kept)


def take_snapshot(trainer: Trainer, module: LightningModule, guard: object) -> dict[str, Any]:
    """Return copies of parameters, buffers, optimizers, schedulers, scaler and callback state.

    Plain values and tensors where the schedulers' own state is; it costs the memory of the model
    and of its optimizers once more, on the same devices.
    """
    scaler = gradient_scaler(trainer)
    return {
        "module": {name: _clone(t) for name, t in _tensors(module).items()},
        "optimizers": [_clone(o.state_dict()) for o in trainer.optimizers],
        "schedulers": [_clone(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs],
        "scaler": None if scaler is None else _clone(scaler.state_dict()),
        "callbacks": {
            member.state_key: _clone(member.state_dict())
            for member in step_members(trainer)
            if member is not guard
        },
    }


@torch.no_grad()
def restore_snapshot(
    trainer: Trainer, module: LightningModule, guard: object, snapshot: dict[str, Any]
) -> None:
    """Put a snapshot back in place; the snapshot stays as it is.

    Parameter groups that were added after it keep their settings, and their state begins empty. An
    optimizer or scheduler that is another one by now stays as it is.
    """
    for name, tensor in _tensors(module).items():
        if name in snapshot["module"]:
            tensor.copy_(snapshot["module"][name])
    fit = [
        _load_optimizer(optimizer, state)
        for optimizer, state in zip(trainer.optimizers, snapshot["optimizers"], strict=False)
    ]
    if not all(fit) or len(trainer.optimizers) != len(snapshot["optimizers"]):
        rank_zero_warn(
            "`StepGuard` went back to a snapshot whose optimizers have other parameters than the"
            " present ones: the weights are those of the snapshot, and the state of these"
            " optimizers (moments, learning rates) stays as it is.",
            category=RuntimeWarning,
        )
    for config, state in zip(trainer.lr_scheduler_configs, snapshot["schedulers"], strict=False):
        if config.scheduler.state_dict().keys() == state.keys():  # else it was exchanged
            config.scheduler.load_state_dict(copy.deepcopy(state))
    scaler = gradient_scaler(trainer)
    if scaler is not None and snapshot["scaler"] is not None:
        scaler.load_state_dict(snapshot["scaler"])
    for member in step_members(trainer):
        state = snapshot["callbacks"].get(member.state_key)
        if member is not guard and state is not None:
            member.load_state_dict(copy.deepcopy(state))


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> bool:
    """Put an optimizer's state back; say whether its groups are those of the state and later ones.

    Where a group or an entry of one was added, it is that of the present.
    """
    now = optimizer.state_dict()["param_groups"]
    saved = state["param_groups"]
    counts = [[len(group["params"]) for group in groups] for groups in (now, saved)]
    if counts[0][: len(saved)] != counts[1]:
        return False
    known = [{**group, **old} for group, old in zip(now, saved, strict=False)]
    groups = known + now[len(saved) :]
    optimizer.load_state_dict(copy.deepcopy({**state, "param_groups": groups}))
    return True


def num_groups(snapshot: dict[str, Any]) -> list[int]:
    """Return how many parameter groups each optimizer of a snapshot has."""
    return [len(state["param_groups"]) for state in snapshot["optimizers"]]


def fits_into_checkpoint(snapshot: dict[str, Any]) -> bool:
    """Say whether a checkpoint can hold the snapshot: not if it has pieces of sharded tensors."""
    return not any(map(is_sharded, snapshot["module"].values()))


def scale_learning_rates(
    trainer: Trainer, factor: float, times: int = 1, num_restored: Sequence[int] = ()
) -> None:
    """Multiply every learning rate, and what schedulers compute later ones from, by a factor.

    Callbacks that set learning rates take part with a method ``scale_learning_rates(factor)``.

    Args:
        trainer: the Trainer.
        factor: what one rewind multiplies by.
        times: how often what has just been restored is multiplied.
        num_restored: how many groups of each optimizer were restored; later ones are multiplied
            once, because earlier rewinds have multiplied them already.
    """
    for place, optimizer in enumerate(trainer.optimizers):
        restored = num_restored[place] if place < len(num_restored) else math.inf
        for number, group in enumerate(optimizer.param_groups):
            for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                if group.get(key) is not None:
                    group[key] = group[key] * factor ** (times if number < restored else 1)
    factor **= times
    for config in trainer.lr_scheduler_configs:
        for scheduler in _with_inner(config.scheduler):
            if hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    for callback in callbacks_of(trainer):
        scale = getattr(callback, "scale_learning_rates", None)
        if callable(scale):
            scale(factor)


def _with_inner(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and those that it is made of (sequential and chained ones)."""
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", ()):
        yield from _with_inner(inner)


def _tensors(module: LightningModule) -> dict[str, Tensor]:
    """Return every parameter and buffer once, persistent or not."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clone(item) for item in value]
    return copy.deepcopy(value)

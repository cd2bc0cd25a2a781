"""Factors in the param groups of one optimizer, and which steps it took."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_stab.callbacks.decay.options import DecayClock


class GroupRates:
    """The first learning rate of every param group, and what was last written there.

    A rate that something else changed meanwhile is not overwritten: the change is applied to the
    first rate, in proportion. So is the rate of a group that was added meanwhile.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._first: list[float] = []
        self._written: list[float] = []
        self._before: list[float] = []
        self._factor = 1.0

    def write(self, factor: float) -> None:
        """Set every group to its first rate times ``factor``."""
        for i, group in enumerate(self._optimizer.param_groups):
            if not has_rate(group):  # added meanwhile; its step size is its optimizer's affair
                self._apply_change(i, 0.0)
                continue
            self._apply_change(i, float(group["lr"]))
            self._before[i] = self._written[i]
            self._written[i] = _set_rate(group, self._first[i] * factor)
        self._factor = factor

    def _apply_change(self, i: int, found: float) -> None:
        if i == len(self._first):
            self._first.append(found / self._factor if self._factor else found)
            self._written.append(found)
            self._before.append(found)
        # The rate before the last one comes back when a step is undone.
        elif found not in (self._written[i], self._before[i]):
            was = self._written[i]
            self._first[i] = self._first[i] * found / was if was else found

    def scale(self, factor: float) -> None:
        """Scale the first rates; the rates as they are now count as written here."""
        self._first = [rate * factor for rate in self._first]
        self._written = learning_rates(self._optimizer)[: len(self._first)]

    def is_written(self, factor: float) -> bool:
        """Say whether every group has been set by this factor already."""
        return factor == self._factor and self._written == learning_rates(self._optimizer)

    def put_back(self) -> None:
        """Set every group to its first rate, for a scheduler of the module to act on."""
        for group, rate in zip(self._optimizer.param_groups, self._first, strict=False):
            _set_rate(group, rate)

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers."""
        first, written, before = map(list, (self._first, self._written, self._before))
        return {"first": first, "written": written, "before": before, "factor": self._factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned; the optimizer has its rates already."""
        self._first, self._written = list(state["first"]), list(state["written"])
        self._before, self._factor = list(state["before"]), state["factor"]


def learning_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of every param group; NaN for a group without one."""
    groups = optimizer.param_groups
    return [float(group["lr"]) if has_rate(group) else math.nan for group in groups]


def has_rate(group: Mapping[str, Any]) -> bool:
    """Say whether a param group has a learning rate: not that of an optimizer with its own."""
    return group.get("lr") is not None


def undo_first_write(optimizer: Optimizer) -> None:
    """Give back the rates that a scheduler has overwritten on its construction.

    Torch keeps them as ``initial_lr``. A cycle's scheduler overwrites that too and leaves its
    highest rate, and may have set the momentum.
    """
    for group in optimizer.param_groups:
        if has_rate(group):
            _set_rate(group, float(group.get("max_lr", group.get("initial_lr", group["lr"]))))
        if "max_momentum" in group:
            for name in {"momentum", "betas"} & group.keys():
                group[name] = optimizer.defaults[name]


def group_names(optimizers: list[Optimizer]) -> list[str]:
    """Return a name for every param group: its own if it has one, else its place.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> group_names([torch.optim.SGD([{"params": [weight], "name": "head"}], lr=1.0)])
        ['head']
    """
    several = len(optimizers) > 1
    return [
        (f"opt{k}/" if several else "") + str(group.get("name", f"group{i}"))
        for k, optimizer in enumerate(optimizers)
        for i, group in enumerate(optimizer.param_groups)
    ]


def call_after_steps(optimizer: Optimizer, act: Callable[[], None]) -> RemovableHandle:
    """Call ``act`` after every step that the optimizer really takes.

    A guard skips a step by taking every gradient away; a loss scaler does not call the optimizer
    at all, or leaves a note of the overflow for a fused one.
    """

    def hook(stepped: Optimizer, args: Any, kwargs: Any) -> None:
        overflow = getattr(stepped, "found_inf", None)
        if overflow is not None and bool(overflow):
            return
        if any(p.grad is not None for group in stepped.param_groups for p in group["params"]):
            act()

    return optimizer.register_step_post_hook(hook)


def scale_during_steps(optimizer: Optimizer, clock: DecayClock) -> list[RemovableHandle]:
    """Multiply the rates by the clock's factor while the optimizer steps, and only then.

    In between, the module's own scheduler finds the rates as it left them.
    """
    kept: list[float] = []

    def before(stepped: Optimizer, args: Any, kwargs: Any) -> None:
        kept[:] = learning_rates(stepped)
        for group in stepped.param_groups:
            _set_rate(group, float(group["lr"]) * clock.factor)

    def after(stepped: Optimizer, args: Any, kwargs: Any) -> None:
        for group, rate in zip(stepped.param_groups, kept, strict=True):
            _set_rate(group, rate)

    return [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]


def _set_rate(group: dict[str, Any], rate: float) -> float:
    if not has_rate(group):
        return rate
    if isinstance(group["lr"], Tensor):  # as capturable optimizers want it
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
    return float(group["lr"])

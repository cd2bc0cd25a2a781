"""Every optimizer step of a fit, also those that Lightning does not announce.

Lightning calls ``on_before_optimizer_step`` only for steps that go through its own wrapper. A
module may step the plain optimizer, one that it keeps to itself, or the one inside another; and an
optimizer may evaluate its closure several times in one step. torch's own hooks on steps see all of
these: what was not announced is announced here, and the evaluations of one step belong together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from lightning_stab.functional.norms import local_shard, same_values, tensor_norms

Members = Callable[[Trainer], list[Any]]
_watches: WeakKeyDictionary[Trainer, StepWatch] = WeakKeyDictionary()
_latest: list[tuple[ref[Trainer], StepWatch]] = []  # the one that was asked for last, or none


class OpenStep:
    """A step that an optimizer is taking, or that was announced for it."""

    def __init__(self, optimizer: Optimizer, batch: int, place: int) -> None:
        self.optimizer = self.opened_by = optimizer
        self.batch = batch
        self.place = place
        self.evaluations = 0
        self.depth = 0  # of calls of ``step``: one may call that of its base class


class StepWatch:
    """Announces the steps of one fit to the members, each evaluation once.

    Args:
        trainer: the Trainer; it is not kept alive.
        members: returns the callbacks that take part in the phases of a step.
    """

    def __init__(self, trainer: Trainer, members: Members) -> None:
        self._trainer = ref(trainer)
        self._members = members
        self._foreign: list[Optimizer] = []  # that train the module and are not the Trainer's
        self._strangers: WeakSet[Optimizer] = WeakSet()
        self._step: OpenStep | None = None
        self._evaluating: list[OpenStep] = []
        self._handles: list[RemovableHandle] = []
        self._norms: Tensor | None = None  # of the weights before the batch
        self.has_seen_step = self.is_unannounced = self.has_warned = False

    def start(self) -> None:
        """Put the hooks on, once."""
        if not self._handles:
            self._handles = [
                register_optimizer_step_pre_hook(self._before),
                register_optimizer_step_post_hook(self._after),
            ]

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def note_evaluation(self, optimizer: Optimizer) -> int:
        """Note that a step is announced; return how often its optimizer has evaluated before."""
        step = self._evaluating[-1] if self._evaluating else None
        if step is None or not _are_one(step.optimizer, optimizer):
            step = self._open(optimizer)  # a loss scaler stands between closure and step
        step.evaluations += 1
        self.has_seen_step = True
        return step.evaluations - 1

    def place(self, optimizer: Optimizer) -> int:
        """Return the place of an optimizer, or of the one that holds it, after the Trainer's."""
        same = None
        for place, known in enumerate(self._optimizers()):
            if known is optimizer and same is None:
                same = place
            for held in getattr(known, "__dict__", {}).values():  # asked at each step: no calls
                if held is optimizer:
                    return place
        return same or 0

    def begin_batch(self, trainer: Trainer, *, may_step: bool) -> None:
        """Remember the weights of a batch that may step; not asked once a step was seen."""
        self._norms = _weight_norms(trainer) if may_step else None

    def end_batch(self, trainer: Trainer) -> None:
        """Say once that the weights have changed where no step was seen."""
        before, self._norms = self._norms, None
        if before is None or self.has_seen_step or self.has_warned:
            return
        if not same_values(_weight_norms(trainer), before):
            self.has_warned = True
            self._warn("a batch has changed the weights, but no optimizer was seen to step")

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        trainer, step = self._trainer(), self._step
        if trainer is None or torch.compiler.is_compiling() or not trainer.training:
            return None
        is_present = step is not None and step.batch == _batch(trainer)
        if step is not None and is_present and step.depth:  # inside of another one's step
            step.depth += optimizer is step.optimizer
            return None
        if not self._trains(trainer, optimizer):
            return None
        if step is None or not is_present or not _are_one(step.optimizer, optimizer):
            step = self._open(optimizer)
        step.optimizer, step.depth = optimizer, 1
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            if not step.evaluations:
                self._announce(step)
            return None
        evaluate = partial(self._evaluate, step, closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": evaluate}
        return (args[0], evaluate, *args[2:]), kwargs

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        step, trainer = self._step, self._trainer()
        if step is None or trainer is None or optimizer is not step.optimizer or not step.depth:
            return
        step.depth -= 1
        if not step.depth:
            self._step = None
            place = step.place if optimizer is step.opened_by else self.place(optimizer)
            for member in self._members(trainer):
                member.end_step(trainer, optimizer, place)

    def _evaluate(self, step: OpenStep, closure: Callable[[], Any]) -> Any:
        before = step.evaluations
        self._evaluating.append(step)
        self._step = None  # the closure may step another optimizer
        try:
            value = closure()
        finally:
            self._evaluating.pop()
            self._step = step
        if step.evaluations == before:
            self._announce(step)
        return value

    def _announce(self, step: OpenStep) -> None:
        trainer = self._trainer()
        if trainer is None:
            return
        if getattr(step.optimizer, "grad_scale", None) is not None:
            # a fused optimizer that the module's own scaler calls: it will unscale by itself
            if not self.has_warned:
                self.has_warned = True
                self._warn("a fused optimizer gets gradients that are still scaled")
            return
        self._evaluating.append(step)
        self.is_unannounced = True
        try:
            for member in self._members(trainer):
                module = trainer.lightning_module
                member.on_before_optimizer_step(trainer, module, step.optimizer)
        finally:
            self.is_unannounced = False
            self._evaluating.pop()

    def _open(self, optimizer: Optimizer) -> OpenStep:
        trainer = self._trainer()
        assert trainer is not None  # it is running
        step = self._step = OpenStep(optimizer, _batch(trainer), self.place(optimizer))
        for member in self._members(trainer):
            member.begin_step(trainer, optimizer, step.place)
        return step

    def _optimizers(self) -> list[Optimizer]:
        trainer = self._trainer()
        own = trainer.optimizers if trainer is not None else []
        return [o for o in (*own, *self._foreign) if o.param_groups]  # a stand-in has none

    def _trains(self, trainer: Trainer, optimizer: Optimizer) -> bool:
        for known in self._optimizers():
            if known is optimizer:
                return True
        if optimizer in self._strangers:
            return False
        own = {id(p) for p in trainer.lightning_module.parameters()}
        if any(id(p) in own for p in _parameters(optimizer)):
            self._foreign.append(optimizer)
            return True
        self._strangers.add(optimizer)
        return False

    def _warn(self, what: str) -> None:
        trainer = self._trainer()
        members = self._members(trainer) if trainer is not None else []
        names = ", ".join(dict.fromkeys(f"`{type(member).__name__}`" for member in members))
        rank_zero_warn(
            f"{names}: {what}, so that nothing is done at such steps. Call `step` of an optimizer"
            " that `self.optimizers()` returns.",
            category=RuntimeWarning,
        )


def watch_of(trainer: Trainer, members: Members) -> StepWatch:
    """Return the watch of the present fit, which is made on first use."""
    for owner, watch in _latest:
        if owner() is trainer:
            return watch
    watch = _watches.setdefault(trainer, StepWatch(trainer, members))
    _latest[:] = [(ref(trainer), watch)]
    return watch


def end_watch(trainer: Trainer) -> None:
    """Forget the watch of a fit, and take its hooks off."""
    _latest.clear()
    watch = _watches.pop(trainer, None)
    if watch is not None:
        watch.stop()


def _batch(trainer: Trainer) -> int:
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def _are_one(first: Any, second: Any) -> bool:
    """Say whether two optimizers train the same: one may be wrapped around the other."""
    if first is second:
        return True
    known = {id(p) for p in _parameters(first)}
    return any(id(p) in known for p in _parameters(second))


def _parameters(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _weight_norms(trainer: Trainer) -> Tensor:
    weights = [p.detach() for p in trainer.lightning_module.parameters() if not is_lazy(p)]
    floating = [p for p in weights if p.is_floating_point() or p.is_complex()]
    return tensor_norms([local_shard(p) for p in floating])

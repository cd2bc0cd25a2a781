"""One optimizer step, measured once, in fixed phases: measure, guard, clip, record.

The first :class:`StepMember` in the Trainer's list runs the phases for all members, so that the
order of the list does not matter and the gradients are measured once. A callback takes part by
inheriting from it: the phases run in ``on_before_optimizer_step``, where Lightning shows the
unscaled, accumulated gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from lightning_stab.callbacks._trainer.lightning_classes import is_automatic
from lightning_stab.callbacks._trainer.step_watch import StepWatch, end_watch, watch_of
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import exact_total_norm, is_sharded, tensor_norms, total_norm

# the parameters are held beside their names, so that an identity cannot be taken by another object
_names: WeakKeyDictionary[LightningModule, dict[int, tuple[str, Parameter]]] = WeakKeyDictionary()


class OptimizerStep:
    """What the callbacks know of the step that an optimizer is about to take.

    Attributes:
        trainer: the Trainer.
        module: the LightningModule.
        optimizer: the optimizer whose parameters are read; stale gradients of others are not.
        params: its parameters that have a gradient, in the order of its groups.
        rejected: whether a guard has decided that this step is not taken.
        clipped: whether a clipper of the suite has taken this step.
        index: the optimizer's place in the Trainer's list, the key of per-optimizer state; others
            that train the module come after.
        evaluation: how often the optimizer has evaluated before within this step.
        bad: 1 where the device has found that this step is not taken, else 0; None where the host
            has decided.
        decides_now: whether a member needs the verdict on the host within this step.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        optimizer: Optimizer,
        index: int = 0,
        evaluation: int = 0,
        *,
        decides_now: bool = True,
    ) -> None:
        self.trainer = trainer
        self.module = module
        self.optimizer = optimizer
        self.groups = [
            [p for p in group["params"] if p.grad is not None] for group in optimizer.param_groups
        ]
        self.params: list[Parameter] = [p for group in self.groups for p in group]
        self.rejected = False
        self.clipped = False
        self.bad: Tensor | None = None
        self.decides_now = decides_now
        self.index, self.evaluation = index, evaluation

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients as they stand now, in the order of ``params``."""
        return [p.grad for p in self.params if p.grad is not None]

    @cached_property
    def norms(self) -> Tensor:
        """The 2-norm of each parameter's gradient before clipping, on the device."""
        return self.norms_now()

    def norms_now(self) -> Tensor:
        """Measure the 2-norm of each parameter's gradient as it stands now.

        Parameters that share memory have one gradient, the sum of theirs; it counts at the first
        of them, and the others count 0.
        """
        gradients = self.gradients
        for first, *others in _sharing(self.params):
            gradients[first] = sum((gradients[i] for i in others), start=gradients[first])
            for i in others:
                gradients[i] = gradients[i].new_zeros(0)
        return tensor_norms(gradients)

    @cached_property
    def total(self) -> Tensor:
        """The 2-norm of the whole gradient before clipping, a scalar on the device."""
        return total_norm(self.norms)

    @cached_property
    def total_value(self) -> float:
        """The same on the host; exact also where float32 overflows although the entries do not."""
        value = float(self.total)
        return exact_total_norm(self.gradients) if value == float("inf") else value

    def total_of(self, params: Sequence[Parameter], norms: Tensor) -> Tensor:
        """Return the norm over some of the parameters, from the norms of all."""
        if len(params) == len(self.params):
            return self.total if norms is self.norms else total_norm(norms)
        wanted = {id(p) for p in params}
        places = [i for i, p in enumerate(self.params) if id(p) in wanted]
        return total_norm(norms[torch.tensor(places, device=norms.device)])

    def names(self) -> tuple[str, ...]:
        """Return the names of ``params``, those of ``named_parameters()``."""
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        known = _names.get(self.module)
        if known is None or any(id(p) not in known for p in self.params):
            named = self.module.named_parameters()
            known = {id(p): (plain_name(n), p) for n, p in named}
            for i, p in enumerate(self.params):  # an optimizer may hold what the module does not
                known.setdefault(id(p), (f"parameter_{i}", p))
            _names[self.module] = known
        return tuple(known[id(p)][0] for p in self.params)

    @property
    def suffix(self) -> str:
        """What tells this optimizer's totals from others': nothing where it is alone."""
        several = self.index > 0 or len(self.trainer.optimizers) > 1
        return f"_opt{self.index}" if several else ""

    @property
    def is_repeated(self) -> bool:
        """Whether the optimizer (LBFGS, SAM) evaluates again within a step that was seen."""
        return self.evaluation > 0

    def reject(self, *, as_zero: bool = False) -> None:
        """Let the optimizer pass over this step: weights, moments and step counts stay.

        Args:
            as_zero: leave gradients of 0 to an optimizer whose step is taken back afterwards; what
                evaluates several times may need some.
        """
        for p in self.params:
            if as_zero and p.grad is not None:
                p.grad.zero_()
            else:
                p.grad = None
        self.rejected = True


class StepMember(Protocol):
    """A callback that takes part in the phases of an optimizer step, which do nothing here.

    Overrides of the hooks call these first.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See every step from now on, also those that Lightning does not announce."""
        _watch(trainer).start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the weights, until the first step is seen."""
        watch = _watch(trainer)
        if not watch.has_seen_step and any(self is m for m in step_members(trainer)[:1]):
            may_step = will_step(trainer) or not is_automatic(trainer, pl_module)
            watch.begin_batch(trainer, may_step=may_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Say so where the weights have changed without a step."""
        _watch(trainer).end_batch(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks on steps off."""
        end_watch(trainer)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Run the phases of this step for all members, where this is the first of them."""
        run_phases(self, trainer, pl_module, optimizer)

    def wants_step(self, trainer: Trainer) -> bool:
        """Say whether this callback needs the coming step; where none does, it costs nothing."""
        return True

    def needs_verdict(self, trainer: Trainer) -> bool:
        """Say whether this callback, where it wants a step, asks within it if it is rejected."""
        return True

    def begin_step(self, trainer: Trainer, optimizer: Optimizer, index: int) -> None:
        """Keep what a step changes, before its closure is evaluated."""
        return

    def measure_step(self, step: OptimizerStep) -> None:
        """Read the gradients as they are."""
        return

    def guard_step(self, step: OptimizerStep) -> None:
        """Decide whether the step is taken."""
        return

    def clip_step(self, step: OptimizerStep) -> None:
        """Change the gradients."""
        return

    def record_step(self, step: OptimizerStep) -> None:
        """Read what became of them."""
        return

    def end_step(self, trainer: Trainer, optimizer: Optimizer, index: int) -> None:
        """Read or put back what a step has changed; not called where a loss scaler skips it."""
        return


def run_phases(
    caller: StepMember, trainer: Trainer, module: LightningModule, optimizer: Optimizer
) -> None:
    """Run the phases of this step for every member, once.

    Does nothing unless ``caller`` stands first among the members, or if none of them wants this
    step.
    """
    members = step_members(trainer) or [caller]
    if caller is not members[0]:
        return
    watch = _watch(trainer)
    evaluation = watch.note_evaluation(optimizer)
    wanting = [member for member in members if member.wants_step(trainer)]
    if not wanting:
        return
    with torch.no_grad():
        place = watch.place(optimizer)
        now = any(member.needs_verdict(trainer) for member in wanting)
        step = OptimizerStep(trainer, module, optimizer, place, evaluation, decides_now=now)
        if not step.params:  # training_step returned None: there is nothing to unscale
            return
        if not watch.is_unannounced:  # the module unscales by itself, if at all
            _unscale(trainer, optimizer)
        for member in members:
            member.measure_step(step)
        for member in members:
            member.guard_step(step)
        for member in members:
            member.clip_step(step)
        for member in members:
            member.record_step(step)


def _watch(trainer: Trainer) -> StepWatch:
    return watch_of(trainer, step_members)


def step_members(trainer: Trainer) -> list[Any]:
    """Return the members among the Trainer's callbacks, in the order of its list."""
    attributes: Any = trainer  # Lightning sets the list where a type checker does not see it
    return [c for c in attributes.callbacks if StepMember in type(c).__mro__]


def first_group(optimizers: Sequence[Any]) -> dict[str, Any]:
    """Return the first parameter group of the first optimizer, an empty one where there is none.

    Lightning's stand-in for no optimizer has no groups.
    """
    groups: list[dict[str, Any]] = optimizers[0].param_groups if optimizers else []
    return groups[0] if groups else {}


def will_step(trainer: Trainer) -> bool:
    """Say whether the present batch ends an accumulation window, so that its optimizer steps."""
    ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    is_last = trainer.is_last_batch or ready == trainer.num_training_batches
    accumulates = trainer.strategy.handles_gradient_accumulation or not is_last
    return ready % trainer.accumulate_grad_batches == 0 or not accumulates


def gradient_scaler(trainer: Trainer) -> Any | None:
    """Return the precision plugin's enabled ``GradScaler``, or None.

    Asked by behaviour, because the two Lightning packages define different plugin classes.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def scaler_will_cure(step: OptimizerStep) -> bool:
    """Say whether the loss scaler found an overflow, passes over this step, and can go lower.

    Its first steps overflow by design, until the scale has come down to what the gradients allow.
    """
    scaler = gradient_scaler(step.trainer)
    if scaler is None:
        return False
    found = scaler._per_optimizer_states[id(step.optimizer)]["found_inf_per_device"]
    return any(float(value) > 0 for value in found.values()) and scaler.get_scale() > 1.0


def hold_scale(step: OptimizerStep) -> None:
    """Let the loss scaler learn nothing from this step: a bad batch says nothing about the scale.

    Its update counts a good step or lowers the scale; here it counts one that was taken off before.
    """
    scaler = gradient_scaler(step.trainer)
    state = None if scaler is None else scaler._per_optimizer_states[id(step.optimizer)]
    if scaler is None or state is None or state["stage"].name != "UNSCALED":
        return
    for found in state["found_inf_per_device"].values():
        found.zero_()
    scaler._growth_tracker.sub_(1)


def _unscale(trainer: Trainer, optimizer: Optimizer) -> None:
    """Unscale where Lightning leaves it to a fused optimizer, so that true gradients are seen."""
    scaler = gradient_scaler(trainer)
    if scaler is None:
        return
    if scaler._per_optimizer_states[id(optimizer)]["stage"].name == "READY":
        scaler.unscale_(optimizer)


def _sharing(params: list[Parameter]) -> Iterator[list[int]]:
    """Yield the places of parameters that are one memory under several objects."""
    addresses = [0 if is_sharded(p) else p.data_ptr() for p in params]
    if len(set(addresses)) == len(params):
        return
    places: dict[tuple[int, torch.Size], list[int]] = {}
    for i, (p, address) in enumerate(zip(params, addresses, strict=True)):
        if address:
            places.setdefault((address, p.shape), []).append(i)
    yield from (same for same in places.values() if len(same) > 1)

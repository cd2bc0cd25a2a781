"""Verdicts that stay on the device, so that no step waits for it.

A fused optimizer passes over a step by itself where its ``found_inf`` is 1, as it does for a loss
scaler: weights, moments and step counts stay. So the device decides and acts within the step, and
no bad step ever reaches the weights. The host reads the verdict before the next step is judged. It
then counts, logs and stops with one step's delay, and takes back what schedulers have advanced in
between, before any weight has felt it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_stab.callbacks._trainer.device_values import Arriving, is_remote
from lightning_stab.callbacks._trainer.lightning_classes import is_automatic
from lightning_stab.callbacks._trainer.logging import log_step
from lightning_stab.callbacks._trainer.ranks import gather_rows
from lightning_stab.callbacks._trainer.step import OptimizerStep, gradient_scaler
from lightning_stab.callbacks.guard.verdicts import StepFacts, Verdict, moment, packed
from lightning_stab.functional.norms import in_double, is_sharded

SCHEDULED = {"lr", "momentum", "betas"}  # what torch's schedulers set


class ScheduleBackup:
    """The rates of an optimizer and its step-wise schedulers, as they were at a step."""

    def __init__(self, trainer: Trainer, optimizer: Optimizer) -> None:
        self._schedulers = [
            (config.scheduler, copy.deepcopy(config.scheduler.state_dict()))
            for config in _schedules(trainer, optimizer)
        ]
        self._groups = optimizer.param_groups if self._schedulers else []
        self._before = self._settings()
        self._after: list[dict[str, Any]] | None = None

    def note_advanced(self) -> None:
        """Note what the schedulers have made of the rates."""
        self._after = self._settings()

    def restore(self) -> None:
        """Put back what the schedulers, and nobody after them, have set."""
        for scheduler, state in self._schedulers:
            scheduler.load_state_dict(state)
        after = self._after or self._settings()
        for group, old, new in zip(self._groups, self._before, after, strict=False):
            for name, value in old.items():
                if group[name] != new[name]:
                    continue
                if isinstance(value, Tensor):  # a rate that a captured graph reads
                    group[name].copy_(value)
                else:
                    group[name] = value

    def _settings(self) -> list[dict[str, Any]]:
        return [{k: copy.deepcopy(g[k]) for k in SCHEDULED & g.keys()} for g in self._groups]


@dataclass
class DeferredStep:
    """A step whose verdict is on its way to the host.

    Attributes:
        index: the optimizer's place.
        policies: for non-finite values, and for spikes.
        at: which step it is, in words.
        log_step: its x value in logs.
        schedules: what schedulers will have advanced by the time that its verdict is read.
    """

    index: int
    policies: tuple[str, str]
    at: str
    log_step: int
    _names: list[str]
    _limits: dict[str, float]
    _arriving: Arriving
    _gradients: tuple[tuple[str, ...], list[tuple[int, ...]], Tensor]
    schedules: ScheduleBackup

    def read(self) -> tuple[StepFacts, Verdict | None, bool]:
        """Return the facts, what is wrong, and whether the step was passed over."""
        *values, flag = self._arriving.numbers()
        known = dict(zip(self._names, values, strict=True))
        facts = StepFacts(
            known.get("loss", 0.0), known["norm"], known.get("running", 0.0), "loss" in known
        )
        bad = (Verdict(n, v) for n, v in facts.quantities().items() if not abs(v) < torch.inf)
        verdict = next(bad, None)
        if verdict is None:
            limits = self._limits
            high = (n for n, v in facts.quantities().items() if v > limits.get(n, torch.inf))
            name = next(high, None)
            verdict = Verdict(name, known[name], limits[name]) if name is not None else None
        return facts, verdict, flag > 0

    def where(self) -> str:
        """Return the first parameter whose gradient was not finite, for a message."""
        names, shapes, norms = self._gradients
        for name, shape, norm in zip(names, shapes, norms.tolist(), strict=True):
            if not abs(norm) < torch.inf:
                return f"; first non-finite gradient in {name!r} of shape {shape}"
        return ""


def can_defer(step: OptimizerStep) -> bool:
    """Say whether the optimizer can pass over this step on the device.

    Not where a loss scaler owns ``found_inf``, under manual optimisation (where a graph may still
    need the buffers), for sharded parameters, at the first step of a momentum, whose memory the
    fused kernel would leave undefined, and where a schedule follows a metric.
    """
    optimizer = step.optimizer
    return (
        not (step.is_repeated or step.decides_now)
        and type(optimizer) in (Adam, AdamW, SGD)
        and all(group.get("fused") for group in optimizer.param_groups)
        and is_automatic(step.trainer, step.module)
        and gradient_scaler(step.trainer) is None
        and {(p.device, is_sharded(p)) for p in step.params} == {(step.total.device, False)}
        and is_remote(step.total)
        and step.total.device.type in ("cuda", "cpu")
        and _has_momentum(optimizer, step)
        and not any(c.reduce_on_plateau for c in _schedules(step.trainer, optimizer))
    )


def defer(
    step: OptimizerStep,
    known: dict[str, Tensor],
    limits: dict[str, float],
    policies: tuple[str, str],
) -> DeferredStep:
    """Let the device decide about a step; return what the host reads later.

    Args:
        step: the step, for which `can_defer` holds.
        known: the quantities, scalars on the device, each this rank's own.
        limits: the largest value of each that is no spike; empty where spikes are ignored.
        policies: for non-finite values, and for spikes.
    """
    rows = gather_rows(step.trainer, in_double(packed(known.values())))  # as the host compares
    values = rows[0]
    if len(rows) > 1:
        largest = torch.where(rows.isfinite().all(0), rows.amax(0), torch.nan)
        values = torch.stack(
            [rows[:, i].mean() if name == "loss" else largest[i] for i, name in enumerate(known)]
        )
    is_finite = values.isfinite().all()
    bad = torch.zeros_like(is_finite)
    for name, value in zip(known, values.unbind(), strict=True):
        if name in limits:
            bad = bad | (value > limits[name])
    # beside a value that is not finite, no other one makes a spike
    bad = bad & is_finite if policies[0] == "ignore" else bad | ~is_finite
    step.bad = bad.float()
    owner: Any = step.optimizer
    owner.found_inf, owner.grad_scale = step.bad, None
    shapes = [tuple(p.shape) for p in step.params]
    return DeferredStep(
        step.index,
        policies,
        moment(step.trainer),
        log_step(step.trainer),
        list(known),
        limits,
        Arriving(torch.cat([values, bad[None].to(values)])),
        (step.names(), shapes, step.norms),
        ScheduleBackup(step.trainer, step.optimizer),
    )


def take_off(optimizer: Optimizer) -> None:
    """Take the verdict off an optimizer, whose next step is judged by itself."""
    for name in ("found_inf", "grad_scale"):
        vars(optimizer).pop(name, None)


def _schedules(trainer: Trainer, optimizer: Optimizer) -> list[Any]:
    configs = trainer.lr_scheduler_configs
    return [c for c in configs if c.interval == "step" and c.scheduler.optimizer is optimizer]


def _has_momentum(optimizer: Optimizer, step: OptimizerStep) -> bool:
    if type(optimizer) is not SGD or not any(g["momentum"] for g in optimizer.param_groups):
        return True
    return all(optimizer.state[p].get("momentum_buffer") is not None for p in step.params)

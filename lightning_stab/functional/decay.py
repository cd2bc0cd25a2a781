"""The learning rate as a factor of its first value, by time.

Torch's own schedulers do the arithmetic. They act on a stand-in optimizer whose learning rate is 1,
so that what they compute is the factor itself, and the real optimizers are not wrapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    StepLR,
)

TIME_SCHEDULES = (
    "exponential",
    "step",
    "polynomial",
    "inverse_sqrt",
    "cosine",
    "cosine_restarts",
)
NEEDS_TOTAL = ("polynomial", "cosine")

# What moves in a scheduler's `state_dict` while it runs. The settings are not saved: those of the
# new run hold. A key that another release of torch does not have is passed over.
_PROGRESS = (
    "last_epoch",
    "_step_count",
    "_last_lr",
    "T_cur",
    "T_i",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
)


class FactorSchedule:
    """One of torch's schedulers on a learning rate of 1: it yields factors.

    Args:
        make: builds the scheduler on the stand-in optimizer.
        last: after so many advances the factor stays; torch's cosine would rise again.

    Example:
        >>> schedule = FactorSchedule(lambda optimizer: ExponentialLR(optimizer, 0.5))
        >>> schedule.factor, schedule.advance(), schedule.advance()
        (1.0, 0.5, 0.25)
    """

    def __init__(self, make: Callable[[SGD], LRScheduler], last: int | None = None) -> None:
        self._last = last
        self._optimizer = SGD([torch.zeros(0, requires_grad=True)], lr=1.0)
        self._scheduler = make(self._optimizer)
        self._step: Callable[..., None] = self._scheduler.step  # a plateau's takes the value
        self._optimizer.step()  # there is nothing to update; torch's schedulers ask for the order

    @property
    def factor(self) -> float:
        """The present factor of the first learning rate."""
        return float(self._optimizer.param_groups[0]["lr"])

    def advance(self, *value: float) -> float:
        """Go on by one epoch or step, for a plateau with the observed value; return the factor."""
        if self._last is None or self._scheduler.last_epoch < self._last:
            self._step(*value)
        return self.factor

    def state_dict(self) -> dict[str, Any]:
        """Return the progress as plain numbers and lists."""
        everything = self._scheduler.state_dict()
        return {**{k: everything[k] for k in _PROGRESS if k in everything}, "factor": self.factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned; the settings stay."""
        progress = {k: state[k] for k in _PROGRESS if k in state}
        self._scheduler.load_state_dict({**self._scheduler.state_dict(), **progress})
        self._optimizer.param_groups[0]["lr"] = state["factor"]


def time_schedule(
    name: str,
    *,
    gamma: float,
    every: int,
    power: float,
    total: int,
    time_scale: float,
    growth: int,
    floor: float,
) -> FactorSchedule:
    r"""Return the factor as a function of the time ``t``, counted from 0.

    =================== ================================================================
    exponential         :math:`\gamma^t`
    step                :math:`\gamma^{\lfloor t / every \rfloor}`
    polynomial          :math:`(1 - t / total)^{power}`
    inverse_sqrt        :math:`\sqrt{s / (s + t)}` with the time scale ``s``
    cosine              :math:`floor + (1 - floor)(1 + \cos(\pi t / total)) / 2`
    cosine_restarts     the same, restarted after ``every``, then every * growth, ... units
    =================== ================================================================

    Example:
        >>> schedule = time_schedule("step", gamma=0.1, every=2, power=1, total=9, time_scale=1,
        ...                          growth=1, floor=0)
        >>> [schedule.factor] + [round(schedule.advance(), 3) for _ in range(4)]
        [1.0, 1.0, 0.1, 0.1, 0.01]

    Loshchilov & Hutter, "SGDR" (2017); Vaswani et al., "Attention Is All You Need" (2017).
    """
    makers: dict[str, Callable[[SGD], LRScheduler]] = {
        "exponential": lambda o: ExponentialLR(o, gamma),
        "step": lambda o: StepLR(o, every, gamma),
        "polynomial": lambda o: PolynomialLR(o, total, power),
        "inverse_sqrt": lambda o: LambdaLR(o, lambda t: math.sqrt(time_scale / (time_scale + t))),
        "cosine": lambda o: CosineAnnealingLR(o, total, floor),
        "cosine_restarts": lambda o: CosineAnnealingWarmRestarts(o, every, growth, floor),
    }
    return FactorSchedule(makers[name], last=total if name in NEEDS_TOTAL else None)


def warmup_schedule(steps: int) -> FactorSchedule:
    """Return a factor that rises in equal parts from 1/(steps+1) to 1 over ``steps``.

    Example:
        >>> schedule = warmup_schedule(3)
        >>> [schedule.factor] + [round(schedule.advance(), 2) for _ in range(4)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return FactorSchedule(lambda o: LinearLR(o, 1 / (steps + 1), total_iters=steps))

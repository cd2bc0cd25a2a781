"""The learning rate as a factor of its first value, by time or by the loss.

Torch's own schedulers do the arithmetic where they can. They act on a stand-in optimizer whose
learning rate is 1, so that they compute the factor itself, and the real optimizers are not wrapped.
A schedule by the loss takes one value at a time, and non-finite values change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from lightning_stab.errors import UnstableStepError
from lightning_stab.functional.stopping import oscillates

TimeName = Literal["exponential", "step", "polynomial", "inverse_sqrt", "cosine", "cosine_restarts"]
LossName = Literal["loss", "plateau", "oscillation"]
LossFunctionName = Literal["linear", "sqrt", "square"]
TIME_SCHEDULES: tuple[TimeName, ...] = get_args(TimeName)
LOSS_SCHEDULES: tuple[LossName, ...] = get_args(LossName)
NEEDS_TOTAL = "polynomial", "cosine"
LOSS_FUNCTIONS: dict[LossFunctionName, Callable[[float], float]] = {
    "linear": lambda ratio: ratio,
    "sqrt": math.sqrt,
    "square": lambda ratio: ratio * ratio,
}

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


class TimeSchedule(FactorSchedule):
    """A factor of the time alone.

    Example:
        >>> schedule = TimeSchedule(lambda optimizer: ExponentialLR(optimizer, 0.5))
        >>> schedule.go_to(2), schedule.advance()
        (0.25, 0.125)
    """

    def go_to(self, time: int) -> float:
        """Advance to a later ``time``; return the factor, bit for bit that of a whole run."""
        progress = self._scheduler
        while progress.last_epoch < time and (
            self._last is None or progress.last_epoch < self._last
        ):
            self.advance()
        return self.factor


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
) -> TimeSchedule:
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
    return TimeSchedule(makers[name], last=total if name in NEEDS_TOTAL else None)


def warmup_schedule(steps: int) -> TimeSchedule:
    """Return a factor that rises in equal parts from 1/(steps+1) to 1 over ``steps``.

    Example:
        >>> schedule = warmup_schedule(3)
        >>> [schedule.factor] + [round(schedule.advance(), 2) for _ in range(4)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return TimeSchedule(lambda o: LinearLR(o, 1 / (steps + 1), total_iters=steps))


def smooth(mean: Tensor, weight: Tensor, value: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    r"""Return the exponential mean and its weight after one more value, without a host transfer.

    :math:`m = s m + (1 - s) v` and :math:`w = s w + (1 - s)`; the unbiased mean is m / w. A
    non-finite value changes neither.

    Example:
        >>> mean, weight = torch.zeros(()), torch.zeros(())
        >>> for value in [4.0, float("nan"), 2.0]:
        ...     mean, weight = smooth(mean, weight, torch.tensor(value), 0.5)
        >>> round(float(mean / weight), 4)
        2.6667

    Kingma & Ba, "Adam" (2015), for the correction of the bias.
    """
    finite = torch.isfinite(value)
    new_mean = smoothing * mean + (1 - smoothing) * value
    new_weight = smoothing * weight + (1 - smoothing)
    return torch.where(finite, new_mean, mean), torch.where(finite, new_weight, weight)


def loss_factor(
    loss: float, first: float, function: Callable[[float], float], floor: float, ceiling: float
) -> float:
    r"""Return :math:`g(loss / first)`, between ``floor`` and ``ceiling``.

    Example:
        >>> loss_factor(0.5, 2.0, LOSS_FUNCTIONS["linear"], 0.01, 1.0)
        0.25
        >>> loss_factor(8.0, 2.0, LOSS_FUNCTIONS["linear"], 0.01, 1.0)
        1.0
    """
    return min(max(function(loss / first), floor), ceiling)


class LossSchedule:
    r"""The factor :math:`g(loss / first loss)`, between a floor and a ceiling.

    Example:
        >>> schedule = LossSchedule(LOSS_FUNCTIONS["sqrt"], floor=0.01, ceiling=1.0)
        >>> [schedule.advance(loss) for loss in [4.0, 1.0, float("nan"), 8.0]]
        [1.0, 0.5, 0.5, 1.0]
    """

    def __init__(self, function: Callable[[float], float], *, floor: float, ceiling: float) -> None:
        self._function, self._floor, self._ceiling = function, floor, ceiling
        self._first: float | None = None
        self.factor = 1.0

    def advance(self, *value: float) -> float:
        """Take in one loss; return the factor.

        Raises:
            UnstableStepError: for a first loss that is not positive.
        """
        (loss,) = value
        if not math.isfinite(loss):
            return self.factor
        if self._first is None:
            if loss <= 0:
                raise UnstableStepError(
                    f"`schedule='loss'` needs a positive first loss to compare with, got {loss:g}; "
                    "use `schedule='plateau'` for a loss that may be negative."
                )
            self._first = loss
        ratio = max(loss, 0.0)
        self.factor = loss_factor(ratio, self._first, self._function, self._floor, self._ceiling)
        return self.factor

    def state_dict(self) -> dict[str, Any]:
        """Return the progress as plain numbers."""
        return {"first": self._first, "factor": self.factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self._first, self.factor = state["first"], state["factor"]


class PlateauSchedule(FactorSchedule):
    """A factor cut to ``gamma`` of itself after ``patience`` values without improvement.

    Example:
        >>> plateau = PlateauSchedule(gamma=0.5, patience=2, min_delta=0, floor=0, mode="min")
        >>> [plateau.advance(loss) for loss in [3.0, 2.0, 2.0, 2.0]]
        [1.0, 1.0, 1.0, 0.5]
    """

    def __init__(
        self, *, gamma: float, patience: int, min_delta: float, floor: float, mode: str
    ) -> None:
        def make(optimizer: SGD) -> ReduceLROnPlateau:
            # An absolute threshold: torch's relative one points the wrong way for negative values.
            # torch cuts when MORE than its patience have passed, hence one less.
            return ReduceLROnPlateau(
                optimizer,
                mode="max" if mode == "max" else "min",
                factor=gamma,
                patience=patience - 1,
                threshold=min_delta,
                threshold_mode="abs",
                min_lr=floor,
                eps=0.0,
            )

        super().__init__(make)

    def advance(self, *value: float) -> float:
        """Take in one value; return the factor."""
        return super().advance(*value) if math.isfinite(value[0]) else self.factor


class OscillationSchedule:
    """A factor cut to ``gamma`` of itself when the last ``window`` values swing around a level.

    After a cut a whole new window is needed.

    Example:
        >>> schedule = OscillationSchedule(
        ...     gamma=0.5, window=6, amplitude=0.05, floor=0.0, mode="min"
        ... )
        >>> [schedule.advance(loss) for loss in [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0]]
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    """

    def __init__(
        self, *, gamma: float, window: int, amplitude: float, floor: float, mode: str
    ) -> None:
        self._gamma, self._window, self._amplitude = gamma, window, amplitude
        self._floor, self._mode = floor, mode
        self._recent: list[float] = []
        self.factor = 1.0

    def advance(self, *value: float) -> float:
        """Take in one value; return the factor."""
        if not math.isfinite(value[0]):
            return self.factor
        self._recent = [*self._recent, value[0]][-self._window :]
        full = len(self._recent) == self._window
        if full and oscillates(self._recent, amplitude=self._amplitude, mode=self._mode):
            self.factor = max(self.factor * self._gamma, self._floor)
            self._recent = []
        return self.factor

    def state_dict(self) -> dict[str, Any]:
        """Return the progress as plain numbers and lists."""
        return {"recent": list(self._recent), "factor": self.factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self._recent, self.factor = list(state["recent"]), state["factor"]


Schedule = FactorSchedule | LossSchedule | OscillationSchedule

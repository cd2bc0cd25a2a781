"""The options of `LearningRateDecay`, and the clock that turns time and loss into factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning_stab.arguments import check_choices, integers, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.decay import (
    LOSS_FUNCTIONS,
    LOSS_SCHEDULES,
    LossFunctionName,
    LossName,
    LossSchedule,
    OscillationSchedule,
    PlateauSchedule,
    Schedule,
    TimeName,
    TimeSchedule,
    time_schedule,
    warmup_schedule,
)
from lightning_stab.functional.stopping import MinOrMax

Interval = Literal["epoch", "step"]
Combine = Literal["refuse", "multiply", "replace"]
_GAMMAS = {"exponential": 0.95, "step": 0.1, "plateau": 0.5, "oscillation": 0.5}


@dataclass(frozen=True, kw_only=True)
class DecayOptions:
    """The arguments of `LearningRateDecay`, which says what they mean."""

    schedule: TimeName | LossName = "exponential"
    interval: Interval = "epoch"
    gamma: float | None = None
    every: int = 10
    power: float = 1.0
    total: int | None = None
    time_scale: int | None = None
    growth: int = 1
    floor: float | None = None
    ceiling: float = 1.0
    warmup_steps: int = 0
    function: LossFunctionName | Callable[[float], float] = "linear"
    monitor: str | None = None
    mode: MinOrMax = "min"
    patience: int = 3
    min_delta: float = 0.0
    smoothing: float = 0.98
    window: int = 10
    amplitude: float = 0.05
    check_every_n_steps: int = 50
    reload_best: bool = False
    combine: Combine = "refuse"

    def __post_init__(self) -> None:
        check_choices(self)
        self._check_numbers()
        if self.reload_best and self.schedule not in ("plateau", "oscillation"):
            raise InvalidArgumentError(
                "`reload_best` needs a schedule that cuts, 'plateau' or 'oscillation', got "
                f"{self.schedule!r}."
            )
        if self.monitor is not None and not self.by_loss:
            raise InvalidArgumentError(
                f"`monitor` needs a schedule that follows a value, one of {LOSS_SCHEDULES}, got "
                f"`schedule={self.schedule!r}`."
            )

    def _check_numbers(self) -> None:
        integers(self, every=1, total=1, time_scale=1, growth=1, warmup_steps=0)
        integers(self, patience=1, window=4, check_every_n_steps=1)
        if self.gamma is not None:
            hint = "A factor of 1 leaves the rate as it is; leave the callback out for that."
            real("gamma", self.gamma, above=0, below=1, hint=hint)
        real("power", self.power, above=0)
        if self.floor is not None:
            real("floor", self.floor, minimum=0, maximum=1)
        real("ceiling", self.ceiling, minimum=self.floor or 0.0)
        real("min_delta", self.min_delta, minimum=0)
        real("smoothing", self.smoothing, minimum=0, below=1)
        real("amplitude", self.amplitude, minimum=0)

    @property
    def by_loss(self) -> bool:
        """Whether the factor follows a value, not the time."""
        return self.schedule in LOSS_SCHEDULES

    @property
    def least(self) -> float:
        """The floor; by default 0 by time, and 0.01 by loss, where 0 would end all learning."""
        return (0.01 if self.by_loss else 0.0) if self.floor is None else self.floor

    def main_schedule(self, total: int) -> Schedule:
        """Return the schedule after the warm-up; ``total`` is its length in epochs or steps."""
        gamma = _GAMMAS.get(self.schedule, 1.0) if self.gamma is None else self.gamma
        floor, mode, window = self.least, self.mode, self.window
        if self.schedule == "loss":
            function = self.function if callable(self.function) else LOSS_FUNCTIONS[self.function]
            return LossSchedule(function, floor=floor, ceiling=self.ceiling)
        if self.schedule == "plateau":
            patience, delta = self.patience, self.min_delta
            return PlateauSchedule(
                gamma=gamma, patience=patience, min_delta=delta, floor=floor, mode=mode
            )
        if self.schedule == "oscillation":
            return OscillationSchedule(
                gamma=gamma, window=window, amplitude=self.amplitude, floor=floor, mode=mode
            )
        return time_schedule(
            self.schedule,
            gamma=gamma,
            every=self.every,
            power=self.power,
            total=total,
            time_scale=self.time_scale or max(1, self.warmup_steps),
            growth=self.growth,
            floor=floor,
        )


class DecayClock:
    """The time of one optimizer: first a linear warm-up in steps, then the main schedule."""

    def __init__(self, options: DecayOptions, total: int) -> None:
        self._options = options
        self._warmup = warmup_schedule(options.warmup_steps)
        self._main = options.main_schedule(total)
        self.steps = self.epochs = 0  # taken, and completed after the warm-up

    @property
    def in_warmup(self) -> bool:
        """Whether the warm-up still lasts; the main schedule stands still until it is over."""
        return self.steps < self._options.warmup_steps

    @property
    def factor(self) -> float:
        """The present factor of the first learning rate."""
        if self.in_warmup:
            return self._warmup.factor
        return max(self._main.factor, self._options.least)

    def step(self) -> None:
        """Count one step that the optimizer really took."""
        if self.in_warmup:
            self._warmup.advance()
        elif self._options.interval == "step" and not self._options.by_loss:
            self._main.advance()
        self.steps += 1

    def epoch(self) -> None:
        """Count one completed epoch, if it did not end within or with the warm-up."""
        if self.in_warmup or 0 < self.steps == self._options.warmup_steps:
            return
        self.epochs += 1
        if self._options.interval == "epoch" and not self._options.by_loss:
            self._main.advance()

    def observe(self, value: float) -> bool:
        """Decay by a value; return whether the factor was cut."""
        before = self._main.factor
        return not self.in_warmup and self._main.advance(value) < before

    def state_dict(self) -> dict[str, Any]:
        """Return the progress as plain numbers and lists."""
        warmup, main = self._warmup.state_dict(), self._main.state_dict()
        return {"steps": self.steps, "warmup": warmup, "main": main}

    def load_state_dict(self, state: Mapping[str, Any], *, same_value: bool = True) -> bool:
        """Continue from what :meth:`state_dict` returned, with the present options.

        Args:
            state: the state.
            same_value: whether the schedule of the state followed the same value.

        Returns:
            Whether the schedule goes on; False if it follows a value of which it has seen nothing.
        """
        main, warmup_steps = state["main"], self._options.warmup_steps
        self.steps = state["steps"]
        self.epochs = state.get("epochs", main.get("last_epoch", 0))  # one of an earlier version
        self._warmup.go_to(min(self.steps, warmup_steps))
        if isinstance(self._main, TimeSchedule):
            after = self.steps - warmup_steps
            by_step = self._options.interval == "step"
            self._main.go_to(0 if self.in_warmup else after if by_step else self.epochs)
            return True
        mark = {"loss": "first", "oscillation": "recent"}.get(
            self._options.schedule, "num_bad_epochs"
        )
        if mark not in main or not same_value:
            return False
        self._main.load_state_dict(main)
        return True

"""The settings of `LearningRateDecay`, and the clock that turns time and loss into factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_stab.arguments import integer, one_of, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.decay import TIME_SCHEDULES, time_schedule, warmup_schedule
from lightning_stab.functional.decay_by_loss import (
    LOSS_FUNCTIONS,
    LOSS_SCHEDULES,
    LossSchedule,
    OscillationSchedule,
    PlateauSchedule,
    Schedule,
)

COMBINATIONS = ("refuse", "multiply", "replace")
_GAMMAS = {"exponential": 0.95, "step": 0.1, "plateau": 0.5, "oscillation": 0.5}


@dataclass(frozen=True)
class DecayRules:
    """The validated settings, named as the callback's arguments."""

    schedule: str
    interval: str
    gamma: float | None
    every: int
    power: float
    total: int | None
    time_scale: int | None
    growth: int
    floor: float | None
    ceiling: float
    warmup_steps: int
    function: str | Callable[[float], float]
    monitor: str | None
    mode: str
    patience: int
    min_delta: float
    smoothing: float
    window: int
    amplitude: float
    check_every_n_steps: int
    reload_best: bool
    combine: str

    def __post_init__(self) -> None:
        one_of("schedule", self.schedule, TIME_SCHEDULES + LOSS_SCHEDULES)
        one_of("interval", self.interval, ("epoch", "step"))
        one_of("mode", self.mode, ("min", "max"))
        one_of("combine", self.combine, COMBINATIONS)
        if not callable(self.function):
            one_of("function", self.function, LOSS_FUNCTIONS)
        self._check_integers()
        self._check_numbers()
        if self.reload_best and self.schedule not in ("plateau", "oscillation"):
            raise InvalidArgumentError(
                "`reload_best` needs a schedule that cuts, 'plateau' or 'oscillation', got "
                f"{self.schedule!r}."
            )
        if self.monitor is not None and not self.by_loss:
            raise InvalidArgumentError(
                f"`monitor` needs a schedule that looks at a value, one of {LOSS_SCHEDULES}, got "
                f"`schedule={self.schedule!r}`."
            )

    def _check_integers(self) -> None:
        minima = {
            "every": 1,
            "growth": 1,
            "warmup_steps": 0,
            "patience": 1,
            "window": 4,
            "check_every_n_steps": 1,
        }
        for name, minimum in minima.items():
            integer(name, getattr(self, name), minimum=minimum)
        for name in ("total", "time_scale"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), minimum=1)

    def _check_numbers(self) -> None:
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
        """Return the schedule proper; ``total`` is its length in epochs or steps."""
        gamma = _GAMMAS.get(self.schedule, 1.0) if self.gamma is None else self.gamma
        least, mode = self.least, self.mode
        if self.schedule == "loss":
            named = self.function if callable(self.function) else LOSS_FUNCTIONS[self.function]
            return LossSchedule(named, floor=least, ceiling=self.ceiling)
        if self.schedule == "plateau":
            return PlateauSchedule(
                gamma=gamma,
                patience=self.patience,
                min_delta=self.min_delta,
                floor=least,
                mode=mode,
            )
        if self.schedule == "oscillation":
            window, amplitude = self.window, self.amplitude
            return OscillationSchedule(
                gamma=gamma, window=window, amplitude=amplitude, floor=least, mode=mode
            )
        return time_schedule(
            self.schedule,
            gamma=gamma,
            every=self.every,
            power=self.power,
            total=total,
            time_scale=self.time_scale or max(1, self.warmup_steps),
            growth=self.growth,
            floor=least,
        )


class DecayClock:
    """The time of one optimizer: first a linear warm-up in steps, then the schedule proper."""

    def __init__(self, rules: DecayRules, total: int) -> None:
        self._rules = rules
        self._warmup = warmup_schedule(rules.warmup_steps)
        self._main = rules.main_schedule(total)
        self.steps = 0

    @property
    def warming(self) -> bool:
        """Whether the warm-up still lasts; the schedule proper stands still until it is over."""
        return self.steps < self._rules.warmup_steps

    @property
    def factor(self) -> float:
        """The present factor of the first learning rate."""
        if self.warming:
            return self._warmup.factor
        return max(self._main.factor, self._rules.least)

    def step(self) -> None:
        """Count one step that the optimizer really took."""
        if self.warming:
            self._warmup.advance()
        elif self._rules.interval == "step" and not self._rules.by_loss:
            self._main.advance()
        self.steps += 1

    def epoch(self) -> None:
        """Count one completed epoch."""
        if self._rules.interval == "epoch" and not self._rules.by_loss and not self.warming:
            self._main.advance()

    def observe(self, value: float) -> bool:
        """Take in a value to decay by; return whether the factor was cut."""
        before = self._main.factor
        return not self.warming and self._main.advance(value) < before

    def state(self) -> dict[str, Any]:
        """Return the progress as plain numbers and lists."""
        warmup, main = self._warmup.state(), self._main.state()
        return {"steps": self.steps, "warmup": warmup, "main": main}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up the progress that :meth:`state` described."""
        self.steps = state["steps"]
        self._warmup.load(state["warmup"])
        self._main.load(state["main"])

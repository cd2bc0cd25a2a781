"""When a loss or a gradient norm is out of line with the run's own recent past.

A value is a spike if it lies far above the window's mean AND the jump matters: deviations alone
reject steps of healthy runs, whose losses have heavy tails.
"""

from __future__ import annotations

import math
from typing import Any

from lightning_stab.functional.statistics import RollingWindow

BEYOND_ANY_SCALE = 1e15  # float32 squares overflow at 1e19


class SpikeDetector:
    """Decide for each value, from accepted values only, whether it is a spike.

    With at least ``minimum`` accepted values in the window, ``x`` is a spike if
    ``x > mean + deviations * std`` and ``x > mean + jump * scale`` and ``x > factor * median``,
    where ``scale`` is the magnitude of the first accepted value. Before that, ``x`` is a spike if
    ``x > early_factor * median`` of at least ``early_minimum`` accepted values; with fewer, if
    ``x > early_factor^2 * median``; with none, beyond 1e15, which no sane scale reaches.

    Args:
        window: how many accepted values are remembered.
        minimum: how many of them the window's rule needs.
        deviations: how many standard deviations above the mean, > 0.
        jump: the least rise over the mean that matters, in units of the first value, >= 0.
        factor: the least ratio to the median that matters, for values that are never negative;
            0 switches this condition off.
        early_factor: the ratio to the median that is a spike before the window is filled.
        early_minimum: how many accepted values the early rule needs.

    Example:
        >>> detector = SpikeDetector()
        >>> for step in range(100):
        ...     detector.accept(2.0 + 0.1 * (step % 5))
        >>> detector.is_spike(2.6), detector.is_spike(9.0)
        (False, True)
    """

    def __init__(
        self,
        *,
        window: int = 128,
        minimum: int = 64,
        deviations: float = 6.0,
        jump: float = 0.0,
        factor: float = 0.0,
        early_factor: float = 100.0,
        early_minimum: int = 5,
    ) -> None:
        self.minimum = minimum
        self.deviations = deviations
        self.jump = jump
        self.factor = factor
        self.early_factor = early_factor
        self.early_minimum = early_minimum
        self.first: float | None = None
        self.window = RollingWindow(window)

    def accept(self, value: float) -> None:
        """Learn from the value of a step that was taken; a non-finite one is only counted."""
        if self.first is None and math.isfinite(value):
            self.first = value
        self.window.add(value)

    def is_spike(self, value: float) -> bool:
        """Say whether a finite value is a spike; a non-finite one is none."""
        return math.isfinite(value) and value > self.limit()

    def limit(self) -> float:
        """Return the largest value that is not a spike."""
        seen = len(self.window)
        if seen == 0 or self.first is None:
            return BEYOND_ANY_SCALE
        median = self.window.quantile(0.5)
        if seen < self.minimum:
            factor = self.early_factor ** (1 if seen >= self.early_minimum else 2)
            # a median near zero says nothing about what is large
            return max(factor * abs(median), abs(self.first))
        mean = self.window.mean()
        least = self.factor * median if self.factor else -math.inf  # losses may be below zero
        return max(
            mean + self.deviations * self.window.deviation(),
            mean + self.jump * abs(self.first),
            least,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as plain values."""
        return {"first": self.first, "window": self.window.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what was saved."""
        self.first = state["first"]
        self.window.load_state_dict(state["window"])

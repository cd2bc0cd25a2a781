"""Statistics of a run's own past that one bad observation cannot poison.

An observation that is not finite, or beyond 1e150, whose square is not, is counted and never
enters. Everything is kept as plain Python numbers, so that a checkpoint holds it and a restart goes
on with it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Any

LARGEST = 1e150  # sums of squares of larger numbers leave double precision


class RollingWindow:
    """The last ``size`` finite observations, with their mean, deviation and quantiles.

    Args:
        size: how many observations are remembered, >= 1.

    Example:
        >>> window = RollingWindow(3)
        >>> for value in (1.0, float("nan"), 2.0, 3.0, 4.0):
        ...     window.add(value)
        >>> window.values(), window.mean(), window.quantile(0.5), window.num_nonfinite
        ([2.0, 3.0, 4.0], 3.0, 3.0, 1)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.num_nonfinite = 0
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, value: float) -> None:
        """Remember a finite value; count any other."""
        if not abs(value) <= LARGEST:
            self.num_nonfinite += 1
            return
        self._recent.append(value)
        insort(self._sorted, value)
        if len(self._recent) > self.size:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    def values(self) -> list[float]:
        """Return the remembered values, oldest first."""
        return list(self._recent)

    def mean(self) -> float:
        """Return the mean, NaN for an empty window."""
        return math.fsum(self._recent) / len(self._recent) if self._recent else math.nan

    def deviation(self) -> float:
        """Return the biased standard deviation, NaN for an empty window."""
        if not self._recent:
            return math.nan
        mean = self.mean()
        return math.sqrt(math.fsum((v - mean) ** 2 for v in self._recent) / len(self._recent))

    def quantile(self, fraction: float) -> float:
        """Return the value below which ``fraction`` of the window lies, NaN for an empty window.

        Linear between neighbours, as ``torch.quantile``.
        """
        if not self._sorted:
            return math.nan
        place = fraction * (len(self._sorted) - 1)
        low = math.floor(place)
        high = min(low + 1, len(self._sorted) - 1)
        return self._sorted[low] + (place - low) * (self._sorted[high] - self._sorted[low])

    def state_dict(self) -> dict[str, Any]:
        """Return the window as plain values."""
        return {"values": self.values(), "num_nonfinite": self.num_nonfinite}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved window; a smaller window keeps the newest values."""
        self._recent = deque(state["values"][-self.size :])
        self._sorted = sorted(self._recent)
        self.num_nonfinite = int(state["num_nonfinite"])


class ExponentialStatistics:
    """Mean and deviation with exponential forgetting, started from a plain average.

    The first ``warmup`` observations give the plain mean and variance; after them
    ``mean = decay * mean + (1 - decay) * x``, and the variance likewise of ``(x - mean)^2``.

    Args:
        decay: how much of the past remains at each observation, in (0, 1).
        warmup: observations before forgetting begins, >= 1.

    Example:
        >>> statistics = ExponentialStatistics(decay=0.5, warmup=2)
        >>> for value in (1.0, 3.0, float("inf"), 4.0):
        ...     statistics.add(value)
        >>> statistics.ready, statistics.mean, statistics.num_nonfinite
        (True, 3.0, 1)

    Source: the warm start and the decay of ZClip (Kumar et al., 2025).
    """

    def __init__(self, decay: float = 0.97, warmup: int = 25) -> None:
        self.decay = decay
        self.warmup = warmup
        self.count = 0
        self.num_nonfinite = 0
        self.mean = 0.0
        self.variance = 0.0

    @property
    def ready(self) -> bool:
        """Whether the warm-up is over."""
        return self.count >= self.warmup

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.variance)

    def add(self, value: float) -> None:
        """Learn from a finite value; count any other."""
        if not abs(value) <= LARGEST:
            self.num_nonfinite += 1
            return
        self.count += 1
        if self.count <= self.warmup:
            rate = 1.0 / self.count
            difference = value - self.mean
            self.mean += rate * difference
            self.variance += rate * (difference * (value - self.mean) - self.variance)
            return
        rate = 1.0 - self.decay
        self.mean += rate * (value - self.mean)
        self.variance += rate * ((value - self.mean) ** 2 - self.variance)

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics as plain values."""
        names = ("count", "num_nonfinite", "mean", "variance")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved statistics."""
        for name, value in state.items():
            setattr(self, name, value)

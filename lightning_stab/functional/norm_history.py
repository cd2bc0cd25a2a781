"""How large a gradient norm may be, given the norms before it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from lightning_stab.functional.statistics import ExponentialStatistics, RollingWindow

Past = TypeVar("Past", bound=ExponentialStatistics | RollingWindow)


class NormHistory(ABC, Generic[Past]):
    """A rule that bounds a norm by its own past.

    Args:
        threshold: in the unit of the rule.
        statistics: the past.
    """

    def __init__(self, threshold: float, statistics: Past) -> None:
        self.threshold = threshold
        self.statistics = statistics

    @abstractmethod
    def limit(self, norm: float) -> float:
        """Return the largest norm that may remain; infinity while too little is known."""

    @abstractmethod
    def learn(self, norm: float, allowed: float) -> None:
        """Learn from a step that was taken, with its norm before and after clipping."""

    def state_dict(self) -> dict[str, Any]:
        """Return the past as plain values."""
        return self.statistics.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved past."""
        self.statistics.load_state_dict(state)


class ZScoreHistory(NormHistory[ExponentialStatistics]):
    """Bound outliers by how many deviations they lie above an exponential mean.

    ``z = (norm - mean) / (deviation + 1e-6)``; if ``z > threshold`` the norm is reduced to
    ``mean + threshold^2 / z * deviation``: the farther out, the more. The past learns the reduced
    norm, so an outlier cannot raise its own bound.

    Args:
        threshold: deviations above the mean from which a norm is reduced, > 0; 2.5 as in the
            source.
        decay: how much of the past remains at each step.
        warmup: steps that only learn.

    Example:
        >>> history = ZScoreHistory()
        >>> for step in range(30):
        ...     history.learn(1.0 + 0.1 * (step % 2), 1.0 + 0.1 * (step % 2))
        >>> history.limit(1.1), round(history.limit(50.0), 2)
        (inf, 1.05)

    Source: ZClip (Kumar, Owen, Chowdhury and Gura, 2025).
    """

    def __init__(self, threshold: float = 2.5, *, decay: float = 0.97, warmup: int = 25) -> None:
        super().__init__(threshold, ExponentialStatistics(decay, warmup))

    def limit(self, norm: float) -> float:
        """Return the largest norm that may remain."""
        statistics = self.statistics
        if not statistics.ready or not math.isfinite(norm):
            return math.inf
        z = (norm - statistics.mean) / (statistics.deviation + 1e-6)
        if z <= self.threshold:
            return math.inf
        limit = statistics.mean + self.threshold**2 / z * statistics.deviation
        return limit or math.inf  # a past of zero gradients must not forbid all others

    def learn(self, norm: float, allowed: float) -> None:
        """Learn the norm that was left after clipping."""
        self.statistics.add(allowed)


class PercentileHistory(NormHistory[RollingWindow]):
    """Bound every norm by a percentile of the norms before it.

    Args:
        threshold: the percentile, in (0, 100); 10 as in the source, so nine steps of ten are
            clipped.
        size: how many norms are remembered, the newest; the source remembers all.
        warmup: steps that only learn.

    Example:
        >>> history = PercentileHistory(50.0, warmup=3)
        >>> for norm in (1.0, 2.0, 3.0):
        ...     history.learn(norm, norm)
        >>> history.limit(10.0)
        2.0

    Source: AutoClip (Seetharaman, Wichern, Pardo and Le Roux, 2020).
    """

    def __init__(self, threshold: float = 10.0, *, size: int = 10_000, warmup: int = 1) -> None:
        super().__init__(threshold, RollingWindow(size))
        self.warmup = warmup

    def limit(self, norm: float) -> float:
        """Return the percentile of the past."""
        if len(self.statistics) < self.warmup:
            return math.inf
        # a past of zero gradients must not forbid all others
        return self.statistics.quantile(self.threshold / 100.0) or math.inf

    def learn(self, norm: float, allowed: float) -> None:
        """Learn the norm before clipping, as the source does."""
        self.statistics.add(norm)

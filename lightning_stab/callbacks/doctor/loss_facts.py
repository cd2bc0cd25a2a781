"""The losses of a run: kept on the device, crossed to the host at looks, summed up as facts."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

REMEMBERED = 2048  # losses; an epoch that is longer is judged by its end
EARLY_LOSSES = 20  # among which a sudden rise is looked for
FIRST = 5  # losses whose median is the start
LEAST_RECENT, MOST_RECENT = 10, 200  # losses whose median is the present
SPIKE_WINDOW = 50  # losses from which a spike stands out
SPIKE_SWINGS = 10  # median deviations by which it does; a tenth of the first loss at least


class LossHistory:
    """What became of the loss.

    Attributes:
        epoch_steps: batches of an epoch.
    """

    def __init__(self) -> None:
        self.epoch_steps = MOST_RECENT
        self._pending: list[Tensor] = []
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._first: list[float] = []
        self._latest: list[float] = []
        self._heights: list[float] = []
        self._spiky: set[int] = set()
        self._best = math.inf
        self._seen, self._early_peak = 0, -math.inf

    def add(self, loss: Tensor) -> None:
        """Note a loss without waiting for its device."""
        self._pending.append(loss.detach())

    def pending(self) -> Tensor:
        """Return the losses that have not crossed yet, shape ``[n]``, and forget them."""
        pending, self._pending = self._pending, []
        if not pending:
            return torch.zeros(0, dtype=torch.float64)
        return torch.stack([loss.double().reshape(()) for loss in pending])

    def crossed(self, losses: Sequence[float], *, epoch: float) -> None:
        """Take in the losses that have crossed, up to this moment of the run."""
        self._latest, self._heights = list(losses), []
        for loss in losses:
            if not math.isfinite(loss):
                continue
            if len(self._first) < FIRST:
                self._first.append(loss)
            if self._seen < EARLY_LOSSES:
                self._seen += 1
                self._early_peak = max(self._early_peak, loss)
            before = list(self._recent)[-SPIKE_WINDOW:]
            if len(before) >= LEAST_RECENT:
                usual = median(before)
                swing = max(median(abs(x - usual) for x in before), 0.1 * abs(self._first[0]))
                if (loss - usual) / swing > SPIKE_SWINGS:
                    self._heights.append((loss - usual) / max(abs(usual), swing))
            self._recent.append(loss)
        if self._heights:
            self._spiky.add(int(epoch))
        if len(self._recent) >= LEAST_RECENT:
            self._best = min(self._best, self.now())

    def facts(self, baseline: float, blind: float) -> dict[str, float]:
        """Return the facts of the loss.

        Args:
            baseline: the loss of the best constant prediction, NaN if unknown.
            blind: the loss of a prediction that knows nothing of the targets, NaN if unknown.
        """
        facts = {"nonfinite_losses": float(sum(not math.isfinite(x) for x in self._latest))}
        facts["spikes"] = float(len(self._heights))
        facts["spike_height"] = max(self._heights, default=math.nan)
        facts["spiky_epochs"] = float(len(self._spiky))
        if not self._first:
            return facts
        start, now = self._start(), self.now()
        facts["early_rise"] = self._early_peak / start if start > 0 else math.nan
        facts["loss_ratio"] = now / start if start > 0 else math.nan
        facts["improvement"] = (start - now) / abs(start) if start else math.nan
        facts["start_loss_ratio"] = self._first[0] / blind if blind > 0 else math.nan
        facts["unexplained"] = now / baseline if baseline > 0 else math.nan
        gain = start - self._best
        last = median(list(self._recent)[-LEAST_RECENT:])
        facts["relapse"] = (last - self._best) / gain if gain > 0.1 * abs(start) else math.nan
        known = facts["unexplained"]
        facts["learnt"] = 1 - known if known == known else facts["improvement"]
        facts |= self._of_the_last_epoch(start, now)
        return facts

    def _start(self) -> float:
        """Return the median of the first losses, unless they had risen from the very first one."""
        middle, first = median(self._first), self._first[0]
        return first if middle > 1.5 * first > 0 else middle

    def now(self) -> float:
        """Return the median of the recent losses."""
        return median(list(self._recent)[-self._window() :])

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {
            "recent": list(self._recent),
            "first": list(self._first),
            "spiky": sorted(self._spiky),
            "best": self._best,
            "early": [self._seen, self._early_peak],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._recent = deque(state["recent"], maxlen=REMEMBERED)
        self._first = list(state["first"])
        self._spiky, self._best = set(state["spiky"]), state["best"]
        self._seen, self._early_peak = state["early"]

    def _window(self) -> int:
        return min(max(self.epoch_steps, LEAST_RECENT), MOST_RECENT)

    def _of_the_last_epoch(self, start: float, now: float) -> dict[str, float]:
        window, losses = self._window(), list(self._recent)
        if len(losses) < 2 * window:
            return {}
        step = min(self.epoch_steps, len(losses) - window)
        before = median(losses[-window - step : -step])
        last = losses[-window:]
        swings = [abs(b - a) for a, b in itertools.pairwise(last)]
        return {
            "recent_improvement": (before - now) / abs(start) if start else math.nan,
            "oscillation": median(swings) / abs(start) if start else math.nan,
        }

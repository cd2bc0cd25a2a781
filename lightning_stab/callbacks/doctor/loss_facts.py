"""What became of the training losses of a run, each trend beside its own noise."""

from __future__ import annotations

import itertools
import math
import sys
from statistics import fmean, median

import torch
from torch import Tensor

from lightning_stab.callbacks._trainer.device_values import DeviceScalars, stacked
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.functional.norms import wide_dtype

REMEMBERED = 2048  # losses; of a longer epoch its end counts
EARLY_LOSSES = 20  # among which a sudden rise counts
FIRST, FIRST_ROWS = 5, 32  # losses whose level is the start: of so many rows at least
LEAST_RECENT, LEAST_ROWS, MOST_RECENT = 10, 64, 200  # losses whose level is the present
FEW_ROWS = 8  # of a batch, below which one loss is left to chance
SPIKE_WINDOW = 50  # losses from which a spike stands out
SPIKE_SWINGS = 10  # median deviations by which it does
LEAST_SWING = 0.1  # of the first loss, below which no deviation counts
HALVES = 4, 100  # losses of which each half of a trend has at least and at most
BLOCKS = 5  # means whose median is the level of losses of few rows each
SMALLEST_FALL = 5e-4  # of the loss of a constant prediction: the least error of a trend
NOTHING = 1e-12  # of a level: the least noise


class LossHistory(FactSource):
    """The losses of training: kept on the device, and moved to the host at times.

    Args:
        batches: what says how large the loss of a constant prediction is.
    """

    SAVED = ("recent", "first", "spiky", "best", "early", "opening", "highest")

    def __init__(self, batches: BatchFacts) -> None:
        super().__init__()
        self.batches = batches
        self.epoch = 0.0  # epochs done, with fractions
        self.epoch_steps = MOST_RECENT
        self.rows = FIRST_ROWS  # of a batch
        self._pending: list[Tensor] = []
        self._recent: list[float] = []
        self._first: list[float] = []
        self._latest: list[float] = []
        self._heights: list[float] = []
        self._spiky: set[int] = set()
        self._best = math.inf
        self._opening: list[float] = []  # the first losses, that tell the noise of the start
        self._highest = -math.inf  # level of a few losses in a row
        self._early = [0, -math.inf]  # how many of the first losses were seen, and their largest

    def add(self, loss: Tensor) -> None:
        """Note a loss without waiting for its device."""
        self._pending.append(loss)

    def pending(self) -> list[DeviceScalars]:
        """Return the losses that have not reached the host yet, also if there are none."""
        losses, self._pending = self._pending, []
        if not losses:
            return [DeviceScalars(torch.zeros(0), self._update)]
        device = losses[0].device
        values = stacked(
            [x.reshape(()) if x.dim() else x for x in losses], device, wide_dtype(device)
        )
        return [DeviceScalars(values, self._update)]

    def _update(self, losses: list[float]) -> None:
        self._latest, self._heights = losses, []
        for loss in losses:
            if math.isfinite(loss):
                self._note_start(loss)
                self._note_spike(loss)
                self._recent.append(loss)
                few = self._recent[-self._count(FIRST, FIRST_ROWS) :]
                if len(few) >= FIRST:
                    self._highest = max(self._highest, self._level(few))
        del self._recent[:-REMEMBERED]
        if self._heights:
            self._spiky.add(int(self.epoch))
        if len(self._recent) >= LEAST_RECENT:
            self._best = min(self._best, self._recent_level())

    def _note_start(self, loss: float) -> None:
        if len(self._first) < self._count(FIRST, FIRST_ROWS):
            self._first.append(loss)
        if len(self._opening) < max(EARLY_LOSSES, len(self._first)):
            self._opening.append(loss)
        if self._early[0] < EARLY_LOSSES:
            self._early = [self._early[0] + 1, max(self._early[1], loss)]

    def _note_spike(self, loss: float) -> None:
        before = self._recent[-SPIKE_WINDOW:]
        if len(before) >= LEAST_RECENT:
            least = LEAST_SWING * abs(self._first[0])
            if least > 0 and (loss - min(before)) / least <= SPIKE_SWINGS:  # as nearly always
                return
            usual = median(before)
            swing = max(median(abs(x - usual) for x in before), least)
            if swing > 0 and (loss - usual) / swing > SPIKE_SWINGS:  # else nothing has a scale
                self._heights.append((loss - usual) / max(abs(usual), swing))

    def facts(self) -> dict[str, float]:
        """Return the facts of the loss."""
        facts = {
            "nonfinite_losses": float(sum(not math.isfinite(x) for x in self._latest)),
            "spikes": float(len(self._heights)),
            "spike_height": max(self._heights, default=math.nan),
            "spiky_epochs": float(len(self._spiky)),
        }
        if not self._first:
            return facts
        start, now = self._start_level(), self._recent_level()
        first = self._first[0] if self.rows >= FEW_ROWS else start
        blind, unexplained = self.batches.blind, self.unexplained
        improvement = (start - now) / abs(start) if start else math.nan
        is_alone = self.rows >= FEW_ROWS  # else a single loss says nothing
        return facts | {
            "early_rise": self._early[1] / start if start > 0 and is_alone else math.nan,
            "highest_rise": self._highest / start if start > 0 else math.nan,
            "loss_ratio": now / start if start > 0 else math.nan,
            "improvement": improvement,
            "gain_noise": self._gain_noise(start, now),
            "start_loss_ratio": first / blind if blind > 0 else math.nan,
            "unexplained": unexplained,
            "learnt": improvement if math.isnan(unexplained) else 1 - unexplained,
            **self._relapse(start),
            **self._trend(start),
            **self._of_the_last_epoch(start, now),
        }

    @property
    def level(self) -> float:
        """The recent loss, NaN before there is one."""
        return self._recent_level() if self._recent else math.nan

    @property
    def unexplained(self) -> float:
        """The recent loss over that of the best constant prediction, NaN if unknown."""
        baseline = self.baseline
        return self._recent_level() / baseline if self._recent and baseline > 0 else math.nan

    @property
    def baseline(self) -> float:
        """The loss of a constant prediction; of an unknown loss the start's, if that is less."""
        known = self.batches.baseline
        if self.batches.knows_baseline or not self._first:
            return known
        return min(known, self._start_level())

    def _start_level(self) -> float:
        """Return the level of the first losses, unless they had risen from the very first one."""
        middle, first = self._level(self._first), self._first[0]
        if self.rows >= FEW_ROWS:
            return first if middle > 1.5 * first > 0 else middle
        few = median(self._first[:FIRST])  # one loss alone would be left to chance
        return few if middle > 3 * few > 0 else middle

    def _recent_level(self) -> float:
        return self._level(self._recent[-self._window() :])

    def _window(self) -> int:
        return min(max(self.epoch_steps, self._count(LEAST_RECENT, LEAST_ROWS)), MOST_RECENT)

    def _count(self, least: int, rows: int) -> int:
        """Return how many losses hold so many rows, at least some."""
        return max(least, -(-rows // max(1, self.rows)))

    def _level(self, losses: list[float]) -> float:
        """Return the median; of losses of few rows, which are skewed, that of means of several."""
        if self.rows >= FEW_ROWS or len(losses) < 2 * BLOCKS:
            return median(losses)
        size = len(losses) // BLOCKS
        return median(fmean(losses[i * size : (i + 1) * size]) for i in range(BLOCKS))

    def _gain_noise(self, start: float, now: float) -> float:
        recent = self._recent[-self._window() :]
        before = noise(self._opening) / math.sqrt(len(self._first))
        after = noise(recent) / math.sqrt(len(recent))
        return _in_errors(start - now, math.hypot(before, after), start)

    def _relapse(self, start: float) -> dict[str, float]:
        """Return how much of the best gain is lost, and whether that is more than noise."""
        gain = start - self._best
        if not gain > 0.1 * abs(start):
            return {}
        latest = self._recent[-self._count(LEAST_RECENT, LEAST_ROWS) :]
        lost = self._level(latest) - self._best
        spread = noise(self._recent[-2 * len(latest) :])
        error = spread * math.sqrt(1 / len(latest) + 1 / self._window())
        return {"relapse": lost / gain, "relapse_noise": _in_errors(lost, error, start)}

    def _trend(self, start: float) -> dict[str, float]:
        """Compare the two halves of the latest losses."""
        least, most = HALVES
        half = min(most, max(len(self._recent) // 4, min(len(self._recent) // 2, 25)))
        if half < least:
            return {}
        before, after = self._recent[-2 * half : -half], self._recent[-half:]
        fall = self._level(before) - self._level(after)
        scale = self.baseline
        scale = scale if scale > 0 else abs(start)
        # losses of whole epochs have hardly any noise: what counts has to amount to something, too
        error = max(noise(self._recent[-2 * half :]) * math.sqrt(2 / half), SMALLEST_FALL * scale)
        return {
            "falling": _in_errors(fall, error, start),
            "recent_fall": fall / scale if scale else math.nan,
        }

    def _of_the_last_epoch(self, start: float, now: float) -> dict[str, float]:
        window, losses = self._window(), self._recent
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


def noise(losses: list[float]) -> float:
    """Return the standard deviation from loss to loss, from which the trend is taken out.

    Of normal noise, the mean difference of neighbours is 2 / sqrt(pi) standard deviations.

    Example:
        >>> round(noise([1.0, 2.0, 1.0, 2.0]), 3)
        0.886
    """
    steps = [abs(b - a) for a, b in itertools.pairwise(losses)]
    return fmean(steps) * math.sqrt(math.pi) / 2 if steps else math.inf


def _in_errors(difference: float, error: float, scale: float) -> float:
    """Return a difference of medians in standard errors, 1.25 times those of means."""
    return difference / (1.25 * error + NOTHING * abs(scale) + sys.float_info.min)

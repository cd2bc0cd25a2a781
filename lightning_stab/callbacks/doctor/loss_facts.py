"""What became of the losses of a run, in training and in validation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts
from lightning_stab.callbacks.doctor.fact_source import FactSource

REMEMBERED = 2048  # losses; of a longer epoch its end counts
EARLY_LOSSES = 20  # among which a sudden rise counts
FIRST = 5  # losses whose median is the start
LEAST_RECENT, MOST_RECENT = 10, 200  # losses whose median is the present
SPIKE_WINDOW = 50  # losses from which a spike stands out
SPIKE_SWINGS = 10  # median deviations by which it does; a tenth of the first loss at least

# parts of the names of metrics: of those that rise as they get better, losses, and other errors
RISING = ("acc", "f1", "auc", "auroc", "precision", "recall", "r2", "bleu", "iou", "dice", "map")
FALLING = ("loss", "nll", "perplexity")
ERRORS = ("error", "mae", "mape", "smape", "mse", "msle", "rmse", "wer", "cer")


class LossHistory(FactSource):
    """The losses of training: kept on the device, and moved to the host at times.

    Args:
        batches: what says how large the loss of a constant prediction is.
    """

    SAVED = ("recent", "first", "spiky", "best", "early")

    def __init__(self, batches: BatchFacts) -> None:
        super().__init__()
        self.batches = batches
        self.epoch = 0.0  # epochs done, with fractions
        self.epoch_steps = MOST_RECENT
        self._pending: list[Tensor] = []
        self._recent: list[float] = []
        self._first: list[float] = []
        self._latest: list[float] = []
        self._heights: list[float] = []
        self._spiky: set[int] = set()
        self._best = math.inf
        self._early = [0, -math.inf]  # how many of the first losses were seen, and their largest

    def add(self, loss: Tensor) -> None:
        """Note a loss without waiting for its device."""
        self._pending.append(loss)

    def pending(self) -> list[DeviceScalars]:
        """Return the losses that have not reached the host yet, also if there are none."""
        losses, self._pending = self._pending, []
        values = [loss.double().reshape(()) for loss in losses]
        return [DeviceScalars(torch.stack(values) if values else torch.zeros(0), self._update)]

    def _update(self, losses: list[float]) -> None:
        self._latest, self._heights = losses, []
        for loss in losses:
            if not math.isfinite(loss):
                continue
            if len(self._first) < FIRST:
                self._first.append(loss)
            if self._early[0] < EARLY_LOSSES:
                self._early = [self._early[0] + 1, max(self._early[1], loss)]
            before = self._recent[-SPIKE_WINDOW:]
            if len(before) >= LEAST_RECENT:
                usual = median(before)
                swing = max(median(abs(x - usual) for x in before), 0.1 * abs(self._first[0]))
                if (loss - usual) / swing > SPIKE_SWINGS:
                    self._heights.append((loss - usual) / max(abs(usual), swing))
            self._recent.append(loss)
        del self._recent[:-REMEMBERED]
        if self._heights:
            self._spiky.add(int(self.epoch))
        if len(self._recent) >= LEAST_RECENT:
            self._best = min(self._best, self._recent_level())

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
        start, now, first = self._start_level(), self._recent_level(), self._first[0]
        gain, last = start - self._best, median(self._recent[-LEAST_RECENT:])
        blind, unexplained = self.batches.blind, self.unexplained
        improvement = (start - now) / abs(start) if start else math.nan
        return facts | {
            "early_rise": self._early[1] / start if start > 0 else math.nan,
            "loss_ratio": now / start if start > 0 else math.nan,
            "improvement": improvement,
            "start_loss_ratio": first / blind if blind > 0 else math.nan,
            "unexplained": unexplained,
            "relapse": (last - self._best) / gain if gain > 0.1 * abs(start) else math.nan,
            "learnt": improvement if math.isnan(unexplained) else 1 - unexplained,
            **self._of_the_last_epoch(start, now),
        }

    @property
    def unexplained(self) -> float:
        """The recent loss over that of the best constant prediction, NaN if unknown."""
        baseline = self.batches.baseline
        return self._recent_level() / baseline if self._recent and baseline > 0 else math.nan

    def _start_level(self) -> float:
        """Return the median of the first losses, unless they had risen from the very first one."""
        middle, first = median(self._first), self._first[0]
        return first if middle > 1.5 * first > 0 else middle

    def _recent_level(self) -> float:
        return median(self._recent[-self._window() :])

    def _window(self) -> int:
        return min(max(self.epoch_steps, LEAST_RECENT), MOST_RECENT)

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


class ValidationHistory(FactSource):
    """Every value of the validation loss and of one metric.

    Args:
        training: the losses with which those of validation are compared.
    """

    SAVED = ("loss", "metric")

    def __init__(self, training: LossHistory) -> None:
        super().__init__()
        self._training = training
        self._loss: list[float] = []
        self._metric: list[float] = []

    def add(self, metrics: Mapping[str, Any]) -> bool:
        """Take in the metrics whose names say validation and which kind; say whether any does."""
        names = [n for n in metrics if _names_validation(n)]
        loss = next((n for n in names if _has_word(n, FALLING)), None)
        error = next((n for n in names if _has_word(n, ERRORS) and n != loss), None)
        others = [n for n in names if not _has_word(n, (*FALLING, *ERRORS))]
        metric = next((n for n in others if _has_word(n, RISING)), None)
        if loss is not None:
            self._loss.append(float(metrics[loss]))
        if metric is not None:
            self._metric.append(float(metrics[metric]))
        elif error is not None:
            self._metric.append(-float(metrics[error]))
        return bool(loss or metric or error)

    @property
    def count(self) -> int:
        """How many validations gave a loss, or how many a metric, if those are more."""
        return max(len(self._loss), len(self._metric))

    def facts(self) -> dict[str, float]:
        """Return the facts of validation."""
        facts = {}
        if self._loss:  # a metric may be undefined, such as the area under a curve of one class
            facts["validation_nonfinite"] = float(not math.isfinite(self._loss[-1]))
        metric = [m for m in self._metric if math.isfinite(m)]
        if len(metric) > 1:
            best = max(metric)
            size = best if best > 0 else abs(metric[0])  # errors come with a minus sign
            facts["validation_fall"] = (best - metric[-1]) / size if size else math.nan
        losses = [x for x in self._loss if math.isfinite(x)]
        if len(losses) > 1:
            best = min(losses)
            gain = losses[0] - best
            facts["validation_rise"] = (losses[-1] - best) / gain if gain > 0 else math.nan
            # a validation loss of another kind than the training loss cannot be compared with it
            baseline = self._training.batches.baseline
            alike = 0.2 < losses[0] / baseline < 5 if baseline > 0 else False
            learnt = facts["validation_learnt"] = 1 - best / baseline if alike else math.nan
            facts["generalization_gap"] = 1 - learnt - self._training.unexplained
            facts["epochs_since_best"] = float(len(losses) - 1 - losses.index(best))
        return facts


def _names_validation(name: str) -> bool:
    before, found, after = name.lower().partition("val")
    # `value_loss` is the loss of a critic, and `diagnosis/validation_rise` a fact of the doctor
    starts_a_word = before.removesuffix("e")[-1:] in ("", "_", "-", ".", " ")
    return bool(found) and starts_a_word and "/" not in before and not after.startswith("ue")


def _has_word(name: str, words: tuple[str, ...]) -> bool:
    parts = name.lower().replace("/", "_").replace("-", "_").split("_")
    return any(part.startswith(word) for part in parts for word in words)

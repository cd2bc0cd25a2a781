"""What validation shows: losses, metrics, and whether its rows are like those of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.callbacks.doctor.loss_facts import LossHistory

# parts of the names of metrics: of those that rise as they get better, losses, and other errors
RISING = ("acc", "f1", "auc", "auroc", "precision", "recall", "r2", "bleu", "iou", "dice", "map")
FALLING = ("loss", "nll", "perplexity")
ERRORS = ("error", "mae", "mape", "smape", "mse", "msle", "rmse", "wer", "cer")
STUCK_VALIDATIONS = 4  # with one and the same metric
FEATURES = 64  # whose means are compared, evenly spread
LEAST_ROWS = 32  # in training and in validation, before their rows are compared
BATCHES = 2  # of a validation, whose rows are looked at,
ENOUGH_ROWS = 2000  # until so many were seen


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
        self._level = math.nan  # of the training loss at the first validation

    def add(self, metrics: Mapping[str, Any]) -> bool:
        """Take in the metrics whose names say validation and which kind; say whether any does."""
        names = [n for n in metrics if names_validation(n)]
        loss = next((n for n in names if _has_word(n, FALLING)), None)
        error = next((n for n in names if _has_word(n, ERRORS) and n != loss), None)
        others = [n for n in names if not _has_word(n, (*FALLING, *ERRORS))]
        metric = next((n for n in others if _has_word(n, RISING)), None)
        if loss is not None:
            self._level = self._level if self._loss else self._training.level
            self._loss.append(float(metrics[loss]))
        if metric is not None:
            self._metric.append(float(metrics[metric]))
        elif error is not None:
            self._metric.append(-float(metrics[error]))
        return bool(loss or metric or error)

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart."""
        known = {"level": self._level} if math.isfinite(self._level) else {}
        return {**super().state_dict(), **known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory; earlier versions did not keep the level."""
        super().load_state_dict(state)
        self._level = state.get("level", math.nan)

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
            baseline = self._training.baseline
            scales = [scale for scale in (baseline, self._level) if scale > 0]
            alike = baseline > 0 and any(0.2 < losses[0] / scale < 5 for scale in scales)
            learnt = facts["validation_learnt"] = 1 - best / baseline if alike else math.nan
            facts["generalization_gap"] = 1 - learnt - self._training.unexplained
            moved = max(metric, default=0.0) - min(metric, default=0.0)
            is_flat = len(metric) >= STUCK_VALIDATIONS and moved == 0 and metric[0] < 1
            halved = best < 0.5 * losses[0]
            facts["validation_stuck"] = float(is_flat and halved)
            facts["epochs_since_best"] = float(len(losses) - 1 - losses.index(best))
        return facts


class RowMoments(FactSource):
    """Means and spreads of the inputs' features, in training and in validation."""

    SAVED = ("moments",)
    KINDS = ("training", "validation")

    def __init__(self) -> None:
        super().__init__()
        self._pending: list[tuple[str, Tensor, int]] = []
        # by kind: rows, and by feature the sums of values and of squares
        self._moments: dict[str, list[Any]] = {}

    def add(self, kind: str, batch: Any) -> None:
        """Note the first tensor of numbers in a batch."""
        if self._moments.get(kind, [0])[0] >= ENOUGH_ROWS:
            return
        leaves = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
        first = next((x for x in leaves if x.layout is torch.strided), None)
        if first is None or not first.is_floating_point() or first.dim() < 2 or not len(first):
            return
        rows = first.detach().float().movedim(1, -1) if first.dim() > 3 else first.detach().float()
        flat = rows.reshape(-1, rows.shape[-1])
        flat = flat[:, :: -(-flat.shape[1] // FEATURES)]
        sums = torch.stack([flat.sum(0), flat.square().sum(0)]) / len(flat)
        self._pending.append((kind, sums, len(first)))

    def pending(self) -> list[DeviceScalars]:
        """Return the moments of each batch."""
        pending, self._pending = self._pending, []
        return [
            DeviceScalars(sums.flatten(), partial(self._update, kind, rows))
            for kind, sums, rows in pending
        ]

    def _update(self, kind: str, rows: int, values: list[float]) -> None:
        if not all(map(math.isfinite, values)):
            return
        seen, before = self._moments.get(kind, [0, []])
        if len(before) == len(values):
            share = rows / (seen + rows)
            values = [b + (v - b) * share for b, v in zip(before, values, strict=True)]
        self._moments[kind] = [seen + rows, values]

    def facts(self) -> dict[str, float]:
        """Return how far the rows of validation lie from those of training."""
        known = [self._moments.get(kind, [0, []]) for kind in self.KINDS]
        count = len(known[0][1])
        if min(rows for rows, _ in known) < LEAST_ROWS or len(known[1][1]) != count:
            return {}
        (mean, spread), (other, other_spread) = (_mean_and_spread(values) for _, values in known)
        floor = 1e-3 * max(spread, default=0.0)
        shifts = [
            ((b - a) / s) ** 2 + math.log(max(t, floor) / s) ** 2
            for a, b, s, t in zip(mean, other, spread, other_spread, strict=True)
            if s > floor
        ]
        return {"validation_shift": math.sqrt(sum(shifts) / len(shifts))} if shifts else {}


def _mean_and_spread(values: list[float]) -> tuple[list[float], list[float]]:
    half = len(values) // 2
    mean, square = values[:half], values[half:]
    return mean, [math.sqrt(max(0.0, q - m * m)) for m, q in zip(mean, square, strict=True)]


def names_validation(name: str) -> bool:
    """Say whether a logged name is one of validation.

    Example:
        >>> names_validation("val_loss"), names_validation("value_loss")
        (True, False)
    """
    before, found, after = name.lower().partition("val")
    # `value_loss` is the loss of a critic, and `diagnosis/validation_rise` a fact of the doctor
    starts_a_word = before.removesuffix("e")[-1:] in ("", "_", "-", ".", " ")
    return bool(found) and starts_a_word and "/" not in before and not after.startswith("ue")


def _has_word(name: str, words: tuple[str, ...]) -> bool:
    return any(part.startswith(word) for part in words_of(name) for word in words)


def words_of(name: str) -> list[str]:
    """Return the words of a logged name.

    Example:
        >>> words_of("val/top-5_acc")
        ['val', 'top', '5', 'acc']
    """
    return name.lower().replace("/", "_").replace("-", "_").split("_")

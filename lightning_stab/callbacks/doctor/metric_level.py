"""How much better the validation metric is than that of a prediction that knows nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.callbacks.doctor.pairs import place_of_targets
from lightning_stab.callbacks.doctor.targets import is_plain
from lightning_stab.callbacks.doctor.validation_facts import names_validation, words_of
from lightning_stab.functional.norms import in_double

LEAST_ROWS = 16  # of a validation, before its targets say what a constant prediction reaches
MOST_ENTRIES = 1_000_000  # of the targets of a validation, beyond which they are not kept
NEARLY_ALL = 0.99  # the share of one class beyond which an accuracy says nothing
LARGEST_ERROR = 5.0  # of a constant prediction's; of what never comes below, the units are others
METRICS = {"acc": "acc", "accuracy": "acc", "r2": "r2", "mae": "mae", "mse": "mse", "rmse": "rmse"}
OTHERWISE = ("macro", "balanced", "top", "per", "class", "log", "std")  # what is averaged otherwise


class MetricLevel(FactSource):
    """Compares a metric with that of the best constant prediction of the validation targets.

    The targets of the first validation are kept until it ends. Of several loaders, whose metrics
    cannot be told apart by their targets, nothing is known.
    """

    SAVED = ("levels", "skill", "first")

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Tensor] = []
        self._entries = 0.0
        self._levels: list[float] = []  # of a constant: accuracy, mean absolute and squared error
        self._skill = math.nan
        self._first: dict[str, float] = {}  # by metric, its least error or its best accuracy

    def add(self, batch: Any, dataloader_idx: int) -> None:
        """Note the targets of a batch of the first validation."""
        if self._levels:
            return
        place = place_of_targets(batch) if dataloader_idx == 0 else None
        if place is not None:
            targets = batch[place].detach()
            self._entries += targets.numel() if is_plain(targets) else 0
            is_small = targets.dim() <= 2 and self._entries <= MOST_ENTRIES
            if is_plain(targets) and is_small and not targets.is_complex():
                self._rows.append(targets.reshape(len(targets), -1).clone())
                return
        self._rows, self._levels = [], [math.nan] * 3

    def pending(self) -> list[DeviceScalars]:
        """Return the levels once a validation is over, still on the device."""
        rows, self._rows = self._rows, []
        if sum(map(len, rows)) < LEAST_ROWS or len({row.shape[1] for row in rows}) > 1:
            return []
        return [DeviceScalars(constant_levels(torch.cat(rows)), self._update)]

    def _update(self, values: list[float]) -> None:
        self._levels = values

    def note(self, metrics: Mapping[str, Any]) -> None:
        """Take in the first metric that can be compared."""
        self._skill = math.nan
        for name in metrics:
            kind = _kind_of(name) if self._levels else ""
            if kind and math.isnan(self._skill):
                self._skill = self._skill_of(name, kind, float(metrics[name]))

    def _skill_of(self, name: str, kind: str, value: float) -> float:
        share, absolute, squared = self._levels
        if kind == "r2":
            return value
        if kind == "acc":
            highest = self._first[name] = max(self._first.get(name, value), value)
            value = value / 100 if highest > 1 else value  # in percent
            return (value - share) / (1 - share) if share < NEARLY_ALL else math.nan
        if value < 0:  # turned round, for a search that maximises
            return math.nan
        scale = absolute if kind == "mae" else math.sqrt(squared)
        ratio = (math.sqrt(value) if kind == "mse" else value) / scale if scale > 0 else math.nan
        lowest = self._first[name] = min(self._first.get(name, ratio), ratio)
        return 1 - ratio * ratio if lowest <= LARGEST_ERROR else math.nan

    def facts(self) -> dict[str, float]:
        """Return the fact."""
        return {"validation_skill": self._skill}


def constant_levels(targets: Tensor) -> Tensor:
    """Return what the best constant predictions of targets reach, NaN where it has no meaning.

    Args:
        targets: shape ``[N, C]``: classes (C = 1), labels of 0 and 1, or numbers.

    Returns:
        accuracy, mean absolute error and mean squared error, ``[3]``.

    Example:
        >>> constant_levels(torch.tensor([[0], [0], [0], [1]])).tolist()
        [0.75, 0.25, 0.1875]
        >>> constant_levels(torch.tensor([[0.0], [2.0], [4.0]])).tolist()[1:]
        [1.3333333333333333, 2.6666666666666665]
    """
    y = in_double(targets)
    nothing = y.new_tensor(math.nan)
    share = nothing
    is_binary = bool(((y == 0) | (y == 1)).all())
    if is_binary:
        means = y.mean(0)
        is_one_hot = y.shape[1] > 1 and bool((y.sum(1) == 1).all())
        share = means.max() if is_one_hot else torch.maximum(means, 1 - means).mean()
    elif y.shape[1] == 1 and not targets.is_floating_point():
        share = in_double(torch.unique(targets, return_counts=True)[1].max()) / len(y)
    absolute = (y - y.median(0).values).abs().mean()
    return torch.stack([share.to(y), absolute, y.var(0, correction=0).mean()])


def _kind_of(name: str) -> str:
    """Return which metric a logged value is, nothing for one of training or of another kind.

    Example:
        >>> [_kind_of(name) for name in ("val_acc", "val_macro_acc", "train_acc", "val/mae")]
        ['acc', '', '', 'mae']
    """
    words = words_of(name)
    kinds = [METRICS[word] for word in words if word in METRICS]
    is_other = any(word.startswith(OTHERWISE) for word in words) or not names_validation(name)
    return "" if is_other or len(kinds) != 1 else kinds[0]

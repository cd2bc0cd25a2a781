"""The validation metrics of a run, as far as their names tell what is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

RISING = ("acc", "f1", "auc", "auroc", "precision", "recall", "r2", "bleu", "iou", "dice", "map")
FALLING = ("loss", "nll", "perplexity")
ERRORS = ("error", "mae", "mape", "smape", "mse", "msle", "rmse", "wer", "cer")


class ValidationHistory:
    """The first, best and latest value of the validation loss and of one metric."""

    def __init__(self) -> None:
        self._loss: list[float] = []
        self._metric: list[float] = []

    def add(self, metrics: Mapping[str, Any]) -> bool:
        """Take in what a validation logged; say whether anything was of use.

        Args:
            metrics: callback metrics; those whose names say validation and a known metric count.
        """
        names = [n for n in metrics if _is_of_validation(n)]
        loss = next((n for n in names if _says(n, FALLING)), None)
        error = next((n for n in names if _says(n, ERRORS) and n != loss), None)
        rising = (n for n in names if _says(n, RISING) and not _says(n, (*FALLING, *ERRORS)))
        metric = next(rising, None)
        if loss is not None:
            self._loss.append(float(metrics[loss]))
        if metric is not None:
            self._metric.append(float(metrics[metric]))
        elif error is not None:
            self._metric.append(-float(metrics[error]))
        return bool(loss or metric or error)

    def facts(self, baseline: float) -> dict[str, float]:
        """Return the facts of validation.

        Args:
            baseline: the training loss of the best constant prediction, NaN if unknown.
        """
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
            alike = 0.2 < losses[0] / baseline < 5 if baseline > 0 else False
            facts["validation_learnt"] = 1 - best / baseline if alike else math.nan
            facts["epochs_since_best"] = float(len(losses) - 1 - losses.index(best))
        return facts

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {"loss": list(self._loss), "metric": list(self._metric)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._loss, self._metric = list(state["loss"]), list(state["metric"])


def _is_of_validation(name: str) -> bool:
    before, found, after = name.lower().partition("val")
    # `value_loss` is the loss of a critic, and `diagnosis/validation_rise` a fact of the doctor
    starts_a_word = before.removesuffix("e")[-1:] in ("", "_", "-", ".", " ")
    return bool(found) and starts_a_word and "/" not in before and not after.startswith("ue")


def _says(name: str, words: tuple[str, ...]) -> bool:
    parts = name.lower().replace("/", "_").replace("-", "_").split("_")
    return any(part.startswith(word) for part in parts for word in words)

"""Which curves a person looks for: the loss first, then metrics, and which way is better."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_stab.reporting.series import Series

OWN_TAGS = re.compile(
    r"^(grad_\w+|clip\w*|guard|diagnosis\w*|lr|update_ratio|activation_\w+|dead_fraction|stopping|"
    r"saturated_fraction|preactivation_grad|depth|weight_initialization|precision|"
    r"stability_report)(/|$)"
)
_OTHER = re.compile(
    r"(^|[/_-])(epoch|lr|learning_rate|momentum|hp_metric|weight_decay|time)\b|^lr-"
)
_VALIDATION = re.compile(r"(^|[/_.-])(val|valid|validation|eval|dev|test)([/_.-]|$)")
_TRAINING = re.compile(r"(^|[/_.-])(train|training)([/_.-]|$)")
_LOSS = re.compile(r"loss|nll|perplexity|elbo|cross_?entropy")
_UP = re.compile(r"acc|f1|auc|auroc|precision|recall|iou|dice|bleu|rouge|r2|map\b|psnr|ssim|reward")
_DOWN = re.compile(r"err|mse|mae|rmse|wer|cer|fid|distance|loss|nll|perplexity")


@dataclass(frozen=True)
class Learning:
    """The curves that say how a run went.

    Attributes:
        training: the tag of the training loss, "" if none is known.
        validation: that of the validation loss.
        losses: every loss that is drawn together, the two first.
        metrics: other curves of the user's own.
    """

    training: str
    validation: str
    losses: tuple[str, ...]
    metrics: tuple[str, ...]


def learning_curves(series: Mapping[str, Series]) -> Learning:
    """Find loss and metrics among the tags by their names.

    Example:
        >>> from lightning_stab.reporting.series import Series
        >>> empty = Series([], [], 0)
        >>> found = learning_curves({"lr-Adam": empty, "train_loss": empty, "val/loss": empty})
        >>> found.training, found.validation
        ('train_loss', 'val/loss')
    """
    own = [tag for tag in series if not OWN_TAGS.search(tag) and not _OTHER.search(tag.lower())]
    losses = [tag for tag in own if _LOSS.search(tag.lower())]
    validation = [tag for tag in losses if _VALIDATION.search(tag.lower())]
    training = sorted((t for t in losses if t not in validation), key=lambda t: _rank(t, series))
    first, second = next(iter(training), ""), next(iter(validation), "")
    drawn = [tag for tag in (first, second, *training, *validation) if tag]
    metrics = [tag for tag in own if tag not in losses]
    return Learning(first, second, tuple(dict.fromkeys(drawn)), tuple(metrics))


def better(tag: str) -> str:
    """Return "up" or "down" for where a metric gets better, "" where its name does not say."""
    name = tag.lower()
    return "down" if _DOWN.search(name) else "up" if _UP.search(name) else ""


def _rank(tag: str, series: Mapping[str, Series]) -> tuple[bool, bool, int]:
    """Put the training loss that was logged most often first, components of it last."""
    name = tag.lower()
    plain = bool(re.fullmatch(r"((train|training)[/_.-])?loss([/_.-](step|epoch))?", name))
    return not plain, not _TRAINING.search(name), -len(series[tag])

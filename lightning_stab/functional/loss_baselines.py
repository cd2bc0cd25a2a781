"""The loss of the best constant prediction: what a network must beat to have learnt anything.

Each function returns two losses: that of the best constant prediction given everything that was
seen of the targets, and that of knowing nothing: the same probability for every class, or zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def class_frequencies(logits: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """Return how often each class occurs, shape ``[C]``.

    Args:
        logits: shape ``[N, C, ...]`` or ``[C]``.
        target: classes ``[N, ...]``, or probabilities of the shape of ``logits``.
        ignore_index: the class that does not count.

    Example:
        >>> class_frequencies(torch.zeros(3, 2), torch.tensor([1, 1, 0])).tolist()
        [1.0, 2.0]
    """
    classes = logits.shape[1 if logits.dim() > 1 else 0]
    target = target.detach()
    if target.is_floating_point():
        rows = target.movedim(1, -1).reshape(-1, classes) if target.dim() > 1 else target[None]
        return rows.float().sum(0)
    flat = target.reshape(-1)
    counted = (flat != ignore_index) & (flat >= 0) & (flat < classes)
    counts = torch.zeros(classes, device=flat.device, dtype=torch.float32)
    return counts.scatter_add_(0, torch.where(counted, flat, 0), counted.float())


def cross_entropy(counts: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the cross-entropies of the best constant and of the uniform prediction.

    ``H(q)`` with ``q = (1 - s) p + s / C`` for the frequencies ``p`` and a label smoothing ``s``,
    plus the bias of an entropy from ``N`` samples, ``(C' - 1) / 2N`` for the ``C'`` classes seen
    (Miller 1955); and ``ln C``.

    Args:
        counts: how often each class was seen, shape ``[C]``.
        label_smoothing: in [0, 1].

    Example:
        >>> [round(x.item(), 2) for x in cross_entropy(torch.tensor([900.0, 100.0]))]
        [0.33, 0.69]
    """
    samples, classes = counts.sum().clamp(min=1), counts.numel()
    smoothed = (1 - label_smoothing) * counts / samples + label_smoothing / classes
    entropy = -torch.special.xlogy(smoothed, smoothed).sum()
    bias = ((counts > 0).sum() - 1).clamp(min=0) / (2 * samples)
    return entropy + bias, torch.full_like(entropy, classes).log()


def binary_cross_entropy(mean: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Return the binary cross-entropies of the best constant and of the uniform prediction.

    Args:
        mean: of each column of the targets, in [0, 1].
        samples: how many rows it is the mean of.

    Example:
        >>> [round(x.item(), 2) for x in binary_cross_entropy(torch.tensor([0.1]), 1000)]
        [0.33, 0.69]
    """
    entropy = -torch.special.xlogy(mean, mean) - torch.special.xlogy(1 - mean, 1 - mean)
    best = entropy.mean() + 1 / (2 * max(samples, 1))
    return best, torch.full_like(best, 2).log()


def regression(
    function: Callable[..., Tensor],
    target: Tensor,
    mean: Tensor,
    samples: int,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """Return a regression's losses of predicting each column's mean, and of predicting zero.

    Args:
        function: such as ``torch.nn.functional.mse_loss``.
        target: shape ``[N, ...]``.
        mean: of each column, over this batch or more.
        samples: how many rows it is the mean of; fewer rows flatter the mean.
        options: further arguments of the function.

    Example:
        >>> target = torch.tensor([1.0, 3.0] * 50)
        >>> loss = torch.nn.functional.mse_loss
        >>> [round(x.item(), 1) for x in regression(loss, target, target.mean(0), 100, {})]
        [1.0, 5.0]
    """
    best = function(mean.expand_as(target), target, **options) * samples / max(samples - 1, 1)
    return best, function(torch.zeros_like(target), target, **options)

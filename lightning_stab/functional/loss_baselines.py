"""The loss of the best constant prediction: what a network must beat to have learnt anything.

Each function returns two losses: that of the best constant prediction given everything that was
seen of the targets, and that of knowing nothing: the same probability for every class, or zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Loss = Callable[..., Tensor]  # of a prediction and targets
Options = Mapping[str, Any]


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
    function: Loss, target: Tensor, mean: Tensor, samples: int, options: Options
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
    blind = function(torch.zeros_like(target), target, **options)
    return torch.minimum(best, blind), blind  # of an absolute error the mean may not be the best


def probabilities(
    function: Loss, target: Tensor, mean: Tensor, options: Options, *, exclusive: bool
) -> tuple[Tensor, Tensor]:
    """Return a regression's losses of the best constant chances, and of even ones.

    The best are the mean targets where errors are squared, and where they are absolute those that
    name the commonest class.

    Args:
        function: such as ``torch.nn.functional.l1_loss``.
        target: 0 or 1, shape ``[N, C]``.
        mean: of each column.
        options: further arguments of the function.
        exclusive: whether the chances of a row add up to 1.

    Example:
        >>> target, loss = torch.eye(2)[[0, 0, 0, 1]], torch.nn.functional.l1_loss
        >>> pair = probabilities(loss, target, target.mean(0), {}, exclusive=True)
        >>> [round(x.item(), 2) for x in pair]
        [0.25, 0.5]
    """
    classes = torch.arange(mean.shape[-1] if mean.dim() else 1, device=mean.device)
    named = (classes == mean.argmax(-1)).to(mean) if exclusive else mean.round()
    even = torch.full_like(mean, 1 / len(classes) if exclusive else 0.5)
    constants = (each.expand_as(target) for each in (mean, named, even))
    first, second, blind = (function(each, target, **options) for each in constants)
    return torch.minimum(first, second), blind


def weighted_cross_entropy(
    function: Loss, logits: Tensor, target: Tensor, counts: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """Return a cross-entropy's losses of the best constant and of the uniform prediction.

    With weights ``w`` the best constant is ``w p / sum(w p)`` for the frequencies ``p``; the
    function itself says what it loses, on these targets, so that any reduction is right.

    Args:
        function: ``cross_entropy`` or ``nll_loss`` of ``torch.nn.functional``.
        logits: shape ``[N, C, ...]`` or ``[C]``, for its shape.
        target: as the function takes it.
        counts: how often each class was seen, shape ``[C]``.
        options: further arguments of the function.

    Example:
        >>> target = torch.tensor([0, 1] * 50)
        >>> weights = {"weight": torch.tensor([1.0, 3.0])}
        >>> loss = torch.nn.functional.cross_entropy
        >>> pair = weighted_cross_entropy(loss, torch.zeros(100, 2), target, torch.ones(2), weights)
        >>> [round(x.item(), 2) for x in pair]
        [0.56, 0.69]
    """
    weight = options.get("weight")
    weighted = counts if weight is None else counts * weight.to(counts)
    best = (weighted / weighted.sum().clamp(min=1e-30)).clamp(min=1e-12).log()
    uniform = torch.full_like(best, 1 / len(best)).log()
    shape = [-1 if d == (1 if logits.dim() > 1 else 0) else 1 for d in range(logits.dim())]
    constants = (each.view(shape).expand_as(logits) for each in (best, uniform))
    first, second = (function(each, target, **options) for each in constants)
    return first, second


def weighted_binary(
    function: Loss, target: Tensor, mean: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """Return a binary cross-entropy's losses of the best constant and of the even prediction.

    Args:
        function: one of ``torch.nn.functional`` that takes logits or probabilities.
        target: in [0, 1], shape ``[N, ...]``.
        mean: of each column of the targets.
        options: further arguments of the function.

    Example:
        >>> loss = torch.nn.functional.binary_cross_entropy_with_logits
        >>> target, weight = torch.tensor([0.0, 1.0]), {"pos_weight": torch.tensor(3.0)}
        >>> [round(x.item(), 2) for x in weighted_binary(loss, target, torch.tensor(0.5), weight)]
        [1.12, 1.39]
    """
    positive = options.get("pos_weight")
    odds = mean * (1.0 if positive is None else positive)
    chance = (odds / (odds + 1 - mean)).clamp(1e-6, 1 - 1e-6)
    takes_chances = function is torch.nn.functional.binary_cross_entropy
    constants = (
        chance if takes_chances else chance.logit(),
        torch.full_like(chance, 0.5 * takes_chances),
    )
    first, second = (function(c.expand_as(target), target, **options) for c in constants)
    return first, second


def divergence(
    function: Callable[..., Tensor], target: Tensor, mean: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return a Kullback-Leibler divergence's losses of the mean target and of equal chances.

    Args:
        function: ``torch.nn.functional.kl_div``.
        target: probabilities, or their logarithms with ``log_target``, shape ``[N, C]``.
        mean: the mean probabilities, shape ``[C]``.
        options: further arguments of the function.

    Example:
        >>> target, loss = torch.eye(2), torch.nn.functional.kl_div
        >>> pair = divergence(loss, target, target.mean(0), {"reduction": "batchmean"})
        >>> [round(x.item(), 2) for x in pair]
        [0.69, 0.69]
    """
    best = mean.clamp(min=1e-12).log()
    uniform = torch.full_like(best, 1 / best.shape[0]).log()
    first, second = (function(c.expand_as(target), target, **options) for c in (best, uniform))
    return first, second


def margin(
    function: Callable[..., Tensor],
    scores: Tensor,
    target: Tensor,
    counts: Tensor,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """Return a multi-class margin loss of the better of two constants, and of equal scores.

    The constants are equal scores and those that name the commonest class.

    Args:
        function: ``torch.nn.functional.multi_margin_loss``.
        scores: shape ``[N, C]``.
        target: classes ``[N]``.
        counts: how often each class was seen, shape ``[C]``.
        options: further arguments of the function.

    Example:
        >>> target, loss = torch.tensor([0, 0, 0, 1]), torch.nn.functional.multi_margin_loss
        >>> pair = margin(loss, torch.zeros(4, 2), target, torch.tensor([3.0, 1.0]), {})
        >>> [round(x.item(), 2) for x in pair]
        [0.25, 0.5]
    """
    equal = function(torch.zeros_like(scores), target, **options)
    commonest = torch.arange(len(counts), device=counts.device) == counts.argmax()
    named = function(commonest.to(scores).expand_as(scores), target, **options)
    return torch.minimum(equal, named), equal

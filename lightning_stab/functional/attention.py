"""How far the logits of attention spread: far apart, the softmax attends to one key only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import linear

SAMPLES = 4  # of a batch, that are enough for a mean


def logit_spread(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """Return the standard deviation over the keys of ``q k^T / sqrt(d)``, its mean over queries.

    Args:
        query: shape ``[..., T, d]``; of the batch, the first of three or more dimensions, four
            samples are used.
        key: shape ``[..., S, d]``; it may have fewer heads, each for several of the query's.
        scale: instead of ``1 / sqrt(d)``.

    Returns:
        A scalar, at least 0.

    Example:
        >>> import torch
        >>> logit_spread(torch.tensor([[[2.0]]]), torch.tensor([[[1.0], [3.0]]])).item()
        2.0
    """
    query, key = query.detach(), key.detach()
    if query.dim() > 2:
        query, key = query[:SAMPLES], key[:SAMPLES]
    query, key = query.float(), key.float()
    if key.dim() > 3 and query.shape[-3] > key.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    logits = query @ key.transpose(-1, -2) * scale
    return logits.std(-1, correction=0).mean()


def logit_spread_of_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the spread for a call of ``scaled_dot_product_attention``.

    Args:
        args: its positional arguments.
        kwargs: its keyword arguments, which may hold query and key too.

    Returns:
        A scalar, or None for nested tensors, whose batch has no one length.
    """
    query, key = (*args, *(kwargs[name] for name in ("query", "key")[len(args) :]))[:2]
    return None if query.is_nested else logit_spread(query, key, kwargs.get("scale"))


def packed_logit_spread(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the spread for a call of ``multi_head_attention_forward`` with packed projections.

    Args:
        args: its positional arguments: query and key of shape ``[T, N, E]``, value, width, heads,
            packed weight ``[3E, E]`` and bias.
        kwargs: its keyword arguments.

    Returns:
        A scalar, or None where the projections are not packed.
    """
    query, key, _, width, heads, weight, bias = args[:7]
    if weight is None or kwargs.get("use_separate_proj_weight") or query.dim() != 3:
        return None
    parts = [None] * 3 if bias is None else list(bias.chunk(3))
    projected = [
        linear(value[:, :SAMPLES], part, part_bias)
        .reshape(*value.shape[:1], -1, heads, width // heads)
        .permute(1, 2, 0, 3)
        for value, part, part_bias in zip((query, key), weight.chunk(3), parts, strict=False)
    ]
    return logit_spread(projected[0], projected[1])

"""The leaves of an autograd graph: the tensors whose gradients a backward pass would fill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def leaves_of(loss: Tensor) -> Iterator[Tensor]:
    """Yield every leaf that a tensor was computed from and that requires a gradient.

    Args:
        loss: a tensor with a graph; one without has no leaves.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> [leaf is weight for leaf in leaves_of((weight * torch.ones(2)).sum())]
        [True]
    """
    nodes: list[Any] = [loss.grad_fn]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            yield variable
        nodes.extend(parent for parent, _ in node.next_functions)

"""Parts of a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map


def first_samples(batch: Any, number: int) -> Any:
    """Return the first ``number`` samples of every tensor that has one entry for each sample.

    Example:
        >>> import torch
        >>> x, y = first_samples((torch.zeros(8, 3), torch.zeros(8)), 2)
        >>> x.shape, y.shape
        (torch.Size([2, 3]), torch.Size([2]))
    """
    tensors = [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor) and leaf.dim()]
    size = len(tensors[0]) if tensors else 0

    def cut(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size:
            return leaf[:number]
        return leaf[:number] if isinstance(leaf, (list, str)) and len(leaf) == size else leaf

    return tree_map(cut, batch)

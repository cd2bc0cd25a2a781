"""How much the rounding of single operations may change a loss, found by rounding at random.

Where a loss is the difference of nearly equal numbers, as the cross-entropy of a net that has
learnt its batch, it goes in steps far above its own last digit. Near points then give the very
same value, and seem to be without noise.

Reference: Parker, Monte Carlo arithmetic (1997).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from lightning_stab.functional.gradcheck.branches import DispatchMode
from lightning_stab.functional.norms import storage_of

_LOGARITHMS = {"_log_softmax", "logsumexp", "log_softmax"}
"""Operators that take the logarithm of a sum near 1: their error is absolute."""
_SATURATING = {"_softmax", "softmax", "sigmoid", "tanh", "erf", "exp"}
"""Operators that round what is nearly 1 to 1; other whole numbers are taken for exact."""
_SUMS = {"add", "sub", "rsub"}
_NO_ROUNDING = ("empty", "set_", "detach", "alias", "copy", "clone", "fill", "zero", "one", "full")


class RandomRounding(DispatchMode):
    """Changes the result of every operator in its last digit, at random; whole numbers stay."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.lstrip("_").startswith(_NO_ROUNDING):
            return result
        given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        memory = set(map(storage_of, given))
        for tensor in tree_flatten(result)[0]:
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                continue
            if name.endswith("_") or storage_of(tensor) not in memory:  # a view is no new number
                self._change(tensor, name, given)
        return result

    def _change(self, tensor: Tensor, name: str, given: list[Tensor]) -> None:
        unit = torch.finfo(tensor.dtype).eps / 2
        noise = torch.randn(tensor.shape, generator=self._generator, dtype=torch.float64)
        noise = noise.mul_(unit).to(tensor)
        if name not in _LOGARITHMS:
            noise *= tensor
            if name not in _SATURATING:
                whole = _is_whole(tensor)
                for each in given if name in _SUMS else ():
                    whole = whole & _is_whole(each)
                noise = torch.where(whole, 0.0, noise)
        tensor.add_(noise)


def _is_whole(tensor: Tensor) -> Tensor:
    return tensor == tensor.round()

"""Low precision inside a backward pass, where nothing can lift it to double."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lightning_stab.functional.gradcheck.promotion import LOW_PRECISION


class _LowPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first operation whose result has less than double precision."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor) and tensor.dtype in LOW_PRECISION and not self.found:
                kind = str(tensor.dtype).removeprefix("torch.")
                self.found = f"{func._schema.name.split('::')[1].lstrip('_')} to {kind}"
        return result


@contextmanager
def noted_low_precision(functions: Sequence[Any]) -> Iterator[dict[str, str]]:
    """Yield a mapping that receives the names of Functions whose backward leaves double.

    Args:
        functions: classes derived from ``autograd.Function``; their ``backward`` is watched while
            the body runs.
    """
    noted: dict[str, str] = {}
    originals = [(cls, name, vars(cls)[name]) for cls in functions
                 for name in ("backward", "vjp") if name in vars(cls)]  # fmt: skip
    for cls, name, original in originals:
        setattr(cls, name, staticmethod(_watched(cls, original, noted)))
    try:
        yield noted
    finally:
        for cls, name, original in originals:
            setattr(cls, name, original)


def _watched(cls: type, original: Any, noted: dict[str, str]) -> Callable[..., Any]:
    backward = original.__func__ if isinstance(original, staticmethod) else original

    def watched(*args: Any, **kwargs: Any) -> Any:
        mode = _LowPrecision()
        with mode, torch.set_grad_enabled(torch.is_grad_enabled()):
            result = backward(*args, **kwargs)
        if mode.found:
            noted[cls.__name__] = mode.found
        return result

    return watched

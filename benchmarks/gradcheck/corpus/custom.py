"""Custom ``autograd.Function`` classes made from two plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Saved = tuple[Tensor, tuple[Tensor, ...]]
Forward = Callable[..., Saved]
Gradients = tuple[Tensor | None, ...]
Backward = Callable[..., Gradients]


def custom(name: str, forward: Forward, backward: Backward) -> type[torch.autograd.Function]:
    """Return a Function class.

    Args:
        name: of the class.
        forward: takes the arguments; returns the result and the tensors to save.
        backward: takes the saved tensors and the gradient of the result; returns the gradient of
            each argument.
    """

    def run(ctx: Any, *arguments: Tensor) -> Tensor:
        result, saved = forward(*arguments)
        ctx.save_for_backward(*saved)
        return result

    def run_back(ctx: Any, gradient: Tensor) -> Any:
        found = backward(ctx.saved_tensors, gradient)
        return found if len(found) != 1 else found[0]

    members = {"forward": staticmethod(run), "backward": staticmethod(run_back)}
    return type(name, (torch.autograd.Function,), members)


def mutated(
    base: type[torch.autograd.Function],
    name: str,
    position: int,
    change: Callable[[Tensor], Tensor | None],
) -> type[torch.autograd.Function]:
    """Return a subclass of ``base`` whose gradient number ``position`` went through ``change``."""

    def run_back(ctx: Any, gradient: Tensor) -> Any:
        found = base.backward(ctx, gradient)
        found = list(found) if isinstance(found, tuple) else [found]
        found[position] = change(found[position])
        return tuple(found) if len(found) != 1 else found[0]

    return type(name, (base,), {"backward": staticmethod(run_back)})

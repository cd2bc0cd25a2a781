"""Hooks on modules and gradients, put on for a batch and taken off again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

P = ParamSpec("P")
R = TypeVar("R")


class ModuleHooks:
    """Hooks on modules and on gradients, which are removed together.

    Modules that carry them can be copied and pickled; in the copies they do nothing. A compiler
    that meets one leaves it out.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def __bool__(self) -> bool:
        return bool(self._handles)

    def before(self, module: nn.Module, call: Callable[[nn.Module, Any, Any], Any]) -> None:
        """Call ``call(module, args, kwargs)`` before a forward pass; it may return other ones."""
        handle = module.register_forward_pre_hook(_Hook(call), with_kwargs=True)
        self._handles.append(handle)

    def after(
        self,
        module: nn.Module,
        call: Callable[[nn.Module, Any, Any], None],
        *,
        always: bool = False,
    ) -> None:
        """Call ``call(module, args, output)`` after a forward pass.

        With ``always`` also after one that raises, which has None as its output.
        """
        self._handles.append(module.register_forward_hook(_Hook(call), always_call=always))

    def on_gradient(self, tensor: Tensor, call: Callable[[Tensor], None]) -> None:
        """Call ``call(gradient)`` when the gradient of a tensor is known."""
        attributes: Any = tensor  # the method has no types
        self._handles.append(attributes.register_hook(call))

    def remove(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _Hook:
    def __init__(self, call: Callable[..., Any] | None = None) -> None:
        self.call = call

    def __call__(self, *arguments: Any) -> Any:
        if self.call is None or torch.compiler.is_compiling():
            return None
        return self.call(*arguments)

    def __reduce__(self) -> Any:
        return _Hook, ()


def without_modes(call: Callable[P, R]) -> Callable[P, R]:
    """Have a hook that only reads show no function mode, and no tensor's class, what it asks.

    Each question to a tensor, such as for its shape, would go through every mode that is on.
    """

    @wraps(call)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch._C.DisableTorchFunction():
            return call(*args, **kwargs)

    return alone


def is_transformed() -> bool:
    """Say whether ``torch.func`` runs this code, with tensors that must not leave it."""
    return torch._C._functorch.peek_interpreter_stack() is not None

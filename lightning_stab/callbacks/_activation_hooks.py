"""How a probe is told what runs: hooks on modules, and a mode that sees functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch._C import _len_torch_function_stack
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

from lightning_stab.callbacks._activation_names import FUNCTIONS, WEIGHT_FUNCTIONS


class Watcher(Protocol):
    """Whom the hooks tell."""

    def enter(self, module: nn.Module, name: str, args: Any, kwargs: Any) -> None:
        """Note that a module begins to run."""

    def leave(self, module: nn.Module, output: Any) -> None:
        """Note that a module has run; ``output`` is None where it raised."""

    def function_called(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run an activation or weight function, and look at it."""


class _Hook:
    """A hook as an object that stays behind, without effect, in copies of a watched module."""

    def __init__(self, watcher: Watcher, name: str) -> None:
        self.watcher = watcher
        self.name = name

    def __reduce__(self) -> Any:
        return _NoHook, ()


class _NoHook:
    def __call__(self, *_: Any) -> None:
        """Do nothing."""


class EnterHook(_Hook):
    """Tells the watcher that a module begins to run."""

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling():
            self.watcher.enter(module, self.name, args, kwargs)


class LeaveHook(_Hook):
    """Tells the watcher that a module has run."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self.watcher.leave(module, output)


class FunctionMode(TorchFunctionMode):
    """Shows the watcher every activation and weight function that this thread calls."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in FUNCTIONS or func in WEIGHT_FUNCTIONS:
            return self.watcher.function_called(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def join(self) -> None:
        """Put this mode on top of the stack."""
        _push_mode(self)  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """Take this mode off the stack, from under any that was entered after it."""
        above = []
        while _len_torch_function_stack():
            top = _pop_mode()  # type: ignore[no-untyped-call]
            if top is self:
                break
            above.append(top)
        for mode in reversed(above):
            _push_mode(mode)  # type: ignore[no-untyped-call]

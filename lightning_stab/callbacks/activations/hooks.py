"""How a probe is told what runs: hooks on modules, and a mode that sees functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._C import _len_torch_function_stack
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

from lightning_stab.callbacks.activations.calls import ActivationWatch, Role
from lightning_stab.callbacks.activations.recognition import WEIGHT_FUNCTIONS
from lightning_stab.callbacks.activations.record import Site
from lightning_stab.functional.activation_kinds import FUNCTIONS


class _Hook:
    """A hook as an object that stays behind, without effect, in copies of a watched module."""

    def __init__(self, watch: ActivationWatch, role: Role) -> None:
        self.watch = watch
        self.role = role

    def __reduce__(self) -> Any:
        return _NoHook, ()


class _NoHook:
    def __call__(self, *_: Any) -> None:
        """Do nothing."""


class EnterHook(_Hook):
    """Tells the watch that a module begins to run."""

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Pass the call on."""
        if not torch.compiler.is_compiling():
            self.watch.enter(self.role, args, kwargs)


class LeaveHook(_Hook):
    """Tells the watch that a module has run."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Pass the call on."""
        if not torch.compiler.is_compiling():
            self.watch.leave(self.role, output)


class FollowHook(_Hook):
    """Shows the watch the input of an activation whose dead units alone are followed."""

    def __init__(self, watch: ActivationWatch, role: Role, site: Site) -> None:
        super().__init__(watch, role)
        self.site = site

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Pass the call on."""
        if not torch.compiler.is_compiling():
            self.watch.follow(self.role, self.site, args, kwargs)


class FunctionMode(TorchFunctionMode):
    """Shows the watch every activation and weight function that this thread calls."""

    def __init__(self, watch: ActivationWatch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in FUNCTIONS or func in WEIGHT_FUNCTIONS:
            return self.watch.function_called(func, args, kwargs or {})
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

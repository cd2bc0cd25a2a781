"""A mode over torch's functions, put on for a batch and taken off again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_overrides: Any = torch.overrides  # its functions on the stack of modes are private and untyped
_thread = threading.local()


class FunctionMode(TorchFunctionMode):
    """Sends every torch function that is called through ``call``; there are no hooks on functions.

    One hook enters it and another one leaves it, while other modes may come and go. What the
    function calls itself is not shown. The stack of modes belongs to a thread: leave it on the
    thread that entered it; what other threads call is not seen.

    Args:
        call: ``call(function, args, kwargs)`` runs the function and returns its result.
    """

    def __init__(self, call: Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]) -> None:
        super().__init__()
        self.call = call

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run one function."""
        if self in _hidden():
            return func(*args, **(kwargs or {}))
        return self.call(func, args, kwargs or {})

    def enter(self) -> None:
        """Put this mode on top of the stack."""
        _overrides._push_mode(self)

    def leave(self) -> None:
        """Take this mode off the stack, from under any that was entered after it."""
        above = []
        while _overrides._len_torch_function_stack():
            top = _overrides._pop_mode()
            if top is self:
                break
            above.append(top)
        for mode in reversed(above):
            _overrides._push_mode(mode)


@contextmanager
def unwatched() -> Iterator[None]:
    """Show no `FunctionMode` that is on now what this thread runs in the body.

    A mode that is put on in the body, such as one that a step brings with it, sees what it runs.
    """
    before = _hidden()
    _thread.hidden = before.union(_overrides._get_current_function_mode_stack())
    try:
        yield
    finally:
        _thread.hidden = before


def _hidden() -> frozenset[TorchFunctionMode]:
    return getattr(_thread, "hidden", frozenset())

"""Modes that see every torch function, for ``torch.nn.functional`` has no hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.overrides import (  # type: ignore[attr-defined]
    TorchFunctionMode,
    _len_torch_function_stack,
    _pop_mode,
    _push_mode,
)

Listener = Callable[[Any, Sequence[Any], dict[str, Any], Any], None]


class RemovableMode(TorchFunctionMode):
    """A mode that one hook enters and another leaves, while others may do the same."""

    def enter(self) -> None:
        """Put this mode on the stack."""
        self.__enter__()  # type: ignore[no-untyped-call]

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


class FunctionWatch(RemovableMode):
    """Calls ``listener(function, args, kwargs, result)`` after every torch function.

    What a function calls itself is not shown. The listener runs with the watch switched off.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run the function, and tell the listener."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.listener(func, args, kwargs, result)
        return result

"""Shows the torch functions that a training step calls to whoever listens, for one batch.

``torch.nn.functional`` has no hooks, but torch lets a mode see every call. A mode that one hook
enters and another leaves must not be mixed up with another one's, so there is one for all
listeners: it is entered when the first one comes and left when the last one goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

Listener = Callable[[Any, Sequence[Any], dict[str, Any], Any], None]

_listeners: list[Listener] = []


class _Watch(TorchFunctionMode):
    """Calls every listener with the function, its arguments and its result."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for listener in tuple(_listeners):
            listener(func, args, kwargs, result)
        return result


_watch = _Watch()


def listen(listener: Listener) -> None:
    """Call ``listener(function, args, kwargs, result)`` after every torch function from now on.

    What a function calls itself is not shown. The listener runs with the watch switched off.
    """
    if listener in _listeners:
        return
    if not _listeners:
        _watch.__enter__()  # type: ignore[no-untyped-call]
    _listeners.append(listener)


def unlisten(listener: Listener) -> None:
    """Stop calling it; does nothing if it was not listening."""
    if listener in _listeners:
        _listeners.remove(listener)
        if not _listeners:
            _watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]

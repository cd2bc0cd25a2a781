"""What happens inside the ``forward`` of custom ``autograd.Function`` classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.autograd import Function

_CHECKPOINTS = {"CheckpointFunction"}
Visitor = Callable[[type[Function], tuple[Any, ...]], None]


class Depth:
    """Counts how many custom forward passes are running, one inside another.

    Args:
        visit: called with the class and the arguments of each outermost forward pass.
    """

    def __init__(self, visit: Visitor | None = None) -> None:
        self.inside_function = 0
        self.inside_checkpoint = 0
        self.visit = visit
        self.called = False


@contextmanager
def watched_functions(depth: Depth) -> Iterator[Depth]:
    """Count the running custom forward passes in ``depth`` while the body runs.

    The ``forward`` of each class is wrapped, rather than ``apply``, because users bind
    ``MyFunction.apply`` to a name when they import it.
    """
    classes = _subclasses(Function)
    own = {cls: vars(cls)["forward"] for cls in classes if "forward" in vars(cls)}
    wrapped = {cls: _wrapped(cls, cls.forward, depth) for cls in classes}  # before any is replaced
    for cls, forward in wrapped.items():
        cls.forward = staticmethod(forward)
    try:
        yield depth
    finally:
        for cls in classes:
            if cls in own:
                cls.forward = own[cls]
            else:
                del cls.forward


def _wrapped(cls: Any, forward: Any, depth: Depth) -> Callable[..., Any]:
    counter = "inside_checkpoint" if cls.__name__ in _CHECKPOINTS else "inside_function"
    separate = cls.setup_context is not Function.setup_context

    def counted(*args: Any, **kwargs: Any) -> Any:
        if depth.visit is not None and not depth.inside_function:
            depth.visit(cls, args if separate else args[1:])
        vars(depth)[counter] += 1
        depth.called |= not cls.__module__.startswith("torch.")
        try:
            return forward(*args, **kwargs)
        finally:
            vars(depth)[counter] -= 1

    return counted


def _subclasses(base: type) -> list[Any]:
    found: dict[type, None] = {}
    waiting: list[Any] = list(base.__subclasses__())
    while waiting:
        cls = waiting.pop()
        if cls not in found:
            found[cls] = None
            waiting.extend(cls.__subclasses__())
    return list(found)

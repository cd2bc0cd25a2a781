"""What happens inside the ``forward`` and ``backward`` of custom ``autograd.Function`` classes.

Both are seen by replacing methods of the classes for the time of a check: a process-wide patch.
It is taken off when the body ends or raises; checks in several threads take turns; a ``forward``
that another thread runs meanwhile is passed through and not counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import tree_flatten

from lightning_stab.functional.gradcheck.branches import DispatchMode
from lightning_stab.functional.gradcheck.class_attributes import subclasses
from lightning_stab.functional.gradcheck.double_precision import LOW_PRECISION

_CHECKPOINTS = {"CheckpointFunction"}
TURN = threading.RLock()
"""Held while a check changes what belongs to the whole process."""
Visitor = Callable[[type[Function], tuple[Any, ...]], None]


class Depth:
    """Counts how many custom forward passes are running, one inside another.

    Attributes:
        visit: called with the class and the arguments of each outermost forward pass of a
            Function that is not torch's own.
        called: whether there was one.
    """

    def __init__(self) -> None:
        self.inside_function = self.inside_checkpoint = 0
        self.visit: Visitor | None = None
        self.called = False


@contextmanager
def _replace_methods(methods: Callable[[], dict[tuple[Any, str], Any]]) -> Iterator[None]:
    """Put static methods into classes, by class and name, while the body runs."""
    with TURN:
        functions = methods()  # made of those that stand when it is this thread's turn
        own = {(cls, name): vars(cls)[name] for cls, name in functions if name in vars(cls)}
        try:
            for (cls, name), function in functions.items():
                setattr(cls, name, staticmethod(function))
            yield
        finally:
            for cls, name in functions:
                if (cls, name) in own:
                    setattr(cls, name, own[cls, name])
                elif name in vars(cls):
                    delattr(cls, name)


@contextmanager
def watch_functions(depth: Depth) -> Iterator[Depth]:
    """Count the running custom forward passes in ``depth`` while the body runs.

    It wraps ``forward``, because users bind ``MyFunction.apply`` to a name when they import it.
    """
    with _replace_methods(
        lambda: {(c, "forward"): _count(c, c.forward, depth) for c in subclasses(Function)}
    ):
        yield depth


def _count(cls: Any, forward: Any, depth: Depth) -> Callable[..., Any]:
    counter = "inside_checkpoint" if cls.__name__ in _CHECKPOINTS else "inside_function"
    separate = cls.setup_context is not Function.setup_context
    own = not cls.__module__.startswith("torch.")
    thread = threading.get_ident()

    def counted(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return forward(*args, **kwargs)
        if own and depth.visit is not None and not depth.inside_function:
            depth.visit(cls, args if separate else args[1:])
        vars(depth)[counter] += 1
        depth.called |= own
        try:
            return forward(*args, **kwargs)
        finally:
            vars(depth)[counter] -= 1

    return counted


class _LowPrecision(DispatchMode):
    """Notes the first operation whose result has less than double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor) and tensor.dtype in LOW_PRECISION and not self.found:
                kind = str(tensor.dtype).removeprefix("torch.")
                self.found = f"{func.overloadpacket.__name__.lstrip('_')} to {kind}"
        return result


@contextmanager
def note_low_precision(functions: Sequence[Any]) -> Iterator[dict[str, str]]:
    """Yield a mapping that receives the names of Functions whose backward leaves double."""
    noted: dict[str, str] = {}
    with _replace_methods(
        lambda: {
            (cls, name): _watch_backward(cls, vars(cls)[name], noted)
            for cls in functions
            for name in ("backward", "vjp")
            if name in vars(cls)
        }
    ):
        yield noted


def _watch_backward(cls: type, original: Any, noted: dict[str, str]) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        mode = _LowPrecision()
        with mode, torch.set_grad_enabled(torch.is_grad_enabled()):
            result = original(*args, **kwargs)
        if mode.found:
            noted[cls.__name__] = mode.found
        return result

    return watched

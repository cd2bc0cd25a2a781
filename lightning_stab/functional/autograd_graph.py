"""The leaves of an autograd graph: the tensors whose gradients a backward pass would fill."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def leaves_of(loss: Tensor) -> Iterator[Tensor]:
    """Yield every leaf that a tensor was computed from and that requires a gradient.

    Args:
        loss: a tensor with a graph; one without has no leaves.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> [leaf is weight for leaf in leaves_of((weight * torch.ones(2)).sum())]
        [True]
    """
    nodes: list[Any] = [loss.grad_fn]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            yield variable
        nodes.extend(parent for parent, _ in node.next_functions)


# --- calls of custom Functions --------------------------------------------------------------------


@dataclass(frozen=True)
class CustomNode:
    """A call of a custom ``autograd.Function`` in a graph.

    Args:
        function: the class.
        distance: how many nodes lie between the loss and the call, at least.
        parameters: names of the parameters whose gradient comes through the call.
    """

    function: type
    distance: int
    parameters: frozenset[str]

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.function.__name__


def custom_nodes(loss: Tensor, names: dict[int, str]) -> list[CustomNode]:
    """Return the custom calls behind ``loss``.

    Args:
        loss: with its graph.
        names: parameter names by the ``id`` of the parameter.
    """
    found = []
    for node, distance in _walk(loss.grad_fn):
        function = getattr(node, "_forward_cls", None)
        if function is not None and not function.__module__.startswith("torch."):
            leaves = (id(getattr(inner, "variable", None)) for inner, _ in _walk(node))
            behind = frozenset(names[leaf] for leaf in leaves if leaf in names)
            found.append(CustomNode(function, distance, behind))
    return found


def _walk(root: Any) -> Iterator[tuple[Any, int]]:
    """Yield each node behind ``root`` once, with its least distance."""
    waiting = deque([(root, 0)] if root is not None else [])
    seen = {root}
    while waiting:
        node, distance = waiting.popleft()
        yield node, distance
        new = [inner for inner, _ in node.next_functions if inner is not None and inner not in seen]
        seen.update(new)
        waiting.extend((inner, distance + 1) for inner in dict.fromkeys(new))

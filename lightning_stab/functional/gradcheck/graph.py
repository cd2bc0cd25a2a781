"""The custom Functions of a loss's graph, and which parameters lie behind each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


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
            behind = {_name(inner, names) for inner, _ in _walk(node)}
            found.append(CustomNode(function, distance, frozenset(behind - {""})))
    return found


def _walk(root: Any) -> Iterator[tuple[Any, int]]:
    """Yield each node behind ``root`` once, with its least distance."""
    seen = {root}
    front = [root] if root is not None else []
    distance = 0
    while front:
        following = []
        for node in front:
            yield node, distance
            for inner, _ in node.next_functions:
                if inner is not None and inner not in seen:
                    seen.add(inner)
                    following.append(inner)
        front = following
        distance += 1


def _name(node: Any, names: dict[int, str]) -> str:
    return names.get(id(getattr(node, "variable", None)), "")

"""Walks through an autograd graph, from a result back to the leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node


def walk_graph(root: Node | None, passed: set[Node] | None = None) -> Iterator[tuple[Node, int]]:
    """Yield each node behind ``root`` once, nearest first, with its least distance from it.

    Args:
        root: where to begin, such as the ``grad_fn`` of a loss; None has no graph.
        passed: nodes not to be visited; those that are visited are added, so that several walks
            with the same set visit each node once.

    Example:
        >>> import torch
        >>> loss = torch.ones(2, requires_grad=True).exp().sum()
        >>> [distance for _, distance in walk_graph(loss.grad_fn)]
        [0, 1, 2]
    """
    passed = set() if passed is None else passed
    front = [] if root is None or root in passed else [root]
    passed.update(front)
    distance = 0
    while front:
        following: list[Node] = []
        for node in front:
            yield node, distance
            for before, _ in node.next_functions:
                if before is not None and before not in passed:
                    passed.add(before)
                    following.append(before)
        front = following
        distance += 1


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
    for node, _ in walk_graph(loss.grad_fn):
        leaf = getattr(node, "variable", None)  # whose gradient the node fills
        if isinstance(leaf, Tensor):
            yield leaf


def first_edges(edges: Sequence[GradientEdge]) -> list[GradientEdge]:
    """Return the edges that come after no other one: a backward pass to them passes all others.

    Args:
        edges: in the order in which their tensors were computed.

    Example:
        >>> import torch
        >>> from torch.autograd.graph import get_gradient_edge
        >>> first = torch.ones(2, requires_grad=True).exp()
        >>> edges = [get_gradient_edge(tensor) for tensor in (first, first.sin())]
        >>> first_edges(edges) == edges[:1]
        True
    """
    found, nodes, clear = [], set[Node](), set[Node]()
    for edge in edges:
        passed = set(clear)
        if not any(node in nodes for node, _ in walk_graph(edge.node, passed)):
            found.append(edge)
            clear = passed - {edge.node}
        nodes.add(edge.node)
    return found


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
    for node, distance in walk_graph(loss.grad_fn):
        function = getattr(node, "_forward_cls", None)
        if function is not None and not function.__module__.startswith("torch."):
            leaves = (id(getattr(inner, "variable", None)) for inner, _ in walk_graph(node))
            behind = frozenset(names[leaf] for leaf in leaves if leaf in names)
            found.append(CustomNode(function, distance, behind))
    return found

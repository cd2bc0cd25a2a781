"""Which custom ``autograd.Function`` is the cause of a wrong gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from lightning_stab.functional.autograd_graph import CustomNode, custom_nodes
from lightning_stab.functional.gradcheck.problem import Problem

_MOST_CALLS = 12  # of one class that are tried alone
Trial = Callable[[Problem], float]
"""Checks a problem, and returns the largest relative error among its wrong gradients, or 0."""


@dataclass
class Calls:
    """The custom calls of one run: what they were given, and where they stand in the graph."""

    arguments: list[tuple[type, tuple[Any, ...]]] = field(default_factory=list)
    nodes: list[CustomNode] = field(default_factory=list)


def record_calls(problem: Problem) -> Calls:
    """Run the problem once with its graph, and return its custom calls."""
    calls = Calls()
    names = {id(parameter): name for name, parameter in problem.parameters.items()}

    def as_leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)

    def visit(function: type, arguments: tuple[Any, ...]) -> None:
        if not function.__module__.startswith("torch."):
            calls.arguments.append((function, tree_map_only(Tensor, as_leaf, arguments)))

    problem.depth.visit = visit
    try:
        problem.run(lambda loss: calls.nodes.extend(custom_nodes(loss, names)), replay=False)
    finally:
        problem.depth.visit = None
    return calls


def find_suspects(
    calls: Calls, wrong: Sequence[str], right: Sequence[str], problem: Problem, trial: Trial
) -> dict[str, str | None]:
    """Return for each wrong parameter the name of the Function that is the cause, if any.

    Each class on the way from the parameter to the loss is checked alone. If none fails alone
    (a fault of caching, or of writing in place), the nearest one is named whose every
    parameter is wrong too, and else the nearest one.
    """
    errors: dict[type, float] = {}
    for function in dict.fromkeys(function for function, _ in calls.arguments):
        given = [arguments for cls, arguments in calls.arguments if cls is function]
        tried = [_error_alone(function, each, problem, trial) for each in given[:_MOST_CALLS]]
        errors[function] = max(tried, default=0.0)
    return {name: _suspect(name, calls.nodes, errors, set(right)) for name in wrong}


def _suspect(
    name: str, nodes: Sequence[CustomNode], errors: dict[type, float], right: set[str]
) -> str | None:
    way = sorted((n for n in nodes if name in n.parameters), key=lambda node: -node.distance)
    failing = [node for node in way if errors.get(node.function, 0.0) > 0]
    if failing:
        return max(failing, key=lambda node: errors[node.function]).name
    all_wrong = [node for node in way if not node.parameters & right]
    nearest = all_wrong or way
    return nearest[0].name if nearest else None


def _error_alone(function: type, given: tuple[Any, ...], problem: Problem, trial: Trial) -> float:
    try:
        return trial(_single_call(function, given, problem))
    except Exception:  # a Function that cannot run alone stays unsuspected
        return 0.0


def _single_call(function: Any, given: tuple[Any, ...], problem: Problem) -> Problem:
    """Return one call of a Function as a problem whose parameters are its differentiable inputs."""
    leaves = [a for a in given if isinstance(a, Tensor) and a.requires_grad]
    holder = nn.ParameterList(nn.Parameter(leaf.detach().clone()) for leaf in leaves)
    order = {id(leaf): index for index, leaf in enumerate(leaves)}

    def program(on_loss: Callable[[Tensor], None]) -> None:
        inputs = [
            holder[order[id(a)]] * 1.0 if id(a) in order else tree_map_only(Tensor, torch.clone, a)
            for a in given
        ]
        on_loss(_weighted_sum(function.apply(*inputs)))

    return Problem(holder, program, depth=problem.depth)


def _weighted_sum(result: Any) -> Tensor:
    """Return the sum of all differentiable results, each entry with its own fixed weight."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for tensor in tree_flatten(result)[0]:
        if isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex()):
            values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
            weights = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            total = total + (weights.to(values.device) * values).sum()
    return total

"""Which activations feed a weight layer, and which are the output of the net.

Followed backwards through the autograd graph from every input of a weight layer, each node once.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_stab.callbacks._activation_record import Site


class ActivationGraph:
    """The activations of one forward pass, and what was reached from the weight layers after."""

    def __init__(self) -> None:
        self._made: dict[Any, Site] = {}
        self._passed: set[Any] = set()

    def made(self, output: Tensor, site: Site) -> None:
        """Note the output of an activation; without a graph it counts as feeding a layer."""
        node = output.grad_fn
        if node is None:
            site.feeds = True
        elif not site.feeds:
            self._made[node] = site

    def consumed(self, inputs: Tensor) -> None:
        """Note that a weight layer takes this: mark every activation that it comes from."""
        waiting = [inputs.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in self._passed:
                continue
            self._passed.add(node)
            if node in self._made:
                self._made[node].feeds = True
            waiting.extend(previous for previous, _ in node.next_functions)

    def weighed(self, output: Any) -> None:
        """Note the output of a weight layer, whose inputs were followed already."""
        if isinstance(output, Tensor) and output.grad_fn is not None:
            self._passed.add(output.grad_fn)

    def clear(self) -> None:
        """Let go of the graph, before its memory is wanted back."""
        self._made.clear()
        self._passed.clear()

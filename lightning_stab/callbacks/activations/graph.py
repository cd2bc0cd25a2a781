"""Which activations feed a weight layer, and which are the output of the net.

Followed backwards through the autograd graph from every input of a weight layer, each node once.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_stab.callbacks.activations.record import Site


class ActivationGraph:
    """The activations of one forward pass, and what was reached from the weight layers after."""

    def __init__(self) -> None:
        self._open: dict[Any, Site] = {}
        self._passed: set[Any] = set()

    def made(self, output: Tensor, site: Site) -> None:
        """Note the output of an activation; without a graph nothing can be told of it."""
        if output.grad_fn is not None:
            self._open[output.grad_fn] = site

    def consumed(self, inputs: Tensor) -> None:
        """Note that a weight layer takes this, and with it every activation that it comes from."""
        waiting = [inputs.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in self._passed:
                continue
            self._passed.add(node)
            self._open.pop(node, None)
            waiting.extend(previous for previous, _ in node.next_functions)

    def weighed(self, output: Any) -> None:
        """Note the output of a weight layer, whose inputs were followed already."""
        if isinstance(output, Tensor) and output.grad_fn is not None:
            self._passed.add(output.grad_fn)

    def close(self) -> None:
        """Call what no weight layer took a head, and let go of the graph and its memory."""
        for site in self._open.values():
            site.is_head = True
        self._open.clear()
        self._passed.clear()

"""Modules that are made for one test: named parts and a forward."""

from torch import nn


class FromParts(nn.Module):
    """A module whose forward is a function of it and its inputs."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def counting_backend():
    """Return a backend for `torch.compile` that runs the graph as it is, and what it compiled."""
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    return backend, compilations

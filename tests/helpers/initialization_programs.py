"""What the initialisation reads from one batch through a module."""

import copy

import torch

from lightning_stab.functional.initialization import Program, initialize_

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(2))


def program(module, *inputs):
    return Program(lambda: copy.deepcopy(module), lambda twin: twin(*inputs).square().mean())


def found(module, *inputs, settings=None):
    """Return what precedes each weight, and its scheme, by name."""
    records = initialize_(module, settings, program=program(module, *inputs))
    return {r.name: (r.preceding, r.reason or r.scheme) for r in records}


def preceding(module, *inputs):
    return {name: kind for name, (kind, _) in found(module, *inputs).items()}

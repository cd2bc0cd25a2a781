"""Every common activation by name."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable

from torch import nn

from lightning_stab.arguments import one_of
from lightning_stab.functional.activation_kinds import MODULES, ActivationName

__all__ = ["ACTIVATIONS", "ActivationName", "activation_module"]
ACTIVATIONS: ChainMap[str, Callable[[], nn.Module]] = ChainMap(
    {"identity": nn.Identity, "linear": nn.Identity}, MODULES
)
"""Name -> constructor of a fresh module: those of the catalogue, and none at all."""


def activation_module(name: str) -> nn.Module:
    """Return a fresh activation module.

    Raises:
        InvalidArgumentError: for an unknown name, with the list of valid ones.

    Example:
        >>> activation_module("relu")
        ReLU()
    """
    return ACTIVATIONS[one_of("activation", name, sorted(ACTIVATIONS))]()

"""Every common activation by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lightning_stab.arguments import one_of

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "linear": nn.Identity,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
"""Name -> constructor of a fresh module; `linear` and `swish` are the other names in use."""


def activation_module(name: str) -> nn.Module:
    """Return a fresh activation module.

    Raises:
        InvalidArgumentError: for an unknown name, with the list of valid ones.

    Example:
        >>> activation_module("relu")
        ReLU()
    """
    return ACTIVATIONS[one_of("activation", name, ACTIVATIONS)]()

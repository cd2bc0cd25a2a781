"""Ways to start the weights, by name: "normal:1" is N(0, 1), "he:3" three times He."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Settings = dict[str, Any]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


@torch.no_grad()
def initialise(module: nn.Module, settings: Settings) -> None:
    """Overwrite the weights as `init`, `bias` and `head` of the settings say.

    `init` is for all linear and convolution layers, `bias` for their biases but the last one's,
    `head` multiplies the weight of the last one.
    """
    layers = [m for m in module.modules() if isinstance(m, LAYERS)]
    kind, _, argument = str(settings.get("init", "default")).partition(":")
    value = float(argument or 1)
    for number, layer in enumerate(layers):
        WAYS[kind](layer.weight, value)
        last = number + 1 == len(layers)
        if layer.bias is not None:
            start_bias(layer, kind, settings.get("bias"), last=last)
    if "head" in settings:
        layers[-1].weight.mul_(settings["head"])
    if kind == "mirrored":
        mirror(layers)


def start_bias(layer: nn.Module, kind: str, value: float | None, last: bool) -> None:
    """Start one bias: at the given value, or as the way of starting the weights asks for."""
    if value is not None and not last:
        layer.bias.fill_(value)
    elif kind == "centred":
        layer.bias.copy_(-layer.weight.flatten(1).sum(1) / 2)
    elif kind != "default":
        layer.bias.zero_()


def identical(weight: Tensor, std: float) -> None:
    """Give every unit of a layer the same random weights."""
    weight.copy_(torch.randn_like(weight[:1]).expand_as(weight) * std)


def mirror(layers: list[nn.Module]) -> None:
    """Make a ReLU-like net linear at the start: W = [[Q, -Q], [-Q, Q]], orthogonal Q."""
    for number, layer in enumerate(layers):
        rows, columns = layer.weight.shape
        first, last = number == 0, number + 1 == len(layers)
        block = torch.empty(rows if last else rows // 2, columns if first else columns // 2)
        nn.init.orthogonal_(block)
        wide = block if first else torch.cat([block, -block], 1)
        layer.weight.copy_(wide if last else torch.cat([wide, -wide], 0))


def he(weight: Tensor, gain: float) -> None:
    """Start as He et al. (2015) do for ReLU, times a gain."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu")
    weight.mul_(gain)


WAYS: dict[str, Callable[[Tensor, float], Any]] = {
    "default": lambda weight, value: None,
    "scale": lambda weight, value: weight.mul_(value),
    "xavier": lambda weight, value: nn.init.xavier_normal_(weight, value),
    "he": he,
    "normal": lambda weight, value: nn.init.normal_(weight, std=value),
    "constant": lambda weight, value: nn.init.constant_(weight, value),
    "zero": lambda weight, value: nn.init.zeros_(weight),
    "identical": identical,
    "orthogonal": lambda weight, value: nn.init.orthogonal_(weight, value),
    "centred": lambda weight, value: nn.init.orthogonal_(weight, value),
    "mirrored": lambda weight, value: None,
}

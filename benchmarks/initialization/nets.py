"""The nets of the benchmark of initialisation, and the ways to give them their first weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.initialization.images import Images
from lightning_stab import initialize
from lightning_stab.functional.initialization import structured

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "elu": nn.ELU,
}
BY_QUADRATURE: dict[str, Callable[[], nn.Module]] = {  # smooth ones without a gain of their own
    "mish": nn.Mish,
    "celu": nn.CELU,
    "softsign": nn.Softsign,
}
METHODS = ("auto", "default", "xavier", "kaiming", "orthogonal", "lsuv", "batch_norm")
FAST = "auto, fast draw"  # the draw of large matrices, forced on small ones
WIDTH, CHANNELS = 128, 32


def build(
    kind: str, data: str, activation: str, depth: int, batch_norm: bool, width: int = WIDTH
) -> nn.Sequential:
    """Return ``depth`` hidden layers, dense or 3 x 3 convolutions, and a linear output."""
    act = {**ACTIVATIONS, **BY_QUADRATURE}[activation]
    layers: list[nn.Module] = []
    if kind == "mlp":
        before = 784 if data == "mnist" else 64
        for _ in range(depth):
            norm = [nn.BatchNorm1d(width)] if batch_norm else []
            layers += [nn.Linear(before, width), *norm, act()]
            before = width
        return nn.Sequential(*layers, nn.Linear(width, 10))
    side, before = (28 if data == "mnist" else 8), 1
    layers.append(nn.Unflatten(1, (1, side, side)))
    for place in range(depth):
        stride = 2 if place in (depth // 3, 2 * depth // 3) else 1
        norm = [nn.BatchNorm2d(CHANNELS)] if batch_norm else []
        layers += [nn.Conv2d(before, CHANNELS, 3, stride, padding=1), *norm, act()]
        before, side = CHANNELS, -(-side // stride)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS * side * side, 10))


def prepare(net: nn.Module, method: str, activation: str, seed: int, batch: Tensor) -> None:
    """Give ``net`` its initial weights."""
    if method in ("default", "batch_norm"):
        return
    if method in ("auto", "lsuv"):
        initialize(net, batch, method, seed=seed)
        return
    if method == FAST:
        with mock.patch.object(structured, "LARGE", 1):
            initialize(net, batch, seed=seed)
        return
    gain = nn.init.calculate_gain(activation) if activation in ("tanh", "relu", "selu") else 1.0
    for part in net.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.zeros_(part.bias)
            if method == "xavier":
                nn.init.xavier_normal_(part.weight)
            elif method == "kaiming":
                nn.init.kaiming_normal_(part.weight)
            else:
                nn.init.orthogonal_(part.weight, gain)


def at_start(images: Images, data: str, depths: Sequence[int], activations: Sequence[str]) -> str:
    """Return a table of the signal and gradient of `auto` before training, on held-out images."""
    lines = ["| activation | depth | smallest std | largest std | first / last gradient |"]
    lines.append("|---|---|---|---|---|")
    values, classes = images.validation[0][:256], images.validation[1][:256]
    for depth in depths:
        for activation in activations:
            torch.manual_seed(0)
            net = build("mlp", data, activation, depth, False)
            prepare(net, "auto", activation, 0, images.train[0][:256])
            results, value = [], values
            for part in net:
                value = part(value)
                if isinstance(part, nn.Linear):
                    value.retain_grad()
                    results.append(value)
            nn.functional.cross_entropy(value, classes).backward()
            stds = [float(z.detach().var(0).mean().sqrt()) for z in results]
            first, last = (float(z.grad.square().mean().sqrt()) for z in (results[0], results[-2]))
            row = f"{min(stds):.2f} | {max(stds):.2f} | {first / last:.2f}"
            lines.append(f"| {activation} | {depth} | {row} |")
    return "\n".join(lines)

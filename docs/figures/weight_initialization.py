"""Draw how far the signal and the gradient get through a deep plain net, scheme by scheme.

No training: one batch forward and backward through 50 layers at their initial weights.

    python -m docs.figures.weight_initialization [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from docs.figures import _drawing
from docs.figures._drawing import GREEN, ORANGE, RED
from lightning_stab import initialize

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
# label: arguments of `initialize` (None leaves the weights that the module has), colour, style,
# width; in the order of drawing, so that a thin dashed line shows on top of a thick one that it
# agrees with.
SCHEMES: dict[str, tuple[dict[str, Any] | None, str, str, float]] = {
    "auto": ({}, GREEN, "-", 4.0),
    "xavier_normal, gain=1": (
        {"scheme": "xavier_normal", "gain": 1.0},
        ORANGE,
        "--",
        2,
    ),
    "torch's default": (None, "#6f6f6f", "-", 2.0),
    "N(0, 1)": (None, RED, "-", 2.0),
}


def build(activation: type[nn.Module], depth: int, width: int) -> nn.Sequential:
    """Return ``depth`` linear layers with the activation between them."""
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), activation())]
    return nn.Sequential(*layers[:-1]).double()


def profile(net: nn.Sequential, batch: Tensor) -> tuple[list[float], list[float]]:
    """Return each layer's signal and gradient.

    The signal is the standard deviation over the batch of a unit's input to the activation, RMS
    over units: an offset that all samples share carries nothing. The gradient is the RMS of
    dL/dz, for a loss whose gradient at the output is a random direction.
    """
    pre_activations: list[Tensor] = []
    value = batch
    for module in net:
        value = module(value)
        if isinstance(module, nn.Linear):
            value.retain_grad()
            pre_activations.append(value)
    torch.autograd.backward(value, torch.randn_like(value))
    signal = [float(z.detach().var(0).mean().sqrt()) for z in pre_activations]
    gradient = [float(z.grad.square().mean().sqrt()) for z in pre_activations if z.grad is not None]
    return signal, [g / gradient[-1] for g in gradient]


def measure(activation: type[nn.Module], label: str, depth: int, width: int) -> Tensor:
    """Return signal and gradient of one scheme, geometric means over two draws."""
    curves = []
    for seed in range(2):
        torch.manual_seed(seed)
        net = build(activation, depth, width)
        arguments = SCHEMES[label][0]
        if arguments is not None:
            batch = torch.randn(64, width, dtype=torch.float64)
            initialize(net, batch, seed=seed, **arguments)
        elif label == "N(0, 1)":
            for parameter in net.parameters():
                nn.init.normal_(parameter)
        curves.append(profile(net, torch.randn(128, width, dtype=torch.float64)))
    return torch.tensor(curves).clamp_min(1e-30).log().mean(0).exp()


def decorate(axes: Axes, row: int, title: str) -> None:
    """Give a panel its scale, its band of health and its titles."""
    axes.set_yscale("log")
    axes.set_ylim(1e-10, 1e10)
    axes.axhspan(0.1, 10, color=GREEN, alpha=0.10, linewidth=0)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    _drawing.without_frame([axes])
    axes.tick_params(labelsize=9)
    if row == 0:
        axes.set_title(title, fontsize=12, fontweight="bold")
    else:
        axes.set_xlabel("layer")


def draw(small: bool) -> Figure:
    """Return the figure: signal and gradient over depth, a column for each activation."""
    depth, width = (6, 16) if small else (50, 128)
    figure, panels = plt.subplots(2, 3, figsize=(11, 6.2), sharex=True, sharey=True)
    layers = range(1, depth + 1)
    panels[0, 0].set_xticks([1, *range(10, depth + 1, 10)])
    for column, (name, activation) in enumerate(ACTIVATIONS.items()):
        for label, (_, color, style, line_width) in SCHEMES.items():
            for row, values in enumerate(measure(activation, label, depth, width)):
                panels[row, column].plot(
                    layers, values, style, color=color, label=label, linewidth=line_width
                )
        for row in range(2):
            decorate(panels[row, column], row, name)
    panels[0, 0].set_ylabel("signal: std of a unit's\ninput over the batch")
    panels[1, 0].set_ylabel("gradient: RMS of dL/dz,\nlast layer = 1")
    figure.suptitle(
        f"One batch through {depth} plain layers of {width} units, before any training "
        "(shaded: 0.1 to 10)",
        fontsize=12,
    )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

"""Draw how far the signal and the gradient get through a deep plain net, scheme by scheme.

No training: one batch forward and backward through 50 layers at their initial weights.

    python docs/figures/weight_initialization.py [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lightning_stab import initialize

OUT = "docs/images/weight_initialization.png"
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
# label: arguments of `initialize` (None leaves the weights that the module has), colour, style,
# width; in the order of drawing, so that a thin dashed line shows on top of a thick one that it
# agrees with.
SCHEMES: dict[str, tuple[dict[str, Any] | None, str, str, float]] = {
    "auto": ({}, "#2b8a57", "-", 4.0),
    "xavier_normal, gain=1": (
        {"scheme": "xavier_normal", "gain": 1.0},
        "#e08a1e",
        "--",
        2,
    ),
    "torch's default": (None, "#6f6f6f", "-", 2.0),
    "N(0, 1)": (None, "#c0392b", "-", 2.0),
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
    axes.axhspan(0.1, 10, color="#2b8a57", alpha=0.10, linewidth=0)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    if row == 0:
        axes.set_title(title, fontsize=12, fontweight="bold")
    else:
        axes.set_xlabel("layer")


def draw_figure(depth: int, width: int, out: Path) -> None:
    """Draw signal (above) and gradient (below) over depth, one column for each activation."""
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
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Draw the figure; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(OUT), help=f"the image, {OUT} by default")
    parser.add_argument("--small", action="store_true", help="a small net, in a few seconds")
    options = parser.parse_args(argv)
    depth, width = (6, 16) if options.small else (50, 128)
    draw_figure(depth, width, options.out)
    print(f"{options.out} drawn")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

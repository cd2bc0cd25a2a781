"""Draw what `GradientMonitor` logs: the profile over depth of three nets, and norms over a run.

Real fits on scikit-learn's digits, read back from their TensorBoard files.

    python -m docs.figures.gradient_monitor [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys

import lightning.pytorch as pl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.figures import _drawing
from docs.figures._drawing import BLUE, GREEN, RED, Points
from lightning_stab import GradientMonitor
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

NETS = {
    "sigmoid": {"activation": "sigmoid", "batch_norm": False},
    "sigmoid + BatchNorm": {"activation": "sigmoid", "batch_norm": True},
    "ReLU": {"activation": "relu", "batch_norm": False},
}
COLOURS = (RED, GREEN, BLUE)


def logged(net: dict[str, object], depth: int, epochs: int) -> dict[str, Points]:
    """Fit a net under the monitor and return what TensorBoard reads."""
    pl.seed_everything(0, verbose=False)
    module = MLPClassifier(depth=depth, width=64, **net)
    monitor = GradientMonitor(every_n_steps=5, dense_steps=0)
    return _drawing.logged(module, monitor, DigitsDataModule(), max_epochs=epochs)


def section(found: dict[str, Points], name: str) -> dict[str, Points]:
    """Return steps and values of every tag of a section, in the order they were logged."""
    inside = {tag.partition("/"): points for tag, points in found.items()}
    return {last: points for (first, _, last), points in inside.items() if first == name}


def draw(small: bool) -> Figure:
    """Return the figure."""
    depth, epochs = (5, 1) if small else (20, 5)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for (name, net), colour in zip(NETS.items(), COLOURS, strict=True):
        found = logged(net, depth, epochs)
        profile = [points[-1][1] for points in section(found, "preactivation_grad").values()]
        ratio = section(found, "depth")["first_last_log10"][-1][1]
        label = f"{name}: first/last = 1e{ratio:+.1f}"
        left.semilogy(range(1, len(profile) + 1), profile, "o-", ms=3, color=colour, label=label)
        if name == "ReLU":
            _draw_norms(right, section(found, "grad_norm"))
    left.set(xlabel="layer, in execution order", ylabel="RMS of the pre-activations' gradient")
    left.set_title(f"preactivation_grad/<layer>, {depth} layers, after {epochs} epochs")
    left.legend(fontsize=8)
    left.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_norms(axes: Axes, norms: dict[str, Points]) -> None:
    total = norms.pop("total")
    shades = plt.get_cmap("viridis")
    for place, points in enumerate(norms.values()):
        steps, values = zip(*points, strict=True)
        axes.semilogy(steps, values, color=shades(place / len(norms)), lw=0.9)
    steps, values = zip(*total, strict=True)
    axes.semilogy(steps, values, color="black", lw=2, label="total")
    axes.set(xlabel="step", ylabel="2-norm")
    axes.set_title("grad_norm/total and grad_norm/<layer> of the ReLU net")
    bar = axes.figure.colorbar(plt.cm.ScalarMappable(cmap=shades), ax=axes, ticks=[0, 1])
    bar.set_ticklabels(["first layer", "last layer"])
    axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

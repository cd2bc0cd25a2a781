"""Draw what `ActivationMonitor` logs: spread over depth, dead units and saturation over a run.

Real fits on scikit-learn's digits, read back from their TensorBoard files.

    python -m docs.figures.activation_monitor [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys

import lightning.pytorch as pl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from docs.figures import _drawing
from docs.figures._drawing import BLUE, GREEN, RED, Points
from lightning_stab import ActivationMonitor
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

COLOURS = (GREEN, RED, BLUE)


class Wide(MLPClassifier):
    """Draws its hidden weights with a standard deviation that is too large or too small."""

    def __init__(self, gain: float, **arguments: object) -> None:
        super().__init__(batch_norm=False, **arguments)  # type: ignore[arg-type]
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)


def logged(module: pl.LightningModule, rate: float, epochs: int) -> dict[str, Points]:
    """Fit a module under the monitor and return what TensorBoard reads."""
    module.learning_rate = rate
    monitor = ActivationMonitor(every_n_steps=5)
    return _drawing.logged(module, monitor, DigitsDataModule(), max_epochs=epochs)


def built(gain: float, depth: int, activation: str) -> Wide:
    """Return the net of a seed."""
    pl.seed_everything(0, verbose=False)
    return Wide(gain, depth=depth, width=64, activation=activation)


def draw(small: bool) -> Figure:
    """Return the figure."""
    depth, epochs = (4, 1) if small else (12, 6)
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for gain, colour in zip((1.4, 2.8, 0.7), COLOURS, strict=True):
        found = logged(built(gain, depth, "relu"), 1e-3, epochs)
        _draw_profile(axes[0], found, f"weights of gain {gain}", colour)
    for rate, colour in zip((1e-3, 3e-2), COLOURS, strict=False):
        found = logged(built(1.4, depth, "relu"), rate, epochs)
        _draw_mean(axes[1], found, "dead_fraction", f"learning rate {rate:g}", colour)
    for gain, colour in zip((1.0, 10.0), COLOURS, strict=False):
        found = logged(built(gain, depth, "tanh"), 1e-3, epochs)
        _draw_mean(axes[2], found, "saturated_fraction", f"weights of gain {gain:g}", colour)
    axes[0].set(xlabel="layer", ylabel="standard deviation", title="activation_std at first, ReLU")
    axes[0].set_yscale("log")
    axes[1].set(xlabel="step", title="dead_fraction, mean over layers, ReLU", ylim=(-0.02, 1))
    axes[2].set(xlabel="step", title="saturated_fraction, mean over layers, tanh", ylim=(-0.02, 1))
    for each in axes:
        each.legend(fontsize=8)
    return figure


def main(argv: list[str] | None = None) -> int:
    """Draw and save the figure."""
    return _drawing.run(__file__, __doc__, draw, argv)


def _layers(found: dict[str, Points], section: str) -> list[Points]:
    return [points for tag, points in found.items() if tag.startswith(section + "/")]


def _draw_profile(axes: Axes, found: dict[str, Points], label: str, colour: str) -> None:
    profile = [points[0][1] for points in _layers(found, "activation_std")]
    axes.plot(range(1, len(profile) + 1), profile, "o-", ms=3, color=colour, label=label)


def _draw_mean(axes: Axes, found: dict[str, Points], section: str, label: str, colour: str) -> None:
    """Draw the mean over layers of the values so far, at each step that brings a new one."""
    layers = _layers(found, section)
    steps = sorted({step for points in layers for step, _ in points})
    means = []
    for at in steps:
        latest = [[value for step, value in points if step <= at][-1:] for points in layers]
        known = [values[0] for values in latest if values]
        means.append(sum(known) / len(known))
    axes.plot(steps, means, color=colour, label=label)


if __name__ == "__main__":
    sys.exit(main())

"""Draw what `ActivationMonitor` logs: spread over depth, dead units and saturation over a run.

Real fits on scikit-learn's digits, read back from their TensorBoard files.

    python docs/figures/activation_monitor.py [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import lightning.pytorch as pl
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_stab import ActivationMonitor
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

OUT = "docs/images/activation_monitor.png"
COLOURS = ("#2b8a57", "#c0392b", "#2c6fbb")
Points = list[tuple[int, float]]


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
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[ActivationMonitor(every_n_steps=5)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DigitsDataModule())
        events = EventAccumulator(trainer.log_dir)
        events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def built(gain: float, depth: int, activation: str) -> Wide:
    """Return the net of a seed."""
    pl.seed_everything(0, verbose=False)
    return Wide(gain, depth=depth, width=64, activation=activation)


def main(argv: list[str] | None = None) -> int:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(OUT))
    parser.add_argument("--small", action="store_true", help="a few seconds, to try it out")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    depth, epochs = (4, 1) if options.small else (12, 6)
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
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    return 0


def _layers(found: dict[str, Points], section: str) -> list[Points]:
    return [points for tag, points in found.items() if tag.startswith(section + "/")]


def _draw_profile(axes: plt.Axes, found: dict[str, Points], label: str, colour: str) -> None:
    profile = [points[0][1] for points in _layers(found, "activation_std")]
    axes.plot(range(1, len(profile) + 1), profile, "o-", ms=3, color=colour, label=label)


def _draw_mean(
    axes: plt.Axes, found: dict[str, Points], section: str, label: str, colour: str
) -> None:
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

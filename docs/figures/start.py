"""Draw what the doctor says of a run that does not learn, and its loss without and with the advice.

python -m docs.figures.start [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
import textwrap
from typing import Any

import lightning.pytorch as pl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from docs.figures import _drawing
from docs.figures._drawing import BLUE, GREY, RED
from lightning_stab import TrainingDoctor, WeightInitialization
from lightning_stab.data import DigitsDataModule
from lightning_stab.diagnosis import Finding
from lightning_stab.models import MLPClassifier

MONO = {"family": "monospace", "fontsize": 18, "va": "top"}


class Losses(pl.Callback):
    """Notes the loss of every step and the last accuracy."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.accuracy = 0.0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss."""
        self.values.append(float(outputs["loss"]))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note the accuracy."""
        self.accuracy = float(trainer.callback_metrics["val_accuracy"])


def train(epochs: int, *advice: pl.Callback) -> tuple[Losses, list[Finding]]:
    """Train the example of the page with a doctor; return its losses and the alarms."""
    pl.seed_everything(0, verbose=False)
    losses, doctor = Losses(), TrainingDoctor(print_findings=False)
    module = MLPClassifier(depth=20, width=64, activation="sigmoid", batch_norm=False)
    _drawing.fit(module, *advice, losses, doctor, data=DigitsDataModule(), max_epochs=epochs)
    return losses, [finding for finding in doctor.findings if finding.is_alarm]


def draw_losses(axes: Any, losses: Losses, alarms: list[Finding], title: str, colour: str) -> None:
    """Draw a curve and, in words, how it ended."""
    axes.plot(losses.values, color=colour, lw=2.5)
    axes.set_title(title, fontsize=20, loc="left", weight="bold", color=colour)
    axes.set_xlabel("optimizer step", fontsize=18)
    axes.tick_params(labelsize=16)
    for alarm in alarms:
        axes.axvline(alarm.step, color=colour, lw=2, ls="--")
        axes.text(alarm.step + 2, 2.02, f"found at step {alarm.step}", color=colour, fontsize=18)
    ended = f"validation accuracy {losses.accuracy:.0%}"
    axes.text(0.97, 0.42, ended, transform=axes.transAxes, ha="right", fontsize=22, color=colour)


def draw(small: bool) -> Figure:
    """Return the figure."""
    epochs = 1 if small else 5
    sick, alarms = train(epochs)
    cured, others = train(epochs, WeightInitialization("auto"))
    figure = plt.figure(figsize=(13.34, 6.5), layout="constrained", facecolor="white")
    said, curves = figure.subfigures(2, 1, height_ratios=[1, 1.9], hspace=0.04)
    alarm = alarms[0]
    said.set_facecolor("#f6f3ee")
    sentence = textwrap.fill(alarm.message, 82)
    advice = textwrap.fill(f"1. {alarm.advice[0]}", 82, subsequent_indent="   ")
    said.text(0.02, 0.9, f"{alarm.severity}: {alarm.id} (step {alarm.step})", **MONO, color=RED)
    said.text(0.02, 0.9, f"\n{sentence}\n{advice}", **MONO, linespacing=1.35)
    axes = curves.subplots(1, 2, sharey=True)
    draw_losses(axes[0], sick, alarms, "20 layers, as they are", RED)
    draw_losses(axes[1], cured, others, "with the first advice taken", BLUE)
    for each in axes:
        each.axhline(sick.values[0], color=GREY, lw=1, ls=":")
        each.set_ylim(0, 2.9)
    axes[0].set_ylabel("training loss", fontsize=18)
    _drawing.without_frame(axes)
    return figure


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

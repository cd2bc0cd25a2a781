"""Draw what the doctor sees in a sick run and in its healthy twin, and where it speaks.

python -m docs.figures.training_doctor [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import lightning.pytorch as pl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from docs.figures import _drawing
from docs.figures._drawing import RED
from lightning_stab import TrainingDoctor, WeightInitialization
from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

CHANCE = math.log(10)


class Watch(pl.Callback):
    """Notes every loss, and the gradient by layer at some steps."""

    def __init__(self, at: tuple[int, ...]) -> None:
        self.at = at
        self.losses: list[float] = []
        self.profiles: dict[int, list[float]] = {}
        self.probe = LayerProbe()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        """Put the probe on where a profile is wanted."""
        if trainer.global_step in self.at:
            self.probe.install(pl_module)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Read the profile and take the probe off."""
        if trainer.global_step in self.at:
            values = self.probe.gradient_rms().values()
            self.profiles[trainer.global_step] = [float(v) for v in values]
            self.probe.remove()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss."""
        self.losses.append(float(outputs["loss"]))


def watched(steps: int, treatment: list[pl.Callback]) -> tuple[Watch, TrainingDoctor]:
    """Train 20 sigmoid layers on the digits, with a doctor."""
    pl.seed_everything(0, verbose=False)
    watch = Watch((0, steps // 4, steps - 1))
    doctor = TrainingDoctor(print_findings=False)
    module = MLPClassifier(depth=20, width=64, activation="sigmoid", batch_norm=False)
    _drawing.fit(module, *treatment, watch, doctor, data=DigitsDataModule(), max_steps=steps)
    return watch, doctor


def draw_run(axes: Any, watch: Watch, doctor: TrainingDoctor, title: str) -> None:
    """Draw the gradient over depth, and the losses with the place of the alarm."""
    colours = plt.get_cmap("viridis")
    for place, (step, profile) in enumerate(watch.profiles.items()):
        colour = colours(0.1 + 0.35 * place)
        axes[0].semilogy(range(1, len(profile) + 1), profile, label=f"step {step}", color=colour)
    axes[0].set_title(title)
    axes[0].set_xticks([1, *range(5, len(profile) + 1, 5)])
    axes[0].set_xlabel("layer, from the input to the output")
    axes[1].plot(watch.losses, color="#3b5b92", lw=1)
    axes[1].axhline(CHANCE, color="black", lw=0.8, ls="--")
    axes[1].text(len(watch.losses), CHANCE, "a constant prediction", ha="right", va="bottom")
    axes[1].set_xlabel("optimizer step")
    alarms = [f for f in doctor.findings if f.is_alarm]
    for finding in alarms:
        axes[1].axvline(finding.step, color=RED, lw=2)
        said = f" {finding.severity}: {finding.id}, step {finding.step}"
        axes[1].text(finding.step, 0.3, said, color=RED, weight="bold")
    if not alarms:
        axes[1].text(0.98, 0.5, "no alarm", transform=axes[1].transAxes, ha="right", weight="bold")


def draw(small: bool) -> Figure:
    """Return the figure."""
    steps = 12 if small else 300
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained", sharey="row")
    draw_run(axes[:, 0], *watched(steps, []), "20 sigmoid layers, PyTorch's own initialisation")
    draw_run(
        axes[:, 1], *watched(steps, [WeightInitialization()]), "the same with WeightInitialization"
    )
    axes[0, 0].set_ylabel("RMS gradient of the pre-activations")
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].set_ylabel("training loss on the digits")
    axes[1, 0].set_ylim(0, 2.8)
    return figure


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

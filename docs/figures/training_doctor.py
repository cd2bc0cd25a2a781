"""Draw what the doctor sees in a sick run and in its healthy twin, and where it speaks.

python docs/figures/training_doctor.py [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch

from lightning_stab import TrainingDoctor, WeightInitialization
from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

OUT = "docs/images/training_doctor.png"
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
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[*treatment, watch, doctor],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = MLPClassifier(depth=20, width=64, activation="sigmoid", batch_norm=False)
    trainer.fit(module, datamodule=DigitsDataModule())
    return watch, doctor


def draw(axes: Any, watch: Watch, doctor: TrainingDoctor, title: str) -> None:
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
        axes[1].axvline(finding.step, color="#c0392b", lw=2)
        said = f" {finding.severity}: {finding.id}, step {finding.step}"
        axes[1].text(finding.step, 0.3, said, color="#c0392b", weight="bold")
    if not alarms:
        axes[1].text(0.98, 0.5, "no alarm", transform=axes[1].transAxes, ha="right", weight="bold")


def main(argv: list[str] | None = None) -> int:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(OUT))
    parser.add_argument("--small", action="store_true", help="a few seconds, to try it out")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    steps = 12 if options.small else 300
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained", sharey="row")
    draw(axes[:, 0], *watched(steps, []), "20 sigmoid layers, PyTorch's own initialisation")
    draw(
        axes[:, 1], *watched(steps, [WeightInitialization()]), "the same with WeightInitialization"
    )
    axes[0, 0].set_ylabel("RMS gradient of the pre-activations")
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].set_ylabel("training loss on the digits")
    axes[1, 0].set_ylim(0, 2.8)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    return 0


if __name__ == "__main__":
    sys.exit(main())

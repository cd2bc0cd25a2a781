"""Draw a run with poisoned batches: without a guard, with `skip`, and the run without poison.

python docs/figures/step_guard.py [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch.utils.data import DataLoader

from benchmarks.faults.run import Batches, Subject, accuracy, digit_batches, poisoned
from lightning_stab import StepGuard

OUT = "docs/images/step_guard.png"


class TestAccuracy(pl.Callback):
    """Measures the test accuracy every few steps, and notes where poison came."""

    def __init__(self, test: Any, every: int) -> None:
        self.test, self.every = test, every
        self.points: list[tuple[int, float]] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure in evaluation mode, and go on training."""
        if batch_idx % self.every == 0:
            self.points.append((batch_idx, accuracy(pl_module, self.test)))
            pl_module.train()


def curve(batches: Any, test: Any, steps: int, guard: StepGuard | None) -> TestAccuracy:
    """Return the accuracies of one run over the batches in their order."""
    pl.seed_everything(0, verbose=False)
    measure = TestAccuracy(test, every=max(1, steps // 60))
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[measure, *([guard] if guard else [])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Subject("Adam", steps), DataLoader(Batches(batches), batch_size=None))
    return measure


def main(argv: list[str] | None = None) -> int:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(OUT))
    parser.add_argument("--small", action="store_true", help="a few seconds, to try it out")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    steps = 60 if options.small else 240
    good, test = digit_batches(0, steps)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    for place, (kind, title) in enumerate((("nan", "one NaN pixel"), ("1e30", "pixels x 1e30"))):
        bad = poisoned(good, kind, 0.05, seed=0)
        for name, batches, guard, style in (
            ("no guard", bad, None, {"color": "#c0392b", "lw": 2}),
            ("StepGuard, skip", bad, StepGuard("skip", "skip"), {"color": "#2b8a57", "lw": 4}),
            ("the bad batches left out", good, None, {"color": "black", "lw": 1, "ls": "--"}),
        ):
            at, values = zip(*curve(batches, test, steps, guard).points, strict=True)
            axes[place].plot(at, values, label=name, **style)
        axes[place].set_title(f"5 % of the batches have {title}")
        axes[place].set_xlabel("batch")
    axes[0].set_ylabel("test accuracy on the digits")
    axes[0].legend(fontsize=8, loc="center right")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    return 0


if __name__ == "__main__":
    sys.exit(main())

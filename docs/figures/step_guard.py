"""Draw a run with poisoned batches: without a guard, with `skip`, and the run without poison.

python -m docs.figures.step_guard [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as pl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from benchmarks.faults.run import Batches, Subject, accuracy, digit_batches, poisoned
from docs.figures import _drawing
from docs.figures._drawing import GREEN, RED
from lightning_stab import StepGuard


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
    data = DataLoader(Batches(batches), batch_size=None)
    callbacks = [measure, guard] if guard else [measure]
    _drawing.fit(Subject("Adam", steps), *callbacks, data=data, max_epochs=1)
    return measure


def draw(small: bool) -> Figure:
    """Return the figure."""
    steps = 60 if small else 240
    good, test = digit_batches(0, steps)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    for place, (kind, title) in enumerate((("nan", "one NaN pixel"), ("1e30", "pixels x 1e30"))):
        bad = poisoned(good, kind, 0.05, seed=0)
        for name, batches, guard, style in (
            ("no guard", bad, None, {"color": RED, "lw": 2}),
            ("StepGuard, skip", bad, StepGuard("skip", "skip"), {"color": GREEN, "lw": 4}),
            ("the bad batches left out", good, None, {"color": "black", "lw": 1, "ls": "--"}),
        ):
            at, values = zip(*curve(batches, test, steps, guard).points, strict=True)
            axes[place].plot(at, values, label=name, **style)
        axes[place].set_title(f"5 % of the batches have {title}")
        axes[place].set_xlabel("batch")
    axes[0].set_ylabel("test accuracy on the digits")
    axes[0].legend(fontsize=8, loc="center right")
    return figure


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

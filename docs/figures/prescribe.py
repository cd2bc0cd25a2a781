"""Draw the validation loss of a user's own module before and after its cure, and print the cure.

python -m docs.figures.prescribe [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from docs.figures import _drawing
from docs.figures._drawing import BLUE, RED
from lightning_stab import prescribe
from lightning_stab.data import DigitsDataModule

SEEDS = 2


class Deep(pl.LightningModule):
    """Ten sigmoid layers with torch's own initialisation."""

    def __init__(self) -> None:
        super().__init__()
        widths = [64] + [48] * 10
        body = [part for m, n in pairwise(widths) for part in (nn.Linear(m, n), nn.Sigmoid())]
        self.net = nn.Sequential(nn.Flatten(), *body, nn.Linear(48, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Cross-entropy and accuracy."""
        logits = self.net(batch[0])
        self.log("val_loss", functional.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Curve(pl.Callback):
    """Notes the validation loss of each epoch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note it."""
        self.values.append(float(trainer.callback_metrics["val_loss"]))


def curve(module: Any, data: Any, arguments: dict[str, Any], seed: int) -> list[float]:
    """Train once, with a seed that the search has not seen."""
    watch = Curve()
    own = arguments.pop("callbacks", [])
    settings = {**_drawing.QUIET, "logger": False, "num_sanity_val_steps": 0, **arguments}
    pl.seed_everything(seed, verbose=False)
    pl.Trainer(**settings, callbacks=[*own, watch]).fit(module, *data)
    return watch.values


def draw(small: bool) -> Figure:
    """Prescribe, print what came of it, and draw fits with and without the cure."""
    p = prescribe(
        Deep,
        lambda: DigitsDataModule(batch_size=64),
        trainer_kwargs={"max_epochs": 1 if small else 8, "accelerator": "cpu"},
    )
    print(p)
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for seed in range(100, 100 + SEEDS):
        pl.seed_everything(seed, verbose=False)
        _, data, arguments = p.build()
        arguments.pop("callbacks", None)
        before = curve(Deep(), data, arguments, seed)
        after = curve(*p.build(), seed)
        first = seed == 100
        axes.plot(range(1, len(before) + 1), before, color=RED, label="as it is" if first else None)
        name = p.best.id if p.best else "no cure"
        axes.plot(range(1, len(after) + 1), after, color=BLUE, label=name if first else None)
    axes.set_xlabel("epoch")
    axes.set_ylabel("val_loss")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.set_title("Ten sigmoid layers, two seeds that the search has not seen")
    return figure


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

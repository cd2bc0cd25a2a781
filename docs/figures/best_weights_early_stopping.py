"""Draw when early stopping stops, and what the restored weights are worth.

Left, an overfitting regression (Friedman 1): the stop, the check whose weights come back, and the
test loss of each choice. Right, digits at far too high a rate: the swing that ends a run.

    python -m docs.figures.best_weights_early_stopping [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import make_friedman1
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from docs.figures import _drawing
from docs.figures._drawing import BLUE, GREEN, GREY, RED, fit
from lightning_stab import BestWeightsEarlyStopping
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

PATIENCE, WINDOW = 15, 10


class Regression(LightningModule):
    """Two hidden layers on Friedman's first function, with noise."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        self.curves: dict[str, list[float]] = {"train": [], "val": []}
        inputs, targets = make_friedman1(1150, noise=2.5, random_state=seed)
        x, y = torch.tensor(inputs).float(), torch.tensor(targets).float()
        self.parts = [(x[a:b], (y[a:b] - 14.4) / 5) for a, b in ((0, 150), (150, 350), (350, None))]

    def loss(self, batch: Any) -> Tensor:
        """Return the mean squared error."""
        return nn.functional.mse_loss(self.net(batch[0]).squeeze(1), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss of the validation part, and note both losses."""
        self.curves["train"].append(float(self.loss(self.parts[0])))
        self.curves["val"].append(float(self.loss(batch)))
        self.log("val_loss", self.curves["val"][-1])

    def test_loss(self) -> float:
        """Return the loss on the test part."""
        with torch.no_grad():
            return float(self.loss(self.parts[2]))

    def loader(self, part: int, size: int) -> DataLoader[list[Tensor]]:
        """Return a loader of one part."""
        shuffle = torch.Generator().manual_seed(0) if part == 0 else None
        dataset = TensorDataset(*self.parts[part])
        return DataLoader(dataset, size, shuffle=part == 0, generator=shuffle)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), 2e-3)


class Swinging(MLPClassifier):
    """A classifier that notes its validation losses."""

    losses: tuple[float, ...] = ()

    def on_validation_epoch_end(self) -> None:
        """Note the loss."""
        self.losses = (*self.losses, float(self.trainer.callback_metrics["val_loss"]))


def regression(epochs: int, **stopping: Any) -> tuple[Regression, BestWeightsEarlyStopping | None]:
    """Train the regression, with early stopping if its arguments are given."""
    module = Regression()
    stop = BestWeightsEarlyStopping("val_loss", **stopping) if stopping else None
    loaders = (module.loader(0, 25), module.loader(1, 200))
    callbacks = [stop] if stop else []
    fit(module, *callbacks, data=loaders, max_epochs=epochs, num_sanity_val_steps=0)
    return module, stop


def draw_overfitting(axes: Axes, epochs: int) -> None:
    """Draw the losses of a run that nothing stops, and what stopping does about it."""
    unstopped, _ = regression(epochs)
    last, _ = regression(epochs, patience=PATIENCE, restore_best=False)
    restored, stop = regression(epochs, patience=PATIENCE)
    checks, best = len(restored.curves["val"]), stop.best_position.check
    x = range(1, len(unstopped.curves["val"]) + 1)
    axes.plot(x, unstopped.curves["train"], color=GREY, lw=1.5, label="training loss")
    axes.plot(x, unstopped.curves["val"], color=BLUE, lw=2, label="validation loss")
    axes.axvline(checks, color=RED, lw=1.5, ls="--")
    axes.axvspan(best, checks, color=GREEN, alpha=0.12, lw=0, label=f"patience, {PATIENCE} checks")
    axes.plot(best, unstopped.curves["val"][best - 1], "o", ms=9, color=GREEN, zorder=5)
    lines = [
        ("best check, restored", restored, GREEN),
        ("where it stopped", last, RED),
        (f"after {epochs} epochs", unstopped, BLUE),
    ]
    axes.text(0.42, 0.40, "test loss", transform=axes.transAxes, weight="bold")
    for row, (name, module, colour) in enumerate(lines):
        text = f"{module.test_loss():.3f}  {name}"
        axes.text(0.42, 0.335 - 0.065 * row, text, transform=axes.transAxes, color=colour)
    axes.set(title="The best weights come back", xlabel="epoch", ylabel="squared error")
    axes.set_ylim(0, 1.15 * max(unstopped.curves["val"][3:]))
    axes.legend(loc="upper right", frameon=False)


def draw_swing(axes: Axes, epochs: int) -> None:
    """Draw a run whose loss swings around a level, and where it is stopped."""
    losses = {}
    for stops in (False, True):
        torch.manual_seed(1)
        module = Swinging(
            depth=2, width=32, batch_norm=False, optimizer="sgd", learning_rate=0.6, momentum=0.0
        )
        rule = {"patience": 1000, "oscillation_window": WINDOW}
        stop = BestWeightsEarlyStopping("val_loss", **rule)
        data = DigitsDataModule(batch_size=16, seed=0)
        callbacks = [stop] if stops else []
        fit(module, *callbacks, data=data, max_epochs=epochs, num_sanity_val_steps=0)
        losses[stops] = module.losses
    end, best = len(losses[True]), stop.best_position.check
    axes.plot(range(1, epochs + 1), losses[False], color=GREY, lw=1.2, label="nothing stops it")
    axes.plot(range(1, end + 1), losses[True], color=BLUE, lw=2, label="validation loss")
    if end < epochs:
        axes.axvspan(end - WINDOW + 1, end, color=RED, alpha=0.12, lw=0, label=f"{WINDOW} checks")
        axes.axvline(end, color=RED, lw=1.5, ls="--")
    axes.plot(best, losses[True][best - 1], "o", ms=9, color=GREEN, label="restored", zorder=5)
    axes.set(title="A swing around a level ends the run", xlabel="epoch", ylabel="cross-entropy")
    axes.legend(loc="upper right", frameon=False)


def draw(small: bool) -> Figure:
    """Return the figure."""
    return _drawing.side_by_side(small, (draw_overfitting, 20, 150), (draw_swing, 12, 40))


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

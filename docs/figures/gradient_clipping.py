"""Draw what clipping does: on the loss x^4 from x = 10, and on a net whose gradients explode.

python -m docs.figures.gradient_clipping [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader

from docs.figures import _drawing
from docs.figures._drawing import BLUE, GREEN, ORANGE, RED, fit
from lightning_stab import GradientClipping, WeightInitialization
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

WAYS: dict[str, tuple[list[pl.Callback], str, str]] = {
    "no clipping": ([], RED, "-"),
    "value 1000": ([GradientClipping("value", 1000.0)], ORANGE, "--"),
    "value 100": ([GradientClipping("value", 100.0)], GREEN, "-"),
    "value 1": ([GradientClipping("value", 1.0)], BLUE, "-"),
}


class Quartic(pl.LightningModule):
    """The loss x^4 of one weight that starts at 10, by gradient descent at rate 0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(10.0))
        self.path: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss, and note where the weight stands."""
        self.path.append(self.x.item())
        return self.x**4

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Losses(pl.Callback):
    """Notes the training loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Note one loss."""
        self.values.append(float(outputs["loss"]))


def quartic_path(callbacks: list[pl.Callback], steps: int) -> list[float]:
    """Return x at every step, as far as it is finite."""
    module = Quartic()
    fit(module, *callbacks, data=DataLoader(range(10)), max_steps=steps, max_epochs=-1)
    return module.path


def net_losses(callbacks: list[pl.Callback], epochs: int) -> list[float]:
    """Return the losses of a deep ReLU net whose weights start somewhat too large."""
    pl.seed_everything(0, verbose=False)
    losses = Losses()
    start = WeightInitialization("kaiming_normal", gain=2.2, verbose=False)
    net = MLPClassifier(depth=6, width=64, batch_norm=False, optimizer="sgd", learning_rate=0.05)
    fit(net, start, *callbacks, losses, data=DigitsDataModule(), max_epochs=epochs)
    return losses.values


def smoothed(losses: list[float]) -> list[float]:
    """Return the median of the last nine losses at each step; NaN where most are not finite."""
    windows = [losses[max(0, i - 8) : i + 1] for i in range(len(losses))]
    return [torch.tensor(window).median().item() for window in windows]


def draw(small: bool) -> Figure:
    """Return the figure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, (callbacks, colour, style) in WAYS.items():
        left.plot(quartic_path(callbacks, 30), style, marker=".", color=colour, label=name)
    left.set(xlabel="step", ylabel="x", ylim=(-130, 60))
    left.set_title("loss $x^4$ from $x = 10$, learning rate 0.1")
    left.legend(fontsize=8, loc="lower right")
    epochs = 2 if small else 12
    for name, callbacks, colour in (
        ("no clipping", [], RED),
        ("norm 1", [GradientClipping("norm", 1.0)], GREEN),
        ("adaptive 0.05", [GradientClipping("adaptive", 0.05)], BLUE),
    ):
        losses = smoothed(net_losses(callbacks, epochs))
        right.semilogy(losses, color=colour, lw=1.5, label=name)
    right.set(xlabel="step", ylabel="training loss, median of 9")
    right.set_title("6 ReLU layers, weights too large at the start, SGD")
    right.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

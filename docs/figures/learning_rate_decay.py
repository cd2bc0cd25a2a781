"""Draw how each schedule lets the rate fall, and what that does to a noisy descent.

Left, the rates that the callback wrote in real fits. Right, a regression with small batches whose
loss swings around its minimum at a constant rate.

    python -m docs.figures.learning_rate_decay [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from docs.figures import _drawing
from docs.figures._drawing import BLUE, GREEN, GREY, ORANGE, RED
from lightning_stab import LearningRateDecay

RATE = 0.1
TIMED: dict[str, dict[str, Any]] = {
    "exponential": {"gamma": 0.97},
    "step": {"gamma": 0.4, "every": 25},
    "polynomial": {"power": 2.0},
    "inverse_sqrt": {},
    "cosine": {},
    "cosine_restarts": {"every": 50},
}
COMPARED: dict[str, dict[str, Any] | None] = {
    "constant rate": None,
    "exponential": {"schedule": "exponential", "gamma": 0.9},
    "cosine": {"schedule": "cosine"},
    "loss": {"schedule": "loss", "floor": 0.01},
    "oscillation": {
        "schedule": "oscillation",
        "monitor": "val_loss",
        "amplitude": 0.02,
        "gamma": 0.3,
    },
}
COLOURS = [GREY, BLUE, GREEN, ORANGE, RED, "#7d4fa8"]


class Descent(LightningModule):
    """A noisy linear regression, trained by SGD with batches of 4."""

    def __init__(self, samples: int = 160) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(8, 1)
        x = torch.randn(samples + 2000, 8)
        y = x @ torch.randn(8, 1) + torch.randn(samples + 2000, 1)
        self.parts = [
            TensorDataset(x[:samples], y[:samples]),
            TensorDataset(x[samples:], y[samples:]),
        ]
        self.rates: list[float] = []
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Note the rate, and return the loss."""
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the loss."""
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.losses.append(float(loss))
        self.log("val_loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), RATE)


def fit(module: Descent, epochs: int, *callbacks: Any) -> Descent:
    """Train quietly."""
    order = torch.Generator().manual_seed(0)
    batches = DataLoader(module.parts[0], 4, shuffle=True, generator=order)
    loaders = (batches, DataLoader(module.parts[1], 2000))
    _drawing.fit(module, *callbacks, data=loaders, max_epochs=epochs, num_sanity_val_steps=0)
    return module


def draw_rates(axes: Axes, epochs: int) -> None:
    """Draw the rate of each step under every schedule by time, after a warm-up."""
    for colour, (name, settings) in zip(COLOURS, TIMED.items(), strict=True):
        decay = LearningRateDecay(name, interval="step", warmup_steps=10, **settings)
        module = fit(Descent(40), epochs, decay)
        axes.plot(module.rates, color=colour, lw=1.8, label=name)
    axes.axvspan(0, 10, color="#8a8a8a", alpha=0.15, lw=0)
    axes.text(2, 0.06, "warm-up", rotation=90, color="#555555", fontsize=8)
    axes.set(
        title="The rate of each step, after a warm-up",
        xlabel="optimizer step",
        ylabel="learning rate",
    )
    axes.set_ylim(-0.003, 0.128)
    axes.legend(frameon=False, fontsize=9, loc="upper center", ncol=3)


def draw_losses(axes: Axes, epochs: int) -> None:
    """Draw the validation loss of each run over the loss that the noise alone leaves."""
    for colour, (name, settings) in zip(COLOURS, COMPARED.items(), strict=False):
        decay = [] if settings is None else [LearningRateDecay(**settings)]
        module = fit(Descent(), epochs, *decay)
        axes.plot(range(1, epochs + 1), module.losses, color=colour, lw=1.6, label=name)
    axes.set(title="A noisy descent from rate 0.1", xlabel="epoch", ylabel="validation loss")
    axes.set_ylim(1, 1.85)
    axes.legend(frameon=False, fontsize=9, loc="upper center", ncol=3)


def draw(small: bool) -> Figure:
    """Return the figure."""
    return _drawing.side_by_side(small, (draw_rates, 2, 11), (draw_losses, 4, 30))


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

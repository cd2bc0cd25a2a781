"""What a builder returns, and the parts that several families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.diagnosis.corpus.data import Settings, Split, loaders, prepared
from benchmarks.diagnosis.corpus.optimization import configured

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky": functional.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "elu": functional.elu,
}


@dataclass(frozen=True)
class Setup:
    """A module with its data; `metric` is the logged name of its outcome."""

    module: LightningModule
    train: DataLoader[Any]
    val: DataLoader[Any]
    metric: str = "val_acc"


def setup_of(module: LightningModule, split: Split, settings: Settings, metric: str) -> Setup:
    """Prepare the data as the settings say and put all together."""
    return Setup(module, *loaders(prepared(split, settings), settings), metric)


class Configured(LightningModule):
    """A module whose optimizer and schedule are named in its settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and the schedule if there is one."""
        return configured(self, self.settings)


class Classifier(Configured):
    """A classifier: subclasses give `forward`."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        x, y = batch
        loss = functional.cross_entropy(
            self(x), y, label_smoothing=self.settings.get("smoothing", 0.0)
        )
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss and accuracy."""
        x, y = batch
        logits = self(x)
        self.log("val_loss", functional.cross_entropy(logits, y), prog_bar=True)
        self.log("val_acc", (logits.argmax(-1) == y).float().mean(), prog_bar=True)


def r_squared(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the share of the target's variance that is explained."""
    return 1 - functional.mse_loss(prediction, target) / target.var(unbiased=False)

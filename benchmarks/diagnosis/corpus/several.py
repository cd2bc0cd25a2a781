"""A classifier whose two parts have an optimizer each, stepped by hand."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus.data import Settings
from benchmarks.diagnosis.corpus.images import images
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.optimization import optimizer_for
from benchmarks.diagnosis.corpus.parts import ACTIVATIONS, Setup, setup_of


class TwoOptimizers(LightningModule):
    """A convolutional backbone with one optimizer, a head with another."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings = settings
        width = settings["width"]
        activation = ACTIVATIONS[settings["activation"]]
        self.backbone = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            activation(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            activation(),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(width * 16, 32), activation(), nn.Linear(32, 10))
        initialise(self, settings)

    def configure_optimizers(self) -> Any:
        """Return the backbone's optimizer and the head's."""
        rate = self.settings["lr"]
        owner = self.head if self.settings.get("head_twice") else self.backbone
        body = optimizer_for(
            owner.parameters(), self.settings, rate * self.settings.get("body_rate", 1.0)
        )
        head = optimizer_for(self.head.parameters(), self.settings)
        return [body, head]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.backbone(x))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Step both; the loss of several batches may be summed before a step."""
        x, y = batch
        loss = functional.cross_entropy(self(x), y)
        sum_over = self.settings.get("sum_over", 1)
        self.manual_backward(loss / sum_over)
        if (batch_idx + 1) % sum_over == 0:
            for optimizer in self.optimizers():
                if clip := self.settings.get("by_hand_clip"):
                    self.clip_gradients(optimizer, clip, "norm")
                optimizer.step()
                if not self.settings.get("no_zero_grad"):
                    optimizer.zero_grad()
        self.log("train_loss", loss, prog_bar=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure loss and accuracy."""
        x, y = batch
        logits = self(x)
        self.log("val_loss", functional.cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean())


def two_optimizers(settings: Settings) -> Setup:
    """Build the classifier with two optimizers."""
    return setup_of(TwoOptimizers(settings), images(), settings, "val_acc")

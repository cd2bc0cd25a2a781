"""Regression, alone and beside a classification."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus.data import (
    Settings,
    friedman,
    real,
    standardised,
    with_standard_targets,
)
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.parts import FUNCTIONS, Configured, Setup, r_squared, setup_of

LOSSES = {"mse": functional.mse_loss, "huber": functional.huber_loss}


class Regressor(Configured):
    """Two hidden layers and one number."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.l1 = nn.Linear(10, width)
        self.l2 = nn.Linear(width, width)
        self.l3 = nn.Linear(width, 1)
        initialise(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return one number per row."""
        activation = FUNCTIONS[self.settings["activation"]]
        x = activation(self.l1(x))
        y = self.l3(activation(self.l2(x)))
        last = self.settings.get("output")
        return (FUNCTIONS[last](y) if last else y).squeeze(-1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss that the settings name."""
        kind = self.settings.get("loss", "mse")
        if kind == "likelihood":  # of a Gaussian with a small spread: below zero once it fits
            return functional.mse_loss(prediction, target) / 0.18 - 3.5
        return LOSSES[kind](prediction, target)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train on one batch."""
        x, y = batch
        loss = self.loss(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure the loss and the share of variance explained."""
        x, y = batch
        prediction = self(x)
        self.log("val_loss", self.loss(prediction, y))
        self.log("val_r2", r_squared(prediction, y), prog_bar=True)


class MultiTask(Configured):
    """One trunk; a head that says which digit, and one that says how much ink, times a scale."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.trunk = nn.ModuleDict({"a": nn.Linear(64, width), "b": nn.Linear(width, width)})
        self.ink = nn.Linear(width, 1)
        self.digit = nn.Linear(width, 10)
        initialise(self, settings)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the digit's logits and the ink."""
        activation = FUNCTIONS[self.settings["activation"]]
        x = activation(self.trunk["a"](x))
        x = activation(self.trunk["b"](x))
        ink, digit = self.ink(x).squeeze(1), self.digit(x)
        last = self.settings.get("ink_output")
        return digit, FUNCTIONS[last](ink) if last else ink

    def losses(self, batch: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return both losses, the accuracy and the explained variance."""
        x, y = batch
        amount = (x.sum(1) / x.sum(1).mean() - 1) * 5
        amount = amount * self.settings.get("ink_scale", 1.0) + self.settings.get("ink_shift", 0.0)
        digit, ink = self(x)
        accuracy = (digit.argmax(1) == y).float().mean()
        error = functional.mse_loss(ink, amount)
        return functional.cross_entropy(digit, y), error, accuracy, r_squared(ink, amount)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train on the weighted sum."""
        classification, amount, _, _ = self.losses(batch)
        weight = self.settings.get("weight", 1.0)
        loss = classification + weight * amount
        self.log_dict({"train_loss": loss, "train_digit": classification, "train_ink": amount})
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure; the metric is the mean of both tasks'."""
        classification, amount, accuracy, explained = self.losses(batch)
        weight = self.settings.get("weight", 1.0)
        self.log("val_loss", classification + weight * amount)
        self.log_dict({"val_acc": accuracy, "val_r2": explained})
        self.log("val_score", (accuracy + explained.clamp(0, 1)) / 2)


def regression_mlp(settings: Settings) -> Setup:
    """Build a regression on Friedman's problem or on diabetes."""
    split = friedman() if settings["data"] == "friedman" else real("diabetes")
    split = with_standard_targets(standardised(split))
    if settings.get("positive"):  # counts and prices: all targets above zero
        low = split.targets.min()
        split = replace(split, targets=split.targets - low, val_targets=split.val_targets - low)
    return setup_of(Regressor(settings), split, settings, "val_r2")


def multitask(settings: Settings) -> Setup:
    """Build the two tasks on digits."""
    return setup_of(MultiTask(settings), real("digits"), settings, "val_score")

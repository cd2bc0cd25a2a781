"""Shallow multi-layer perceptrons on digits and on tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus.data import Settings, Split, clusters, real, standardised
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.parts import (
    ACTIVATIONS,
    FUNCTIONS,
    Classifier,
    Configured,
    Setup,
    setup_of,
)


class SequentialMLP(Configured):
    """One nn.Sequential and a loss module, as most tutorials write it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        layers: list[nn.Module] = []
        width = 64
        for hidden in settings["hidden"]:
            layers += [nn.Linear(width, hidden), ACTIVATIONS[settings["activation"]]()]
            if settings.get("dropout"):
                layers.append(nn.Dropout(settings["dropout"]))
            width = hidden
        layers.append(nn.Linear(width, 10))
        if settings["output"] == "softmax":
            layers.append(nn.Softmax(dim=1))
        if settings["output"] == "log_softmax":
            layers.append(nn.LogSoftmax(dim=1))
        if settings["output"] == "relu":
            layers.append(nn.ReLU())
        self.net = nn.Sequential(*layers)
        self.criterion = nn.CrossEntropyLoss()
        initialise(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores."""
        return self.net(x)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Return the loss: the module's, or one written by hand on probabilities."""
        if self.settings.get("loss") == "log_of_softmax":  # log(0) once a class is sure
            return -torch.log(scores.softmax(1)).mul(functional.one_hot(y, 10)).sum(1).mean()
        if self.settings.get("loss") == "gain":  # legitimately below zero
            return self.criterion(scores, y) - 3.0
        return self.criterion(scores, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train on one batch."""
        x, y = batch
        loss = self.loss(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure loss and accuracy."""
        x, y = batch
        scores = self.net(x)
        self.log_dict(
            {
                "val_loss": self.loss(scores, y),
                "val_acc": (scores.argmax(dim=1) == y).float().mean(),
            }
        )


class LayerNormMLP(Classifier):
    """Linear, LayerNorm, activation; the head has no bias."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width, blocks = settings["width"], settings["blocks"]
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.head = nn.Linear(width, 10, bias=False)
        initialise(self, settings)
        if "norm_gain" in settings:
            for norm in self.norms:
                nn.init.constant_(norm.weight, settings["norm_gain"])

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        activation = FUNCTIONS[self.settings["activation"]]
        x = self.stem(x)
        for layer, norm in zip(self.blocks, self.norms, strict=True):
            x = activation(norm(layer(x)))
            x = functional.dropout(x, self.settings.get("dropout", 0.0), self.training)
        return self.head(x)


class BinaryMLP(Configured):
    """One logit and binary cross-entropy."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.fc1 = nn.Linear(30, width)
        self.fc2 = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        self.activation = ACTIVATIONS[settings["activation"]]()
        self.bce = nn.BCEWithLogitsLoss()
        initialise(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per row."""
        x = self.activation(self.fc1(x))
        x = self.activation(self.fc2(x))
        x = self.out(x).squeeze(1)
        return x.sigmoid() if self.settings.get("output") == "sigmoid" else x

    def loss(self, logit: Tensor, y: Tensor) -> Tensor:
        """Return the loss: the module's, or one written by hand that takes log(0)."""
        if self.settings.get("loss") == "by_hand":
            p = logit.sigmoid()
            return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()
        return self.bce(logit, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train on one batch."""
        x, y = batch
        loss = self.loss(self(x), y.float())
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure loss and accuracy at a probability of one half."""
        x, y = batch
        logit = self(x)
        half = 0.5 if self.settings.get("output") == "sigmoid" else 0.0
        self.log("val_loss", self.loss(logit, y.float()))
        self.log("val_acc", ((logit > half) == (y > 0)).float().mean())


class TabularMLP(Classifier):
    """Functional activations in `forward`; the optimizer may forget a part."""

    def __init__(self, settings: Settings, features: int, classes: int) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, width // 2)
        self.classify = nn.Linear(width // 2, classes)
        initialise(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, or what the settings make of them."""
        activation = FUNCTIONS[self.settings["activation"]]
        x = activation(self.first(x))
        x = functional.dropout(x, self.settings.get("dropout", 0.0), self.training)
        x = activation(self.second(x))
        scores = self.classify(activation(self.third(x)))
        if self.settings.get("output") == "softmax":
            return torch.softmax(scores, dim=1)
        return scores


def table(settings: Settings) -> Split:
    """Return the table that the settings name, its features standardised or raw."""
    split = clusters() if settings["data"] == "clusters" else real(settings["data"])
    if settings.get("features", "standard") == "standard":
        split = standardised(split)
    if times := settings.get("repeat"):
        split = replace(
            split, inputs=split.inputs.repeat(times, 1), targets=split.targets.repeat(times)
        )
    return split


def mlp_digits(settings: Settings) -> Setup:
    """Build the tutorials' MLP on digits."""
    return setup_of(SequentialMLP(settings), real("digits"), settings, "val_acc")


def layernorm_mlp(settings: Settings) -> Setup:
    """Build the MLP with LayerNorm on digits."""
    return setup_of(LayerNormMLP(settings), real("digits"), settings, "val_acc")


def binary_mlp(settings: Settings) -> Setup:
    """Build the binary classifier on breast cancer."""
    return setup_of(BinaryMLP(settings), table(settings), settings, "val_acc")


def tabular_mlp(settings: Settings) -> Setup:
    """Build the classifier of a table."""
    split = table(settings)
    classes = int(split.targets.max()) + 1
    module = TabularMLP(settings, split.inputs.shape[1], classes)
    return setup_of(module, split, settings, "val_acc")

"""Convolutional nets and a mixer on the digits as 8 x 8 images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus import parts
from benchmarks.diagnosis.corpus.data import Settings, Split, real
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.parts import Classifier, Configured, Setup, setup_of


def images() -> Split:
    """Return the digits with a channel."""
    split = real("digits")
    shape = (-1, 1, 8, 8)
    return replace(
        split, inputs=split.inputs.reshape(shape), val_inputs=split.val_inputs.reshape(shape)
    )


class PlainCNN(Configured):
    """Convolutions and ReLUs in a row, two linear layers; the loss is a module."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        activation = parts.ACTIVATIONS[settings["activation"]]
        blocks: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), activation()]
        for _ in range(settings["depth"] - 1):
            blocks += [nn.Conv2d(width, width, 3, padding=1), activation()]
        self.features = nn.Sequential(*blocks, nn.MaxPool2d(2))
        self.hidden = nn.Linear(width * 16, 32)
        self.classifier = nn.Linear(32, 10)
        self.criterion = nn.CrossEntropyLoss()
        initialise(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.features(x).flatten(1)
        x = functional.dropout(
            functional.relu(self.hidden(x)), self.settings.get("dropout", 0.0), self.training
        )
        x = self.classifier(x)
        return x.softmax(1) if self.settings.get("output") == "softmax" else x

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss in a dictionary."""
        images, labels = batch
        loss = self.criterion(self(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Measure loss and accuracy."""
        images, labels = batch
        logits = self(images)
        loss = self.criterion(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({"val_loss": loss, "val_acc": accuracy})
        return loss


class BatchNormCNN(Classifier):
    """Convolution, BatchNorm, ReLU; a stride instead of pooling, then the mean over the image."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width, norm = settings["width"], settings.get("norm", True)
        self.convs = nn.ModuleList()
        self.norms: Any = nn.ModuleList()
        channels = 1
        for number in range(settings["depth"]):
            stride = 2 if number == 1 else 1
            self.convs.append(nn.Conv2d(channels, width, 3, stride, padding=1, bias=not norm))
            self.norms.append(nn.BatchNorm2d(width) if norm else nn.Identity())
            channels = width
        self.fc = nn.Linear(width * 4, 10)
        initialise(self, settings)
        if "norm_gain" in settings:
            for layer in self.norms:
                nn.init.constant_(layer.weight, settings["norm_gain"])
        if "norm_bias" in settings:
            for layer in self.norms:
                nn.init.constant_(layer.bias, settings["norm_bias"])
        if settings.get("unregistered"):
            convs = list(self.convs)
            del self.convs
            self.convs = convs

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        activation = parts.FUNCTIONS[self.settings["activation"]]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = activation(norm(conv(x)))
        x = functional.adaptive_avg_pool2d(x, 2).flatten(1)
        if self.settings.get("output") == "softmax":
            return functional.softmax(self.fc(x), dim=-1)
        return self.fc(x)


class Residual(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, width: int, branch: float, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.bn2 = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(x + self.branch * self.bn2(self.conv2(y)))


class ResNet(Classifier):
    """A stem, residual blocks, the mean over the image."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(
            *(
                Residual(width, settings.get("branch", 1.0), settings.get("norm", True))
                for _ in range(settings["blocks"])
            )
        )
        self.fc = nn.Linear(width * 4, 10)
        initialise(self, settings)
        if settings.get("zero_branches"):
            for block in self.blocks:
                nn.init.zeros_(block.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 2)
        x = functional.adaptive_avg_pool2d(self.blocks(x), 2).flatten(1)
        logits = self.fc(x)
        return torch.softmax(logits, 1) if self.settings.get("output") == "softmax" else logits


class Mixer(Classifier):
    """Patches of 2 x 2, mixed over places and over channels in turn."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.places = nn.ModuleList(nn.Linear(16, 16) for _ in range(settings["blocks"]))
        self.channels = nn.ModuleList(nn.Linear(width, width) for _ in range(settings["blocks"]))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(settings["blocks"]))
        self.final = nn.LayerNorm(width) if settings.get("final_norm", True) else nn.Identity()
        self.head = nn.Linear(width, 10)
        initialise(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        activation = parts.FUNCTIONS[self.settings["activation"]]
        if epsilon := self.settings.get("contrast"):  # every patch gets the same contrast
            patches = functional.unfold(x, 2, stride=2)
            spread = patches.var(1, keepdim=True)
            patches = (patches - patches.mean(1, keepdim=True)) / (spread + float(epsilon)).sqrt()
            x = functional.fold(patches, 8, 2, stride=2)
        x = self.patches(x).flatten(2).transpose(1, 2)
        for places, channels, norm in zip(self.places, self.channels, self.norm, strict=True):
            x = x + activation(places(norm(x).transpose(1, 2))).transpose(1, 2)
            x = x + activation(channels(x))
        x = self.final(x).mean(1)
        return self.head(x.detach() if self.settings.get("detach") else x)


def cnn_plain(settings: Settings) -> Setup:
    """Build the plain CNN."""
    return setup_of(PlainCNN(settings), images(), settings, "val_acc")


def cnn_batchnorm(settings: Settings) -> Setup:
    """Build the CNN with BatchNorm."""
    return setup_of(BatchNormCNN(settings), images(), settings, "val_acc")


def resnet(settings: Settings) -> Setup:
    """Build the residual net."""
    return setup_of(ResNet(settings), images(), settings, "val_acc")


def mixer(settings: Settings) -> Setup:
    """Build the mixer."""
    return setup_of(Mixer(settings), images(), settings, "val_acc")

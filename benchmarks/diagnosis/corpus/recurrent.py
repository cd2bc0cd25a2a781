"""Recurrent nets: torch's RNN, GRU and LSTM, and a cell written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus import sequences
from benchmarks.diagnosis.corpus.data import Settings, Split
from benchmarks.diagnosis.corpus.initial import WAYS, initialise
from benchmarks.diagnosis.corpus.parts import Classifier, Configured, Setup, r_squared, setup_of


@torch.no_grad()
def start_recurrence(module: nn.Module, settings: Settings) -> None:
    """Overwrite the weights over time as `recurrent` says, and the input's as `inward` says."""
    for setting, mark in (("recurrent", "weight_hh"), ("inward", "weight_ih")):
        kind, _, argument = str(settings.get(setting, "default")).partition(":")
        for name, weight in module.named_parameters():
            if mark not in name:
                continue
            if kind == "identity":
                weight.copy_(torch.eye(*weight.shape) * float(argument or 1))
            else:
                for block in weight.split(weight.shape[1] if mark == "weight_hh" else len(weight)):
                    WAYS[kind](block, float(argument or 1))


class RowsRNN(Classifier):
    """torch's RNN over the steps, a linear layer on the last state."""

    def __init__(self, settings: Settings, features: int, classes: int) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.rnn = nn.RNN(
            features, width, settings.get("layers", 1), settings["nonlinearity"], batch_first=True
        )
        self.fc = nn.Linear(width, classes)
        initialise(self, settings)
        start_recurrence(self.rnn, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        _, last = self.rnn(x)
        if self.settings.get("detach"):
            last = last.detach()
        logits = self.fc(last[-1])
        return torch.relu(logits) if self.settings.get("output") == "relu" else logits


class TokenGRU(Classifier):
    """An embedding, a GRU, and the last state."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.embedding = nn.Embedding(settings.get("vocabulary", 9), 16)
        self.gru = nn.GRU(16, width, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8))
        initialise(self, settings)
        start_recurrence(self.gru, settings)
        with torch.no_grad():
            self.embedding.weight.mul_(settings.get("embedding_scale", 1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        x = self.embedding(tokens)
        states, _ = self.gru(x)
        return self.head(states[:, -1])


class LastLSTM(Configured):
    """torch's LSTM; the mean or the last of its states; a schedule by the step."""

    def __init__(self, settings: Settings, features: int, classes: int) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.lstm = nn.LSTM(features, width, settings.get("layers", 1), batch_first=True)
        self.out = nn.Linear(width, classes)
        self.loss = nn.CrossEntropyLoss()
        initialise(self, settings)
        start_recurrence(self.lstm, settings)
        if "forget" in settings:
            with torch.no_grad():
                self.lstm.bias_ih_l0[width : 2 * width] = settings["forget"]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        out, _ = self.lstm(x)
        last = out.mean(1) if self.settings.get("mean") else out[:, -1]
        logits = self.out(last)
        return logits.softmax(-1) if self.settings.get("output") == "softmax" else logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train on one batch."""
        x, y = batch
        loss = self.loss(self(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure loss and accuracy."""
        x, y = batch
        logits = self(x)
        self.log("val_loss", self.loss(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean())


class CellByHand(Configured):
    """A recurrence in a Python loop: h = f(W x + U h); one number at the end."""

    def __init__(self, settings: Settings, features: int) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.inputs = nn.Linear(features, width)
        self.over_time = nn.Linear(width, width, bias=False)
        self.read = nn.Linear(width, 1)
        initialise(self, settings)
        kind, _, argument = str(settings.get("recurrent", "default")).partition(":")
        with torch.no_grad():
            if kind == "identity":
                self.over_time.weight.copy_(torch.eye(width) * float(argument or 1))
            else:
                WAYS[kind](self.over_time.weight, float(argument or 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return one number per row."""
        relu = self.settings["nonlinearity"] == "relu"
        h = torch.zeros(len(x), self.settings["width"])
        for step in range(x.shape[1]):
            z = self.inputs(x[:, step]) + self.over_time(h)
            h = torch.relu(z) if relu else torch.tanh(z)
        y = self.read(h).squeeze(-1)
        last = self.settings.get("output")
        return {"relu": torch.relu, "tanh": torch.tanh}[last](y) if last else y

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train on one batch."""
        x, y = batch
        loss = functional.mse_loss(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure the error and the explained variance."""
        x, y = batch
        prediction = self(x)
        self.log("val_loss", functional.mse_loss(prediction, y))
        self.log("val_r2", r_squared(prediction, y))


def task(settings: Settings) -> Split:
    """Return the sequences that the settings name."""
    if settings["data"] == "digit_rows":
        return sequences.digit_rows()
    return getattr(sequences, settings["data"])(settings["length"])


def rnn(settings: Settings) -> Setup:
    """Build torch's RNN."""
    split = task(settings)
    module = RowsRNN(settings, split.inputs.shape[-1], int(split.targets.max()) + 1)
    return setup_of(module, split, settings, "val_acc")


def gru(settings: Settings) -> Setup:
    """Build the GRU on tokens."""
    return setup_of(TokenGRU(settings), task(settings), settings, "val_acc")


def lstm(settings: Settings) -> Setup:
    """Build the LSTM."""
    split = task(settings)
    module = LastLSTM(settings, split.inputs.shape[-1], int(split.targets.max()) + 1)
    return setup_of(module, split, settings, "val_acc")


def sequence_regression(settings: Settings) -> Setup:
    """Build the cell by hand."""
    split = task(settings)
    return setup_of(CellByHand(settings, split.inputs.shape[-1]), split, settings, "val_r2")

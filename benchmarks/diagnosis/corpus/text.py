"""Short texts: a bag of embeddings, or convolutions along the words."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus import sequences
from benchmarks.diagnosis.corpus.data import Settings
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.parts import FUNCTIONS, Classifier, Setup, setup_of


class TextBag(Classifier):
    """The mean of the words' embeddings, then two layers; most rows are seldom used."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.bag = nn.EmbeddingBag(settings["vocabulary"], width, mode="mean")
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 4)
        initialise(self, settings)
        with torch.no_grad():
            self.bag.weight.mul_(settings.get("embedding_scale", 1.0))

    def forward(self, words: Tensor) -> Tensor:
        """Return the logits."""
        x = self.bag(words)
        x = FUNCTIONS[self.settings["activation"]](self.hidden(x))
        x = functional.dropout(x, self.settings.get("dropout", 0.0), self.training)
        logits = self.out(x)
        return logits.softmax(1) if self.settings.get("output") == "softmax" else logits


class TextCNN(Classifier):
    """Embeddings, convolutions along the words, the largest answer of each channel."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.embedding = nn.Embedding(settings["vocabulary"], 16, padding_idx=0)
        self.convs = nn.ModuleList(
            nn.Conv1d(16 if number == 0 else width, width, 3, padding=1)
            for number in range(settings.get("depth", 2))
        )
        self.out = nn.Linear(width, 4)
        initialise(self, settings)
        with torch.no_grad():
            self.embedding.weight.mul_(settings.get("embedding_scale", 1.0))

    def forward(self, words: Tensor) -> Tensor:
        """Return the logits."""
        x = self.embedding(words).transpose(1, 2)
        for conv in self.convs:
            x = FUNCTIONS[self.settings["activation"]](conv(x))
        x = x.amax(2)
        x = functional.dropout(x, self.settings.get("dropout", 0.0), self.training)
        logits = self.out(x.detach() if self.settings.get("detach") else x)
        return torch.softmax(logits, 1) if self.settings.get("output") == "softmax" else logits


def text_bag(settings: Settings) -> Setup:
    """Build the bag."""
    split = sequences.texts(settings["vocabulary"], 12)
    return setup_of(TextBag(settings), split, settings, "val_acc")


def text_cnn(settings: Settings) -> Setup:
    """Build the convolutions along words."""
    split = sequences.texts(settings["vocabulary"], 16)
    return setup_of(TextCNN(settings), split, settings, "val_acc")

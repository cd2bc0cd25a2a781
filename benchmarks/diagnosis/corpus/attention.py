"""Transformers: an encoder with the norm before each block, and a language model with it after."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus import sequences
from benchmarks.diagnosis.corpus.data import Settings
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.parts import Classifier, Configured, Setup, setup_of


def encoder(settings: Settings, pre_norm: bool) -> nn.TransformerEncoder:
    """Return torch's encoder, its attention weights perhaps too large."""
    width = settings["width"]
    layer = nn.TransformerEncoderLayer(
        width,
        4,
        2 * width,
        dropout=settings.get("dropout", 0.0),
        activation=settings.get("activation", "relu"),
        batch_first=True,
        norm_first=pre_norm,
    )
    return nn.TransformerEncoder(layer, settings["layers"], enable_nested_tensor=False)


@torch.no_grad()
def start(module: nn.Module, settings: Settings) -> None:
    """Start the weights as the settings say; torch's copies of one layer are drawn anew first."""
    for name, weight in module.named_parameters():
        if weight.dim() > 1 and "layers" in name:
            nn.init.xavier_uniform_(weight)
        if name.endswith("in_proj_weight"):
            weight.mul_(settings.get("attention_scale", 1.0))
    initialise(module, settings)


class RowsTransformer(Classifier):
    """The digits' rows as eight tokens."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(8, width) * 0.1)
        self.encoder = encoder(settings, pre_norm=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)
        start(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.embed(x) + self.position
        x = self.norm(self.encoder(x)).mean(1)
        logits = self.head(x)
        return logits.softmax(-1) if self.settings.get("output") == "softmax" else logits


class LanguageModel(Configured):
    """Predict the next token; the embedding may be tied to the head."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width, length = settings["width"], settings["length"]
        self.tokens = nn.Embedding(settings.get("vocabulary", 14), width)
        self.places = nn.Embedding(length, width)
        self.encoder = encoder(settings, pre_norm=False)
        self.head = nn.Linear(width, settings.get("vocabulary", 14), bias=False)
        nn.init.normal_(self.tokens.weight, std=0.3)
        start(self, settings)
        if settings.get("tied"):
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of every next token."""
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.places(torch.arange(length))
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        if self.settings.get("hide_first"):  # then the first token may look at nothing
            hidden = torch.zeros(tokens.shape, dtype=torch.bool)
            hidden[:, 0] = True
            x = self.encoder(x, mask=mask.isinf(), src_key_padding_mask=hidden)
        else:
            x = self.encoder(x, mask=mask, is_causal=True)
        logits = self.head(x)
        return logits.softmax(-1) if self.settings.get("output") == "softmax" else logits

    def step(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and the accuracy."""
        tokens, following = batch
        logits = self(tokens).flatten(0, 1)
        following = following.flatten()
        loss = functional.cross_entropy(logits, following)
        return loss, (logits.argmax(1) == following).float().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Train on one batch of sentences."""
        loss, _ = self.step(batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure loss and accuracy of the next token."""
        loss, accuracy = self.step(batch)
        self.log("val_loss", loss)
        self.log("val_acc", accuracy)


def transformer_encoder(settings: Settings) -> Setup:
    """Build the encoder on rows of digits."""
    return setup_of(RowsTransformer(settings), sequences.digit_rows(), settings, "val_acc")


def transformer_lm(settings: Settings) -> Setup:
    """Build the language model."""
    split = sequences.grammar(settings["length"])
    return setup_of(LanguageModel(settings), split, settings, "val_acc")

"""What is trained: the two nets and their data, and lists of tensors for the scaling table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def mlp(width: int = 256, depth: int = 12) -> nn.Sequential:
    """Return 12 hidden ReLU layers of 256: 792 k parameters in 26 tensors."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class Transformer(nn.Module):
    """A pre-norm encoder over tokens, classified by their mean: 10 M parameters at full size."""

    def __init__(self, width: int = 256, blocks: int = 12, tokens: int = 1000) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return class scores of shape ``[batch, 10]``."""
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.mean(dim=1))


def subjects(small: bool) -> dict[str, tuple[Callable[[], nn.Module], list[Tensor]]]:
    """Return, by name, a maker of nets and 64 batches of inputs and classes."""
    generator = torch.Generator().manual_seed(0)
    width, blocks, tokens = (16, 2, 8) if small else (256, 12, 32)
    batch = 8 if small else 64
    features = torch.randn(64, batch, width, generator=generator)
    classes = torch.randint(10, (64, batch), generator=generator)
    words = torch.randint(1000, (64, 8, tokens), generator=generator)
    return {
        "MLP": (lambda: mlp(width), [features, classes]),
        "transformer": (lambda: Transformer(width, blocks), [words, classes[:, :8]]),
    }

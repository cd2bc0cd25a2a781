"""Right models of about a million parameters, to measure what a check costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.gradcheck.corpus.case import Built

_BATCH = 64


def _mlp(activation: type[nn.Module], width: int, depth: int, seed: int) -> Built:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(64, width), activation()]
    for _ in range(depth):
        layers += [nn.Linear(width, width), activation()]
    net = nn.Sequential(*layers, nn.Linear(width, 10))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, 1.2 if activation is nn.Tanh else 2**0.5)
    return net, torch.randn(_BATCH, 64), _classes


def _classes(module: nn.Module, batch: Tensor) -> Tensor:
    return cross_entropy(module(batch), torch.arange(len(batch)) % 10)


def tanh_mlp(seed: int) -> Built:
    """Return a tanh net of 12 hidden layers and about 900,000 parameters in 28 tensors."""
    return _mlp(nn.Tanh, 272, 12, seed)


def relu_mlp(seed: int) -> Built:
    """Return the same net with ReLU."""
    return _mlp(nn.ReLU, 272, 12, seed)


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 5, enable_nested_tensor=False)
        self.head = nn.Linear(128, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores of the next token at each place."""
        return self.head(self.encoder(self.embedding(tokens)))


def _next_token(module: nn.Module, batch: Tensor) -> Tensor:
    return cross_entropy(module(batch[:, :-1]).transpose(1, 2), batch[:, 1:])


def transformer(seed: int) -> Built:
    """Return an encoder of about a million parameters in 63 tensors, with dropout."""
    torch.manual_seed(seed)
    return _Transformer(), torch.randint(0, 256, (8, 33)), _next_token


LARGE: dict[str, Callable[[int], Built]] = {
    "tanh MLP": tanh_mlp,
    "ReLU MLP": relu_mlp,
    "transformer": transformer,
}

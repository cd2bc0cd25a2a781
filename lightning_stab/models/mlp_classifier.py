"""A fully connected classifier of any depth."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from lightning_stab.arguments import integer, real
from lightning_stab.models._classifier import Classifier, shaped
from lightning_stab.models.activations import activation_module


class MLPClassifier(Classifier):
    """A multilayer perceptron: ``depth`` hidden layers, then a linear map to the logits.

    A hidden layer is ``activation(gamma * xhat + beta)`` with ``xhat`` the batch-normalised
    ``W x``, or ``activation(W x + b)`` without batch normalisation. Its parts are named
    ``hidden.0.linear``, ``hidden.0.norm``, ``hidden.0.activation``; the last map is ``output``.

    Args:
        in_features: values per sample, >= 1; 64 for the handwritten digits. Images are flattened.
        num_classes: classes, >= 2.
        depth: hidden layers, >= 1. The output layer is not counted.
        width: units of each hidden layer, >= 1.
        activation: a name of `lightning_stab.models.activations.ACTIVATIONS`.
        batch_norm: whether BatchNorm stands between each linear map and its activation. The map
            then has no bias of its own, because the norm would subtract it again.
        dropout: the probability, >= 0 and < 1, with which a hidden unit is zeroed in training.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        learning_rate: > 0; 1e-3 is Adam's usual start.
        momentum: >= 0 and < 1; SGD alone uses it.
        weight_decay: >= 0.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        ConflictError: at the first batch, if its samples do not hold ``in_features`` values.

    Example:
        >>> import torch
        >>> model = MLPClassifier(depth=2, width=16, activation="tanh")
        >>> model(torch.zeros(5, 64)).shape
        torch.Size([5, 10])

    Source: batch normalisation, Ioffe and Szegedy 2015; dropout, Srivastava et al. 2014.
    """

    def __init__(
        self,
        in_features: int = 64,
        num_classes: int = 10,
        depth: int = 4,
        width: int = 128,
        activation: str = "relu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            num_classes,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
        )
        integer("in_features", in_features, minimum=1)
        integer("depth", depth, minimum=1, hint="It is the number of hidden layers.")
        integer("width", width, minimum=1)
        real("dropout", dropout, minimum=0, below=1, hint="It is a probability; 0 means none.")
        self.save_hyperparameters()
        self.in_features = in_features
        sizes = [in_features] + [width] * depth
        self.hidden = nn.Sequential(
            *(
                hidden_layer(n_in, n_out, activation, batch_norm, dropout)
                for n_in, n_out in pairwise(sizes)
            )
        )
        self.output = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, (batch, num_classes), of inputs of any shape (batch, ...)."""
        logits: Tensor = self.output(self.hidden(shaped(inputs, (self.in_features,))))
        return logits


def hidden_layer(
    n_in: int, n_out: int, activation: str, batch_norm: bool, dropout: float
) -> nn.Sequential:
    """Return linear map, BatchNorm (if any), activation, dropout (if any)."""
    layer: OrderedDict[str, nn.Module] = OrderedDict()
    layer["linear"] = nn.Linear(n_in, n_out, bias=not batch_norm)
    if batch_norm:
        layer["norm"] = nn.BatchNorm1d(n_out)
    layer["activation"] = activation_module(activation)
    if dropout:
        layer["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layer)

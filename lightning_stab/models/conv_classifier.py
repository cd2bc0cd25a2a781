"""A convolutional classifier of any depth."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from lightning_stab.arguments import integer, real
from lightning_stab.models._classifier import Classifier, shaped
from lightning_stab.models.activations import activation_module

SMALLEST_SIDE = 4


class ConvClassifier(Classifier):
    """A convolutional net: ``depth`` 3 x 3 convolutions, then a linear map to the logits.

    A hidden layer is convolution, BatchNorm (on or off), activation; the image's side is halved
    after it as long as at least four pixels remain, so any depth fits any image. The parts are
    named ``hidden.0.convolution``, ``hidden.0.norm``, ``hidden.0.activation``; the last map is
    ``output``.

    Args:
        in_channels: channels of the images, >= 1.
        image_size: height and width of the images in pixels, >= 1; 8 for the handwritten digits.
        num_classes: classes, >= 2.
        depth: hidden convolutional layers, >= 1. The output layer is not counted.
        width: channels of each hidden layer, >= 1.
        activation: a name of `lightning_stab.models.activations.ACTIVATIONS`.
        batch_norm: whether BatchNorm stands between each convolution and its activation. The
            convolution then has no bias of its own, because the norm would subtract it again.
        dropout: the probability, >= 0 and < 1, with which a hidden channel is zeroed in training.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        learning_rate: > 0; 1e-3 is Adam's usual start.
        momentum: >= 0 and < 1; SGD alone uses it.
        weight_decay: >= 0.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        ConflictError: at the first batch, if its samples have another number of values.

    Example:
        >>> import torch
        >>> model = ConvClassifier(depth=2, width=8)
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])

    Source: batch normalisation, Ioffe and Szegedy 2015; channel dropout, Tompson et al. 2015.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 8,
        num_classes: int = 10,
        depth: int = 3,
        width: int = 32,
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
        integer("in_channels", in_channels, minimum=1)
        integer("image_size", image_size, minimum=1)
        integer("depth", depth, minimum=1, hint="It is the number of hidden layers.")
        integer("width", width, minimum=1)
        real("dropout", dropout, minimum=0, below=1, hint="It is a probability; 0 means none.")
        self.save_hyperparameters()
        self.image_shape = (in_channels, image_size, image_size)
        layers, side, channels = [], image_size, in_channels
        for _ in range(depth):
            pool = side // 2 >= SMALLEST_SIDE
            layers.append(hidden_layer(channels, width, activation, batch_norm, dropout, pool))
            side, channels = side // 2 if pool else side, width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(width * side * side, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, (batch, num_classes), of images, flat or (batch, channels, y, x)."""
        features = self.hidden(shaped(inputs, self.image_shape))
        logits: Tensor = self.output(features.flatten(1))
        return logits


def hidden_layer(
    n_in: int, n_out: int, activation: str, batch_norm: bool, dropout: float, pool: bool
) -> nn.Sequential:
    """Return convolution, BatchNorm (if any), activation, dropout (if any), pooling (if any)."""
    layer: OrderedDict[str, nn.Module] = OrderedDict()
    layer["convolution"] = nn.Conv2d(n_in, n_out, 3, padding=1, bias=not batch_norm)
    if batch_norm:
        layer["norm"] = nn.BatchNorm2d(n_out)
    layer["activation"] = activation_module(activation)
    if dropout:
        layer["dropout"] = nn.Dropout2d(dropout)
    if pool:
        layer["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layer)

"""Two classifiers of any depth, fully connected and convolutional."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_stab.arguments import check_choices, integer, integers, options_from, real
from lightning_stab.errors import ConflictError
from lightning_stab.models.activations import ActivationName, activation_module

OptimizerName = Literal["adam", "adamw", "sgd"]
SMALLEST_SIDE = 4  # of an image, in pixels, that pooling leaves


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions:
    """The arguments that the classifiers share; each says what they mean and has its defaults."""

    num_classes: int
    depth: int
    width: int
    activation: str  # also one that was registered; looked up where the net is built
    batch_norm: bool
    dropout: float
    optimizer: OptimizerName
    learning_rate: float
    momentum: float
    weight_decay: float

    def __post_init__(self) -> None:
        integers(self, num_classes=2, width=1)
        integer("depth", self.depth, minimum=1, hint="It is the number of hidden layers.")
        real("dropout", self.dropout, minimum=0, below=1, hint="It is a probability; 0 means none.")
        check_choices(self)
        real("learning_rate", self.learning_rate, above=0)
        real("momentum", self.momentum, minimum=0, below=1)
        real("weight_decay", self.weight_decay, minimum=0)


class Classifier(LightningModule):
    """Softmax classification: cross-entropy on the logits that the subclass's `forward` returns.

    Logs ``train_loss``, ``train_accuracy``, ``val_loss``, ``val_accuracy``, ``test_loss`` and
    ``test_accuracy``: means over all samples of an epoch, of all ranks.
    """

    def __init__(self, options: ClassifierOptions) -> None:
        super().__init__()
        self.optimizer_name = options.optimizer
        self.learning_rate = float(options.learning_rate)
        self.momentum = float(options.momentum)
        self.weight_decay = float(options.weight_decay)
        self.metrics = nn.ModuleDict()
        for stage in ("train", "val", "test"):
            # A NaN must show in the mean; the default would leave it out. ("disable" would too,
            # but torchmetrics 1.9 then forgets the weights of short batches.)
            self.metrics[f"{stage}_loss"] = MeanMetric(nan_strategy=math.nan)
            accuracy = MulticlassAccuracy(options.num_classes, average="micro")
            self.metrics[f"{stage}_accuracy"] = accuracy

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch of (inputs, classes)."""
        return self._measured_loss(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch of (inputs, classes)."""
        return self._measured_loss(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch of (inputs, classes)."""
        return self._measured_loss(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the class probabilities of a batch of inputs, or of (inputs, classes)."""
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        return torch.softmax(self(inputs), dim=1)

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer that was asked for."""
        kinds: dict[str, Callable[..., Optimizer]] = {
            "adam": Adam,
            "adamw": AdamW,
            "sgd": partial(SGD, momentum=self.momentum),
        }
        make = kinds[self.optimizer_name]
        return make(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)

    def _measured_loss(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        inputs, classes = batch
        logits = self(inputs)
        # Half precision would round the loss to two or three digits; double stays double.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy(logits, classes)
        observed = {"loss": (loss.detach(), len(classes)), "accuracy": (logits.detach(), classes)}
        for name, values in observed.items():
            metric = cast(Metric, self.metrics[f"{stage}_{name}"])  # a ModuleDict knows modules
            metric.update(*values)
            self.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, prog_bar=True)
        return loss


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
        activation: ActivationName = "relu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        optimizer: OptimizerName = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        options = options_from(ClassifierOptions, locals())
        super().__init__(options)
        self.in_features = integer("in_features", in_features, minimum=1)
        self.save_hyperparameters()
        layers = [
            hidden_layer("linear", nn.Linear(n_in, width, not batch_norm), nn.BatchNorm1d, options)
            for n_in in [in_features] + [width] * (depth - 1)
        ]
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, (batch, num_classes), of inputs of any shape (batch, ...)."""
        logits: Tensor = self.output(self.hidden(shaped(inputs, (self.in_features,))))
        return logits


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
        activation: ActivationName = "relu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        optimizer: OptimizerName = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        options = options_from(ClassifierOptions, locals())
        super().__init__(options)
        integer("in_channels", in_channels, minimum=1)
        integer("image_size", image_size, minimum=1)
        self.save_hyperparameters()
        self.image_shape = (in_channels, image_size, image_size)
        layers, side, channels = [], image_size, in_channels
        for _ in range(depth):
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm)
            layer = hidden_layer("convolution", convolution, nn.BatchNorm2d, options)
            if side // 2 >= SMALLEST_SIDE:
                layer.add_module("pool", nn.MaxPool2d(2))
                side //= 2
            layers.append(layer)
            channels = width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(width * side * side, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, (batch, num_classes), of images, flat or (batch, channels, y, x)."""
        features = self.hidden(shaped(inputs, self.image_shape))
        logits: Tensor = self.output(features.flatten(1))
        return logits


def hidden_layer(
    name: str, linear: nn.Module, norm: Callable[[int], nn.Module], options: ClassifierOptions
) -> nn.Sequential:
    """Return a linear map under its name, BatchNorm (if any), activation, dropout (if any)."""
    layer: OrderedDict[str, nn.Module] = OrderedDict({name: linear})
    if options.batch_norm:
        layer["norm"] = norm(options.width)
    layer["activation"] = activation_module(options.activation)
    if options.dropout:
        dropout = nn.Dropout2d if isinstance(linear, nn.Conv2d) else nn.Dropout
        layer["dropout"] = dropout(options.dropout)
    return nn.Sequential(layer)


def shaped(inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a batch with samples of ``shape``, flat or not as they came.

    Raises:
        ConflictError: if the samples hold another number of values.
    """
    got, expected = math.prod(inputs.shape[1:]), math.prod(shape)
    if got != expected:
        raise ConflictError(
            f"The model expects samples of {expected} values, got {got} (a batch of shape "
            f"{tuple(inputs.shape)}). Give the model the size of the data: `in_features` of "
            f"MLPClassifier, `in_channels` and `image_size` of ConvClassifier."
        )
    return inputs.reshape(-1, *shape)

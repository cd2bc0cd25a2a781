"""Deep plain nets: no skip connection; what trains them is how they start."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.diagnosis.corpus.data import Settings, clusters, real, standardised
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.parts import ACTIVATIONS, FUNCTIONS, Classifier, Setup, setup_of


class DeepSequential(Classifier):
    """A body of modules, activation after every layer, perhaps BatchNorm between."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        widths = [64] + [settings["width"]] * settings["depth"]
        body: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            body.append(nn.Linear(wide, narrow))
            if settings.get("norm"):
                body.append(nn.BatchNorm1d(narrow))
            body.append(ACTIVATIONS[settings["activation"]]())
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(widths[-1], 10)
        initialise(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.body(x))


class DeepFunctional(Classifier):
    """A ModuleList and a function; with `skip` every layer adds its input."""

    def __init__(self, settings: Settings, features: int = 64, classes: int = 10) -> None:
        super().__init__(settings)
        width = settings["width"]
        self.layers = nn.ModuleList(
            nn.Linear(width if number else features, width) for number in range(settings["depth"])
        )
        self.classifier = nn.Linear(width, classes)
        initialise(self, settings)
        if settings.get("batchwise"):
            self.rescale()

    @torch.no_grad()
    def rescale(self) -> None:
        """Bring each layer's output to standard deviation 1 on the data (Mishkin & Matas, 2016)."""
        x, activation = real("digits").inputs[:256], FUNCTIONS[self.settings["activation"]]
        for layer in self.layers:
            layer.weight.div_(layer(x).std())
            x = activation(layer(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        activation = FUNCTIONS[self.settings["activation"]]
        for number, layer in enumerate(self.layers):
            y = activation(layer(x))
            x = x + y if self.settings.get("skip") and number else y
        return self.classifier(x)


def deep_sequential(settings: Settings) -> Setup:
    """Build a deep net of modules on digits."""
    return setup_of(DeepSequential(settings), real("digits"), settings, "val_acc")


def deep_functional(settings: Settings) -> Setup:
    """Build a deep net of functions on digits."""
    return setup_of(DeepFunctional(settings), real("digits"), settings, "val_acc")


def deep_on_table(settings: Settings) -> Setup:
    """Build a deep net of functions on a table of six classes."""
    module = DeepFunctional(settings, features=20, classes=6)
    return setup_of(module, standardised(clusters()), settings, "val_acc")

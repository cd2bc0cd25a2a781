"""Claim 7: clipping rescues an exploded gradient, no learning rate rescues a vanished one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningModule
from matplotlib.axes import Axes
from torch import Tensor, nn

from examples.lesson.lab import Lab, digits, monitor, seeded
from examples.lesson.results import Claim, Numbers, Panel, Row
from lightning_stab import GradientClipping
from lightning_stab.models import MLPClassifier

GUESSING = 0.15  # ten classes


class SigmoidNet(LightningModule):
    """Linear and Sigmoid repeated, Softmax at the end; the loss is -log of the right class.

    Args:
        depth: hidden layers.
        rate: learning rate of plain gradient descent.
        steep: draw hidden weights from N(0, 0.5^2), those of the last layer from N(0, 10^2).
    """

    def __init__(self, depth: int, rate: float, steep: bool = False) -> None:
        super().__init__()
        self.rate = rate
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, depth + 1):
            layers[f"linear{number}"] = nn.Linear(64, 64)
            layers[f"sigmoid{number}"] = nn.Sigmoid()
        layers["output"] = nn.Linear(64, 10)
        layers["softmax"] = nn.Softmax(dim=1)
        self.net = nn.Sequential(layers)
        if steep:
            for name, layer in layers.items():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=10 if name == "output" else 0.5)
                    nn.init.zeros_(layer.bias)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean of -log(probability of the right class)."""
        inputs, classes = batch
        right = self.net(inputs).gather(1, classes.unsqueeze(1))
        return -right.clamp_min(1e-300).log().mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        inputs, classes = batch
        hits = self.net(inputs).argmax(dim=1) == classes
        self.log("val_accuracy", hits.double().mean(), batch_size=len(classes))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=self.rate)


@dataclass(frozen=True)
class Outcome:
    """How a run of the lesson's net began and ended."""

    accuracy: float
    gradients: dict[str, float]

    @property
    def first_over_last(self) -> float:
        """Return the first hidden layer's gradient norm over the last one's, at the first step."""
        hidden = [norm for name, norm in self.gradients.items() if "linear" in name]
        return hidden[0] / hidden[-1]


def train(lab: Lab, case: str, depth: int, rate: float, *, steep: bool, clip: bool) -> Outcome:
    """Train the net in double precision."""
    module = seeded(SigmoidNet, depth=depth, rate=rate, steep=steep)
    callbacks = [*([GradientClipping("norm", threshold=1.0)] if clip else []), monitor(20)]
    epochs = lab.size(8, 20)
    result = lab.fit(7, case, module, digits(), callbacks, max_epochs=epochs, precision="64-true")
    norms = {name: values[0] for name, values in result.layers("grad_norm").items()}
    return Outcome(result.scalars("val_accuracy")[-1], norms)


def saturation(module: nn.Module) -> list[float]:
    """Return the mean of sigma'(x) = sigma (1 - sigma) of each Sigmoid on the validation images."""
    slopes: list[float] = []
    hooks = [
        layer.register_forward_hook(lambda m, i, y: slopes.append(float((y * (1 - y)).mean())))
        for layer in module.modules()
        if isinstance(layer, nn.Sigmoid)
    ]
    with torch.no_grad():
        module.double()(digits().val.tensors[0].double())
    for hook in hooks:
        hook.remove()
    return slopes


def nets_to_look_at() -> dict[str, nn.Module]:
    """Return nets of ten sigmoid layers whose saturation differs."""
    normed = seeded(MLPClassifier, depth=10, width=64, activation="sigmoid")
    nets = {"torch's weights": seeded(SigmoidNet, depth=10, rate=0.1).net, "BatchNorm": normed}
    for std in (1.0, 4.0):
        nets[f"weights N(0, {std:g}²)"] = net = seeded(SigmoidNet, depth=10, rate=0.1).net
        generator = torch.Generator().manual_seed(0)
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=std, generator=generator)
    return nets


def run(lab: Lab) -> Claim:
    """Let the gradient vanish, then explode, and try to rescue both."""
    outcomes = {
        "vanished, rate 0.1": train(lab, "vanished", 5, 0.1, steep=False, clip=False),
        "vanished, rate 10": train(lab, "vanished-rate-x100", 5, 10, steep=False, clip=False),
        "exploded": train(lab, "exploded", 3, 1.0, steep=True, clip=False),
        "exploded, clipped": train(lab, "exploded-clipped", 3, 1.0, steep=True, clip=True),
    }
    rows = []
    for case, outcome in outcomes.items():
        numbers: Numbers = {
            "gradient at start": outcome.gradients["total"],
            "first/last": outcome.first_over_last,
            "accuracy": outcome.accuracy,
        }
        rows.append(Row(case, *_expected(case, outcome.first_over_last, numbers)))
    slopes = {name: saturation(net) for name, net in nets_to_look_at().items()}
    rows.append(_saturation_row(slopes))
    panels = [
        Panel("7  Gradient norm by layer, first step", lambda ax: draw_gradients(ax, outcomes)),
        Panel("7  Accuracy: which cure works", lambda ax: draw_accuracies(ax, outcomes)),
        Panel("7  Saturation: mean $\\sigma'(x)$ by layer", lambda ax: draw_slopes(ax, slopes)),
    ]
    return Claim(7, "Clipping rescues explosion, nothing rescues vanishing", rows, panels)


def _expected(case: str, ratio: float, numbers: Numbers) -> tuple[str, Numbers, bool]:
    accuracy, total = float(numbers["accuracy"]), float(numbers["gradient at start"])
    if case.startswith("vanished"):
        hundredfold = "even a hundredfold rate stays at guessing" if "10" in case else "guesses"
        return hundredfold, numbers, accuracy < GUESSING and ratio < 1e-2
    if case == "exploded":
        return "ends at guessing", numbers, accuracy < GUESSING and total > 20
    return "learns at the same rate", numbers, accuracy > 0.7


def _saturation_row(slopes: dict[str, list[float]]) -> Row:
    numbers: Numbers = {f"{name}, last": v[-1] for name, v in slopes.items()}
    holds = slopes["torch's weights"][-1] > 0.2 and slopes["weights N(0, 4²)"][-1] < 0.05
    return Row("mean sigma'(x) of layer 10", "1/4 at best; large weights saturate", numbers, holds)


def draw_gradients(ax: Axes, outcomes: dict[str, Outcome]) -> None:
    """Draw the gradient norm of each linear layer."""
    for case, color in (("vanished, rate 0.1", "tab:blue"), ("exploded", "tab:red")):
        norms = [v for k, v in outcomes[case].gradients.items() if k != "total"]
        ax.plot(range(1, len(norms) + 1), norms, "o-", color=color, label=case.split(",")[0])
    ax.axhline(1, color="black", ls="--", lw=1, label="clipped to norm 1")
    ax.set(xlabel="linear layer", ylabel="gradient norm", yscale="log")
    ax.set_xticks(range(1, 7))
    ax.legend(loc="lower right")


def draw_accuracies(ax: Axes, outcomes: dict[str, Outcome]) -> None:
    """Draw the accuracy at the end of each run."""
    names = {
        "vanished, rate 0.1": "vanished",
        "vanished, rate 10": "vanished,\nrate x 100",
        "exploded": "exploded",
        "exploded, clipped": "exploded,\nclipped to 1",
    }
    values = [outcomes[case].accuracy for case in names]
    colors = ["tab:blue", "tab:blue", "tab:red", "tab:green"]
    bars = ax.bar(list(names.values()), values, 0.6, color=colors)
    ax.bar_label(bars, fmt="%.2f")
    ax.axhline(0.1, color="black", ls=":", lw=1, label="guessing")
    ax.set(ylabel="validation accuracy", ylim=(0, 1.1))
    ax.legend(loc="upper left")


def draw_slopes(ax: Axes, slopes: dict[str, list[float]]) -> None:
    """Draw the mean slope of each sigmoid layer."""
    for name, values in slopes.items():
        ax.plot(range(1, len(values) + 1), values, "o-", label=name)
    ax.axhline(0.25, color="black", ls=":", lw=1)
    ax.text(1, 0.253, "1/4, the largest slope", va="bottom")
    ax.set(xlabel="sigmoid layer", ylabel=r"mean $\sigma(1 - \sigma)$", ylim=(0, 0.29))
    ax.set_xticks(range(1, 11))
    ax.legend(loc="center right")

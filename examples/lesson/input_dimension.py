"""Claim 5: more inputs need smaller weights; equal weights keep all units alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning.pytorch import Callback
from matplotlib.axes import Axes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from examples.lesson.lab import Lab, Run, digits, monitor, seeded
from examples.lesson.results import Claim, Numbers, Panel, Row
from lightning_stab import WeightInitialization
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.models import MLPClassifier

SMALLEST = 64  # the inputs for which the unchanged weights have Xavier's size


@dataclass(frozen=True)
class Start:
    """The loss of a net's first step, and the norm of the output layer's gradient there.

    The first layer's own gradient is the wrong thing to look at: it is the product of a signal with
    the input, so it grows with the length of the input whatever the weights are.
    """

    loss: float
    gradient: float


def enlarged(inputs: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Return the digits with each pixel repeated until there are so many inputs."""
    images, classes = digits().train.tensors
    return DataLoader(TensorDataset(images.repeat(1, inputs // 64), classes), batch_size=64)


def first_step(lab: Lab, inputs: int, xavier: bool) -> Start:
    """Train one step, with Xavier's weights or with those that would be right for 64 inputs."""
    module = seeded(MLPClassifier, in_features=inputs, depth=1, width=64, batch_norm=False)
    scheme = WeightInitialization("xavier_normal", gain=1.0, seed=0, verbose=False)
    callbacks: list[Callback] = [scheme] if xavier else []
    if not xavier:
        fill(module)
    case = f"{inputs}-{'xavier' if xavier else 'unchanged'}"
    result = lab.fit(5, case, module, enlarged(inputs), [*callbacks, monitor()], max_steps=1)
    return Start(result.losses[0], result.scalars("grad_norm/output")[0])


def fill(module: MLPClassifier) -> None:
    """Draw weights of the size that Xavier gives a net of 64 inputs, whatever the input."""
    generator = torch.Generator().manual_seed(0)
    for layer, fans in ((module.hidden[0].linear, SMALLEST + 64), (module.output, 64 + 10)):
        nn.init.normal_(layer.weight, std=(2 / fans) ** 0.5, generator=generator)
        nn.init.zeros_(layer.bias)


def spread(module: MLPClassifier) -> float:
    """Return how far the hidden units' weights are from their mean: 0 if alike, 1 if unrelated."""
    weight = module.hidden[0].linear.weight.detach()
    return float((weight - weight.mean(dim=0)).norm() / weight.norm())


def symmetry(lab: Lab, zero: bool) -> tuple[Run, MLPClassifier]:
    """Train a net from all-zero weights, or from Xavier's."""
    module = seeded(MLPClassifier, depth=1, width=64, activation="sigmoid", batch_norm=False)
    if zero:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    callbacks: list[Callback] = [] if zero else [WeightInitialization(seed=0, verbose=False)]
    case = "all-zero" if zero else "random"
    return lab.fit(5, case, module, digits(), callbacks, max_epochs=lab.size(6, 15)), module


def refusal() -> str:
    """Return what `WeightInitialization` says to all-zero weights."""
    try:
        WeightInitialization("zeros")
    except InvalidArgumentError as error:
        return str(error).split(":")[0]
    return ""


def run(lab: Lab) -> Claim:
    """Enlarge the input, and train from all-zero weights."""
    sizes = lab.size((64, 1024), (64, 256, 1024, 4096))
    starts = {x: {n: first_step(lab, n, x) for n in sizes} for x in (False, True)}
    rows = [enlargement(starts[False], grows=True), enlargement(starts[True], grows=False)]
    for zero in (True, False):
        result, module = symmetry(lab, zero)
        numbers: Numbers = {
            "spread of units": spread(module),
            "largest weight": float(module.hidden[0].linear.weight.detach().abs().max()),
            "accuracy": result.scalars("val_accuracy")[-1],
        }
        if zero:
            rows.append(
                Row(
                    "all-zero weights, trained",
                    "every unit stays alike",
                    numbers,
                    spread(module) < 1e-5 and float(numbers["largest weight"]) > 0,
                )
            )
        else:
            alive = result.scalars("val_accuracy")[-1] > 0.7 and spread(module) > 0.5
            rows.append(Row("random weights, trained", "the units differ", numbers, alive))
    said = refusal()
    rows.append(Row('WeightInitialization("zeros")', "is refused", {"said": said}, bool(said)))
    panel = Panel("5  First step as the input grows", lambda ax: draw(ax, starts))
    return Claim(5, "More inputs, smaller weights; never all alike", rows, [panel])


def enlargement(starts: dict[int, Start], grows: bool) -> Row:
    """Compare the smallest input with the largest."""
    small, large = min(starts), max(starts)
    numbers: Numbers = {}
    for n in (small, large):
        numbers[f"loss {n}"] = starts[n].loss
        numbers[f"gradient {n}"] = starts[n].gradient
    more_loss = starts[large].loss / starts[small].loss
    more_gradient = starts[large].gradient / starts[small].gradient
    if grows:
        return Row(
            "unchanged weights",
            "loss and gradient more than double",
            numbers,
            min(more_loss, more_gradient) > 2,
        )
    return Row(
        "Xavier's smaller weights",
        "both stay within a factor of 2",
        numbers,
        max(more_loss, 1 / more_loss, more_gradient, 1 / more_gradient) < 2,
    )


def draw(ax: Axes, starts: dict[bool, dict[int, Start]]) -> None:
    """Draw loss and gradient over the number of inputs."""
    for xavier, color in ((False, "tab:red"), (True, "tab:green")):
        name = "Xavier" if xavier else "unchanged weights"
        sizes = list(starts[xavier])
        losses = [start.loss for start in starts[xavier].values()]
        gradients = [start.gradient for start in starts[xavier].values()]
        ax.plot(sizes, losses, "o-", color=color, label=f"loss, {name}")
        ax.plot(sizes, gradients, "s--", color=color, label=f"output gradient, {name}")
    ax.set(xscale="log", yscale="log", xlabel="inputs", ylabel="at the first step")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.legend(loc="upper left")

"""Draw the error of central differences over the step, for right and for wrong gradients.

Left, a tanh net: truncation falls with the step, rounding rises, and float32 never comes near 1e-7.
Right, a ReLU net: kinks spoil all but the smallest steps; with branches replayed none matter,
and a backward that is wrong by 1e-5 stands out at every step.

    python -m docs.figures.gradient_check [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from docs.figures import _drawing
from docs.figures._drawing import BLUE, GREEN, GREY, RED
from lightning_stab.functional.gradcheck.custom_functions import watch_functions
from lightning_stab.functional.gradcheck.differences import central_difference
from lightning_stab.functional.gradcheck.lines import Line, random_direction
from lightning_stab.functional.gradcheck.problem import Problem

FAULT = 1e-5


class Faulty(torch.autograd.Function):
    """x W^T, whose weight gradient is wrong by a factor of 1 + 1e-5."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Return the product."""
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return both gradients, the second one slightly wrong."""
        x, weight = ctx.saved_tensors
        return gradient @ weight, (1 + FAULT) * gradient.T @ x


class FaultyLinear(nn.Linear):
    """A linear layer with the faulty product."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        return Faulty.apply(x, self.weight) + self.bias  # type: ignore[no-any-return]


def problem(layer: type[nn.Linear], activation: type[nn.Module], width: int) -> Problem:
    """Return the cross-entropy of a net of four layers, in double precision."""
    torch.manual_seed(0)
    parts = [nn.Linear(16, width), activation(), nn.Linear(width, width), activation()]
    net = nn.Sequential(*parts, layer(width, width), activation(), nn.Linear(width, 5)).double()
    x = torch.randn(64, 16, dtype=torch.float64)
    y = torch.arange(64) % 5
    return Problem(net, lambda on_loss: on_loss(nn.functional.cross_entropy(net(x), y)))


def errors(
    of: Problem, steps: list[float], *, replay: bool = False, single: bool = False
) -> list[float]:
    """Return the relative error along a direction through the third layer, for each step."""
    with watch_functions(of.depth):
        _, gradients = of.gradients(record=True)
    branches = of.record_branches() if replay else None
    direction = random_direction(of.parameters["4.weight"], torch.Generator().manual_seed(3))
    line = Line(of, {"4.weight": direction})
    slope = line.slopes(gradients)[0]
    found = []
    with line:
        for step in steps:
            plus, minus = (line.losses_at(s, branches=branches)[0] for s in (step, -step))
            if single:
                plus, minus = torch.tensor([plus, minus]).float().tolist()
            found.append(abs(central_difference(plus, minus, step) - slope.value) / slope.size)
    return [max(error, 1e-13) for error in found]


def draw_errors(axes: Axes, steps: list[float], curves: list[tuple[str, str, list[float]]]) -> None:
    """Draw the curves, and the bound that a right gradient keeps."""
    for label, colour, values in curves:
        axes.loglog(steps, values, color=colour, label=label, linewidth=1.6)
    axes.axhline(1e-7, color=GREY, linestyle="--", linewidth=1)
    axes.text(steps[0], 1.3e-7, "1e-7", color=GREY, va="bottom", ha="right")
    axes.set_xlabel("step h, relative to the weights")
    axes.set_ylabel("error relative to the gradient")
    axes.legend(frameon=False, fontsize=8)
    _drawing.without_frame([axes])


def draw(small: bool) -> Figure:
    """Return the figure."""
    count, width = (9, 16) if small else (57, 64)
    steps = [10 ** (-1 - 8 * k / (count - 1)) for k in range(count)]
    smooth, kinked = problem(nn.Linear, nn.Tanh, width), problem(nn.Linear, nn.ReLU, width)
    faulty = problem(FaultyLinear, nn.ReLU, width)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    draw_errors(left, steps, [
        ("double", BLUE, errors(smooth, steps)),
        ("losses rounded to float32", RED, errors(smooth, steps, single=True)),
    ])  # fmt: skip
    left.set_title("tanh: truncation and rounding", fontsize=10)
    draw_errors(right, steps, [
        ("right, plain differences", GREY, errors(kinked, steps)),
        ("right, branches replayed", GREEN, errors(kinked, steps, replay=True)),
        ("wrong by 1e-5, branches replayed", RED, errors(faulty, steps, replay=True)),
    ])  # fmt: skip
    right.set_title("ReLU: kinks, and what replaying them does", fontsize=10)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    sys.exit(_drawing.run(__file__, __doc__, draw))

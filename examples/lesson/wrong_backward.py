"""Claim 3: a wrong hand-written backward is caught, with its name; the right one passes."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples.lesson.lab import Lab, digits, seeded
from examples.lesson.results import Claim, Numbers, Panel, Row
from lightning_stab import GradientCheck
from lightning_stab.errors import GradientCheckError

TOLERANCE = 1e-7


class HandWrittenLinear(torch.autograd.Function):
    """``x W^T`` with a backward written by hand, rightly or with a small mistake."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, mistake: bool) -> Tensor:
        """Return the product, and keep both factors."""
        ctx.save_for_backward(inputs, weight)
        ctx.mistake = mistake
        return inputs @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients; the mistake averages over the batch where the sum belongs."""
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        of_weight = gradient.T @ inputs
        return gradient @ weight, of_weight / len(inputs) if ctx.mistake else of_weight, None


class HandWritten(nn.Module):
    """A layer around `HandWrittenLinear`."""

    def __init__(self, n_in: int, n_out: int, mistake: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / n_in**0.5)
        self.mistake = mistake

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the hand-written function."""
        product: Tensor = HandWrittenLinear.apply(inputs, self.weight, self.mistake)
        return product


class SmallNet(LightningModule):
    """Three layers; the one in the middle has the hand-written backward."""

    def __init__(self, mistake: bool) -> None:
        super().__init__()
        self.first = nn.Linear(64, 32)
        self.hand_written = HandWritten(32, 32, mistake)
        self.last = nn.Linear(32, 10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy."""
        inputs, classes = batch
        hidden = torch.tanh(self.hand_written(torch.tanh(self.first(inputs))))
        return cross_entropy(self.last(hidden), classes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def checked(lab: Lab, mistake: bool) -> tuple[GradientCheck, str, int]:
    """Fit with the check; return it, its complaint, and how many steps were taken."""
    check = GradientCheck(on_fail="raise")
    module = seeded(SmallNet, mistake=mistake)
    case = "wrong" if mistake else "right"
    trainer = lab.trainer(3, case, [check], max_epochs=1, log_every_n_steps=1)
    try:
        trainer.fit(module, digits().train_dataloader())
    except GradientCheckError as error:
        return check, str(error), trainer.global_step
    return check, "", trainer.global_step


def run(lab: Lab) -> Claim:
    """Fit the net twice, with the mistake and without."""
    rows, errors = [], {}
    for mistake in (True, False):
        check, message, steps = checked(lab, mistake)
        assert check.report is not None
        errors[mistake] = {r.name: r.relative_error for r in check.report.parameters}
        named = ", ".join(record.name for record in check.report.wrong)
        worst = max(errors[mistake].values())
        numbers: Numbers = {
            "largest error": worst,
            "named": named or "nothing",
            "steps taken": steps,
        }
        if mistake:
            holds = named == "hand_written.weight" and named in message and steps == 0
            rows.append(Row("wrong backward", "stopped, and the layer is named", numbers, holds))
        else:
            holds = not message and worst <= TOLERANCE and steps > 0
            rows.append(Row("right backward", "passes, and trains", numbers, holds))
    panel = Panel("3  Gradient check: relative error by parameter", lambda ax: draw(ax, errors))
    return Claim(3, "A wrong backward is caught by name", rows, [panel])


def draw(ax: Axes, errors: dict[bool, dict[str, float]]) -> None:
    """Draw the errors of both nets beside the tolerance."""
    names = list(errors[True])
    for shift, mistake, color in ((-0.2, True, "tab:red"), (0.2, False, "tab:green")):
        values = [max(errors[mistake][name], 1e-16) for name in names]
        places = [y + shift for y in range(len(names))]
        label = "wrong backward" if mistake else "right backward"
        ax.barh(places, values, 0.4, left=1e-16, color=color, label=label)
    ax.axvline(TOLERANCE, color="black", ls="--", lw=1, label="bound 1e-7")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xscale="log", xlim=(1e-16, 1e3), xlabel="relative error")
    ax.legend(loc="lower right")

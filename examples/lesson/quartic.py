"""Claim 1: x^4 from 10 explodes, and clipping by value tames it, if it clips low enough."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Callback, LightningModule
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples.lesson.lab import Lab
from examples.lesson.results import Claim, Panel, Row
from lightning_stab import GradientClipping, StepGuard
from lightning_stab.errors import UnstableStepError


class Quartic(LightningModule):
    """The loss x^4 with x = 10 at the start, and plain gradient descent at the rate 0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(10.0))
        self.path = [10.0]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return x^4."""
        return self.x**4

    def on_train_batch_end(self, outputs: object, batch: Tensor, batch_idx: int) -> None:
        """Keep where the step has led."""
        self.path.append(float(self.x.detach()))
        self.log("x", self.x.detach(), on_step=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def descend(lab: Lab, case: str, steps: int, callbacks: list[Callback]) -> list[float]:
    """Return x at the start and after each step."""
    module = Quartic()
    batches = DataLoader(torch.zeros(steps), batch_size=1)
    lab.fit(1, case, module, batches, callbacks, max_epochs=1, log_every_n_steps=1)
    return module.path


def refused(lab: Lab) -> tuple[int, str]:
    """Return how many steps a `StepGuard` let pass, and what it said."""
    module = Quartic()
    trainer = lab.trainer(1, "guarded", [StepGuard("raise")], max_epochs=1)
    try:
        trainer.fit(module, DataLoader(torch.zeros(10), batch_size=1))
    except UnstableStepError as error:
        return len(module.path) - 1, str(error).split(";")[0]
    return len(module.path) - 1, ""


def run(lab: Lab) -> Claim:
    """Walk down x^4 without a clip and with three thresholds."""
    steps = lab.size(60, 200)
    free = descend(lab, "no-clip", 6, [])
    clip = {
        threshold: descend(
            lab, f"clip-{threshold}", steps, [GradientClipping("value", threshold=threshold)]
        )
        for threshold in (100, 1, 1000)
    }
    passed, sentence = refused(lab)
    walk = [10 - 0.1 * k for k in range(51)]
    rows = [
        Row(
            "no clip",
            "10, -390, then beyond every number",
            {f"x{k}": free[k] for k in range(1, 5)},
            math.isclose(free[1], -390, rel_tol=1e-5) and not math.isfinite(free[-1]),
        ),
        Row(
            "StepGuard, no clip",
            "refuses the first step whose loss is infinite",
            {"steps taken": passed, "said": sentence},
            bool(sentence) and passed == 3,
        ),
        Row(
            "value clip 100",
            "one step to the minimum, and stays",
            {"x1": clip[100][1], f"x{steps}": clip[100][-1]},
            max(map(abs, clip[100][1:])) < 1e-5,
        ),
        Row(
            "value clip 1",
            "walks 0.1 a step to x50 = 5",
            {"x1": clip[1][1], "x50": clip[1][50], f"x{steps}": clip[1][-1]},
            all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(clip[1], walk, strict=False)),
        ),
        Row(
            "value clip 1000",
            "jumps between 10 and -90 for ever: too high to help",
            {"x1": clip[1000][1], "x2": clip[1000][2], f"x{steps}": clip[1000][-1]},
            all(math.isclose(x, [10, -90][k % 2], rel_tol=1e-4) for k, x in enumerate(clip[1000])),
        ),
    ]
    panel = Panel("1  loss = x⁴ from x = 10, rate 0.1", lambda ax: draw(ax, free, clip))
    return Claim(1, "Clipping by value tames x^4", rows, [panel])


def draw(ax: Axes, free: list[float], clip: dict[int, list[float]]) -> None:
    """Draw x over the steps."""
    finite = [x for x in free if math.isfinite(x)]
    ax.plot(finite, "o-", color="tab:red", label="no clip")
    for threshold, color in ((1000, "tab:orange"), (100, "tab:green"), (1, "tab:blue")):
        ax.plot(clip[threshold][:61], ".-", color=color, label=f"value clip {threshold}", lw=1)
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(-1e6, 1e6)
    ax.set(xlabel="step", ylabel="x (symmetric log)")
    ax.legend(loc="upper right")

"""Claim 6: a learning rate of 1e-9 moves nothing, the right one learns, a high one diverges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

import torch
from matplotlib.axes import Axes
from torch.nn.utils import parameters_to_vector

from examples.lesson.lab import Lab, digits, seeded
from examples.lesson.results import Claim, Numbers, Panel, Row
from lightning_stab.models import MLPClassifier

RATES = {"too low": 1e-9, "right": 0.3, "too high": 1.5, "far too high": 100.0}
COLORS = {
    "too low": "tab:gray",
    "right": "tab:green",
    "too high": "tab:orange",
    "far too high": "tab:red",
}


@dataclass(frozen=True)
class Path:
    """How a run went."""

    losses: list[float]
    accuracy: float
    moved: float

    @property
    def bounce(self) -> float:
        """Return the mean rise of the loss over the steps that raised it, in the second half."""
        half = self.losses[len(self.losses) // 2 :]
        rises = [after - before for before, after in pairwise(half) if after > before]
        return mean(rises) if rises else 0.0


def train(lab: Lab, case: str) -> Path:
    """Train a small net with plain gradient descent."""
    module = seeded(
        MLPClassifier,
        depth=2,
        width=64,
        activation="tanh",
        batch_norm=False,
        optimizer="sgd",
        learning_rate=RATES[case],
        momentum=0.0,
    )
    before = parameters_to_vector(module.parameters()).detach().clone()
    result = lab.fit(6, case.replace(" ", "-"), module, digits(), max_epochs=lab.size(5, 10))
    moved = parameters_to_vector(module.parameters()).detach() - before
    relative = float(torch.linalg.vector_norm(moved) / torch.linalg.vector_norm(before))
    return Path(result.losses, result.scalars("val_accuracy")[-1], relative)


def run(lab: Lab) -> Claim:
    """Train at four rates."""
    paths = {case: train(lab, case) for case in RATES}
    right, start = paths["right"], paths["right"].losses[0]
    expected = {
        "too low": ("nothing moves", paths["too low"].moved < 1e-6),
        "right": ("learns", right.accuracy > 0.9 and right.losses[-1] < start / 3),
        "too high": ("bounces", paths["too high"].bounce > 5 * right.bounce),
        "far too high": (
            "diverges",
            mean(paths["far too high"].losses[-10:]) > 100 * start,
        ),
    }
    rows = [
        Row(f"rate {RATES[case]:g}, {case}", *_row(paths[case], *expected[case])) for case in RATES
    ]
    panel = Panel("6  Training loss by learning rate", lambda ax: draw(ax, paths))
    return Claim(6, "The learning rate: too low, right, too high", rows, [panel])


def _row(path: Path, sentence: str, holds: bool) -> tuple[str, Numbers, bool]:
    numbers: Numbers = {
        "loss": mean(path.losses[-10:]),
        "accuracy": path.accuracy,
        "weights moved": path.moved,
        "mean rise": path.bounce,
    }
    return sentence, numbers, holds


def draw(ax: Axes, paths: dict[str, Path]) -> None:
    """Draw the loss of every step."""
    for case, path in paths.items():
        ax.plot(path.losses, color=COLORS[case], lw=1, label=f"{RATES[case]:g}  {case}")
    ax.set(xlabel="step", ylabel="training loss", yscale="log")
    top = max(max(path.losses) for path in paths.values())
    ax.set_ylim(top=100 * top)
    ax.legend(loc="upper right", ncols=2)

"""Claim 2: depth kills the plain sigmoid net; initialisation and BatchNorm rescue it."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes

from examples.lesson.lab import Lab, digits, monitor, seeded
from examples.lesson.results import Claim, Numbers, Panel, Row
from lightning_stab import WeightInitialization
from lightning_stab.models import MLPClassifier

CURES = {
    "torch default": ([], False),
    "Xavier, gain 1": ([("xavier_normal", 1.0)], False),
    "auto": ([("auto", None)], False),
    "BatchNorm": ([], True),
}
DEAD, ALIVE = 0.3, 0.85
ALIVE_AT_EVERY_DEPTH = {
    ("sigmoid", "BatchNorm"),
    ("tanh", "Xavier, gain 1"),
    ("tanh", "auto"),
    ("tanh", "BatchNorm"),
    ("relu", "auto"),
    ("relu", "BatchNorm"),
}


@dataclass(frozen=True)
class Cell:
    """A trained net: its accuracy, and D, log10 of first / last gradient at its first step."""

    accuracy: float
    ratio: float


def train(lab: Lab, activation: str, depth: int, cure: str) -> Cell:
    """Train one net of the grid."""
    schemes, batch_norm = CURES[cure]
    module = seeded(
        MLPClassifier, depth=depth, width=64, activation=activation, batch_norm=batch_norm
    )
    callbacks = [WeightInitialization(s, gain=g, seed=0, verbose=False) for s, g in schemes]
    case = f"{activation}-{depth}-{cure}".replace(" ", "_").replace(",", "")
    result = lab.fit(
        2, case, module, digits(), [*callbacks, monitor(50)], max_epochs=lab.size(5, 15)
    )
    ratio = result.scalars("depth/first_last_log10")[0]
    return Cell(result.scalars("val_accuracy")[-1], ratio)


def run(lab: Lab) -> Claim:
    """Train the grid and compare the deepest nets."""
    depths = lab.size((2, 10), (2, 5, 10, 20))
    activations = lab.size(("sigmoid",), ("sigmoid", "tanh", "relu"))
    grid = {
        (a, cure, d): train(lab, a, d, cure) for a in activations for cure in CURES for d in depths
    }
    rows = [row(grid, a, cure, depths) for a in activations for cure in CURES]
    title = "2  Accuracy by depth, and (D)"
    return Claim(
        2,
        "Depth kills the plain sigmoid net; BatchNorm rescues it",
        rows,
        [Panel(title, lambda ax: draw(ax, grid, activations, depths))],
    )


def row(
    grid: dict[tuple[str, str, int], Cell], activation: str, cure: str, depths: tuple[int, ...]
) -> Row:
    """Say what one net does as it grows deeper."""
    cells = [grid[activation, cure, depth] for depth in depths]
    deepest, untreated = cells[-1], grid[activation, "torch default", depths[-1]]
    numbers: Numbers = {
        "depth": list(depths),
        "accuracy": [cell.accuracy for cell in cells],
        "D": [cell.ratio for cell in cells],
    }
    if (activation, cure) in ALIVE_AT_EVERY_DEPTH:
        expected = f"accuracy above {ALIVE} at every depth"
        holds = min(cell.accuracy for cell in cells) > ALIVE
    elif cure == "torch default":
        expected = f"the deepest stays below {DEAD}"
        holds = deepest.accuracy < DEAD
    elif (activation, cure) == ("sigmoid", "Xavier, gain 1"):
        expected = f"does not help: the deepest has D < -3 and stays below {DEAD}"
        holds = deepest.accuracy < DEAD and deepest.ratio < -3
    else:
        expected = "better than torch's weights in the deepest"
        holds = deepest.accuracy > untreated.accuracy
    return Row(f"{activation}, {cure}", expected, numbers, holds)


def draw(
    ax: Axes,
    grid: dict[tuple[str, str, int], Cell],
    activations: tuple[str, ...],
    depths: tuple[int, ...],
) -> None:
    """Draw the grid as a table of colours."""
    names = [(a, cure) for a in activations for cure in CURES]
    values = [[grid[a, cure, d].accuracy for d in depths] for a, cure in names]
    ax.imshow(values, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    for y, (a, cure) in enumerate(names):
        for x, depth in enumerate(depths):
            cell = grid[a, cure, depth]
            ax.text(x, y, f"{cell.accuracy:.2f}  ({cell.ratio:+.1f})", ha="center", va="center")
    ax.set_yticks(range(len(names)), [f"{a}, {cure}" for a, cure in names])
    ax.set_xticks(range(len(depths)), [f"{d} layers" for d in depths])
    ax.set_xlabel("D = log10 of the first / last layer's gradient at the first step")

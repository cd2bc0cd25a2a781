"""Claim 4: a constant rate oscillates, a decaying one settles, early stopping keeps the best."""

from __future__ import annotations

from statistics import mean, stdev

from lightning.pytorch import Callback
from matplotlib.axes import Axes

from examples.lesson.lab import Lab, Run, digits, seeded
from examples.lesson.results import Claim, Numbers, Panel, Row
from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay
from lightning_stab.models import MLPClassifier

PATIENCE = 6
TAIL = 6  # the last epochs, in which a run has settled or has not


def train(lab: Lab, case: str, callbacks: list[Callback]) -> tuple[Run, MLPClassifier]:
    """Train at a rate that is too high to settle."""
    module = seeded(
        MLPClassifier,
        depth=1,
        width=32,
        activation="tanh",
        batch_norm=False,
        optimizer="sgd",
        learning_rate=lab.size(0.6, 0.3),
    )
    data = digits(batch_size=lab.size(32, 16))
    result = lab.fit(4, case, module, data, callbacks, max_epochs=lab.size(14, 40))
    return result, module


def run(lab: Lab) -> Claim:
    """Train with a constant rate, with decay, and with early stopping."""
    constant, _ = train(lab, "constant", [])
    decay = LearningRateDecay("exponential", gamma=lab.size(0.7, 0.9))
    decayed, _ = train(lab, "decay", [decay])
    stopping = BestWeightsEarlyStopping("val_loss", patience=PATIENCE)
    stopped, module = train(lab, "early-stopping", [stopping])
    curves = {
        name: result.scalars("val_loss")
        for name, result in (("constant", constant), ("decay", decayed), ("stopped", stopped))
    }
    best = min(curves["stopped"])
    at = curves["stopped"].index(best)
    again = stopped.trainer.validate(module, digits(batch_size=lab.size(32, 16)), verbose=False)[0][
        "val_loss"
    ]
    checks = len(curves["stopped"])
    swing = {name: stdev(curves[name][-TAIL:]) for name in ("constant", "decay")}
    settled: dict[str, Numbers] = {
        name: {
            "last losses": mean(curves[name][-TAIL:]),
            "their deviation": swing[name],
            "lowest": min(curves[name]),
        }
        for name in ("constant", "decay")
    }
    rows = [
        Row(
            "constant rate",
            "keeps swinging around the minimum",
            settled["constant"],
            swing["constant"] > 5 * swing["decay"],
        ),
        Row(
            "exponential decay",
            "settles, and lower",
            settled["decay"],
            mean(curves["decay"][-TAIL:]) < mean(curves["constant"][-TAIL:]),
        ),
        Row(
            f"stopped after {PATIENCE} checks",
            "the weights of the best check come back",
            {"stopped at epoch": checks - 1, "best at": at, "best": best, "now": again},
            checks - 1 - at == PATIENCE and abs(again - best) <= 1e-6 * best,
        ),
    ]
    panel = Panel("4  Validation loss by epoch", lambda ax: draw(ax, curves))
    return Claim(4, "Decay settles; early stopping keeps the best", rows, [panel])


def draw(ax: Axes, curves: dict[str, list[float]]) -> None:
    """Draw the validation losses."""
    ax.plot(curves["constant"], color="tab:red", label="constant rate")
    ax.plot(curves["decay"], color="tab:green", label="exponential decay")
    stopped = curves["stopped"]
    best = min(stopped)
    ax.plot(stopped, color="tab:blue", lw=3, alpha=0.5, label="early stopping")
    ax.plot(stopped.index(best), best, "*", ms=14, color="tab:blue", label="restored")
    ax.set(xlabel="epoch", ylabel="validation loss")
    ax.legend(loc="upper right")

"""Draw what `GradientMonitor` logs: the profile over depth of three nets, and norms over a run.

Real fits on scikit-learn's digits, read back from their TensorBoard files.

    python docs/figures/gradient_monitor.py [--out docs/images/NAME.png] [--small]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import lightning.pytorch as pl
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_stab import GradientMonitor
from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier

OUT = "docs/images/gradient_monitor.png"
NETS = {
    "sigmoid": {"activation": "sigmoid", "batch_norm": False},
    "sigmoid + BatchNorm": {"activation": "sigmoid", "batch_norm": True},
    "ReLU": {"activation": "relu", "batch_norm": False},
}
COLOURS = ("#c0392b", "#2b8a57", "#2c6fbb")


def logged(net: dict[str, object], depth: int, epochs: int) -> EventAccumulator:
    """Fit a net under the monitor and return what TensorBoard reads."""
    pl.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[GradientMonitor(every_n_steps=5, dense_steps=0)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(MLPClassifier(depth=depth, width=64, **net), DigitsDataModule())
        events = EventAccumulator(trainer.log_dir)
        events.Reload()
    return events


def scalars(events: EventAccumulator, section: str) -> dict[str, list[tuple[int, float]]]:
    """Return steps and values of every tag of a section, in the order they were logged."""
    tags = [t for t in events.Tags()["scalars"] if t.startswith(section + "/")]
    return {t.partition("/")[2]: [(e.step, e.value) for e in events.Scalars(t)] for t in tags}


def main(argv: list[str] | None = None) -> int:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(OUT))
    parser.add_argument("--small", action="store_true", help="a few seconds, to try it out")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    depth, epochs = (5, 1) if options.small else (20, 5)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for (name, net), colour in zip(NETS.items(), COLOURS, strict=True):
        events = logged(net, depth, epochs)
        profile = [points[-1][1] for points in scalars(events, "preactivation_grad").values()]
        ratio = scalars(events, "depth")["first_last_log10"][-1][1]
        label = f"{name}: first/last = 1e{ratio:+.1f}"
        left.semilogy(range(1, len(profile) + 1), profile, "o-", ms=3, color=colour, label=label)
        if name == "ReLU":
            _draw_norms(right, scalars(events, "grad_norm"))
    left.set(xlabel="layer, in execution order", ylabel="RMS of the pre-activations' gradient")
    left.set_title(f"preactivation_grad/<layer>, {depth} layers, after {epochs} epochs")
    left.legend(fontsize=8)
    left.xaxis.get_major_locator().set_params(integer=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    return 0


def _draw_norms(axes: plt.Axes, norms: dict[str, list[tuple[int, float]]]) -> None:
    total = norms.pop("total")
    shades = plt.get_cmap("viridis")
    for place, points in enumerate(norms.values()):
        steps, values = zip(*points, strict=True)
        axes.semilogy(steps, values, color=shades(place / len(norms)), lw=0.9)
    steps, values = zip(*total, strict=True)
    axes.semilogy(steps, values, color="black", lw=2, label="total")
    axes.set(xlabel="step", ylabel="2-norm")
    axes.set_title("grad_norm/total and grad_norm/<layer> of the ReLU net")
    bar = axes.figure.colorbar(plt.cm.ScalarMappable(cmap=shades), ax=axes, ticks=[0, 1])
    bar.set_ticklabels(["first layer", "last layer"])
    axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(main())

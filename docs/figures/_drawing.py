"""What the figures' scripts share: a command line, quiet Trainers, and a look of their own."""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

IMAGES = Path("docs/images")
GREY, BLUE, GREEN, RED, ORANGE = "#8a8a8a", "#2f6db3", "#2b8a57", "#c0392b", "#e08a1e"
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
Points = list[tuple[int, float]]


def run(
    script: str,
    description: str,
    draw: Callable[[bool], Figure],
    argv: list[str] | None = None,
) -> int:
    """Read the command line, draw the figure, and save it.

    Args:
        script: the file of the script; the picture gets its name.
        description: the script's docstring.
        draw: returns the figure, in a small size if its argument is true.
        argv: the words of the command line.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    out = IMAGES / f"{Path(script).stem}.png"
    parser.add_argument("--out", type=Path, default=out, help=f"the picture, {out} by default")
    parser.add_argument("--small", action="store_true", help="a few seconds, to try it out")
    options = parser.parse_args(argv)
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    plt.switch_backend("Agg")
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = draw(options.small)
    log.setLevel(level)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    plt.close(figure)
    return 0


def fit(module: pl.LightningModule, *callbacks: pl.Callback, data: Any, **trainer: Any) -> None:
    """Train quietly; ``data`` is a data module, a loader, or a pair of loaders."""
    loaders = data if isinstance(data, tuple) else (data,)
    pl.Trainer(callbacks=list(callbacks), **{**QUIET, "logger": False, **trainer}).fit(
        module, *loaders
    )


def logged(
    module: pl.LightningModule, callback: pl.Callback, data: Any, **trainer: Any
) -> dict[str, Points]:
    """Fit under a callback, and return what TensorBoard reads: steps and values of each tag."""
    with tempfile.TemporaryDirectory() as folder:
        logger = TensorBoardLogger(folder)
        fit(module, callback, data=data, logger=logger, **trainer)
        events = EventAccumulator(logger.log_dir).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def side_by_side(small: bool, *panels: tuple[Callable[[Axes, int], None], int, int]) -> Figure:
    """Return a figure of panels beside each other: a function, its epochs if small, and in full."""
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.2), layout="constrained")
    for (draw_panel, few, all_of_them), each in zip(panels, axes, strict=True):
        draw_panel(each, few if small else all_of_them)
    without_frame(axes)
    return figure


def without_frame(axes: Iterable[Axes]) -> None:
    """Leave out the upper and the right line of the frames."""
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)

"""Figures of the run for loggers, where matplotlib is installed: the loss, and layers over time."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from lightning_stab.reporting.chart import steps_axis
from lightning_stab.reporting.curves import learning_curves
from lightning_stab.reporting.depth import COLUMNS, gradients_by_layer, sample
from lightning_stab.reporting.run import Run

BLUE, ORANGE, VERMILLION = "#0072B2", "#E69F00", "#D55E00"


def run_figures(run: Run) -> Mapping[str, Any]:
    """Return figures by name; none where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        return {}
    figures = {"overview": _overview(run), "layers": _layers(run)}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _new(height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)  # pyplot's state is the user's
    panel = figure.subplots()
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel("step")
    return figure, panel


def _overview(run: Run) -> Any | None:
    """Return the losses, with the findings' steps."""
    learning = learning_curves(run.series)
    tags = [t for t in (learning.training, learning.validation) if t]
    if not tags:
        return None
    figure, panel = _new(3.2)
    for tag, colour in zip(tags, (BLUE, ORANGE), strict=False):
        series = run.series[tag]
        panel.plot(series.steps, series.values, color=colour, linewidth=1.4)
        label = f" {tag}".replace("$", r"\$")
        panel.annotate(label, (series.steps[-1], series.values[-1]), color=colour, fontsize=8)
    for finding in run.findings:
        if finding["severity"] != "info":
            panel.axvline(finding["step"], color=VERMILLION, linewidth=1, linestyle="--")
            top = panel.get_xaxis_transform()
            panel.text(finding["step"], 1.0, f" {finding['id']}", fontsize=8, transform=top,
                       color=VERMILLION, va="top")  # fmt: skip
    values = np.concatenate([run.series[t].finite().values for t in tags])
    if len(values) and values.min() > 0 and values.max() / values.min() > 30:
        panel.set_yscale("log")
    panel.set_title("loss", fontsize=10, loc="left")
    return figure


def _layers(run: Run) -> Any | None:
    """Return the gradient norm of each layer over time."""
    what, layers = gradients_by_layer(run)
    if not layers:
        return None
    steps = steps_axis(run.last_step)
    values = np.stack([sample(series, steps, COLUMNS) for series in layers.values()])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(values)
    logs[~np.isfinite(logs)] = np.nan
    figure, panel = _new(min(1.2 + 0.16 * len(layers), 9))
    extent = (0, steps.high, len(layers) - 0.5, -0.5)
    image = panel.imshow(logs, aspect="auto", cmap="cividis", extent=extent, interpolation="none")
    names = [n.replace("$", r"\$") for n in layers]
    every = -(-len(names) // 40)
    panel.set_yticks(range(0, len(names), every), names[::every], fontsize=7)
    figure.colorbar(image, ax=panel, label="log10")
    panel.set_title(f"{what} by layer", fontsize=10, loc="left")
    return figure

"""The figure of `WeightInitialization`: signal and gradient over depth, before and after."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.logging import log_step, tensorboard_writers
from lightning_stab.functional.initialization import WeightRecord

TAG = "weight_initialization/profile"
_BEFORE, _AFTER = "#8a8a8a", "#2b8a57"


def log_profile(trainer: Trainer, records: Sequence[WeightRecord]) -> None:
    """Send the figure to every TensorBoard logger, where matplotlib is installed."""
    measured = [record for record in records if record.activation_std_after is not None]
    if len(measured) < 2 or importlib.util.find_spec("matplotlib") is None:
        return
    for writer in tensorboard_writers(trainer):
        writer.add_figure(TAG, profile_figure(measured), log_step(trainer))


def profile_figure(records: Sequence[WeightRecord]) -> Any:
    """Return a figure of the records' signal and gradient, without touching pyplot's state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    depth = range(1, len(records) + 1)
    for panel, title, quantity in zip(
        panels,
        ("signal: std of a unit over the batch", "gradient: RMS of dL/dz"),
        ("activation_std", "gradient_rms"),
        strict=True,
    ):
        for moment, color in (("before", _BEFORE), ("after", _AFTER)):
            values = [getattr(record, f"{quantity}_{moment}") for record in records]
            # A logarithm has no place for a zero: such a layer shows as a gap.
            shown = [value if value else float("nan") for value in values]
            panel.plot(depth, shown, ".-", color=color, label=moment)
        panel.set_yscale("log")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("layer")
        panel.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    return figure

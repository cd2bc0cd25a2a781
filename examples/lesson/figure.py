"""All panels of the lesson in one picture."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from examples.lesson.results import Claim

COLUMNS = 2


def save_figure(claims: list[Claim], path: Path) -> None:
    """Draw every panel of the claims into one PNG."""
    panels = [panel for claim in claims for panel in claim.panels]
    num_rows = max(1, ceil(len(panels) / COLUMNS))
    style = {"font.size": 11, "axes.titlesize": 13, "axes.titleweight": "bold"}
    with plt.rc_context({**style, "legend.fontsize": 9.5, "legend.framealpha": 0.9}):
        figure, axes = plt.subplots(
            num_rows, COLUMNS, figsize=(14, 4.6 * num_rows), layout="constrained", squeeze=False
        )
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
        for ax, panel in zip(axes.flat, panels, strict=False):
            ax.set_title(panel.title, loc="left")
            panel.draw(ax)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        figure.savefig(path, dpi=100)
        plt.close(figure)

"""Where the report of a gradient check goes: TensorBoard, a json file, an error message."""

from __future__ import annotations

import json

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.logging import log_folder, log_step, log_text
from lightning_stab.functional.gradcheck import GradientReport, describe

FILE_NAME = "gradient_check.json"


def write_report(trainer: Trainer, report: GradientReport) -> None:
    """Write the report as TensorBoard text, and as json into the log folder."""
    log_text(trainer, "gradient_check", f"```\n{report}\n```")
    folder = log_folder(trainer)
    if folder is not None and trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        place = {"epoch": trainer.current_epoch, "step": log_step(trainer)}
        text = json.dumps({**place, **report.to_dict()}, indent=1)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def message(report: GradientReport) -> str:
    """Return what is wrong, where, and what to do about it."""
    found = "\n".join(f"  {describe(record)}" for record in report.wrong)
    return (
        f"{len(report.wrong)} of {len(report.parameters)} parameters have a wrong gradient:\n"
        f"{found}\n"
        "Look at the hand-written backward passes between these parameters and the loss. "
        'To train on nevertheless, use `on_fail="warn"`.'
    )

"""TensorBoard's own page: charts that are useful without a click, and the run as a table row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.logging import summary_writer
from lightning_stab.callbacks._trainer.places import reporting

# Regular expressions, which TensorBoard looks for at the beginning of a tag; the loss first.
LAYOUT: Mapping[str, Any] = {
    "1 learning": {
        "loss": ["Multiline", ["^(?!guard/|outcome/)(.*[/_-])?loss([/_-].*)?$"]],
        "metrics": [
            "Multiline",
            ["^(?!outcome/)(.*[/_.-])?(acc|f1|auc|auroc|error|iou|mae|perplexity|rmse|score)"],
        ],
        "learning rate": ["Multiline", ["^lr[-/]"]],
    },
    "2 gradients": {
        "norm before and after clipping": [
            "Multiline",
            ["^grad_norm(_clipped)?/total$", "^clip/norm_(before|after)$"],
        ],
        "norm by layer": ["Multiline", ["^grad_norm/(?!total)"]],
        "update to weight": ["Multiline", ["^update_ratio/"]],
    },
    "3 units": {
        "dead": ["Multiline", ["^dead_fraction/"]],
        "saturated": ["Multiline", ["^saturated_fraction/"]],
        "spread of activations": ["Multiline", ["^activation_std/"]],
    },
    "4 events": {
        "skipped and rewound steps": ["Multiline", ["^guard/(skipped|rewound)$"]],
        "findings (1 info, 2 warning, 3 error)": ["Multiline", ["^diagnosis/"]],
        "mixed precision": ["Multiline", ["^precision/"]],
    },
}
FOLDER = "outcome"  # beside the run's event file: a file's first hyperparameters hide later ones


def log_outcome(
    trainer: Trainer, folder: str, settings: Mapping[str, Any], outcome: Mapping[str, float]
) -> None:
    """Write what was set and how it ended for TensorBoard's HParams page."""
    loggers = trainer.loggers if trainer.is_global_zero else ()
    with reporting(trainer, "The outcome cannot be written for TensorBoard"):
        if any(summary_writer(logger) is not None for logger in loggers):
            from torch.utils.tensorboard import SummaryWriter, summary

            records: Any = summary.hparams  # torch gives it no types

            with SummaryWriter(f"{folder}/{FOLDER}") as writer:
                for record in records(dict(settings), dict(outcome)):
                    writer._get_file_writer().add_summary(record)
                for tag, value in outcome.items():
                    writer.add_scalar(tag, value)

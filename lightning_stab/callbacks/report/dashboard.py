"""TensorBoard's own page: charts that are useful without a click, and the run as a table row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of, inherits
from lightning_stab.callbacks._trainer.logging import summary_writer
from lightning_stab.callbacks._trainer.places import reporting
from lightning_stab.callbacks.report.precision import is_scaled
from lightning_stab.reporting.run import OUTCOME

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
# Whose tags a chart draws, by the names of classes; a chart that nobody fills would stay empty.
FILLED_BY: Mapping[str, set[str]] = {
    "learning rate": {"LearningRateMonitor", "LearningRateDecay"},
    "norm before and after clipping": {"GradientMonitor", "GradientClipping"},
    "norm by layer": {"GradientMonitor"},
    "update to weight": {"GradientMonitor"},
    "dead": {"ActivationMonitor"},
    "saturated": {"ActivationMonitor"},
    "spread of activations": {"ActivationMonitor"},
    "skipped and rewound steps": {"StepGuard"},
    "findings (1 info, 2 warning, 3 error)": {"TrainingDoctor"},
}


def layout_for(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Return the layout without the charts that no callback of this Trainer fills."""
    present = callbacks_of(trainer)
    empty = {
        chart
        for chart, fillers in FILLED_BY.items()
        if not any(inherits(each, name) for each in present for name in fillers)
    }
    if not is_scaled(trainer):
        empty.add("mixed precision")
    kept = {
        group: {name: chart for name, chart in charts.items() if name not in empty}
        for group, charts in LAYOUT.items()
    }
    return {group: charts for group, charts in kept.items() if charts}


def log_outcome(
    trainer: Trainer, folder: str, settings: Mapping[str, Any], outcome: Mapping[str, float]
) -> None:
    """Write what was set and how it ended for TensorBoard's HParams page."""
    loggers = trainer.loggers if trainer.is_global_zero else ()
    with reporting(trainer, "The outcome cannot be written for TensorBoard"):
        if any(summary_writer(logger) is not None for logger in loggers):
            from torch.utils.tensorboard import SummaryWriter, summary

            records: Any = summary.hparams  # torch gives it no types

            # not beside the run's event file: a file's first hyperparameters hide later ones
            with SummaryWriter(f"{folder}/{OUTCOME}") as writer:
                for record in records(dict(settings), dict(outcome)):
                    writer._get_file_writer().add_summary(record)
                for tag, value in outcome.items():
                    writer.add_scalar(tag, value)

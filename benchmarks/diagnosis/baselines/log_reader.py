"""hyperassist, a published package (PyPI, Apache-2.0, 0.0.3 when this was written), given a log.

It reads lines of text: epoch, training and validation loss, accuracy, learning rate and gradient
norm. One line an epoch is written as its documentation shows, and `process` is asked at the end of
the fit, with the number of classes where targets are classes.

What was chosen here:
- Counted is what it says of the run as a whole (unstable, stuck at chance, underfitting,
  overfitting), and its red marks of an epoch (NaN, a gradient norm far above the median or below
  1e-5, a loss twice that of the epoch before). Its yellow mark of an epoch whose loss hardly moved
  is left out, which every run has that converges; so is a changed learning rate.
- The gradient norm of an epoch is that of its last step. A loss that is negative, which it cannot
  read, is left out of its line.
- It prints everything that it reads; that goes nowhere.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from benchmarks.diagnosis.baselines.findings import Baseline, RunningMean, loss_of, metric_of

RED = {  # its marks of an epoch, and the suite's ids
    "instability": "non-finite",
    "exploding_gradient": "exploding-gradient",
    "vanishing_gradient": "vanishing-gradient",
    "loss_jump": "loss-spike",
}
WHOLE = {"all_acc_stuck": "plateau", "underfit": "underfitting", "overfit": "overfitting"}


class HyperassistLog(Baseline):
    """Writes a log of the run and has it read."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._loss, self._classes, self._norm = RunningMean(), 0, math.nan

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Note the gradient's norm."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self._norm = float(torch.nn.utils.get_total_norm([g.to_dense() for g in gradients]))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the loss; count the classes."""
        self._loss.add(loss_of(outputs))
        target = batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
        is_classes = isinstance(target, Tensor) and not target.is_floating_point()
        if is_classes and target.dim() == 1:
            self._classes = max(self._classes, int(target.max()) + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's line: the validation stands in Lightning's metrics by now."""
        rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else math.nan
        known = {
            "train_loss": self._loss.take(),
            "val_loss": metric_of(trainer, "val_loss"),
            "accuracy": metric_of(trainer, "val_accuracy", "val_acc"),
            "lr": float(rate),
            "grad_norm": self._norm,
        }
        # it reads no exponents, but in the norm
        shown = [f"{name}: {value:.8f}" for name, value in known.items() if _is_readable(value)]
        self.lines.append(" ".join([f"Epoch: {trainer.current_epoch + 1}", *shown]))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the log read."""
        self._read(trainer.global_step)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Have what there is read."""
        self._read(trainer.global_step)

    def _read(self, step: int) -> None:
        from hyperassist.log_assist import (  # type: ignore[import-not-found,unused-ignore]
            analyzer,
        )

        options = {"num_classes": self._classes} if self._classes > 1 else {}
        chunks, norms = analyzer.parse_log_into_chunks(self.lines)
        analyzer.analyze_chunks(chunks, norms, **options)
        for tag in dict.fromkeys(tag for chunk in chunks for tag in chunk["tags"]):
            if tag in RED:
                self.report(RED[tag], tag, step)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder, "log.txt")
            path.write_text("\n".join(self.lines))
            whole = analyzer.process_from_file(str(path), **options)
        has_accuracy = any(chunk["acc"] is not None for chunk in chunks)
        for name, id_ in WHOLE.items():
            if whole[name] and (has_accuracy or name != "all_acc_stuck"):
                self.report(id_, name, step)


def _is_readable(value: float | None) -> bool:
    return value is not None and not value < 0

"""An event file in the run's folder, where no logger leaves one that a report can be made from."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_stab.callbacks._trainer.lightning_classes import inherits

READABLE = ("TensorBoardLogger", "CSVLogger")


class EventFile:
    """Adds a TensorBoard logger for the length of a fit, and takes it away."""

    def __init__(self) -> None:
        self._logger: Any = None

    def begin(self, trainer: Trainer, folder: str) -> None:
        """Add it, where it is needed; checkpoints already have their folder."""
        self.end(trainer)
        if not any(inherits(logger, *READABLE) for logger in trainer.loggers):
            self._logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
            trainer.loggers = [*trainer.loggers, self._logger]

    def end(self, trainer: Trainer) -> None:
        """Take it away."""
        if self._logger is not None:
            trainer.loggers = [each for each in trainer.loggers if each is not self._logger]
            self._logger.finalize("success")
            self._logger = None

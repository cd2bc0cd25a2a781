"""The folder of a run: one of its own, with the configuration beside the logs."""

from __future__ import annotations

import os
import shutil
import sys
from itertools import count
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

EMPTY_LOG = 200  # bytes of an event file in which only its version stands


def claim_folders(trainer: Trainer) -> list[Path]:
    """Make the run's version folder now, so that no run that starts meanwhile takes it too.

    Lightning chooses the next free number, but makes the folder only when it first writes. Making
    a folder succeeds for one process alone, so whoever made it owns the number.
    """
    claimed = []
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, (TensorBoardLogger, CSVLogger)) and "://" not in logger.root_dir:
            if logger._version is None:
                os.makedirs(os.path.expanduser(os.path.expandvars(logger.root_dir)), exist_ok=True)
            while logger._version is None:
                folder = os.path.expanduser(logger.log_dir)  # the logger chooses its number now
                try:
                    os.makedirs(folder)
                    claimed.append(Path(folder))
                except FileExistsError:
                    logger._version = None  # another run took it: choose again
    return claimed


def leave_no_empty_folder(claimed: list[Path]) -> None:
    """Remove the folders of a run that failed before it wrote more than its configuration.

    Args:
        claimed: folders that this process has made.
    """
    for folder in claimed:
        if folder.is_dir() and all(
            path.suffix == ".yaml"
            or (path.name.startswith("events.out") and path.stat().st_size < EMPTY_LOG)
            for path in folder.iterdir()
        ):
            shutil.rmtree(folder)


def tensorboard_command(folder: str) -> str:
    """Return the command that shows a folder in TensorBoard, from where the user stands."""
    program = Path("tensorboard")
    if shutil.which("tensorboard") is None:  # the environment is not the active one
        program = Path(sys.executable).parent / "tensorboard"
        if program.is_relative_to(Path.cwd()):
            program = program.relative_to(Path.cwd())
    return f"{program} --logdir {folder}"


class ConfigSaver(SaveConfigCallback):
    """Saves the configuration beside the logs: nowhere without a logger, and never over another.

    The second run in one folder (a resumed one, or one with a version of its own name) saves
    ``config_1.yaml``, and so on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save once, on the first rank."""
        if not trainer.loggers:
            return
        folder = trainer.log_dir  # read on every rank, because it is broadcast
        if folder is not None and "://" not in folder:
            first, numbers = Path(self.config_filename), count(1)
            while Path(folder, self.config_filename).exists():
                self.config_filename = f"{first.stem}_{next(numbers)}{first.suffix}"
        super().setup(trainer, pl_module, stage)

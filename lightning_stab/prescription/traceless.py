"""A fit that leaves nothing behind: no folder, no checkpoint, no log, no random number."""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_stab.callbacks import StabilityReport
from lightning_stab.functional.random_states import preserve_random_states

# they write files or print; everything else may change the training and stays
LEFT_OUT = (Checkpoint, ProgressBar, ModelSummary, StabilityReport)


def kept_callbacks(callbacks: Callback | Sequence[Callback] | None) -> list[Callback]:
    """Return the callbacks that write nothing."""
    listed = callbacks if isinstance(callbacks, Sequence) else [callbacks] if callbacks else []
    return [each for each in listed if not isinstance(each, LEFT_OUT)]


def traceless_arguments(folder: str) -> dict[str, Any]:
    """Return the arguments by which a Trainer leaves no traces but in a folder to throw away."""
    return {
        "logger": DummyLogger(),  # takes what a module says to `self.logger.experiment`
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "profiler": None,
        "fast_dev_run": False,
    }


@contextmanager
def quietly(printed: IO[str] | None = None) -> Iterator[None]:
    """Keep the standard output free, and leave out what Lightning says of a usual start.

    Args:
        printed: where what is printed goes instead; it is dropped where this is None.
    """
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with redirect_stdout(printed or io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def apart(seed: int) -> Iterator[None]:
    """Seed every global generator, and put all of them back in the end.

    So too the variable by which `WeightInitialization` learns the seed, and what happens at an
    interruption, because a Trainer that was interrupted leaves it switched off.
    """
    before = os.environ.get("PL_GLOBAL_SEED")
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    with preserve_random_states():
        os.environ["PL_GLOBAL_SEED"] = str(seed)
        seed_generators(seed)
        try:
            yield
        finally:
            os.environ.pop("PL_GLOBAL_SEED")
            if before is not None:
                os.environ["PL_GLOBAL_SEED"] = before
            if in_main and handler is not None:
                signal.signal(signal.SIGINT, handler)


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    torch.manual_seed(seed)

"""Texts for the terminal while a progress bar is drawn there: each begins on a line of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_stab.callbacks._trainer.lightning_classes import inherits
from lightning_stab.callbacks._trainer.places import reporting

LIGHTNING = logging.getLogger("lightning.pytorch")  # whose level and handlers `rank_zero_info` has


def say(trainer: Trainer, text: str, *, is_last: bool = False) -> None:
    """Log a text as Lightning logs its own, on the first rank, beside the progress bar.

    Args:
        trainer: whose bar may be in the way.
        text: what is said.
        is_last: whether the bar has ended with it, so that it is not drawn again.
    """
    if trainer.is_global_zero and LIGHTNING.isEnabledFor(logging.INFO):
        with (
            reporting(trainer, "A text cannot be printed"),
            beside_bar(trainer, LIGHTNING, is_last=is_last),
        ):
            rank_zero_info(text)


@contextmanager
def beside_bar(
    trainer: Trainer, logger: logging.Logger, *, is_last: bool = False
) -> Iterator[None]:
    """Let a text that is logged meanwhile begin on a line of its own.

    The line on which tqdm draws its bar is ended. Rich puts what goes to `sys.stderr` above its own
    bar; where a handler has kept the terminal itself, as Lightning's has, rich would draw over the
    text: the bar is stopped, and goes on below unless the text is the last.
    """
    bar = getattr(trainer, "progress_bar_callback", None)
    is_shown = getattr(bar, "is_enabled", True) and sys.stderr.isatty() and sys.stdout.isatty()
    if is_shown and inherits(bar, "TQDMProgressBar") and _is_open(bar):
        sys.stdout.flush()
        sys.stderr.write("\n")
    progress = getattr(bar, "progress", None) if inherits(bar, "RichProgressBar") else None
    if progress is not None and not (_writes_to_terminal(logger) and progress.live.is_started):
        progress = None
    if progress is not None:
        progress.stop()
    try:
        yield
    finally:
        if progress is not None and not is_last:
            progress.start()


def _is_open(bar: Any) -> bool:
    """Say whether tqdm's bar of the fit stands at the cursor; it ends its own line at the end."""
    with suppress(TypeError):  # what Lightning raises where there is no bar yet
        return not bar.train_progress_bar.disable
    return False


def _writes_to_terminal(logger: logging.Logger) -> bool:
    """Say whether a handler of the logger holds a terminal that is not the present `sys.stderr`."""
    each: logging.Logger | None = logger
    while each is not None:
        for handler in each.handlers:
            stream = getattr(handler, "stream", None)
            if stream is not None and stream not in (sys.stderr, sys.stdout) and stream.isatty():
                return True
        each = each.parent if each.propagate else None
    return False

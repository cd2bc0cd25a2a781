"""lightning-stab: PyTorch Lightning callbacks that keep deep networks trainable.

Importing it makes the callbacks' short names known to LightningCLI.
"""

from importlib import import_module
from typing import Any

from lightning_stab import callbacks
from lightning_stab._version import __version__
from lightning_stab.attach import recommended
from lightning_stab.callbacks import *  # noqa: F403  # their one list is in `callbacks`
from lightning_stab.callbacks.gradcheck.check_gradients import check_gradients
from lightning_stab.callbacks.initialization.initialize import initialize
from lightning_stab.loops.watch import watch

__all__ = ["__version__", "check_gradients", "initialize", "recommended", "watch"]
__all__ += ["prescribe"]  # noqa: F405  # loaded below
__all__ += callbacks.__all__  # in this form type checkers read it


def __getattr__(name: str) -> Any:
    """Load `prescribe` when it is asked for."""
    if name == "prescribe":
        return import_module("lightning_stab.prescription").prescribe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

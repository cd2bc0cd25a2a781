"""lightning-stab: PyTorch Lightning callbacks that keep deep networks trainable.

Importing it makes the callbacks' short names known to LightningCLI.
"""

from lightning_stab import callbacks
from lightning_stab._version import __version__
from lightning_stab.attach import recommended
from lightning_stab.callbacks import *  # noqa: F403  # their one list is in `callbacks`
from lightning_stab.callbacks.gradcheck.check_gradients import check_gradients
from lightning_stab.callbacks.initialization.initialize import initialize

__all__ = ["__version__", "check_gradients", "initialize", "recommended"]
__all__ += callbacks.__all__

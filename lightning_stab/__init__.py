"""lightning-stab: PyTorch Lightning callbacks that keep deep networks trainable.

Importing it costs next to nothing; each name is loaded when it is first asked for. The callbacks'
short names are known to LightningCLI.
"""

from typing import TYPE_CHECKING

from lightning_stab import callbacks
from lightning_stab._lazy import call_with, lazy
from lightning_stab._version import __version__ as __version__

HOMES = {"prescribe": ".prescription", "recommended": ".attach", "watch": ".loops.watch"}
HOMES |= {"check_gradients": ".callbacks.gradcheck.check_gradients"}
HOMES |= {"initialize": ".callbacks.initialization.initialize"}
HOMES |= dict.fromkeys(callbacks.__all__, ".callbacks")

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, HOMES)
    __all__ = ["__version__", *HOMES]
else:  # what type checkers, editors and the reference read
    from lightning_stab import errors as errors
    from lightning_stab.attach import recommended as recommended
    from lightning_stab.callbacks import *  # noqa: F403
    from lightning_stab.callbacks.gradcheck.check_gradients import (
        check_gradients as check_gradients,
    )
    from lightning_stab.callbacks.initialization.initialize import initialize as initialize
    from lightning_stab.loops.watch import watch as watch
    from lightning_stab.prescription import prescribe as prescribe

call_with("jsonargparse", lambda: [getattr(callbacks, name) for name in callbacks.__all__])

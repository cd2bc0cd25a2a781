"""lightning-stab: PyTorch Lightning callbacks that keep deep networks trainable.

Importing it makes the callbacks' short names known to LightningCLI.
"""

from lightning_stab import callbacks as _callbacks
from lightning_stab._version import __version__
from lightning_stab.callbacks.checking import check_gradients as check_gradients

# temporary while the modules are being written; becomes plain imports once all stand
for _name in _callbacks.__all__:
    globals()[_name] = getattr(_callbacks, _name)

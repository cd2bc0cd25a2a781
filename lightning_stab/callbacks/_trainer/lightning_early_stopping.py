"""Lightning's `EarlyStopping` as a base that the Trainers of both Lightning packages accept.

See `lightning_classes`. Inheriting from both packages' ``EarlyStopping`` fails on construction, so
of ``pytorch_lightning`` only the plain ``Callback`` is a base.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import EarlyStopping as _LightningEarlyStopping

if TYPE_CHECKING or "pytorch_lightning" not in sys.modules:
    EarlyStopping = _LightningEarlyStopping
else:
    import pytorch_lightning

    class EarlyStopping(_LightningEarlyStopping, pytorch_lightning.Callback):
        """An early stopping callback that the Trainers of both packages accept."""

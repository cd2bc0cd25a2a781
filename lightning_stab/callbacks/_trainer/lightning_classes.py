"""The one seam to Lightning's two packages, ``lightning.pytorch`` and ``pytorch_lightning``.

They define different classes of the same names, and each Trainer looks for its own. A class that
inherits from both `Callback` classes is accepted by both Trainers. ``pytorch_lightning`` is
inherited from only where it is imported already, because importing it costs over 100 ms.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lightning.pytorch import Callback as _LightningCallback

if TYPE_CHECKING or "pytorch_lightning" not in sys.modules:
    Callback = _LightningCallback
else:
    import pytorch_lightning

    class Callback(_LightningCallback, pytorch_lightning.Callback):
        """A callback that the Trainers of both packages accept."""

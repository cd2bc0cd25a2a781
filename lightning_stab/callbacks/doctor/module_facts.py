"""What the module's layers say of themselves: normalisation over few values, dropout."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_stab.callbacks._hooks.compiled import Hookable, hookable
from lightning_stab.callbacks._hooks.hooks import ModuleHooks
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.functional.layer_kinds import DROPOUTS

FEW_ROWS = 16  # of a batch, below which normalising over it is asked about
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class ModuleFacts(FactSource):
    """Reads shapes and settings only, so nothing is moved from the device."""

    def __init__(self) -> None:
        super().__init__()
        self._hooks = ModuleHooks()
        # by layer, of the latest batch: its rows, and its values for each channel
        self._values: dict[str, tuple[int, int]] = {}

    def start(self, module: LightningModule | Hookable) -> None:
        """Put hooks on normalisation layers for a batch."""
        self._values = {}
        dropout = 0.0
        for name, part in hookable(module).modules:
            if isinstance(part, NORMS):
                self._hooks.before(part, partial(self._see, name))
            elif isinstance(part, DROPOUTS) and part.training:
                dropout = max(dropout, float(part.p))
        self._known["dropout"] = dropout

    def stop(self) -> None:
        """Take the hooks off."""
        self._hooks.remove()
        if self._values:
            rows, values = (min(each) for each in zip(*self._values.values(), strict=True))
            self._known |= {"norm_rows": float(rows), "norm_values": float(values)}

    def _see(self, name: str, part: nn.Module, args: Any, kwargs: Any) -> None:
        value = args[0] if args else None
        if part.training and isinstance(value, Tensor) and 0 < len(value) < FEW_ROWS:
            self._values[name] = len(value), value.numel() // max(1, value.shape[1])

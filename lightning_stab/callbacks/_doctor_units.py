"""Dead and saturated units, as far as activations are seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_stab.callbacks._readings import Reading


class UnitFacts:
    def start(self, module: nn.Module) -> None:
        pass

    def stop(self) -> None:
        pass

    def readings(self) -> list[Reading]:
        return []

    def crossed(self, numbers: Mapping[str, float]) -> None:
        pass

    def facts(self) -> dict[str, Any]:
        return {}

"""One part of what is measured of a run: from the device to facts, and into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.diagnosis.facts import NAMES


class FactSource:
    """Gathers facts; what survives a restart is named by the keys of a checkpoint.

    Attributes:
        SAVED: attributes, without their underscore.
        SAVED_FACTS: names of facts that are measured once.
    """

    SAVED: ClassVar[tuple[str, ...]] = ()
    SAVED_FACTS: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def pending(self) -> list[DeviceScalars]:
        """Return what was measured since the last call; its numbers come back to the source."""
        return []

    def facts(self) -> Mapping[str, Any]:
        """Return what is known, by the names of `Facts`."""
        return self._known

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart, as plain values."""
        values = {key: getattr(self, f"_{key}") for key in self.SAVED}
        facts = {n: deepcopy(self._known[n]) for n in self.SAVED_FACTS if n in self._known}
        plain = {k: sorted(v) if isinstance(v, set) else deepcopy(v) for k, v in values.items()}
        return {**plain, **facts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory; what only one of the versions knows is left out."""
        for key in self.SAVED:
            if key not in state:  # of an earlier version
                continue
            is_set = isinstance(getattr(self, f"_{key}"), set)
            setattr(self, f"_{key}", set(state[key]) if is_set else deepcopy(state[key]))
        self._known |= {n: deepcopy(state[n]) for n in self.SAVED_FACTS if n in state}
        self._known = {name: value for name, value in self._known.items() if name in NAMES}

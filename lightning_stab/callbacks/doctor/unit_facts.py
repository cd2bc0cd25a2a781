"""Dead and saturated units, from what the activation functions do at the looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks.activations.probe import ActivationProbe

WINDOW_SAMPLES = 1000.0  # on all of which a dead unit is zero
WINDOW_LOOKS = 4  # or that many looks, whichever comes first
LEAST_LOOKS = 2  # before anything is called dead


class UnitFacts:
    """Follows each unit over a window of several looks, so that a rare one is not called dead."""

    def __init__(self) -> None:
        self._probe = ActivationProbe()
        self._looks = 0
        self._samples = 0.0
        self._known: dict[str, Any] = {}

    def start(self, module: LightningModule) -> None:
        """Put the hooks on for a batch."""
        is_over = self._samples >= WINDOW_SAMPLES or self._looks >= WINDOW_LOOKS
        if is_over:
            self._looks, self._samples = 0, 0.0
        self._probe.install(module, forget=self._looks == 0)
        self._looks += 1

    def stop(self) -> None:
        """Take the hooks off."""
        self._probe.remove()

    def readings(self) -> list[DeviceScalars]:
        """Return what was seen of each layer, still on the device."""
        layers = self._probe.layers
        if not layers:
            return []
        # a kind that is fused into a recurrent layer is bounded by nature, and not seen saturating
        columns = self._probe.values()[:, [2, 3, 5]].flatten()
        names = [layer.name for layer in layers]

        def named(values: list[float]) -> Mapping[str, float]:
            rows = [values[i : i + 3] for i in range(0, len(values), 3)]
            numbers = {f"dead:{n}": row[0] for n, row in zip(names, rows, strict=True)}
            numbers |= {f"saturated:{n}": row[1] for n, row in zip(names, rows, strict=True)}
            return numbers | {"samples": min(row[2] for row in rows)}

        return [DeviceScalars(columns, named)]

    def crossed(self, numbers: Mapping[str, float]) -> None:
        """Take in the numbers that have crossed."""
        if "samples" not in numbers:
            return
        self._samples = numbers["samples"]
        groups: dict[str, dict[str, float]] = {"dead": {}, "saturated": {}}
        for name, value in numbers.items():
            group, _, layer = name.partition(":")
            if group in groups and math.isfinite(value):
                groups[group][layer] = value
        if self._looks >= LEAST_LOOKS or self._samples >= WINDOW_SAMPLES:
            self._known["dead_fraction"] = groups["dead"]
        self._known["most_dead"] = max(groups["dead"].values(), default=math.nan)
        self._known["saturated_fraction"] = groups["saturated"]
        self._known.setdefault("saturated_at_start", groups["saturated"])

    def facts(self) -> dict[str, Any]:
        """Return the fractions by layer."""
        return dict(self._known)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the start, as plain values."""
        return {"saturated_at_start": dict(self._known.get("saturated_at_start", {}))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._known["saturated_at_start"] = dict(state["saturated_at_start"])

"""Dead and saturated units, from what the activation functions do at the sampled steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks.activations.probe import ActivationProbe

WINDOW_SAMPLES = 1000.0  # on all of which a dead unit is zero
WINDOW_STEPS = 4  # or that many sampled steps, whichever comes first
LEAST_STEPS = 2  # before anything is called dead


class UnitFacts:
    """Follows each unit over a window of sampled steps, so that a rare one is not called dead."""

    def __init__(self) -> None:
        self._probe = ActivationProbe()
        self._steps = 0
        self._samples = 0.0
        self._is_new = False  # whether the probe has seen a batch since it was read
        self._known: dict[str, Any] = {}

    def start(self, module: LightningModule) -> None:
        """Put the hooks on for a batch."""
        if self._samples >= WINDOW_SAMPLES or self._steps >= WINDOW_STEPS:
            self._steps, self._samples = 0, 0.0
        self._probe.install(module, forget=self._steps == 0)
        self._steps += 1
        self._is_new = True

    def stop(self) -> None:
        """Take the hooks off."""
        self._probe.remove()

    def drop(self) -> None:
        """Leave the batch unread; its units are followed on."""
        self._is_new = False

    def pending(self) -> list[DeviceScalars]:
        """Return what was seen of each layer, still on the device."""
        layers = self._probe.layers if self._is_new else []
        self._is_new = False
        if not layers:
            return []
        # a kind that is fused into a recurrent layer is bounded by nature, and not seen saturating
        columns = self._probe.values()[:, [2, 3, 5]].T.flatten()
        return [DeviceScalars(columns, partial(self._update, [layer.name for layer in layers]))]

    def _update(self, names: Sequence[str], values: list[float]) -> None:
        count = len(names)
        dead = _known(names, values[:count])
        saturated = _known(names, values[count : 2 * count])
        self._samples = min(values[2 * count :])
        if self._steps >= LEAST_STEPS or self._samples >= WINDOW_SAMPLES:
            self._known["dead_fraction"] = dead
        self._known["most_dead"] = max(dead.values(), default=math.nan)
        self._known["saturated_fraction"] = saturated
        self._known.setdefault("saturated_at_start", saturated)

    def facts(self) -> dict[str, Any]:
        """Return the fractions by layer."""
        return self._known

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the start, as plain values."""
        return {"saturated_at_start": dict(self._known.get("saturated_at_start", {}))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._known["saturated_at_start"] = dict(state["saturated_at_start"])


def _known(names: Sequence[str], values: list[float]) -> dict[str, float]:
    return {n: v for n, v in zip(names, values, strict=True) if math.isfinite(v)}

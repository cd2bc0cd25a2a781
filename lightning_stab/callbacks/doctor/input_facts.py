"""The largest values of each batch, so that a few broken samples are seen whenever they come."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_stab.callbacks._trainer.device_values import DeviceScalars

TENSORS = 2  # of a batch: its inputs and its targets
SAMPLED = 65536  # entries of each at most, spread evenly, so that every sample is among them
REMEMBERED, LEAST = 500, 20  # batches


class InputPeaks:
    """The largest magnitude of inputs and targets, batch by batch; it stays on the device."""

    def __init__(self) -> None:
        self._pending: list[list[Tensor]] = []
        self._peaks: list[deque[float]] = [deque(maxlen=REMEMBERED) for _ in range(TENSORS)]
        self._highest = [0.0] * TENSORS

    def add(self, batch: Any) -> None:
        """Note a batch's largest values."""
        leaves = batch if _is_flat(batch) else tree_leaves(batch)
        peaks = [_peak(v) for v in leaves if _is_measured(v)][:TENSORS]
        if peaks:
            self._pending.append(peaks)

    def readings(self) -> list[DeviceScalars]:
        """Return what has not crossed yet, and forget it."""
        pending, self._pending = self._pending, []
        if not pending:
            return []
        device = pending[0][0].device
        missing = torch.full((), torch.nan, device=device)
        rows = [[*peaks, *[missing] * (TENSORS - len(peaks))] for peaks in pending]
        values = torch.stack([peak.to(device, torch.float32) for row in rows for peak in row])
        return [DeviceScalars(values, lambda v: {f"peak:{i}": x for i, x in enumerate(v)})]

    def crossed(self, numbers: Mapping[str, float]) -> None:
        """Take in the numbers that have crossed."""
        new = [v for name, v in numbers.items() if name.startswith("peak:")]
        for place, value in enumerate(new):
            column = place % TENSORS
            if math.isfinite(value):
                self._peaks[column].append(value)
                self._highest[column] = max(self._highest[column], value)

    def facts(self) -> dict[str, float]:
        """Return the largest peak over the median one, of all tensors and of the second alone."""
        ratios = [
            highest / usual if len(peaks) >= LEAST and (usual := median(peaks)) > 0 else math.nan
            for highest, peaks in zip(self._highest, self._peaks, strict=True)
        ]
        known = [ratio for ratio in ratios if math.isfinite(ratio)]
        return {"input_peak": max(known, default=math.nan), "target_peak": ratios[-1]}

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {"peaks": [list(p) for p in self._peaks], "highest": list(self._highest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._peaks = [deque(p, maxlen=REMEMBERED) for p in state["peaks"]]
        self._highest = list(state["highest"])


def _is_plain(values: Tensor) -> bool:
    is_dense = values.layout is torch.strided and not values.is_nested
    return is_dense and values.is_floating_point()


def _is_flat(batch: Any) -> bool:
    return type(batch) in (list, tuple) and all(isinstance(v, Tensor) for v in batch)


def _is_measured(value: Any) -> bool:
    usable = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0
    return usable and value.layout is torch.strided


def _peak(values: Tensor) -> Tensor:
    flat = values.detach().reshape(-1)
    return flat[:: -(-flat.numel() // SAMPLED)].abs().amax()

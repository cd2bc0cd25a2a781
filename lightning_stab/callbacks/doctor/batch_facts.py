"""What batches show: their largest values, and what a probe sees of one on its way through."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_stab.callbacks._hooks.layer_outputs import first_and_last_hidden
from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks.doctor.loss_functions import Targets
from lightning_stab.callbacks.doctor.probe import DoctorProbe
from lightning_stab.diagnosis.facts import NAMES
from lightning_stab.functional.gradient_statistics import log_ratio

LEAST_VARIETIES, VARIETIES = 4, 10  # sampled steps whose mean is the variety within batches
BASELINES = 5  # sampled steps whose mean is the loss of a constant prediction
NOTHING = -45.0  # the log10 of float32's least positive number
TENSORS = 2  # of a batch: its inputs and its targets
SAMPLED = 65536  # entries of each at most, spread evenly, so that every sample is among them
REMEMBERED, LEAST = 500, 20  # batches whose largest values count


class BatchFacts:
    """What the probe of a sampled step saw, and what is kept of the start.

    Attributes:
        loss: of the batch, None where there is no single one.
    """

    def __init__(self) -> None:
        self.loss: Tensor | None = None
        self._probe: DoctorProbe | None = None
        self._targets = Targets()
        self._known: dict[str, Any] = {}
        self._baselines: list[list[float]] = []
        self._variety: list[float] = []

    def start(self, module: LightningModule) -> str:
        """Put the hooks on for a batch; return what cannot be seen, in one sentence, or nothing."""
        self.loss, self._probe = None, DoctorProbe(self._targets)
        return self._probe.install(module)

    def stop(self) -> None:
        """Take the hooks off; what was measured stays."""
        if self._probe is not None:
            self._probe.remove()

    def drop(self) -> None:
        """Leave the batch unread."""
        self._probe = None

    def pending(self) -> list[DeviceScalars]:
        """Return what the probe measured, still on the device."""
        self._known["attention_logits"] = {}  # those of the latest step alone
        self.stop()
        probe, self._probe = self._probe, None
        if probe is None:
            return []
        groups: list[tuple[Mapping[str, Tensor], Callable[[dict[str, Any]], None]]] = [
            (probe.gradients.gradient_rms(), self._update_gradients),
            (probe.spread, self._update_spread),
            (probe.attention, lambda spread: self._known.update(attention_logits=spread)),
            (probe.losses.measured, self._update_loss_inputs),
            (probe.time_ratios(), self._update_time),
        ]
        scalars = [_by_name(values, update) for values, update in groups if values]
        if probe.inputs is not None and "input_size" not in self._known:
            ends = torch.stack([probe.inputs.max(), probe.inputs.min()])
            scalars.append(DeviceScalars(ends, self._update_inputs))
        if self.loss is not None:
            scalars.append(DeviceScalars(probe.losses.baseline_of(self.loss), self._add_baseline))
        return scalars

    def _update_gradients(self, rms: dict[str, float]) -> None:
        self._known["depth"] = float(len(rms))
        ratio = self._known["gradient_depth_log10"] = _ratio(*first_and_last_hidden(rms))
        self._known.setdefault("gradient_depth_start_log10", ratio)

    def _update_spread(self, spread: dict[str, float]) -> None:
        first, last = first_and_last_hidden(spread)
        self._known["activation_depth_log10"] = _ratio(last, first)

    def _update_time(self, ends: dict[str, list[float]]) -> None:
        ratios = [_ratio(*pair) for pair in ends.values()]
        known = [ratio for ratio in ratios if math.isfinite(ratio)]
        self._known["gradient_time_log10"] = max(known, key=abs, default=math.nan)

    def _update_loss_inputs(self, measured: dict[str, float]) -> None:
        variety = measured.pop("batch_variety", math.nan)
        if math.isfinite(variety):
            self._variety = [*self._variety[1 - VARIETIES :], variety]
        if len(self._variety) >= LEAST_VARIETIES:
            self._known["batch_variety"] = sum(self._variety) / len(self._variety)
        self._known |= measured

    def _update_inputs(self, ends: list[float]) -> None:
        self._known["input_size"] = ends[0]
        self._known["input_spread"] = log_ratio(*ends)

    def _add_baseline(self, pair: list[float]) -> None:
        # the first sampled step knows the fewest targets, so the latest ones count
        self._baselines = [*self._baselines[1 - BASELINES :], pair]

    @property
    def baseline(self) -> float:
        """The loss of the best constant prediction: the mean over several, NaN if unknown."""
        return self._mean(0)

    @property
    def blind(self) -> float:
        """The loss of a prediction that knows nothing of the targets, NaN if unknown."""
        return self._mean(1)

    def _mean(self, column: int) -> float:
        known = [pair[column] for pair in self._baselines if math.isfinite(pair[column])]
        return sum(known) / len(known) if len(known) == len(self._baselines) > 0 else math.nan

    def facts(self) -> dict[str, Any]:
        """Return what is known of batches."""
        return self._known

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {
            "known": dict(self._known),
            "baselines": list(self._baselines),
            "variety": list(self._variety),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory; a fact that this version does not have is left out."""
        self._known = {name: value for name, value in state["known"].items() if name in NAMES}
        self._baselines, self._variety = list(state["baselines"]), list(state["variety"])


class InputPeaks:
    """The largest magnitude of inputs and targets, batch by batch; it stays on the device."""

    def __init__(self) -> None:
        self._pending: list[list[Tensor]] = []
        self._peaks: list[deque[float]] = [deque(maxlen=REMEMBERED) for _ in range(TENSORS)]
        self._highest = [0.0] * TENSORS

    def add(self, batch: Any) -> None:
        """Note a batch's largest values, so that no broken sample is missed."""
        is_flat = type(batch) in (list, tuple) and all(isinstance(v, Tensor) for v in batch)
        leaves = batch if is_flat else tree_leaves(batch)
        peaks = [_peak(v) for v in leaves if isinstance(v, Tensor) and _is_measured(v)][:TENSORS]
        if peaks:
            self._pending.append(peaks)

    def pending(self) -> list[DeviceScalars]:
        """Return the values of each batch."""
        pending, self._pending = self._pending, []
        if not pending:
            return []
        device = pending[0][0].device
        missing = torch.full((), torch.nan, device=device)
        rows = [[*peaks, *[missing] * (TENSORS - len(peaks))] for peaks in pending]
        values = torch.stack([peak.to(device, torch.float32) for row in rows for peak in row])
        return [DeviceScalars(values, self._update)]

    def _update(self, values: list[float]) -> None:
        for column, peaks in enumerate(self._peaks):
            new = [value for value in values[column::TENSORS] if math.isfinite(value)]
            peaks.extend(new)
            self._highest[column] = max([self._highest[column], *new])

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


def _by_name(
    values: Mapping[str, Tensor], update: Callable[[dict[str, Any]], None]
) -> DeviceScalars:
    """Pack tensors of one shape; ``update`` gets a number, or a list of them, by name."""
    tensors = list(values.values())
    packed = torch.stack([t.detach().to(tensors[0].device, torch.float64) for t in tensors])

    def named(numbers: list[float]) -> None:
        size = len(numbers) // len(tensors)
        rows = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        update(dict(zip(values, rows if packed.dim() > 1 else numbers, strict=True)))

    return DeviceScalars(packed.flatten(), named)


def _ratio(numerator: float, denominator: float) -> float:
    """Return the log10 of a ratio; of what has shrunk to nothing, that of the least number."""
    if numerator == 0 and denominator > 0 and math.isfinite(denominator):
        return NOTHING
    return log_ratio(numerator, denominator)


def _is_measured(values: Tensor) -> bool:
    usable = values.is_floating_point() and values.numel() > 0
    return usable and values.layout is torch.strided


def _peak(values: Tensor) -> Tensor:
    flat = values.detach().reshape(-1)
    return flat[:: -(-flat.numel() // SAMPLED)].abs().amax()

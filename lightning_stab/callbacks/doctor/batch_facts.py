"""From what one batch showed to facts: names, logarithms, and what is kept from the start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_stab.callbacks._hooks.layer_outputs import first_and_last_hidden
from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks.doctor.loss_functions import Targets
from lightning_stab.callbacks.doctor.probe import DoctorProbe
from lightning_stab.functional.gradient_statistics import log_ratio

LEAST_VARIETIES, VARIETIES = 4, 10  # looks whose mean is the variety within batches
NOTHING = -45.0  # the log10 of float32's least positive number
BASELINES = 5  # looks whose mean is the loss of a constant prediction


class BatchFacts:
    """What probes saw, look by look."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.targets = Targets()
        self._baselines: list[list[float]] = []
        self._variety: list[float] = []

    @property
    def baseline(self) -> float:
        """The loss of the best constant prediction: the mean over the looks, NaN if unknown."""
        return self._mean(0)

    @property
    def blind(self) -> float:
        """The loss of a prediction that knows nothing of the targets, NaN if unknown."""
        return self._mean(1)

    def _mean(self, column: int) -> float:
        known = [pair[column] for pair in self._baselines if math.isfinite(pair[column])]
        return sum(known) / len(known) if len(known) == len(self._baselines) > 0 else math.nan

    def readings(self, probe: DoctorProbe, loss: Tensor | None) -> list[DeviceScalars]:
        """Return what a probe measured, still on the device.

        Args:
            probe: of a batch that ran forward and backward.
            loss: of that batch, or None if there is no single one.
        """
        groups: dict[str, Mapping[str, Tensor]] = {
            "gradient": probe.gradients.gradient_rms(),
            "spread": probe.spread,
            "attention": probe.attention,
            "loss": probe.losses.measured,
        }
        readings = [_named(f"{group}:", values) for group, values in groups.items() if values]
        for name, pair in probe.time_ratios().items():
            update = partial(_time_ratio, name)
            readings.append(DeviceScalars(pair, update))
        if probe.inputs is not None and "input_size" not in self.known:
            ends = torch.stack([probe.inputs.max(), probe.inputs.min()])
            readings.append(
                DeviceScalars(ends, lambda v: {"input_size": v[0], "input_least": v[1]})
            )
        if loss is not None:
            pair = probe.losses.baseline_of(loss)
            readings.append(DeviceScalars(pair, lambda v: {"baseline": v[0], "blind": v[1]}))
        return readings

    def crossed(self, numbers: Mapping[str, float]) -> None:
        """Take in the numbers that have crossed."""
        groups: dict[str, dict[str, float]] = {}
        for name, value in numbers.items():
            group, _, key = name.partition(":")
            groups.setdefault(group, {})[key] = value
        known = self.known
        if "gradient" in groups:
            known["depth"] = float(len(groups["gradient"]))
            known["gradient_depth_log10"] = _ratio(*first_and_last_hidden(groups["gradient"]))
            known.setdefault("gradient_depth_start_log10", known["gradient_depth_log10"])
        if "spread" in groups:
            first, last = first_and_last_hidden(groups["spread"])
            known["activation_depth_log10"] = _ratio(last, first)
        if "time" in groups:
            ratios = [r for r in groups["time"].values() if math.isfinite(r)]
            known["gradient_time_log10"] = max(ratios, key=abs, default=math.nan)
        known["attention_logits"] = groups.get("attention", {})
        of_the_loss = groups.get("loss", {})
        variety = of_the_loss.pop("batch_variety", math.nan)
        if math.isfinite(variety):
            self._variety = [*self._variety[1 - VARIETIES :], variety]
        if len(self._variety) >= LEAST_VARIETIES:
            known["batch_variety"] = sum(self._variety) / len(self._variety)
        known |= of_the_loss
        if "input_size" in numbers:
            known["input_size"] = numbers["input_size"]
            known["input_spread"] = log_ratio(numbers["input_size"], numbers["input_least"])
        if "baseline" in numbers:
            # the first look knows the fewest targets, so the latest ones count
            self._baselines = [
                *self._baselines[1 - BASELINES :],
                [numbers["baseline"], numbers["blind"]],
            ]

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {
            "known": dict(self.known),
            "baselines": list(self._baselines),
            "variety": list(self._variety),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self.known, self._baselines = dict(state["known"]), list(state["baselines"])
        self._variety = list(state["variety"])


def _named(prefix: str, values: Mapping[str, Tensor]) -> DeviceScalars:
    names = [prefix + name for name in values]
    packed = torch.stack([v.detach().double() for v in values.values()])
    return DeviceScalars(packed, lambda numbers: dict(zip(names, numbers, strict=True)))


def _time_ratio(name: str, pair: list[float]) -> dict[str, float]:
    return {f"time:{name}": _ratio(pair[0], pair[1])}


def _ratio(numerator: float, denominator: float) -> float:
    """Return the log10 of a ratio; of what has shrunk to nothing, that of the least number."""
    if numerator == 0 and denominator > 0 and math.isfinite(denominator):
        return NOTHING
    return log_ratio(numerator, denominator)

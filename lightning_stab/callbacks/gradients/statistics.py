"""What `GradientMonitor` measures, one small class for each statistic that needs its own hooks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import LBFGS

from lightning_stab.callbacks._hooks.compiled import say_compiled
from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe, first_and_last_hidden
from lightning_stab.callbacks._trainer.device_values import DeviceScalars, named
from lightning_stab.callbacks._trainer.logging import tag
from lightning_stab.callbacks._trainer.step import OptimizerStep, gradient_scaler
from lightning_stab.functional.gradient_statistics import (
    by_layer,
    change_and_size,
    cosine,
    count_zero_and_nonfinite,
    largest_magnitudes,
    layer_of,
    log_ratio,
    ratios,
)
from lightning_stab.functional.norms import local, tensor_norms, total_norm

COUNTED = ("zero_fraction", "nonfinite_fraction")


def norm_reading(
    step: OptimizerStep, norms: Tensor, section: str, per_parameter: Sequence[str]
) -> DeviceScalars:
    """Read the norms as totals, by layer, and by parameter where a name pattern asks for it."""
    names = step.names()

    def to_scalars(values: list[float]) -> Mapping[str, float]:
        squares = [value * value for value in values]
        layers = _sums(_layer_tags(names, section), squares)
        scalars = {name: math.sqrt(square) for name, square in layers.items()}
        scalars[tag(section, "total" + step.suffix)] = math.sqrt(sum(squares))
        for name, norm in zip(names, values, strict=True) if per_parameter else ():
            if any(fnmatchcase(name, pattern) for pattern in per_parameter):
                scalars[tag(section, name)] = norm
        return scalars

    return DeviceScalars(norms, to_scalars)


@lru_cache(maxsize=64)
def _layer_tags(names: tuple[str, ...], section: str) -> tuple[str, ...]:
    """Return the tag of each parameter's layer; cached, for the same parameters come every step."""
    layers = [layer_of(name) for name in names]
    # a layer may be called what the norm of everything is called
    return tuple(tag(section, layer + "_" * layer.startswith("total")) for layer in layers)


def entry_readings(step: OptimizerStep, statistics: Sequence[str]) -> list[DeviceScalars]:
    """Read what looks at single entries: RMS, greatest magnitude, zero and non-finite fractions."""
    names = step.names()
    layers = [layer_of(name) for name in names]
    sizes = _sums(layers, [float(p.numel()) for p in step.params])
    readings = []
    if "rms" in statistics:
        readings.append(DeviceScalars(step.norms, lambda v: _rms(layers, v, sizes)))
    if "max_abs" in statistics:
        largest = largest_magnitudes(step.gradients)
        readings.append(DeviceScalars(largest, lambda v: _largest(layers, v)))
    finite = bool(torch.isfinite(step.norms).all())  # then so is every entry
    if "nonfinite_fraction" in statistics and finite:
        zeros = {tag("grad_nonfinite_fraction", layer): 0.0 for layer in layers}
        readings.append(DeviceScalars(step.norms[:0], lambda _: zeros))
    counted = [s for s in statistics if s == "zero_fraction" or (s in COUNTED and not finite)]
    if counted:
        counts = count_zero_and_nonfinite(step.gradients)
        entries = _sums(layers, _local_sizes(step.gradients))
        for column, name in enumerate(COUNTED):
            if name in counted:
                readings.append(_fraction_reading(name, layers, counts[:, column], entries))
    return readings


class UpdateRatio:
    """The real change of the weights over their size, from a copy taken before the step."""

    def __init__(self) -> None:
        self._copies: list[tuple[tuple[str, ...], list[Tensor], list[Tensor]]] = []

    def before_step(self, step: OptimizerStep) -> None:
        """Copy the weights that are about to change, once for all evaluations of a line search."""
        known = any(params[0] is step.params[0] for _, params, _ in self._copies)
        if known and isinstance(step.optimizer, LBFGS):
            return
        copies = [p.detach().clone() for p in step.params]
        self._copies.append((step.names(), list(step.params), copies))

    def drop(self, step: OptimizerStep) -> None:
        """Forget the copies of a step that is not taken and so changes nothing."""
        self._copies = [c for c in self._copies if c[1][0] is not step.params[0]]

    def readings(self) -> list[DeviceScalars]:
        """Compare with the weights after the step, and forget the copies."""
        readings = []
        for names, params, copies in self._copies:
            change, size = change_and_size(copies, [p.detach() for p in params])
            pair = torch.cat([change, size])
            readings.append(DeviceScalars(pair, lambda v, names=names: _update_ratios(names, v)))  # type: ignore[misc]
        self._copies.clear()
        return readings


class GradientCosine:
    """The cosine between this gradient and that of the step before."""

    def __init__(self) -> None:
        self._previous: dict[int, tuple[list[int], list[Tensor]]] = {}

    def remember(self, step: OptimizerStep) -> None:
        """Keep a copy of this gradient for the next step."""
        copies = [g.detach().clone() for g in step.gradients]
        self._previous[id(step.optimizer)] = ([id(p) for p in step.params], copies)

    def readings(self, step: OptimizerStep) -> list[DeviceScalars]:
        """Compare with the remembered gradient, if it is of the same parameters."""
        remembered = self._previous.pop(id(step.optimizer), None)
        if remembered is None or remembered[0] != [id(p) for p in step.params]:
            return []
        previous = remembered[1]
        norm = total_norm(tensor_norms(previous))
        name = tag("grad_cosine", "previous" + step.suffix)
        return [named(name, cosine(step.gradients, previous, step.total * norm))]


class DepthProfile:
    """The gradient of the pre-activations, layer by layer in execution order, for one batch."""

    def __init__(self) -> None:
        self._probe: LayerProbe | None = None
        self._is_reported = False

    @property
    def is_on(self) -> bool:
        """Whether hooks are on."""
        return self._probe is not None

    def start(self, module: LightningModule) -> None:
        """Put the hooks on; say once which compiled parts are passed over."""
        self.stop()
        self._probe = LayerProbe()
        self._probe.install(module)
        compiled = say_compiled(self._probe.compiled)
        if compiled and not self._is_reported:
            self._is_reported = True
            rank_zero_info(
                f"`GradientMonitor`: {compiled}; the layers inside are left out of the gradient's"
                " profile over depth."
            )

    def stop(self) -> LayerProbe | None:
        """Take the hooks off, and return the probe that held them."""
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.remove()
        return probe

    def readings(self, trainer: Trainer) -> list[DeviceScalars]:
        """Take the hooks off and read the profile and its first/last log-ratio."""
        probe = self.stop()
        measured = probe.gradient_rms() if probe is not None else {}
        if not measured:
            return []
        scaler = gradient_scaler(trainer)
        scale = scaler.get_scale() if scaler is not None else 1.0
        scale /= trainer.accumulate_grad_batches  # by which Lightning divides each loss
        names = list(measured)

        def to_scalars(values: list[float]) -> Mapping[str, float]:
            profile = {name: value / scale for name, value in zip(names, values, strict=True)}
            scalars = {tag("preactivation_grad", name): rms for name, rms in profile.items()}
            scalars[tag("depth", "first_last_log10")] = log_ratio(*first_and_last_hidden(profile))
            return scalars

        return [DeviceScalars(torch.stack(list(measured.values())), to_scalars)]


def write_histograms(step: OptimizerStep, writers: Sequence[Any], at: int) -> None:
    """Write a histogram of each finite gradient, by parameter, to TensorBoard."""
    for name, gradient in zip(step.names(), step.gradients, strict=True):
        values = gradient.to_dense() if gradient.is_sparse else gradient
        values = values.abs() if values.is_complex() else values
        if values.numel() and bool(torch.isfinite(values).all()):
            for writer in writers:
                writer.add_histogram(tag("grad_histogram", name), values.float(), at)


def _update_ratios(names: tuple[str, ...], values: list[float]) -> Mapping[str, float]:
    half = len(names)
    change, size = by_layer(names, values[:half]), by_layer(names, values[half:])
    return {tag("update_ratio", layer): ratio for layer, ratio in ratios(change, size).items()}


def _rms(layers: list[str], norms: list[float], sizes: dict[str, float]) -> Mapping[str, float]:
    squares = _sums(layers, [n * n for n in norms])
    return {
        tag("grad_rms", layer): (s / max(sizes[layer], 1.0)) ** 0.5 for layer, s in squares.items()
    }


def _largest(layers: list[str], values: list[float]) -> Mapping[str, float]:
    result: dict[str, float] = {}
    for layer, value in zip(layers, values, strict=True):
        # a NaN must win over every number: it would lose each comparison
        result[layer] = value if value != value else max(result.get(layer, 0.0), value)
    return {tag("grad_max_abs", layer): value for layer, value in result.items()}


def _fraction_reading(
    name: str, layers: list[str], counts: Tensor, sizes: dict[str, float]
) -> DeviceScalars:
    def to_scalars(values: list[float]) -> Mapping[str, float]:
        sums = _sums(layers, values)
        return {tag(f"grad_{name}", layer): n / max(sizes[layer], 1.0) for layer, n in sums.items()}

    return DeviceScalars(counts, to_scalars)


def _sums(keys: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for key, value in zip(keys, values, strict=True):
        sums[key] = sums.get(key, 0.0) + value
    return sums


def _local_sizes(gradients: Sequence[Tensor]) -> list[float]:
    return [float(local(g).numel()) for g in gradients]

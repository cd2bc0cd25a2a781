"""What `GradientMonitor` measures: norms, entries, and what compares two moments of a step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from lightning_stab.callbacks._hooks.compiled import say_compiled
from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe, first_and_last_hidden
from lightning_stab.callbacks._trainer.device_values import DeviceScalars, named
from lightning_stab.callbacks._trainer.logging import tag
from lightning_stab.callbacks._trainer.step import OptimizerStep, gradient_scaler
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.functional.gradient_statistics import (
    by_layer,
    change_and_size,
    copy_entries,
    cosine,
    count_zero_and_nonfinite,
    largest_magnitudes,
    layer_of,
    log_ratio,
    noise_and_signal,
    ratios,
)
from lightning_stab.functional.norms import local_shard, tensor_norms, total_norm
from lightning_stab.functional.sampling import sample_sizes
from lightning_stab.functional.statistics import ExponentialStatistics

PerLayer = Callable[[list[float]], Mapping[str, float]]  # from the parameters' numbers
COUNTED = ("zero_fraction", "nonfinite_fraction")


def norm_scalars(
    step: OptimizerStep, norms: Tensor, section: str, per_parameter: Sequence[str] = ()
) -> DeviceScalars:
    """Return the norms as totals, by layer, and by parameter where a name pattern asks for it."""
    names = step.names()

    def update(values: list[float]) -> Mapping[str, float]:
        squares = [value * value for value in values]
        layers = _sums(_layer_tags(names, section), squares)
        scalars = {name: math.sqrt(square) for name, square in layers.items()}
        scalars[tag(section, "total" + step.suffix)] = math.sqrt(sum(squares))
        for name, norm in zip(names, values, strict=True) if per_parameter else ():
            if any(fnmatchcase(name, pattern) for pattern in per_parameter):
                scalars[tag(section, name)] = norm
        return scalars

    return DeviceScalars(norms, update)


@lru_cache(maxsize=64)
def _layer_tags(names: tuple[str, ...], section: str) -> tuple[str, ...]:
    """Return the tag of each parameter's layer; cached, for the same parameters come every step."""
    # a layer may be called what the norm of everything is called
    return tuple(tag(section, layer + "_" * layer.startswith("total")) for layer in _layers(names))


@lru_cache(maxsize=64)
def _layers(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(layer_of(name) for name in names)


def entry_scalars(step: OptimizerStep, statistics: Sequence[str]) -> list[DeviceScalars]:
    """Return statistics of entries: RMS, greatest magnitude, zero and non-finite fractions."""
    layers = _layers(step.names())
    scalars = []

    def add(name: str, values: Tensor, per_layer: PerLayer) -> None:
        def update(numbers: list[float]) -> Mapping[str, float]:
            return {tag(f"grad_{name}", layer): v for layer, v in per_layer(numbers).items()}

        scalars.append(DeviceScalars(values, update))

    if "rms" in statistics:
        sizes = [p.numel() for p in step.params]
        add("rms", step.norms, partial(_rms, layers, sizes))
    if "max_abs" in statistics:
        add("max_abs", largest_magnitudes(step.gradients), partial(_largest, layers))
    asked = "nonfinite_fraction" in statistics  # else nothing has to be waited for
    # where all norms are finite every entry is: zeros for each layer would say nothing
    nonfinite = asked and not bool(torch.isfinite(step.norms).all())
    counted = [s for s in statistics if s == "zero_fraction" or (s in COUNTED and nonfinite)]
    if counted:
        counts = count_zero_and_nonfinite(step.gradients, nonfinite=nonfinite)
        own_sizes = [local_shard(g).numel() for g in step.gradients]
        for column, name in enumerate(COUNTED):
            if name in counted:
                add(name, counts[:, column], partial(_mean, layers, own_sizes))
    return scalars


class UpdateRatio:
    """The real change of the weights over their size, from a copy taken before the step.

    Of large models a fixed sample of the entries is copied and compared.
    """

    def __init__(self) -> None:
        self._begun: list[tuple[Parameter, Tensor, int]] = []
        self._copies: list[tuple[tuple[str, ...], list[Parameter], list[Tensor], list[int]]] = []

    @torch.no_grad()
    def begin_step(self, optimizer: Optimizer) -> None:
        """Copy the weights that may change, before the optimizer evaluates anything."""
        held = (p for group in optimizer.param_groups for p in group["params"])
        params = [p for p in held if p.requires_grad]
        sizes = sample_sizes(params)
        self._begun = list(zip(params, copy_entries(params, sizes), sizes, strict=True))

    def select(self, step: OptimizerStep) -> None:
        """Keep the copies of those that have a gradient, at the first of several evaluations."""
        begun = {id(p): (copy, count) for p, copy, count in self._begun}
        self._begun = []
        known = [(n, p) for n, p in zip(step.names(), step.params, strict=True) if id(p) in begun]
        if known:
            names, params = zip(*known, strict=True)
            copies, counts = zip(*(begun[id(p)] for p in params), strict=True)
            self._copies.append((names, list(params), list(copies), list(counts)))

    def drop(self, step: OptimizerStep) -> None:
        """Forget the copies of a step that is not taken and so changes nothing."""
        self._copies = [c for c in self._copies if c[1][0] is not step.params[0]]

    def scalars(self) -> list[DeviceScalars]:
        """Compare with the weights after the step, and forget the copies."""
        copies, self._copies = self._copies, []
        self._begun = []
        return [
            DeviceScalars(
                torch.cat(change_and_size(before, params, sizes)), partial(_ratios, names)
            )
            for names, params, before, sizes in copies
        ]


class GradientCosine:
    """The cosine between this gradient and that of the step before.

    Of large models a fixed sample of the entries is copied and compared.
    """

    def __init__(self) -> None:
        self._previous: dict[int, tuple[list[int], list[Tensor]]] = {}

    def scalars(self, step: OptimizerStep, *, compare: bool, keep: bool) -> list[DeviceScalars]:
        """Compare with the kept gradient, if it is of the same parameters; keep this one."""
        gradients, params = step.gradients, [id(p) for p in step.params]
        copies = copy_entries(gradients, sample_sizes(gradients))
        earlier, previous = self._previous.pop(id(step.optimizer), ([], []))
        if keep:
            self._previous[id(step.optimizer)] = params, copies
        if not compare or params != earlier:
            return []
        name = tag("grad_cosine", "previous" + step.suffix)
        return [named(name, cosine(previous, copies, gradients))]


class DepthProfile:
    """The gradient of the pre-activations, layer by layer in execution order, for one batch."""

    def __init__(self) -> None:
        self._probe: LayerProbe | None = None
        self._is_reported = False

    @property
    def is_on(self) -> bool:
        """Whether hooks are on."""
        return self._probe is not None

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Put the hooks on; say once which compiled parts are passed over."""
        self.stop()
        self._probe = LayerProbe()
        self._probe.install(module)
        compiled = say_compiled(self._probe.compiled)
        if compiled and not self._is_reported:
            self._is_reported = True
            say(
                trainer,
                f"`GradientMonitor`: {compiled}; the layers inside are left out of the gradient's"
                " profile over depth.",
            )

    def stop(self) -> LayerProbe | None:
        """Take the hooks off, and return the probe that held them."""
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.remove()
        return probe

    def scalars(self, trainer: Trainer) -> list[DeviceScalars]:
        """Take the hooks off and return the profile and its first/last log-ratio."""
        probe = self.stop()
        measured = probe.gradient_rms() if probe is not None else {}
        if not measured:
            return []
        # by both of which the loss was multiplied
        scale = _loss_scale(trainer) / trainer.accumulate_grad_batches

        def update(values: list[float]) -> Mapping[str, float]:
            profile = {name: value / scale for name, value in zip(measured, values, strict=True)}
            scalars = {tag("preactivation_grad", name): rms for name, rms in profile.items()}
            scalars[tag("depth", "first_last_log10")] = log_ratio(*first_and_last_hidden(profile))
            return scalars

        return [DeviceScalars(torch.stack(list(measured.values())), update)]


class NoiseScale:
    """Compare the gradient of the first micro-batch of a window with that of the whole window.

    Lightning divides each micro-batch's loss by the number of micro-batches, so the first one's
    gradient is that fraction of its mean gradient. Noise and signal are averaged apart.
    """

    def __init__(self) -> None:
        self._noise = ExponentialStatistics(decay=0.9, warmup=10)
        self._signal = ExponentialStatistics(decay=0.9, warmup=10)
        self._first: Tensor | None = None
        self._sizes: list[int] = []

    def start_batch(self, batch: Any) -> None:
        """Note the size of a micro-batch of a window that will be read; 0 where it shows none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors of several sizes: the first one counts
            try:
                self._sizes.append(extract_batch_size(batch))  # as Lightning's own logging does
            except MisconfigurationException:
                self._sizes.append(0)

    def after_backward(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure the gradient while it holds the first micro-batch alone."""
        if len(self._sizes) != 1 or self._first is not None:
            return
        with torch.no_grad():
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            self._first = total_norm(tensor_norms(gradients)) / _loss_scale(trainer)

    def scalars(self, step: OptimizerStep) -> list[DeviceScalars]:
        """Return the ratio of noise to signal, from a window of at least two micro-batches."""
        first, sizes = self._first, self._sizes
        self.forget()
        if first is None or len(sizes) < 2 or 0 in sizes:
            return []
        share = step.trainer.accumulate_grad_batches
        pair = torch.stack([first.to(step.total) * share, step.total * share / len(sizes)])
        large = sum(sizes) * step.trainer.world_size
        return [DeviceScalars(pair, lambda norms: self._learn(norms, sizes[0], large))]

    def forget(self) -> None:
        """Drop an unfinished window."""
        self._first, self._sizes = None, []

    def _learn(self, norms: list[float], small: int, large: int) -> dict[str, float]:
        noise, signal = noise_and_signal(norms[0], norms[1], small, large)
        self._noise.add(noise)
        self._signal.add(signal)
        usable = self._noise.count and self._signal.mean > 0
        return {
            tag("grad_noise", "scale"): self._noise.mean / self._signal.mean if usable else math.nan
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the averages as plain values."""
        return {"noise": self._noise.state_dict(), "signal": self._signal.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved averages."""
        self._noise.load_state_dict(state["noise"])
        self._signal.load_state_dict(state["signal"])


def write_histograms(step: OptimizerStep, writers: Sequence[Any], at: int) -> None:
    """Write a histogram of each finite gradient, by parameter, to TensorBoard."""
    for name, gradient in zip(step.names(), step.gradients, strict=True):
        values = gradient.to_dense() if gradient.is_sparse else gradient
        values = values.abs() if values.is_complex() else values
        if values.numel() and bool(torch.isfinite(values).all()):
            for writer in writers:
                writer.add_histogram(tag("grad_histogram", name), values.float(), at)


def _loss_scale(trainer: Trainer) -> float:
    scaler = gradient_scaler(trainer)
    return 1.0 if scaler is None else scaler.get_scale()


def _ratios(names: Sequence[str], values: list[float]) -> Mapping[str, float]:
    half = len(names)
    change, size = by_layer(names, values[:half]), by_layer(names, values[half:])
    return {tag("update_ratio", layer): ratio for layer, ratio in ratios(change, size).items()}


def _rms(layers: Sequence[str], sizes: Sequence[int], norms: list[float]) -> dict[str, float]:
    means = _mean(layers, sizes, [norm * norm for norm in norms])
    return {layer: mean**0.5 for layer, mean in means.items()}


def _mean(layers: Sequence[str], sizes: Sequence[int], sums: list[float]) -> dict[str, float]:
    entries = _sums(layers, sizes)
    return {layer: s / max(entries[layer], 1.0) for layer, s in _sums(layers, sums).items()}


def _largest(layers: Sequence[str], values: list[float]) -> dict[str, float]:
    result: dict[str, float] = {}
    for layer, value in zip(layers, values, strict=True):
        # a NaN must win over every number: it would lose each comparison
        result[layer] = value if value != value else max(result.get(layer, 0.0), value)
    return result


def _sums(keys: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for key, value in zip(keys, values, strict=True):
        sums[key] = sums.get(key, 0.0) + value
    return sums

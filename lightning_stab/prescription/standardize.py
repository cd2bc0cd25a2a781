"""Callbacks that standardise inputs and targets inside the module, by the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, IterableDataset

from lightning_stab.arguments import options_from
from lightning_stab.callbacks._trainer.fit_state import FitStart, fit_start
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.errors import ConflictError
from lightning_stab.functional.layer_kinds import WEIGHT_LAYERS
from lightning_stab.functional.norms import in_double
from lightning_stab.functional.random_states import preserve_random_states

MOST_ROWS = 10_000  # of the training data that are read, evenly spread
MOST_DEVIATIONS = 10.0  # from the mean that a value may have: a rare feature is not blown up


class Standardized(nn.Module):
    """What comes first of a layer's classes: it standardises the inputs by the layer's buffers."""

    def forward(self, input: Any, *others: Any, **options: Any) -> Any:
        """Return the layer's result for the inputs with mean 0 and standard deviation 1."""
        layer: Any = self
        if isinstance(input, PackedSequence):
            data, *packing = input
            scaled: Any = PackedSequence((data - layer.input_mean) / layer.input_std, *packing)
        else:
            scaled = (input - layer.input_mean) / layer.input_std
        return super().forward(scaled, *others, **options)


class StandardizedLinear(Standardized, nn.Linear):
    """A linear layer of standardised inputs."""


class StandardizedConv1d(Standardized, nn.Conv1d):
    """A convolution of standardised inputs."""


class StandardizedConv2d(Standardized, nn.Conv2d):
    """A convolution of standardised inputs."""


class StandardizedConv3d(Standardized, nn.Conv3d):
    """A convolution of standardised inputs."""


class StandardizedRNN(Standardized, nn.RNN):
    """A recurrent layer of standardised inputs."""


class StandardizedLSTM(Standardized, nn.LSTM):
    """An LSTM of standardised inputs."""


class StandardizedGRU(Standardized, nn.GRU):
    """A GRU of standardised inputs."""


class RescaledLinear(nn.Linear):
    """A linear layer whose result is brought to the scale of the targets.

    Its gradient is that of a squared error of standardised targets: the loss's own, divided by the
    targets' variance, so that steps do not grow with the unit of the targets.
    """

    target_mean: Tensor
    target_std: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Return the prediction in the units of the targets."""
        result = super().forward(input)
        scaled = result / self.target_std.square()
        result = scaled + (result - scaled).detach()  # the same value, a smaller gradient
        return result * self.target_std + self.target_mean


STANDARDIZED: Mapping[type, type] = {
    nn.Linear: StandardizedLinear,
    nn.Conv1d: StandardizedConv1d,
    nn.Conv2d: StandardizedConv2d,
    nn.Conv3d: StandardizedConv3d,
    nn.RNN: StandardizedRNN,
    nn.LSTM: StandardizedLSTM,
    nn.GRU: StandardizedGRU,
}
FIRST_LAYERS = (*WEIGHT_LAYERS, nn.RNNBase)  # that may take a program's inputs


@dataclass(frozen=True, kw_only=True)
class StandardizeOptions:
    """The argument of both callbacks."""

    layer: str = ""


class StandardizeInputs(Callback, options=StandardizeOptions):
    """Standardise every input feature inside the first weight layer, by the training data.

    In ``setup`` the layer gets two buffers, mean and standard deviation of each feature (of each
    channel before a convolution); at the start of a fit they are measured on at most 10,000 rows
    of the training data. So the module standardises by itself, with or without a Trainer, and its
    checkpoints hold the numbers. Its parameters keep their names.

    Args:
        layer: the layer's name; by default the weight or recurrent layer that is declared first.

    Raises:
        ConflictError: if there is no such layer, or the training data cannot be read apart from
            the run: batches must be pairs of inputs and targets from a ``DataLoader`` over a
            dataset with an index.

    Example:
        >>> StandardizeInputs()
        StandardizeInputs()

    Source: LeCun, Bottou, Orr & Müller 1998, section 4.3.
    """

    def __init__(self, layer: str = "") -> None:
        self.options = options_from(StandardizeOptions, locals())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the layer its buffers, once."""
        super().setup(trainer, pl_module, stage)
        layer = self._layer(pl_module)
        if type(layer) not in STANDARDIZED:
            return
        layer.__class__ = STANDARDIZED[type(layer)]
        shape, device = shape_of_inputs(layer), next(layer.parameters()).device
        for name, value in (("input_mean", 0.0), ("input_std", 1.0)):
            layer.register_buffer(name, torch.full(shape, value, device=device))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, unless the numbers come from a checkpoint."""
        if fit_start(trainer) is FitStart.RESUMED:
            return
        layer = self._layer(pl_module)
        rows = training_rows(trainer, self)[0].float()
        shape = layer.input_mean.shape
        if rows.dim() > 2 and len(shape) == 1 and rows.shape[-1] != shape[0]:
            rows = rows.flatten(1)
        axis = 1 if len(shape) > 1 else rows.dim() - 1
        if rows.dim() < 2 or rows.shape[axis] != shape[0]:
            raise ConflictError(
                f"`StandardizeInputs` needs inputs of {shape[0]} features, as the first weight"
                f" layer takes them, got batches of shape {tuple(rows.shape)}. Name the layer that"
                " takes the inputs: `layer=`."
            )
        others = [d for d in range(rows.dim()) if d != axis]
        mean, std = mean_and_std(rows, others)
        layer.input_mean.copy_(mean.reshape(shape))
        layer.input_std.copy_(std.reshape(shape))

    def _layer(self, module: nn.Module) -> Any:
        kinds = (*STANDARDIZED, *STANDARDIZED.values())
        layers = {n: m for n, m in module.named_modules() if isinstance(m, FIRST_LAYERS)}
        name = self.options.layer or next(iter(layers), "")
        if type(layers.get(name)) not in kinds:
            raise ConflictError(
                f"`StandardizeInputs` needs a linear, convolution or recurrent layer, got {name!r}"
                f" in {type(module).__name__}. Name the layer that takes the inputs: `layer=`."
            )
        return layers[name]


class StandardizeTargets(Callback, options=StandardizeOptions):
    """Let a regression learn standardised targets, and predict in the targets' own units.

    In ``setup`` the output layer gets two buffers, mean and standard deviation of the targets, by
    which its result is brought to their scale; at the start of a fit they are measured on at most
    10,000 rows of the training data. Loss and metrics stay in the targets' units; the layers learn
    as from a squared error of standardised targets in any unit.

    Args:
        layer: the output layer's name; by default the weight layer that is declared last.

    Raises:
        ConflictError: if there is no such layer, if the targets are no real numbers, or the
            training data cannot be read apart from the run.

    Example:
        >>> StandardizeTargets()
        StandardizeTargets()
    """

    def __init__(self, layer: str = "") -> None:
        self.options = options_from(StandardizeOptions, locals())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the layer its buffers, once."""
        super().setup(trainer, pl_module, stage)
        layer = self._layer(pl_module)
        if type(layer) is nn.Linear:
            layer.__class__ = RescaledLinear
            shape, device = (layer.out_features,), layer.weight.device
            layer.register_buffer("target_mean", torch.zeros(shape, device=device))
            layer.register_buffer("target_std", torch.ones(shape, device=device))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, unless the numbers come from a checkpoint."""
        if fit_start(trainer) is FitStart.RESUMED:
            return
        targets = training_rows(trainer, self)[1]
        if not targets.is_floating_point():
            raise ConflictError(
                "`StandardizeTargets` needs targets that are real numbers, got"
                f" {targets.dtype}. Leave it out where classes are predicted."
            )
        layer = self._layer(pl_module)
        targets = targets.float()
        by_column = targets.dim() > 1 and targets.shape[-1] == layer.out_features
        others = range(targets.dim() - 1) if by_column else range(targets.dim())
        mean, std = mean_and_std(targets, list(others))
        layer.target_mean.copy_(mean.reshape(-1))
        layer.target_std.copy_(std.reshape(-1))

    def _layer(self, module: nn.Module) -> Any:
        layers = {n: m for n, m in module.named_modules() if isinstance(m, WEIGHT_LAYERS)}
        name = self.options.layer or next(reversed(layers), "")
        if type(layers.get(name)) not in (nn.Linear, RescaledLinear):
            raise ConflictError(
                f"`StandardizeTargets` needs a linear output layer, got {name!r} in"
                f" {type(module).__name__}. Name the layer that makes the predictions: `layer=`."
            )
        return layers[name]


def shape_of_inputs(layer: Any) -> tuple[int, ...]:
    """Return the shape that one number a feature, or a channel, has beside a layer's input."""
    if isinstance(layer, nn.Linear):
        return (layer.in_features,)
    if isinstance(layer, nn.RNNBase):
        return (layer.input_size,)
    return (layer.in_channels, *[1] * len(layer.kernel_size))


def mean_and_std(rows: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over some dimensions; what is constant has 1.

    Where a value lies more than 10 deviations from the mean, the deviation is raised to a tenth of
    that distance. Entries that are not finite are left out.
    """
    rows = in_double(rows)
    finite = torch.isfinite(rows)
    known = torch.where(finite, rows, 0)
    count = finite.sum(dims, keepdim=True).clamp_min(1)
    mean = known.sum(dims, keepdim=True) / count
    away = torch.where(finite, known - mean, 0)
    std = (away.square().sum(dims, keepdim=True) / count).sqrt()
    std = torch.maximum(std, away.abs().amax(dims, keepdim=True) / MOST_DEVIATIONS)
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def training_rows(trainer: Trainer, callback: Callback) -> list[Tensor]:
    """Return inputs and targets of the training data, evenly spread, on the host.

    They are read by index, without the run's sampler, workers and random states.

    Raises:
        ConflictError: if they cannot be read so.
    """
    trainer.fit_loop.setup_data()
    loader = trainer.train_dataloader
    name = type(callback).__name__
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        raise ConflictError(
            f"`{name}` needs one training `DataLoader` over a dataset with an index, got"
            f" {type(loader).__name__}. Standardise where the data are made."
        )
    dataset: Any = loader.dataset
    every = max(1, len(dataset) // MOST_ROWS)
    with preserve_random_states():
        batch = (loader.collate_fn or torch.utils.data.default_collate)(
            [dataset[i] for i in range(0, len(dataset), every)]
        )
    is_pair = isinstance(batch, (list, tuple)) and len(batch) > 1
    if not is_pair or not all(isinstance(part, Tensor) for part in batch[:2]):
        raise ConflictError(
            f"`{name}` needs batches that are pairs of inputs and targets, got"
            f" {type(batch).__name__}. Standardise where the data are made."
        )
    return list(batch[:2])

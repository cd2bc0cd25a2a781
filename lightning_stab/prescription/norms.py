"""Callbacks for normalisation layers: put before activations, exchanged, started as usual."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_stab.arguments import check_choices, options_from
from lightning_stab.callbacks._trainer.fit_state import FitStart, fit_start
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.errors import ConflictError
from lightning_stab.functional.layer_kinds import (
    CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
    WEIGHT_LAYERS,
    is_norm,
)
from lightning_stab.prescription.surgery import is_activation

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
GROUPS = 8  # at most, of the channels of a group norm
Norm = Literal["batch", "layer"]


class NormedActivation(nn.Sequential):
    """A norm and the activation that it was put before."""


@dataclass(frozen=True, kw_only=True)
class NormOptions:
    """The arguments of `NormBeforeActivations`, checked."""

    norm: Norm = "batch"

    def __post_init__(self) -> None:
        check_choices(self)


class NormBeforeActivations(Callback, options=NormOptions):
    """Put a normalisation layer before each hidden activation, in ``setup``.

    An activation module becomes ``Sequential(norm, activation)``, so that no parameter that was
    there changes its name. The width is that of the weight layer declared before it. What has a
    norm already, what is shared, and what stands after the last weight layer is left.

    Args:
        norm: ``batch``, or ``layer`` (``GroupNorm(1, channels)`` after a convolution).

    Raises:
        ConflictError: in ``setup``, if there is no activation module to put one before.

    Example:
        >>> NormBeforeActivations("layer")
        NormBeforeActivations(norm='layer')

    Source: Ioffe & Szegedy 2015; Ba, Kiros & Hinton 2016.
    """

    def __init__(self, norm: Norm = "batch") -> None:
        self.options = options_from(NormOptions, locals())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the module, once."""
        super().setup(trainer, pl_module, stage)
        if any(isinstance(part, NormedActivation) for part in pl_module.modules()):
            return
        places = list(hidden_activations(pl_module))
        if not places:
            raise ConflictError(
                "`NormBeforeActivations` needs activation modules with a weight layer before them,"
                f" and {type(pl_module).__name__} has none. Put the norms into its `forward`."
            )
        for name, layer in places:
            norm = norm_for(layer, self.options.norm)
            pl_module.set_submodule(
                name,
                NormedActivation(norm, pl_module.get_submodule(name)).train(pl_module.training),
            )


def hidden_activations(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the activation modules between two weight layers, and the layer before each.

    By the order of declaration. One that already follows a norm is left out.
    """
    before: nn.Module | None = None
    waiting: list[tuple[str, nn.Module]] = []
    for name, part in module.named_modules():
        if isinstance(part, WEIGHT_LAYERS):
            yield from waiting
            before, waiting = part, []
        elif is_norm(part):
            before = None
        elif before is not None and is_activation(part):
            waiting.append((name, before))
            before = None


def norm_for(layer: Any, norm: Norm) -> nn.Module:
    """Return the norm for what a weight layer gives."""
    if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)):
        channels, dimensions = layer.out_channels, len(layer.kernel_size)
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        return nn.GroupNorm(1, channels) if norm == "layer" else kinds[dimensions - 1](channels)
    width = layer.out_features
    return nn.LayerNorm(width) if norm == "layer" else nn.BatchNorm1d(width)


@dataclass(frozen=True, kw_only=True)
class GroupNormOptions:
    """`GroupNormForBatchNorm` has no arguments."""


class GroupNormForBatchNorm(Callback, options=GroupNormOptions):
    """Put a group norm in the place of each batch norm, in ``setup``: it needs no other rows.

    It has the weights and the name of what it replaces; its groups are as many as divide the
    channels evenly, at most 8.

    Raises:
        ConflictError: in ``setup``, if there is no batch norm.

    Example:
        >>> GroupNormForBatchNorm()
        GroupNormForBatchNorm()

    Source: Wu & He 2018.
    """

    def __init__(self) -> None:
        self.options = GroupNormOptions()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the module, once."""
        super().setup(trainer, pl_module, stage)
        found = [(n, m) for n, m in pl_module.named_modules() if isinstance(m, BATCH_NORMS)]
        if not found and not any(isinstance(m, nn.GroupNorm) for m in pl_module.modules()):
            raise ConflictError(
                "`GroupNormForBatchNorm` needs batch normalisation modules, and"
                f" {type(pl_module).__name__} has none. Leave it out."
            )
        for name, norm in found:
            channels = norm.num_features
            groups = next(g for g in range(min(GROUPS, channels), 0, -1) if channels % g == 0)
            new = nn.GroupNorm(groups, channels, norm.eps, norm.affine).train(norm.training)
            if norm.affine:
                new.weight, new.bias = norm.weight, norm.bias
            pl_module.set_submodule(name, new)


@dataclass(frozen=True, kw_only=True)
class ResetOptions:
    """`ResetNorms` has no arguments."""


class ResetNorms(Callback, options=ResetOptions):
    """Start every normalisation layer with a gain of 1 and without a shift, at the start of a fit.

    Gains of 0 stay: they switch a residual branch off on purpose. A resumed fit goes on with what
    its checkpoint holds.

    Raises:
        ConflictError: before the first step, if no normalisation layer has a gain.

    Example:
        >>> ResetNorms()
        ResetNorms()

    Source: Ba, Kiros & Hinton 2016.
    """

    def __init__(self) -> None:
        self.options = ResetOptions()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set gains and shifts."""
        norms = gained_norms(pl_module)
        if not norms:
            raise ConflictError(
                f"`ResetNorms` needs normalisation layers with a gain, and"
                f" {type(pl_module).__name__} has none. Leave it out."
            )
        if fit_start(trainer) is FitStart.RESUMED:
            return
        for norm in norms:
            if bool(norm.weight.any()):
                nn.init.ones_(norm.weight)
                if getattr(norm, "bias", None) is not None:
                    nn.init.zeros_(norm.bias)


def gained_norms(module: nn.Module) -> list[Any]:
    """Return the normalisation layers that have a gain."""
    return [
        m for m in module.modules() if is_norm(m) and isinstance(getattr(m, "weight", None), Tensor)
    ]


def extreme_gain(module: nn.Module) -> float:
    """Return the root mean square of the gain that is farthest from 1; 1 where there is none."""
    sizes = [float(norm.weight.detach().square().mean().sqrt()) for norm in gained_norms(module)]
    return max((s for s in sizes if s > 0), key=lambda s: abs(math.log(s)), default=1.0)


def extreme_shift(module: nn.Module) -> float:
    """Return the largest root mean square of a normalisation layer's shift; 0 without any."""
    shifts = (getattr(norm, "bias", None) for norm in gained_norms(module))
    known = [shift.detach() for shift in shifts if isinstance(shift, Tensor)]
    return max((float(shift.square().mean().sqrt()) for shift in known), default=0.0)

"""What a program is made of, as far as cures need to know: seen in the watched run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of
from lightning_stab.callbacks._trainer.step import first_group
from lightning_stab.callbacks.doctor.advice import momentum_of
from lightning_stab.functional.layer_kinds import (
    CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
    WEIGHT_LAYERS,
)
from lightning_stab.functional.norms import in_double
from lightning_stab.prescription.loaders import is_ordered, is_plain, takes_batch_size
from lightning_stab.prescription.norms import (
    BATCH_NORMS,
    extreme_gain,
    extreme_shift,
    hidden_activations,
)
from lightning_stab.prescription.optimizer_settings import first_rate
from lightning_stab.prescription.standardize import FIRST_LAYERS, STANDARDIZED
from lightning_stab.prescription.surgery import dropped_by, is_activation, long_sequences

OUTPUT_ONLY = ("Softmax", "LogSoftmax", "Softmin")


@dataclass(frozen=True)
class Survey:
    """Plain values, so that they may come from another process.

    Attributes:
        norms: which norms of `NormBeforeActivations` fit: all, ``layer`` alone, or none.
        long_sequences: how many sequences `SkipConnections` would change.
        hidden_classes: the classes of activation modules.
        output_activation: the name and class of the module after the last weight layer.
        losses: the classes of loss modules.
        norm_gain: of the norm whose gain is farthest from 1 at the start, its root mean square.
        norm_shift: the same of the largest shift of a norm.
        batch_norms: whether it has batch normalisation.
        first_layer: the weight layer that is called first; empty where it is the first declared.
        last_layer: the same of the last.
        takes_inputs: whether that first layer is of a kind that can standardise its inputs.
        real_targets: whether the second part of a batch holds real numbers.
        learning_rate: of the first group, before schedules.
        momentum: of the first group, the first of ``betas`` for Adam.
        weight_decay: of the first group.
        dropout: the highest probability of the module's dropouts; 0 where it has none.
        optimizer: its class.
        has_schedule: whether the module has a scheduler.
        callbacks: the Trainer's, by class, with their options.
        batch_fingerprint: a number that tells the first batch from others.
        max_epochs: of the run; 0 if it has no end by epochs.
        accumulate: batches in a step.
        batch_size: rows of a training batch; 0 where the loader cannot be built again.
        is_ordered: whether such a loader gives its rows in the order in which they lie.
        batch_size_in_yaml: whether the data module is built with a batch size.
        steps: optimizer steps that were planned.
    """

    norms: tuple[str, ...] = ()
    long_sequences: int = 0
    hidden_classes: tuple[str, ...] = ()
    output_activation: tuple[str, str] = ("", "")
    losses: tuple[str, ...] = ()
    norm_gain: float = 1.0
    norm_shift: float = 0.0
    batch_norms: bool = False
    first_layer: str = ""
    last_layer: str = ""
    takes_inputs: bool = False
    real_targets: bool = False
    learning_rate: float = math.nan
    momentum: float = math.nan
    weight_decay: float = math.nan
    dropout: float = 0.0
    optimizer: str = ""
    has_schedule: bool = False
    callbacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    batch_fingerprint: float = 0.0
    max_epochs: int = 0
    accumulate: int = 1
    batch_size: int = 0
    is_ordered: bool = False
    batch_size_in_yaml: bool = False
    steps: int = 0


class Surveyor(Callback):
    """Looks at module, optimizers and first batch; changes nothing."""

    def __init__(self) -> None:
        self.survey: Survey | None = None
        self._calls: list[tuple[str, nn.Module, tuple[int, ...]]] = []
        self._handles: list[RemovableHandle] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put hooks on for the first batch, and note what the Trainer has."""
        if self.survey is not None:
            return
        gain, shift = extreme_gain(pl_module), extreme_shift(pl_module)
        self.survey = replace(_survey(trainer, batch), norm_gain=gain, norm_shift=shift)
        for name, part in pl_module.named_modules():
            if not any(True for _ in part.children()):
                self._handles.append(part.register_forward_hook(self._note(name)))

    def _note(self, name: str) -> Any:
        def hook(part: nn.Module, inputs: Any, output: Any) -> None:
            shape = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else ()
            self._calls.append((name, part, shape))

        return hook

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Read what the forward pass has shown, and take the hooks off."""
        self._finish(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Do so here where a module steps by itself."""
        self._finish(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Take the hooks off."""
        self._finish(pl_module)

    def _finish(self, module: LightningModule) -> None:
        if not self._handles or self.survey is None:
            return
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        known = {**vars(self.survey), **_structure(module, self._calls)}
        self.survey = Survey(**known)
        self._calls.clear()


def _survey(trainer: Trainer, batch: Any) -> Survey:
    group = first_group(trainer.optimizers)
    pair = batch if isinstance(batch, (list, tuple)) and len(batch) > 1 else (None, None)
    options = {
        type(each).__name__: dict(vars(getattr(each, "options", object)))
        for each in callbacks_of(trainer)
    }
    steps = trainer.estimated_stepping_batches
    loader, source = trainer.train_dataloader, getattr(trainer, "datamodule", None)
    can_change = is_plain(loader) or takes_batch_size(source)
    return Survey(
        real_targets=isinstance(pair[1], Tensor) and pair[1].is_floating_point(),
        learning_rate=first_rate(trainer) if group else math.nan,
        momentum=momentum_of(trainer.optimizers),
        weight_decay=float(group.get("weight_decay", math.nan)),
        optimizer=type(trainer.optimizers[0]).__name__ if group else "",
        has_schedule=bool(trainer.lr_scheduler_configs),
        callbacks={n: {k: v for k, v in o.items() if k[:2] != "__"} for n, o in options.items()},
        batch_fingerprint=fingerprint(batch),
        max_epochs=max(0, trainer.max_epochs or 0) if trainer.max_steps < 0 else 0,
        accumulate=trainer.accumulate_grad_batches,
        batch_size=int(getattr(loader, "batch_size", None) or 0) if can_change else 0,
        is_ordered=is_ordered(loader),
        batch_size_in_yaml=takes_batch_size(source),
        steps=int(steps) if math.isfinite(steps) else 0,
    )


def fingerprint(batch: Any) -> float:
    """Return a number that tells a batch from one with other samples or another order."""
    from torch.utils._pytree import tree_leaves

    total = 0.0
    for tensor in tree_leaves(batch):
        if isinstance(tensor, Tensor) and tensor.numel():
            flat = torch.nan_to_num(in_double(tensor.detach().reshape(-1).cpu()))
            total += float(flat @ torch.linspace(1, 2, len(flat), dtype=torch.float64))
    return total


def _structure(
    module: LightningModule, calls: list[tuple[str, nn.Module, tuple[int, ...]]]
) -> dict[str, Any]:
    inputs = [(name, part) for name, part, _ in calls if isinstance(part, FIRST_LAYERS)]
    weights = [(name, part) for name, part in inputs if isinstance(part, WEIGHT_LAYERS)]
    places = [(name, part) for name, part in module.named_modules()]
    first_declared = next((n for n, part in places if isinstance(part, FIRST_LAYERS)), None)
    declared = [name for name, part in places if isinstance(part, WEIGHT_LAYERS)]
    last_weight = max(
        (i for i, (_, part, _) in enumerate(calls) if isinstance(part, WEIGHT_LAYERS)), default=0
    )
    after = [
        (name, type(part).__name__)
        for name, part, _ in calls[last_weight + 1 :]
        if type(part).__name__ in OUTPUT_ONLY or is_activation(part)
    ]
    nothing = ("", nn.Identity())
    first, last = next(iter(inputs), nothing), next(reversed(weights), nothing)
    return {
        "norms": _norms(module, calls),
        "long_sequences": len(long_sequences(module)),
        "hidden_classes": tuple(
            {type(part).__name__ for _, part, _ in calls if is_activation(part)}
        ),
        "output_activation": after[0] if len(after) == 1 else ("", ""),
        "losses": tuple(
            {type(p).__name__ for p in module.modules() if type(p).__name__.endswith("Loss")}
        ),
        "batch_norms": any(isinstance(p, BATCH_NORMS) for p in module.modules()),
        "first_layer": "" if first_declared == first[0] else first[0],
        "last_layer": "" if declared[-1:] == [last[0]] else last[0],
        "takes_inputs": type(first[1]) in STANDARDIZED,
        "dropout": max(
            (float(getattr(part, name)) for part in module.modules() if (name := dropped_by(part))),
            default=0.0,
        ),
    }


def _norms(
    module: LightningModule, calls: list[tuple[str, nn.Module, tuple[int, ...]]]
) -> tuple[str, ...]:
    """Return the norms that fit what really reaches each hidden activation."""
    layers = dict(hidden_activations(module))
    shapes = [(name, shape) for name, _, shape in calls if name in layers]
    if len(layers) < 2 or sorted(name for name, _ in shapes) != sorted(layers):
        return ()  # one is called several times, or never
    by_batch = True
    for name, shape in shapes:
        layer: Any = layers[name]
        is_convolution = isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS))
        width = layer.out_channels if is_convolution else layer.out_features
        if len(shape) < 2 or shape[1 if is_convolution else -1] != width:
            return ()
        by_batch = by_batch and (is_convolution or len(shape) == 2)
    return ("batch", "layer") if by_batch else ("layer",)

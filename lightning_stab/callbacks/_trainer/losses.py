"""The loss of a training step: out of its output, and without what Lightning multiplies in."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_stab.callbacks._trainer.step import gradient_scaler


def loss_of_output(output: Any) -> Tensor | None:
    """Return the loss in what a ``training_step`` returned, None if there is none.

    Example:
        >>> import torch
        >>> loss_of_output({"loss": torch.tensor(2.0), "logits": None})
        tensor(2.)
    """
    loss = output.get("loss") if isinstance(output, Mapping) else output
    return loss if isinstance(loss, Tensor) else None


def training_step_arguments(module: Any, batch: Any, batch_idx: int) -> tuple[Any, ...]:
    """Return what ``module.training_step`` takes: the batch, and its index if asked for.

    A signature of ``*args`` takes both, as Lightning gives them, and one of ``**kwargs`` does not.
    """
    parameters = inspect.signature(module.training_step).parameters
    kinds = [p.kind for p in parameters.values()]
    num_named = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    several = num_named > 1 or inspect.Parameter.VAR_POSITIONAL in kinds
    return (batch, batch_idx) if several or "batch_idx" in parameters else (batch,)


def unscaled_loss(trainer: Trainer, loss: Tensor) -> Tensor:
    """Return a loss as it enters ``backward``, without the factor of the loss scaler.

    Under automatic optimisation it is still divided by the number of accumulated batches.
    """
    scaler = gradient_scaler(trainer)
    value = loss.detach()
    if scaler is None or scaler._scale is None:
        return value
    scale: Tensor = scaler._scale
    return value / scale.to(value.device)


def true_loss(trainer: Trainer, module: LightningModule, loss: Tensor) -> Tensor:
    """Return a loss as the module made it, from the one that enters ``backward``."""
    value = unscaled_loss(trainer, loss)
    batches = trainer.accumulate_grad_batches if module.automatic_optimization else 1
    return value * batches if batches > 1 else value

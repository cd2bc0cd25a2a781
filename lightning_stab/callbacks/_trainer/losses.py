"""The loss of a training step: out of its output, and without what Lightning multiplies in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from lightning_stab.callbacks._trainer.lightning_classes import is_automatic
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
    """Return what Lightning gives to ``module.training_step``: the batch, and perhaps its index.

    A signature of ``*args`` takes both, and one of ``**kwargs`` does not.
    """
    takes_both = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    return (batch, batch_idx) if takes_both else (batch,)


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
    batches = trainer.accumulate_grad_batches if is_automatic(trainer, module) else 1
    return value * batches if batches > 1 else value

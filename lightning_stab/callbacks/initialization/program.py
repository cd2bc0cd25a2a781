"""A batch as a program for initialisation: it runs through copies, and leaves no other trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from lightning_stab.callbacks._trainer.batches import first_samples
from lightning_stab.callbacks._trainer.isolated import isolated_copy, run_apart, run_training_step
from lightning_stab.functional.initialization import Program
from lightning_stab.functional.sampling import LARGE, fixed_signs

SAMPLES = 64  # of a batch, that are enough to see how it flows and how large it is
LossFunction = Callable[[nn.Module, Any], Tensor]


def program_of(module: nn.Module, batch: Any, loss_fn: LossFunction | None = None) -> Program:
    """Return what ``batch`` does to copies of ``module``.

    A new copy takes over the memory of the last one's parameters. Of the batch the first 64 samples
    are run.

    Args:
        module: a LightningModule, inside a Trainer's fit or not, or any module.
        batch: what its ``training_step``, or ``loss_fn``, or its forward takes.
        loss_fn: called with a copy of the module and the batch. Without it, the training step's
            loss counts, and for a plain module its result along a random direction.
    """
    memory: list[Tensor] = []
    batch = _first_samples(batch)

    def new_copy() -> nn.Module:
        module_copy = isolated_copy(module, memory=memory)
        memory[:] = module_copy.parameters()
        return module_copy

    def loss(module_copy: nn.Module) -> Tensor | None:
        data = tree_map_only(Tensor, torch.clone, batch)  # a step may write to it
        with run_apart(module_copy):
            if loss_fn is not None:
                return loss_fn(module_copy, data)
            if not hasattr(module_copy, "training_step"):
                return _along_a_direction(module_copy, data)
            losses = run_training_step(module_copy, data)
            if len(losses) < 2:
                return losses[0] if losses else None
            return torch.stack([each.reshape(()).float() for each in losses]).sum()

    return Program(new_copy, loss)


def _first_samples(batch: Any) -> Any:
    """Cut a batch whose tensors all have one entry for each sample; others stay whole."""
    tensors = [t for t in tree_leaves(batch) if isinstance(t, Tensor) and t.dim()]
    same = len({len(t) for t in tensors}) == 1 and not any(t.is_sparse for t in tensors)
    return first_samples(batch, SAMPLES) if same and len(tensors[0]) > SAMPLES else batch


def _along_a_direction(module_copy: nn.Module, batch: Any) -> Tensor | None:
    """Return a module's result along a fixed random direction, None if it is no tensor."""
    if isinstance(batch, Mapping):
        output = module_copy(**batch)
    else:
        output = module_copy(batch[0] if isinstance(batch, (list, tuple)) else batch)
    if not isinstance(output, Tensor):
        return None
    if output.numel() > LARGE and output.is_floating_point():  # drawing them would take seconds
        direction = fixed_signs(output)
    else:
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(output.shape, generator=generator).to(output)
    loss: Tensor = (output * direction).sum() / direction.norm()
    return loss

"""One training step as a program that hands over its losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_stab.errors import ConflictError

OnLoss = Callable[[Tensor], None]


def step_program(twin: Any, batch_index: int) -> Callable[..., None]:
    """Return the program of a LightningModule's copy, for automatic or manual optimisation.

    Under manual optimisation each ``manual_backward`` or ``backward`` hands over a loss, at the
    moment at which its gradient would be taken.
    """
    _refuse_iterators(twin)

    def program(on_loss: OnLoss, batch: Any) -> None:
        if twin.on_train_batch_start(batch, batch_index) == -1:
            return
        if not twin.automatic_optimization:
            with _captured_backward(on_loss):
                twin.__dict__["manual_backward"] = lambda loss, *_, **__: on_loss(loss)
                twin.training_step(*_arguments(twin, batch, batch_index))
            return
        output = twin.training_step(*_arguments(twin, batch, batch_index))
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if loss is not None:
            on_loss(loss)

    return program


@contextmanager
def _captured_backward(on_loss: OnLoss) -> Iterator[None]:
    """Let ``loss.backward()`` hand over the loss instead of filling ``.grad``."""
    original = torch.Tensor.backward
    torch.Tensor.backward = lambda loss, *_, **__: on_loss(loss)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.backward = original  # type: ignore[method-assign]


def _refuse_iterators(twin: Any) -> None:
    if "dataloader_iter" in inspect.signature(twin.training_step).parameters:
        raise ConflictError(
            "A `training_step(dataloader_iter)` takes its batches itself, so its gradients cannot "
            "be checked on one batch. Check the module with `check_gradients` and a `loss_fn`."
        )


def _arguments(twin: Any, batch: Any, batch_index: int) -> tuple[Any, ...]:
    parameters = inspect.signature(twin.training_step).parameters
    takes_index = "batch_idx" in parameters or len(parameters) > 1
    return (batch, batch_index) if takes_index else (batch,)

"""`check_gradients`: the gradient check as a plain function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_stab.arguments import integer
from lightning_stab.callbacks._gradcheck_module import loss_problem, step_problem
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.gradcheck import (
    GradientReport,
    Problem,
    check_problem,
    kept_random_states,
)

LossFunction = Callable[[nn.Module, Any], Tensor]


def check_gradients(
    module: nn.Module,
    batch: Any,
    loss_fn: LossFunction | None = None,
    *,
    num_coordinates: int = 8,
    seed: int = 0,
) -> GradientReport:
    """Compare autograd's gradients of ``module`` with central differences, in double precision.

    (L(theta + h) - L(theta - h)) / 2h against dL/dtheta, on a copy: the module, its buffers and
    every random state stay as they are. A right gradient agrees within 1e-7.

    Args:
        module: a LightningModule, or any module together with ``loss_fn``.
        batch: what its ``training_step``, or ``loss_fn``, takes.
        loss_fn: called with a module and the batch; returns a scalar loss. Without it the loss
            of ``training_step`` is used.
        num_coordinates: how many coordinates of each parameter are tried.
        seed: of the private generator that draws the coordinates.

    Returns:
        A report; ``passed`` means that no parameter's gradient is wrong.

    Raises:
        InvalidArgumentError: without ``loss_fn`` for a module that has no ``training_step``.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(3, 1)
        >>> report = check_gradients(net, torch.ones(2, 3), lambda net, x: net(x).square().mean())
        >>> report.passed, [record.verdict for record in report.parameters]
        (True, ['ok', 'ok'])
    """
    integer("num_coordinates", num_coordinates, minimum=1)
    with kept_random_states():
        problem = _problem(module, batch, loss_fn)
        return check_problem(problem, num_coordinates=num_coordinates, seed=seed)


def _problem(module: nn.Module, batch: Any, loss_fn: LossFunction | None) -> Problem:
    if loss_fn is not None:
        return loss_problem(module, batch, loss_fn)
    if not hasattr(module, "training_step"):
        raise InvalidArgumentError(
            "`loss_fn` must be given for a module without a `training_step`, got None. "
            "Pass a function of the module and the batch that returns the loss."
        )
    return step_problem(module, batch)

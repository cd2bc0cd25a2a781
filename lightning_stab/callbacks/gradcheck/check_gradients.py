"""`check_gradients`: the gradient check as a plain function."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from lightning_stab.arguments import instance, integer
from lightning_stab.callbacks._hooks.compiled import compiled_parts
from lightning_stab.callbacks._trainer.batches import first_samples
from lightning_stab.callbacks._trainer.isolated import isolated_copy, run_apart, run_training_step
from lightning_stab.callbacks._trainer.strategies import is_sharded_module
from lightning_stab.errors import ConflictError, InvalidArgumentError, StabError
from lightning_stab.functional.gradcheck import (
    TOLERANCE,
    TURN,
    CheckSettings,
    GradientReport,
    Mode,
    Problem,
    check_problem,
    double_copy,
)
from lightning_stab.functional.norms import lack_double
from lightning_stab.functional.random_states import preserve_random_states

LossFunction = Callable[[nn.Module, Any], Tensor]
SHARDED = (
    "The parameters are sharded over processes, and no process has a whole gradient to check. "
    "Check the module before it is sharded, with `lightning_stab.check_gradients`."
)


def check_gradients(
    module: nn.Module,
    batch: Any,
    loss_fn: LossFunction | None = None,
    *,
    mode: Mode = "auto",
    coordinates: int | Literal["all"] | None = None,
    num_directions: int = 2,
    tolerance: float = TOLERANCE,
    max_samples: int | None = None,
    seed: int = 0,
    settings: CheckSettings | None = None,
) -> GradientReport:
    """Compare autograd's gradients of ``module`` with central differences, in double precision.

    (L(theta + h v) - L(theta - h v)) / 2h against the gradient along v, on a copy: the module, its
    buffers and every random state stay as they are. A right gradient agrees within 1e-7.

    Args:
        module: a LightningModule, or any module together with ``loss_fn``.
        batch: what its ``training_step``, or ``loss_fn``, takes.
        loss_fn: called with a module and the batch; returns a scalar loss. Without it the loss
            of ``training_step`` is used, each one of several under manual optimisation.
        mode: what one random direction v spans: each ``"tensor"``, a ``"group"`` of tensors, or
            the whole ``"model"``, from thorough to cheap; ``"auto"`` takes tensors for up to 32
            of them and groups beyond.
        coordinates: ``"all"``, or a number of sampled ones in each tensor, for the plain formula
            one coordinate after another: for teaching, and for small modules.
        num_directions: how many directions each part gets; one may miss a fault by chance.
        tolerance: the largest relative error of a right gradient.
        max_samples: take only so many samples of the batch; None takes all.
        seed: of the private generator that draws point and directions.
        settings: all of the above but ``max_samples`` in one; overrides them.

    Returns:
        A report; ``passed`` means that the check was made, of every parameter, and no gradient is
        wrong or differs from call to call. What the step itself raises is raised.

    Raises:
        InvalidArgumentError: for an argument out of range, or without ``loss_fn`` for a module that
            has no ``training_step``.
        ConflictError: for a module whose parameters are sharded.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(3, 1)
        >>> report = check_gradients(net, torch.ones(2, 3), lambda net, x: net(x).square().mean())
        >>> report.passed, [record.verdict for record in report.parameters]
        (True, ['ok', 'ok'])
    """
    instance("module", module, nn.Module)
    settings = settings or CheckSettings(mode, coordinates, num_directions, tolerance, seed)
    if is_sharded_module(module):
        raise ConflictError(SHARDED)
    if max_samples is not None:
        batch = first_samples(batch, integer("max_samples", max_samples, minimum=1))
    with TURN, preserve_random_states(), run_apart():  # the whole process has but one of each
        return check_problem(_problem(module, batch, loss_fn), settings)


def check_batches(
    module: nn.Module, batches: Iterable[Any], *, as_json: bool = False, **arguments: Any
) -> int:
    """Check the gradients on each batch, print the reports, and return an exit code.

    Args:
        module: a LightningModule.
        batches: as its ``training_step`` takes them; see `training_batches`.
        as_json: print one json list instead of tables.
        arguments: for `check_gradients`.

    Returns:
        0 if every check was made and passed, 1 otherwise, also where there is no batch.
    """
    reports = [_report(module, batch, arguments) for batch in batches]
    if not reports:
        why = "There was no training batch to check on."
        reports = [GradientReport((), notes=(why,), skipped=True)]
    texts = [json.dumps([r.to_dict() for r in reports], indent=1)] if as_json else reports
    for each in texts:
        print(each)  # noqa: T201  # the command's output
    return 0 if all(report.passed for report in reports) else 1


def _report(module: nn.Module, batch: Any, arguments: dict[str, Any]) -> GradientReport:
    """Return the report on one batch, one that is skipped where the step raises."""
    try:
        return check_gradients(module, batch, **arguments)
    except StabError:  # an argument
        raise
    except Exception as error:  # of the user's step, of any kind
        return not_made(error)


def not_made(error: Exception) -> GradientReport:
    """Return the report of a check in which a step raised."""
    what = f"{type(error).__name__}: {error}"
    why = f"The check could not run this module in double precision: {what}"
    return GradientReport((), notes=(why,), skipped=True)


def training_batches(data: LightningDataModule, number: int = 1) -> list[Any]:
    """Return the first training batches of a data module that no Trainer has prepared.

    Args:
        data: the data module; its ``prepare_data`` and ``setup("fit")`` are called.
        number: how many batches.
    """
    integer("number", number, minimum=1)
    data.prepare_data()
    data.setup("fit")
    return list(islice(data.train_dataloader(), number))


def _problem(module: nn.Module, batch: Any, loss_fn: LossFunction | None) -> Problem:
    """Return the losses of a copy of the module, of its training step or of ``loss_fn``."""
    if loss_fn is None and not hasattr(module, "training_step"):
        raise InvalidArgumentError(
            "`loss_fn` must be given for a module without a `training_step`, got None. "
            "Pass a function of the module and the batch that returns the loss."
        )
    module_copy, is_moved = isolated_copy(module, double=True), lack_double(module.parameters())
    if is_moved:
        module_copy.to("cpu")  # where its tensors are already; now its parts say so

    def program(on_loss: Callable[[Tensor], None], data: Any) -> None:
        if loss_fn is None:
            run_training_step(module_copy, data, on_loss=on_loss)
        else:
            on_loss(loss_fn(module_copy, data))

    problem = Problem(module_copy, program, (double_copy(batch)[0],))
    if is_moved:
        problem.notes.append("Checked on the CPU, because the device has no double precision.")
    if compiled_parts(module):
        problem.notes.append("Compiled parts were checked as they run in eager mode.")
    return problem

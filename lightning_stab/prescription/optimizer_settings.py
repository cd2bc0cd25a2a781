"""`OptimizerSettings`: the numbers of a module's optimizers, without its code."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning.pytorch import LightningModule, Trainer

from lightning_stab.arguments import options_from, real
from lightning_stab.callbacks._trainer.fit_state import FitStart, fit_start
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.step import first_group
from lightning_stab.callbacks.guard.restoring import scale_learning_rates
from lightning_stab.errors import ConflictError


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The arguments of `OptimizerSettings`, checked."""

    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if self.learning_rate is not None:
            real("learning_rate", self.learning_rate, above=0)
        if self.momentum is not None:
            real("momentum", self.momentum, minimum=0, below=1)
        if self.weight_decay is not None:
            real("weight_decay", self.weight_decay, minimum=0)


class OptimizerSettings(Callback, options=OptimizerOptions):
    """Set numbers of the optimizers that ``configure_optimizers`` makes, at the start of a fit.

    A resumed fit goes on with what its checkpoint holds.

    Args:
        learning_rate: of the first parameter group, > 0; every other rate, and what schedulers
            compute rates from, is multiplied by the same factor.
        momentum: of every group, in [0, 1); for Adam and its like the first of ``betas``.
        weight_decay: of every group that has any, >= 0.

    Raises:
        InvalidArgumentError: if an argument breaks its rule.
        ConflictError: before the first step, if the optimizer has no such number.

    Example:
        >>> OptimizerSettings(learning_rate=1e-3)
        OptimizerSettings(learning_rate=0.001)
    """

    def __init__(
        self,
        learning_rate: float | None = None,
        *,
        momentum: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        self.options = options_from(OptimizerOptions, locals())

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set them."""
        if fit_start(trainer) is FitStart.RESUMED or not trainer.optimizers:
            return
        options = self.options
        if options.learning_rate is not None:
            now = first_rate(trainer)
            if not now > 0:
                raise ConflictError(
                    "`learning_rate` of `OptimizerSettings` needs an optimizer with a learning"
                    f" rate above 0, and {type(trainer.optimizers[0]).__name__} has none. Set the"
                    " rate in `configure_optimizers`."
                )
            scale_learning_rates(trainer, options.learning_rate / now)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if options.momentum is not None and "betas" in group:
                    group["betas"] = (options.momentum, *group["betas"][1:])
                elif options.momentum is not None and "momentum" in group:
                    group["momentum"] = options.momentum
                if options.weight_decay is not None and group.get("weight_decay"):
                    group["weight_decay"] = options.weight_decay


def first_rate(trainer: Trainer) -> float:
    """Return the first group's rate before any schedule, NaN where there is none.

    A schedule's constructor has set the present rate to what it begins with.
    """
    group = first_group(trainer.optimizers)
    rate = group.get("max_lr", group.get("initial_lr", group.get("lr")))
    return math.nan if rate is None else float(rate)

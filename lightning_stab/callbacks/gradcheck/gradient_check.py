"""`GradientCheck`: stop a fit whose backward pass is wrong, before its first step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_stab.arguments import integer, one_of
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks.gradcheck.check_gradients import check_gradients, skipped_check
from lightning_stab.callbacks.gradcheck.report import message, write_report
from lightning_stab.callbacks.gradcheck.training_step import shards
from lightning_stab.errors import GradientCheckError
from lightning_stab.functional.gradcheck import CheckSettings, GradientReport

ON_FAIL = ("raise", "warn")


class GradientCheck(Callback):
    """Central differences against autograd on the first training batch; 1e-7 is the bound.

    (L(theta + h v) - L(theta - h v)) / 2h is compared with autograd's gradient along random
    directions v of every parameter, in double precision, on a copy of the module. The error counts
    relative to max(|numeric|, |analytic|, the norm of gradient times v). Kinks, such as a ReLU
    at 0, are reported and not accused. The fit goes on bit for bit as it would without the check,
    also when the check itself raises. Under DDP the first rank checks and all ranks decide alike.
    The result goes to the terminal, to TensorBoard as text (``gradient_check``), and to
    ``gradient_check.json`` in the log folder.

    Args:
        on_fail: ``"raise"`` stops the fit; ``"warn"`` says what is wrong and goes on.
        every_n_epochs: check again at the first batch of every n-th epoch, for modules that change
            while they train; None checks once.
        mode: what one direction spans: ``"tensor"``, ``"group"`` or ``"model"``, from thorough to
            cheap; ``"auto"`` takes tensors for up to 32 of them and groups beyond.
        coordinates: ``"all"``, or a number of sampled ones in each tensor, for the plain formula
            one coordinate after another.
        num_directions: how many directions each part gets.
        max_samples: take only so many samples of the batch; None takes all.
        on_resume: check again when a run is resumed; off, because its first start has checked.
        seed: of the private generator that draws point and directions.

    Raises:
        GradientCheckError: at the first batch, when a gradient is wrong and ``on_fail`` is
            ``"raise"``; names the parameter, the coordinate, both values and the suspect.
        InvalidArgumentError: for an argument out of range.

    Example:
        >>> GradientCheck(on_fail="warn").on_fail
        'warn'
    """

    def __init__(
        self,
        on_fail: str = "raise",
        every_n_epochs: int | None = None,
        mode: str = "auto",
        coordinates: int | str | None = None,
        num_directions: int = 2,
        max_samples: int | None = None,
        on_resume: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.on_fail = one_of("on_fail", on_fail, ON_FAIL)
        self.every_n_epochs = every_n_epochs
        if every_n_epochs is not None:
            integer("every_n_epochs", every_n_epochs, minimum=1)
        if max_samples is not None:
            integer("max_samples", max_samples, minimum=1)
        self.settings = CheckSettings(mode, coordinates, num_directions, seed=seed)
        self.max_samples = max_samples
        self.on_resume = on_resume
        self.report: GradientReport | None = None
        self._last_epoch: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the checks of an earlier fit; a checkpoint brings back those of this one."""
        self._last_epoch = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check on the first batch of an epoch that is due."""
        epoch = trainer.current_epoch
        if not self._due(epoch):
            return
        self._last_epoch = epoch
        self.report = self._checked(trainer, pl_module, batch)
        write_report(trainer, self.report)
        self._tell(self.report)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch of the last check."""
        return {"last_epoch": self._last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the epoch of the last check, unless a resumed run is to be checked again."""
        self._last_epoch = None if self.on_resume else state_dict["last_epoch"]

    def _due(self, epoch: int) -> bool:
        if self._last_epoch is None:
            return True
        return bool(
            self.every_n_epochs and epoch != self._last_epoch and epoch % self.every_n_epochs == 0
        )

    def _checked(self, trainer: Trainer, module: LightningModule, batch: Any) -> GradientReport:
        """Check on the first rank, and return its report on every rank."""
        sharded = shards(module)
        if sharded:
            return skipped_check(sharded)
        report: GradientReport | None = None
        if trainer.is_global_zero:
            try:
                report = check_gradients(
                    module, batch, settings=self.settings, max_samples=self.max_samples
                )
            except Exception as error:  # the check must never be what stops a fit
                report = skipped_check(
                    f"The check could not run this module in double precision: "
                    f"{type(error).__name__}: {error}"
                )
        shared: GradientReport = trainer.strategy.broadcast(report)  # type: ignore[assignment]
        return shared

    def _tell(self, report: GradientReport) -> None:
        if report.skipped:
            rank_zero_warn(str(report))
        elif report.passed:
            rank_zero_info(report.short())
        elif self.on_fail == "raise":
            raise GradientCheckError(message(report))
        else:
            rank_zero_warn(message(report))

"""`GradientCheck`: stop a fit whose backward pass is wrong, before its first step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_stab.arguments import integer, one_of
from lightning_stab.callbacks._lightning import Callback
from lightning_stab.callbacks._logging import log_text
from lightning_stab.callbacks.checking import check_gradients
from lightning_stab.errors import GradientCheckError
from lightning_stab.functional.gradcheck import GradientReport, describe

ON_FAIL = ("raise", "warn")


class GradientCheck(Callback):
    """Central differences against autograd on the first training batch; 1e-7 is the bound.

    (L(theta + h) - L(theta - h)) / 2h is compared with autograd's gradient on sampled coordinates
    of every parameter, in double precision, on a copy of the module. The error counts relative to
    max(|numeric|, |analytic|, the RMS of the tensor's gradient). Coordinates on a kink, such as a
    ReLU at 0, are reported and not accused. The fit itself goes on bit for bit as without it.

    Args:
        on_fail: ``"raise"`` stops the fit; ``"warn"`` says what is wrong and goes on.
        num_coordinates: how many coordinates of each parameter are tried.
        on_resume: check again when a run is resumed from a checkpoint; off, because the first
            start has checked already.
        seed: of the private generator that draws the coordinates.

    Raises:
        GradientCheckError: at the first batch, when a gradient is wrong and ``on_fail`` is
            ``"raise"``; names the parameter, the coordinate and both values.

    Example:
        >>> GradientCheck(on_fail="warn").on_fail
        'warn'
    """

    def __init__(
        self,
        on_fail: str = "raise",
        num_coordinates: int = 8,
        on_resume: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.on_fail = one_of("on_fail", on_fail, ON_FAIL)
        self.num_coordinates = integer("num_coordinates", num_coordinates, minimum=1)
        self.on_resume = on_resume
        self.seed = integer("seed", seed, minimum=0)
        self.report: GradientReport | None = None
        self._checked = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether this start is a resumed one."""
        resumed = trainer.ckpt_path is not None
        self._checked = resumed and not self.on_resume

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check once, on the first batch."""
        if self._checked:
            return
        self._checked = True
        report: GradientReport | None = None
        if trainer.is_global_zero:
            report = check_gradients(
                pl_module, batch, num_coordinates=self.num_coordinates, seed=self.seed
            )
        report = trainer.strategy.broadcast(report)
        if report is not None:
            self.report = report
            self._tell(trainer, report)

    def _tell(self, trainer: Trainer, report: GradientReport) -> None:
        log_text(trainer, "gradient_check", f"```\n{report}\n```")
        if report.passed:
            rank_zero_info(report.summary())
            return
        message = _message(report)
        if self.on_fail == "raise":
            raise GradientCheckError(message)
        rank_zero_warn(message)


def _message(report: GradientReport) -> str:
    found = "\n".join(f"  {describe(record)}" for record in report.wrong)
    return (
        f"{len(report.wrong)} of {len(report.parameters)} parameters have a wrong gradient:\n"
        f"{found}\n"
        "Look at the hand-written backward passes between these parameters and the loss. "
        'To train on nevertheless, use `on_fail="warn"`.'
    )

"""`GradientCheck`: stop a fit whose backward pass is wrong, before its first step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_stab.arguments import integer, options_from
from lightning_stab.callbacks._trainer.fit_state import FitStart, begin_fit, fit_start, note_restore
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import log_step, log_text
from lightning_stab.callbacks._trainer.places import log_folder, write_file
from lightning_stab.callbacks._trainer.ranks import broadcast
from lightning_stab.callbacks._trainer.strategies import is_sharded_module
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.callbacks.gradcheck.check_gradients import SHARDED, check_gradients, not_made
from lightning_stab.errors import GradientCheckError
from lightning_stab.functional.gradcheck import CheckSettings, GradientReport, Mode, describe

OnFail = Literal["raise", "warn"]
FILE_NAME = "gradient_check.json"


@dataclass(frozen=True, kw_only=True)
class GradientCheckOptions(CheckSettings):
    """The options of `GradientCheck`, whose arguments are explained there."""

    on_fail: OnFail = "raise"
    every_n_epochs: int | None = None
    max_samples: int | None = None
    on_resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("every_n_epochs", "max_samples"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), minimum=1)


class GradientCheck(Callback, options=GradientCheckOptions):
    """Central differences against autograd on the first training batch; 1e-7 is the bound.

    (L(theta + h v) - L(theta - h v)) / 2h is compared with autograd's gradient along random
    directions v of every parameter, in double precision, on a copy of the module. The error counts
    relative to max(|numeric|, |analytic|, the norm of gradient times v). Kinks, such as a ReLU
    at 0, are reported and not called wrong. The fit goes on bit for bit as without the check,
    also when the check itself raises. Under DDP the first rank checks and all ranks decide alike.
    The result goes to the terminal, to TensorBoard as text (``gradient_check``), and to
    ``gradient_check.json`` in the log folder.

    Args:
        on_fail: ``"raise"`` stops the fit; ``"warn"`` says what is wrong and goes on. The same goes
            for a check that could not be made.
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
        GradientCheckError: at the first batch, with ``on_fail="raise"``, when a gradient is wrong
            (names the parameter, the coordinate, both values and the suspect), when backward
            passes of one loss differ, or when the check could not be made (says why).
        InvalidArgumentError: for an argument out of range.

    Example:
        >>> GradientCheck(on_fail="warn").on_fail
        'warn'
    """

    def __init__(
        self,
        on_fail: OnFail = "raise",
        every_n_epochs: int | None = None,
        mode: Mode = "auto",
        coordinates: int | Literal["all"] | None = None,
        num_directions: int = 2,
        max_samples: int | None = None,
        on_resume: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.options = options_from(GradientCheckOptions, locals())
        self.report: GradientReport | None = None
        self._last_epoch: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the checks of an earlier fit; a checkpoint brings back those of this one."""
        begin_fit(trainer, stage)
        if stage == "fit":
            self._last_epoch = self.report = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note whether the run is resumed."""
        note_restore(trainer, checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check again, unless the run is resumed and its first start has checked."""
        if self.options.on_resume or fit_start(trainer) is not FitStart.RESUMED:
            self._last_epoch = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check on the first batch of an epoch that is due."""
        epoch, last, every = trainer.current_epoch, self._last_epoch, self.options.every_n_epochs
        if last is not None and not (every and epoch != last and epoch % every == 0):
            return
        self._last_epoch = epoch
        report = self._check(pl_module, batch) if trainer.is_global_zero else GradientReport(())
        self.report = broadcast(trainer, report)
        _write(trainer, self.report)
        self._announce(trainer, self.report)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch of the last check."""
        return {"last_epoch": self._last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the epoch of the last check."""
        self._last_epoch = state_dict["last_epoch"]

    def _check(self, module: LightningModule, batch: Any) -> GradientReport:
        if is_sharded_module(module):
            return GradientReport((), notes=(SHARDED,), skipped=True)
        options = self.options
        try:
            return check_gradients(module, batch, settings=options, max_samples=options.max_samples)
        except Exception as error:  # of any kind; what follows is for `on_fail` to say
            return not_made(error)

    def _announce(self, trainer: Trainer, report: GradientReport) -> None:
        if report.passed:
            say(trainer, report.short())
        elif self.options.on_fail == "raise":
            raise GradientCheckError(_message(report))
        else:
            rank_zero_warn(_message(report))


def _message(report: GradientReport) -> str:
    """Return what a report that did not pass says: what is wrong, or why it cannot be judged."""
    nevertheless = 'To train on nevertheless, use `on_fail="warn"`.'
    if report.skipped:
        return "\n".join([report.summary(), *report.notes, nevertheless])
    total, wrong = len(report.parameters), report.wrong
    others = [record for record in report.failed if record not in wrong]
    parts = []
    if wrong:
        parts.append(f"{len(wrong)} of {total} parameters have a wrong gradient:")
        parts += [f"  {describe(record)}" for record in wrong]
    if others:
        parts.append(f"The gradients of {len(others)} of {total} parameters cannot be judged:")
        parts += [f"  {describe(record)}" for record in others]
    where = "Look at the hand-written backward passes between these parameters and the loss."
    return "\n".join([*parts, f"{where} {nevertheless}"])


def _write(trainer: Trainer, report: GradientReport) -> None:
    """Write the report as TensorBoard text, and as json into the log folder."""
    log_text(trainer, "gradient_check", f"```\n{report}\n```")
    folder = log_folder(trainer)
    if folder is not None and trainer.is_global_zero:
        place = {"epoch": trainer.current_epoch, "step": log_step(trainer)}
        text = json.dumps({**place, **report.to_dict()}, indent=1)
        write_file(trainer, f"{folder}/{FILE_NAME}", (text + "\n").encode())

"""``lightning-stab diagnose``: a short watched fit that saves nothing, then what was found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from lightning_stab import TrainingDoctor
from lightning_stab.arguments import integer
from lightning_stab.cli.diagnosis_report import Diagnosis, diagnosis, show
from lightning_stab.cli.parser import UnsavedCLI, own_error
from lightning_stab.errors import ConflictError, GradientCheckError, UnstableStepError
from lightning_stab.prescription.traceless import kept_callbacks, quietly, traceless_arguments

EVERY_N_STEPS = 10  # optimizer steps between two that the doctor samples
VALIDATION_BATCHES = 50  # of each validation, at most
ENDS = (UnstableStepError, GradientCheckError)  # by which the suite ends a fit


class DiagnoseCLI(UnsavedCLI):
    """Builds module, data and Trainer as ``fit`` does, with a doctor and without traces."""

    def __init__(self, args: list[str], folder: str) -> None:
        self.folder = folder  # thrown away, for what writes all the same
        self.doctor: TrainingDoctor | None = None
        super().__init__(
            args,
            prog="lightning-stab diagnose",
            description="Watch a short fit that saves nothing, and say what is wrong.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add how many steps are watched."""
        watched = "optimizer steps to watch, at most"
        parser.add_argument("--steps", type=int, default=200, help=watched)
        super().add_arguments_to_parser(parser)

    def before_instantiate_classes(self) -> None:
        """Take the loggers away before they are made: some of them start with that."""
        self._end = _EndAfter(integer("steps", self.config["steps"], minimum=1))
        self.config["trainer"]["logger"] = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, watched and without traces; schedules depend on the run's length."""
        given = self.config_init["trainer"]
        callbacks = self._kept(given["callbacks"] or [])
        if self.doctor is None:
            callbacks = [*callbacks, *self._kept(TrainingDoctor())]
        most = given["limit_val_batches"]
        trainer = super().instantiate_trainer(
            callbacks=[*callbacks, self._end],
            limit_val_batches=VALIDATION_BATCHES if most in (None, 1.0) else most,
            **dict.fromkeys(("min_epochs", "min_steps", "max_time")),
            barebones=False,
            **traceless_arguments(self.folder),
        )
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            raise ConflictError(
                "`strategy` must not start processes that keep the findings to themselves. "
                "Diagnose with --trainer.devices=1, or with --trainer.strategy=ddp."
            )
        return trainer

    def after_instantiate_classes(self) -> None:
        """Refuse what cannot run, and sort the module's own callbacks too."""
        super().after_instantiate_classes()
        own = self.model.configure_callbacks
        self.model.configure_callbacks = lambda: self._kept(own())

    def watch(self) -> Diagnosis:
        """Fit, and return what was found, also where the fit fails."""
        arguments = {name: self.config_init[name] for name in self.from_fit}
        failure: BaseException | None = None
        own = None
        try:
            self.trainer.fit(self.model, datamodule=self.datamodule, **arguments)
        except (Exception, SystemExit) as error:  # Lightning leaves so when it is interrupted
            own = own_error(error)
            if own is not None and not isinstance(own, ENDS):
                raise
            failure = own or error
        steps = self.trainer.global_step - self._end.start
        assert self.doctor is not None
        if isinstance(failure, Exception) and not (own or steps or self.doctor.findings):
            raise failure  # a fault of the program, before anything was measured
        if failure is None and not steps:
            raise ConflictError(
                "There must be steps to watch, and the fit took none: look at max_epochs, "
                "max_steps and limit_train_batches, the data, and the checkpoint."
            )
        return diagnosis(self.trainer, self.doctor, steps, failure)

    def _kept(self, callbacks: Callback | Sequence[Callback]) -> list[Callback]:
        """Return the callbacks that stay; a doctor is replaced by one that samples more steps."""
        kept = [each for each in kept_callbacks(callbacks) if not isinstance(each, EarlyStopping)]
        for place, each in enumerate(kept):
            if isinstance(each, TrainingDoctor):
                kept[place] = self.doctor = TrainingDoctor(
                    ignore=each.options.ignore,
                    thresholds=each.thresholds,
                    every_n_steps=min(EVERY_N_STEPS, each.options.every_n_steps),
                    print_findings=False,
                )
        return kept


class _EndAfter(Callback):
    """Ends a fit after some optimizer steps; the schedules do not know of it."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.start = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step - self.start >= self.steps:
            trainer.should_stop = True


def diagnose(args: list[str]) -> int:
    """Watch a short fit and print what was found.

    Args:
        args: the words after ``diagnose``.

    Returns:
        1 if there is an error among the findings or the fit failed, 0 otherwise.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, quietly(sys.stderr):
        cli = DiagnoseCLI(args, folder)
        if cli.trainer.is_global_zero:
            sys.stderr.write(f"Watching at most {cli.config['steps']} optimizer steps ...\n")
        found = cli.watch()
    if cli.trainer.is_global_zero:
        show(found, as_json=cli.config["json"])
    if found.failure is not None and not isinstance(found.failure, ENDS):
        raise found.failure
    return int(found.has_failed)

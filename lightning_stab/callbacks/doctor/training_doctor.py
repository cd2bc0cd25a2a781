"""Name what is wrong with a training run while it trains, in plain words, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from lightning_stab.arguments import integer, mapping, one_of, options_from, real, strings
from lightning_stab.callbacks._trainer import fit_state
from lightning_stab.callbacks._trainer.exceptions import call_after_exception
from lightning_stab.callbacks._trainer.lightning_classes import Callback, callbacks_of, is_automatic
from lightning_stab.callbacks._trainer.logging import log_step
from lightning_stab.callbacks._trainer.places import log_folder
from lightning_stab.callbacks._trainer.step import OptimizerStep, StepMember, run_phases
from lightning_stab.callbacks._trainer.strategies import refuse_partial_norms
from lightning_stab.callbacks.doctor import report
from lightning_stab.callbacks.doctor.advice import advise_beside
from lightning_stab.callbacks.doctor.state import DoctorState
from lightning_stab.callbacks.doctor.validation_facts import BATCHES
from lightning_stab.diagnosis import IDS, THRESHOLDS, Engine, Finding
from lightning_stab.diagnosis.facts import SAMPLED_STEP
from lightning_stab.diagnosis.thresholds import current_names
from lightning_stab.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """The arguments of `TrainingDoctor`, checked."""

    ignore: Sequence[str] = ()
    thresholds: Mapping[str, float] | None = None
    every_n_steps: int = 200
    print_findings: bool = True
    log_facts: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.ignore, bool):
            raise InvalidArgumentError(
                f"`ignore` must be a list of strings, got {self.ignore!r}. Leave it out to ignore"
                " nothing."
            )
        object.__setattr__(self, "ignore", strings("ignore", self.ignore))
        for pattern in self.ignore:
            one_of("ignore", pattern.partition(":")[0], IDS)
        thresholds = current_names(mapping("thresholds", self.thresholds, "numbers"))
        for name, value in thresholds.items():
            id_, _, own = name.rpartition(".")
            if id_:
                one_of("thresholds", id_, IDS)
            one_of("thresholds", own, tuple(THRESHOLDS))
            real(f"thresholds[{name!r}]", value)
        object.__setattr__(self, "thresholds", thresholds or None)
        integer("every_n_steps", self.every_n_steps, minimum=1)


class TrainingDoctor(StepMember, Callback, options=DoctorOptions):
    """Name what is wrong with a run by its cause, with layers, numbers and advice; change nothing.

    It samples the first steps, every 50th up to step 500, then every ``every_n_steps``-th: what
    enters the loss, gradients and activations over depth and time, units, updates, losses and
    validation metrics. Each fault is reported once, the deepest cause first; most have to persist
    before they are reported, and one that does not hold any more is withdrawn.
    Nothing of the run is changed, not a bit. Findings go to the terminal through Python's
    ``logging`` (the logger ``lightning_stab``), to TensorBoard (``diagnosis/<id>``) and to
    ``findings.json`` in the run's folder, and survive a restart.

    The ids:
    {ids}.

    Args:
        ignore: ids that are not reported, or ``id:pattern`` for layers, such as
            ``dead-units:head.*``.
        thresholds: numbers of the rules to replace, by name, or by ``id.name`` for one id, such as
            ``plateau.nothing_learnt``; see ``docs/training_doctor.md``.
        every_n_steps: optimizer steps between two that are sampled, >= 1. Of the first 500 steps
            every 50th is sampled at least, for most faults show early.
        print_findings: log each finding when it is found: an error as an error, a warning as a
            warning, other findings as information, which is hidden unless the logger is set to it;
            that an alarm is withdrawn, as a warning.
        log_facts: send the facts of each check to the loggers as scalars, ``diagnosis_facts/...``;
            TensorBoard gets them packed in any case.

    Attributes:
        findings: what was found and stands, in the order in which it was found. It outlives the
            fit.
        withdrawn: what was found and taken back.

    Raises:
        InvalidArgumentError: for an unknown id or threshold.
        ConflictError: before the first step, under strategies that hide gradients.

    Example:
        >>> from lightning_stab import TrainingDoctor
        >>> TrainingDoctor(ignore=["plateau"], thresholds={"large_input": 20.0})
        TrainingDoctor(ignore=('plateau',), thresholds={'large_input': 20.0})
        >>> TrainingDoctor().findings
        []
    """

    def __init__(
        self,
        ignore: Sequence[str] = (),
        thresholds: Mapping[str, float] | None = None,
        *,
        every_n_steps: int = 200,
        print_findings: bool = True,
        log_facts: bool = False,
    ) -> None:
        self.options = options_from(DoctorOptions, locals())
        self._is_loaded = False  # from a checkpoint, since the last fit
        self._before_end: dict[str, Any] = {}
        self._folder: str | None = None
        self._begin()

    @property
    def thresholds(self) -> dict[str, float]:
        """The numbers that replace those of the rules."""
        return dict(self.options.thresholds or {})

    @property
    def findings(self) -> list[Finding]:
        """What was found and stands, in the order in which it was found."""
        return self._engine.findings

    @property
    def withdrawn(self) -> list[Finding]:
        """What was found and taken back, because it no longer held."""
        return self._engine.withdrawn

    @property
    def unseen(self) -> tuple[str, ...]:
        """What the doctor could not see in the latest run, a sentence each."""
        return self._state.unseen

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse where the gradients cannot be seen."""
        if stage == "fit":
            refuse_partial_norms(trainer, self, "diagnosis")
            fit_state.begin_fit(trainer, stage)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note that a checkpoint is loaded."""
        fit_state.note_restore(trainer, checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run, unless this one continues it."""
        super().on_train_start(trainer, pl_module)
        if fit_state.forgets_earlier_run(trainer, loaded=self._is_loaded):
            self._begin()
        self._is_loaded = False
        self._folder = log_folder(trainer)  # which all ranks have to ask for at the same time

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put hooks on for a batch that is sampled."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._state.begin_batch(trainer, pl_module, batch, log_step(trainer))

    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """End the forward pass: each gradient that is set to None would be seen as a function."""
        if self._state.has_hooks and is_automatic(trainer, pl_module):
            self._state.end_forward()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Note the loss, on its device."""
        self._state.before_backward(trainer, pl_module, loss)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off."""
        # else they serve until the batch ends
        if self._state.has_hooks and is_automatic(trainer, pl_module):
            self._state.remove_hooks()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take part in the phases of the step."""
        sampled = self._state.is_sampled
        self._state.steps.before_step(trainer, pl_module, optimizer, sampled=sampled)
        run_phases(self, trainer, pl_module, optimizer)

    def wants_step(self, trainer: Trainer) -> bool:
        """Say whether this step is sampled."""
        return self._state.is_sampled

    def measure_step(self, step: OptimizerStep) -> None:
        """Measure gradients and weights; diagnose the very first step before it is taken."""
        if self._state.is_sampled and not step.is_repeated:
            self._state.measure(step)
            if self._state.is_first:
                self._diagnose(step.trainer, "start")

    def record_step(self, step: OptimizerStep) -> None:
        """Forget a step that is not taken."""
        if step.rejected:
            self._state.steps.drop_step()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Diagnose after a step that was sampled."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx, *args, **kwargs)
        if self._state.end_batch(trainer, batch, batch_idx):
            self._diagnose(trainer, SAMPLED_STEP)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the targets, and at the rows of the first batches of a fit's validations."""
        if fit_state.is_validating_fit(trainer):
            self._state.level.add(batch, dataloader_idx)
            if batch_idx < BATCHES and dataloader_idx == 0:
                self._state.rows.add("validation", batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Diagnose after a validation, by its metrics."""
        if fit_state.is_validating_fit(trainer) and self._state.end_validation(trainer):
            self._diagnose(trainer, "validation")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Diagnose the end, and write the file also where nothing was found."""
        self._finish(trainer, pl_module, alone=False)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Diagnose what led to the failure, and take the hooks off.

        A checkpoint that is written meanwhile has the state of a run that is to go on.
        """
        if self._state.module is not None:
            self._before_end = deepcopy(self.state_dict())
            call_after_exception(trainer, self._before_end.clear)
            self._state.note_failure(exception)
            self._finish(trainer, pl_module, alone=True)
        super().teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off; the findings stay."""
        super().teardown(trainer, pl_module, stage)
        self._state.remove_hooks()
        self._state.module = None

    def state_dict(self) -> dict[str, Any]:
        """Return what was found and measured."""
        # the keys are those of earlier versions
        return dict(self._before_end) or {
            "engine": self._engine.state_dict(),
            "patient": self._state.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what was found and measured."""
        self._begin()
        self._engine.load_state_dict(state_dict["engine"])
        self._state.load_state_dict(state_dict["patient"])
        self._is_loaded = True

    def _begin(self) -> None:
        self._engine = Engine(self.thresholds, self.options.ignore)
        self._state = DoctorState(self.options.every_n_steps)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, *, alone: bool) -> None:
        self._state.end_fit(pl_module, alone=alone)
        self._diagnose(trainer, "end")
        self._write(trainer)

    def _diagnose(self, trainer: Trainer, moment: str) -> None:
        facts = self._state.facts(trainer, moment)
        new = self._engine.update(facts)
        if moment == SAMPLED_STEP:
            report.log_facts(trainer, facts, as_scalars=self.options.log_facts)
        if new:
            norm, planned = self._state.steps.first_norm, trainer.estimated_stepping_batches
            steps = int(planned) if math.isfinite(planned) else 0
            there = callbacks_of(trainer)
            optimizers = trainer.optimizers
            new = [advise_beside(there, f, facts, norm, steps, optimizers) for f in new]
            self._engine.findings[-len(new) :] = new
        changed = [*new, *self._engine.changed]
        if not changed:
            return
        report.log_findings(trainer, changed)
        self._write(trainer)
        if self.options.print_findings:
            report.print_findings(trainer, changed)

    def _write(self, trainer: Trainer) -> None:
        if self._folder is not None and trainer.is_global_zero:
            place = {"step": trainer.global_step, "epoch": trainer.current_epoch}
            unseen = {"unseen": list(self.unseen)} if self.unseen else {}
            taken = {"withdrawn": [f.to_dict() for f in self.withdrawn]} if self.withdrawn else {}
            written = {**place, **unseen, **taken}
            if not report.write_findings(trainer, self._folder, self.findings, written):
                self._folder = None  # said once, and not tried again in this run


_IDS = fill(
    ", ".join(f"``{id_}``" for id_ in IDS), 96, subsequent_indent="    ", break_on_hyphens=False
)
TrainingDoctor.__doc__ = (TrainingDoctor.__doc__ or "").replace("{ids}", _IDS)

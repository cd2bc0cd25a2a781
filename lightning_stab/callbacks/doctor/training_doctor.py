"""Name what is wrong with a training run while it trains, in plain words, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from lightning_stab.arguments import integer, one_of, real, strings
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.callbacks._trainer.logging import log_folder, log_step
from lightning_stab.callbacks._trainer.step import OptimizerStep, StepMember, run_phases
from lightning_stab.callbacks._trainer.strategies import refuse_partial_norms
from lightning_stab.callbacks.doctor.report import (
    log_facts,
    log_findings,
    print_finding,
    write_findings,
)
from lightning_stab.callbacks.doctor.state import Patient
from lightning_stab.diagnosis import IDS, THRESHOLDS, Engine, Finding
from lightning_stab.errors import InvalidArgumentError


class TrainingDoctor(StepMember, Callback):
    """Name sick training runs by their cause, with layers, numbers and advice; change nothing.

    It looks at the first steps, every 50 up to step 500, then every ``every_n_steps``: at what
    enters the loss, at gradients and activations over depth and time, at units, updates, losses
    and validation metrics. Each sickness is told once, the deepest cause first; most have to
    persist before they are told.
    Nothing of the run is changed, not a bit. Findings go to the terminal, to TensorBoard
    (``diagnosis/<id>``) and to ``findings.json`` in the run's folder, and survive a restart.

    The ids: ``vanishing-gradient``, ``exploding-gradient``, ``dead-units``, ``saturated-units``,
    ``bad-initialization``, ``learning-rate-too-high``, ``learning-rate-too-low``, ``loss-spike``,
    ``non-finite``, ``oscillating-loss``, ``plateau``, ``overfitting``, ``input-scale``,
    ``target-scale``, ``output-activation``, ``unused-parameters``.

    Args:
        treat: must be ``False``: the doctor names and advises, it does not treat.
        ignore: ids that are not told, or ``id:pattern`` for layers, such as
            ``dead-units:head.*``.
        thresholds: numbers of the rules to replace, by name, or by ``id.name`` for one id, such as
            ``plateau.nothing_learnt``; see ``docs/training_doctor.md``.
        every_n_steps: optimizer steps between two looks, >= 1. The first 500 steps are looked at
            every 50 at least, for most faults show early.
        print_findings: print each finding to the terminal when it is found.

    Attributes:
        findings: everything found, in the order in which it was found. It outlives the fit.

    Raises:
        InvalidArgumentError: for an unknown id or threshold, or ``treat=True``.
        ConflictError: before the first step, under strategies that hide gradients.

    Example:
        >>> from lightning_stab import TrainingDoctor
        >>> doctor = TrainingDoctor(ignore=["plateau"], thresholds={"large_input": 20.0})
        >>> doctor.findings
        []
    """

    def __init__(
        self,
        treat: bool = False,
        ignore: Sequence[str] = (),
        thresholds: Mapping[str, float] | None = None,
        *,
        every_n_steps: int = 200,
        print_findings: bool = True,
    ) -> None:
        if treat:
            raise InvalidArgumentError(
                "`treat` must be False, got True: the doctor names what is wrong and what to do,"
                " and does not treat yet. Leave it out, and follow the findings' `advice`."
            )
        self.treat = False
        self.ignore = strings("ignore", ignore)
        for pattern in self.ignore:
            one_of("ignore", pattern.partition(":")[0], IDS)
        self.thresholds = dict(thresholds or {})
        for name, value in self.thresholds.items():
            id_, _, own = name.rpartition(".")
            if id_:
                one_of("thresholds", id_, IDS)
            one_of("thresholds", own, tuple(THRESHOLDS))
            real(f"thresholds[{name!r}]", value)
        self.every_n_steps = integer("every_n_steps", every_n_steps, minimum=1)
        self.print_findings = print_findings
        self._loaded = False
        self._folder: Path | None = None
        self._begin()

    @property
    def findings(self) -> list[Finding]:
        """Everything found, in the order in which it was found."""
        return self._engine.findings

    @property
    def unseen(self) -> tuple[str, ...]:
        """What the doctor could not see in the latest run, a sentence each."""
        return self._patient.unseen

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse where the gradients cannot be seen."""
        if stage == "fit":
            refuse_partial_norms(trainer, self, "diagnosis")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run, unless this one continues it."""
        if not self._loaded and (trainer.global_step == 0 or trainer.ckpt_path):
            self._begin()
        self._loaded = False
        self._folder = log_folder(trainer)  # which all ranks have to ask for at the same time

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put hooks on for a batch that is looked at."""
        self._patient.begin_batch(trainer, pl_module, batch, log_step(trainer))

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Note the loss, on its device."""
        self._patient.see_loss(trainer, loss)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off."""
        self._patient.after_backward(trainer)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take part in the phases of the step."""
        self._patient.before_step(trainer, optimizer)
        run_phases(self, trainer, pl_module, optimizer)

    def wants_step(self, trainer: Trainer) -> bool:
        """Say whether this step is looked at."""
        return self._patient.is_looking

    def measure_step(self, step: OptimizerStep) -> None:
        """Read gradients and weights; judge the very first step before it is taken."""
        if self._patient.is_looking:
            self._patient.measure(step)
            if self._patient.is_first:
                self._judge(step.trainer, "start")

    def record_step(self, step: OptimizerStep) -> None:
        """Forget a step that is not taken."""
        if step.rejected:
            self._patient.drop_step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Judge after a batch that was looked at."""
        if self._patient.end_batch(trainer):
            self._judge(trainer, "look")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the validation metrics."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self._patient.see_validation(trainer):
            self._judge(trainer, "validation")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the end, and write the file also where nothing was found."""
        self._finish(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Judge what led to the failure, and take the hooks off."""
        if self._patient.module is not None:
            self._finish(trainer, pl_module, alone=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off; the findings stay."""
        self._patient.leave()
        self._patient.module = None

    def state_dict(self) -> dict[str, Any]:
        """Return what was found and measured."""
        return {"engine": self._engine.state_dict(), "patient": self._patient.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what was found and measured."""
        self._begin()
        self._engine.load_state_dict(state_dict["engine"])
        self._patient.load_state_dict(state_dict["patient"])
        self._loaded = True

    def _begin(self) -> None:
        self._engine = Engine(self.thresholds, self.ignore)
        self._patient = Patient(self.every_n_steps)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, *, alone: bool = False) -> None:
        self._patient.leave()
        self._patient.look_at_the_end(pl_module, alone=alone)
        self._judge(trainer, "end")
        self._write(trainer)

    def _judge(self, trainer: Trainer, moment: str) -> None:
        facts = self._patient.facts(trainer, moment)
        new = self._engine.update(facts)
        if moment == "look":
            log_facts(trainer, facts)
        if not new:
            return
        log_findings(trainer, new)
        self._write(trainer)
        for finding in new if self.print_findings and trainer.is_global_zero else ():
            print_finding(finding)

    def _write(self, trainer: Trainer) -> None:
        if self._folder is not None and trainer.is_global_zero:
            place = {"step": trainer.global_step, "epoch": trainer.current_epoch}
            unseen = {"unseen": list(self.unseen)} if self.unseen else {}
            write_findings(self._folder, self.findings, {**place, **unseen})

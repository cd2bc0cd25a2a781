"""One run of a program, with or without a cure, and what came of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakValueDictionary

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_stab.callbacks import TrainingDoctor
from lightning_stab.callbacks._trainer.fit_state import is_validating_fit
from lightning_stab.diagnosis import Facts, Finding
from lightning_stab.errors import (
    GradientCheckError,
    InvalidArgumentError,
    StabError,
    UnstableStepError,
)
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.survey import Survey, Surveyor
from lightning_stab.prescription.traceless import (
    apart,
    kept_callbacks,
    quietly,
    seed_generators,
    traceless_arguments,
)

EVERY_N_STEPS = 50  # optimizer steps between two that the doctor samples
ENDS = (UnstableStepError, GradientCheckError)  # by which the suite ends a fit
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Program:
    """What a user wants to train.

    Attributes:
        make_module: builds the module afresh.
        make_data: builds a data module, or a pair of loaders, afresh.
        trainer_arguments: of the Trainer.
        metric: the name under which the module logs it.
        mode: ``min`` or ``max``.
    """

    make_module: Callable[[], LightningModule]
    make_data: Callable[[], Any]
    trainer_arguments: Mapping[str, Any]
    metric: str
    mode: str

    def build(
        self, candidate: Candidate | None
    ) -> tuple[LightningModule, tuple[Any, ...], dict[str, Any]]:
        """Return module, data and the Trainer's arguments, all new, with a cure if there is one."""
        module, made = self.make_module(), self.make_data()
        _refuse_used(module)
        data = tuple(made) if isinstance(made, (tuple, list)) else (made,)
        arguments = copy.deepcopy(dict(self.trainer_arguments))
        return (
            (module, data, arguments)
            if candidate is None
            else candidate.applied(module, data, arguments)
        )

    def is_better(self, value: float, other: float) -> bool:
        """Compare two values of the metric; one that is not finite is the worst."""
        if not math.isfinite(value) or not math.isfinite(other):
            return math.isfinite(value) and not math.isfinite(other)
        return value < other if self.mode == "min" else value > other


class NotAfreshError(InvalidArgumentError):
    """The program gives weights that an earlier trial has trained."""


_USED: WeakValueDictionary[int, Tensor] = WeakValueDictionary()  # weights that trials have had


def _refuse_used(module: LightningModule) -> None:
    """Refuse weights that an earlier trial has trained."""
    if not isinstance(module, LightningModule):
        raise InvalidArgumentError(
            f"`make_module` must return a LightningModule, got {type(module).__name__}."
        )
    if any(_USED.get(id(p)) is p for p in module.parameters()):
        raise NotAfreshError(
            "`make_module` must build a new module at each call, got weights that an earlier call"
            " gave. Build every layer inside it."
        )
    _USED.update({id(p): p for p in module.parameters()})


@dataclass(frozen=True)
class Trial:
    """One run to be made.

    Attributes:
        candidate: the cure; None for the program as it is.
        seed: of all global generators.
        bars: fractions of the watched run, and what the metric has to be better than there for
            the run to go on.
        batches: of the watched run; 0 for that run itself.
    """

    candidate: Candidate | None
    seed: int
    bars: tuple[tuple[float, float], ...] = ()
    batches: int = 0


@dataclass(frozen=True)
class Run:
    """What came of a trial.

    Attributes:
        curve: at each validation the batches so far, and the metric.
        batches: training batches that were taken.
        steps: optimizer steps that were taken.
        findings: of the doctor.
        ended: empty where the run reached its end; else what ended it.
        logged: the names of all metrics.
        facts: at the end.
        survey: of the program.
            gradient_norm: the median norm of the first gradients.
    """

    curve: tuple[tuple[int, float], ...]
    batches: int
    steps: int
    findings: tuple[Finding, ...] = ()
    ended: str = ""
    logged: tuple[str, ...] = ()
    facts: Facts = field(default_factory=Facts)
    survey: Survey = field(default_factory=Survey)
    gradient_norm: float = math.nan

    @property
    def metric(self) -> float:
        """The last value; NaN where there is none, or the run failed."""
        failed = self.ended not in ("", STOPPED, INTERRUPTED)
        return math.nan if failed or not self.curve else self.curve[-1][1]

    def at(self, batches: float) -> float:
        """Return the metric at the first validation at or after so many batches."""
        return next((value for seen, value in self.curve if seen >= batches), self.metric)

    @property
    def alarms(self) -> list[str]:
        """The ids of warnings and errors."""
        return [finding.id for finding in self.findings if finding.is_alarm]


STOPPED = "stopped"  # because another run was better at the same time


class _Judge(Callback):
    """Follows the metric, ends a run that falls behind, and keeps the batches in order.

    The generators are seeded again at every epoch, so that a cure that draws random numbers does
    not change the order of the data.
    """

    def __init__(self, program: Program, trial: Trial) -> None:
        self.program, self.trial = program, trial
        self.curve: list[tuple[int, float]] = []
        self.batches = 0
        self.ended = ""
        self._bars = list(trial.bars)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed_generators(self.trial.seed + 1000 * trainer.current_epoch + 7)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.batches += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_validating_fit(trainer):
            self._note(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.curve or self.curve[-1][0] != self.batches:
            self._note(trainer)

    def _note(self, trainer: Trainer) -> None:
        value = trainer.callback_metrics.get(self.program.metric)
        if value is None:
            return
        self.curve.append((self.batches, float(value)))
        while self._bars and self.batches >= self._bars[0][0] * self.trial.batches:
            _, bar = self._bars.pop(0)
            if not self.program.is_better(float(value), bar):
                self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        trainer.should_stop = True
        trainer.fit_loop.min_epochs = 0
        trainer.fit_loop.epoch_loop.min_steps = None
        self.ended = STOPPED


def run_trial(program: Program, trial: Trial) -> Run:
    """Make one run; a cure that cannot be applied is part of the result.

    Raises:
        StabError: where the suite refuses the program as it is.
        Exception: a fault of the program's own before anything was measured.
    """
    try:
        return _run(program, trial)
    except NotAfreshError:  # no cure is to blame
        raise
    except KeyboardInterrupt:  # outside the fit, where no Trainer catches it
        return Run((), 0, 0, ended=INTERRUPTED)
    except Exception as error:  # a cure may fail on a program in any way
        if trial.candidate is None:
            raise
        own = isinstance(error, StabError)
        return Run((), 0, 0, ended=str(error) if own else f"{type(error).__name__}: {error}")


def _run(program: Program, trial: Trial) -> Run:
    judge, surveyor = _Judge(program, trial), Surveyor()
    doctor = TrainingDoctor(every_n_steps=EVERY_N_STEPS, print_findings=False)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, quietly(), apart(trial.seed):
        module, data, arguments = program.build(trial.candidate)
        own = [
            c
            for c in kept_callbacks(arguments.pop("callbacks", None))
            if not isinstance(c, TrainingDoctor)
        ]
        configure = module.configure_callbacks
        module.configure_callbacks = lambda: kept_callbacks(configure())  # type: ignore[method-assign]
        arguments |= traceless_arguments(folder)
        trainer = Trainer(**arguments, callbacks=[*own, surveyor, doctor, judge])
        ended = _fit(trainer, module, data, doctor)
        facts = doctor._state.facts(trainer, "end")
        norms = doctor._state.steps.first_norm
        logged = tuple(sorted(trainer.callback_metrics))
    survey = surveyor.survey or Survey()
    return Run(
        curve=tuple(judge.curve),
        batches=judge.batches,
        steps=trainer.global_step,
        findings=tuple(doctor.findings),
        ended=ended or judge.ended,
        logged=logged,
        facts=facts,
        survey=survey,
        gradient_norm=norms,
    )


def _fit(trainer: Trainer, module: Any, data: tuple[Any, ...], doctor: TrainingDoctor) -> str:
    """Fit; return what ended it, nothing where it was its end."""
    try:
        trainer.fit(module, *data)
    except (KeyboardInterrupt, SystemExit):  # Lightning leaves so when it is interrupted
        return INTERRUPTED
    except ENDS as error:
        return f"{type(error).__name__}: {error}"
    except StabError:
        raise
    except Exception as error:  # a program that fails by its fault is what is to be cured
        if not trainer.global_step and not doctor.findings:
            raise
        return f"{type(error).__name__}: {error}"
    return ""

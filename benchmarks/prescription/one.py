"""One program of the corpus: prescribed for, replayed, and set beside two rivals."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks._script import QUIET, silence
from benchmarks.diagnosis.corpus.families import FAMILIES
from benchmarks.diagnosis.corpus.labels import BY_NAME
from benchmarks.diagnosis.corpus.optimization import freeze
from lightning_stab.diagnosis.cures import CURES, Cure
from lightning_stab.prescription import Prescription, prescribe
from lightning_stab.prescription.candidate import CALLBACKS, Candidate
from lightning_stab.prescription.candidates import candidates_for
from lightning_stab.prescription.judgement import mean
from lightning_stab.prescription.trial import Program, Run, Trial, run_trial

SEEDS = 2
RATES = (0.1, 0.01, 10.0)  # times the program's own
SETTINGS = "lightning_stab.prescription.OptimizerSettings"


@dataclass(frozen=True)
class Maker:
    """Builds one part of a program; may go to another process.

    Attributes:
        name: of the program.
        part: ``module`` or ``data``.
    """

    name: str
    part: str

    def __call__(self) -> Any:
        """Build it."""
        program = BY_NAME[self.name]
        setup = FAMILIES[program.architecture](program.settings)
        freeze(setup.module, program.settings.get("freeze", ["-"]))
        return setup.module if self.part == "module" else (setup.train, setup.val)


def program_of(name: str) -> Program:
    """Return a program of the corpus as `prescribe` takes it."""
    settings = BY_NAME[name].settings
    arguments = {
        "max_epochs": settings["epochs"],
        "accumulate_grad_batches": settings.get("accumulate", 1),
        "gradient_clip_val": settings.get("clip"),
        "accelerator": "cpu",
        "devices": 1,
    }
    metric = FAMILIES[BY_NAME[name].architecture](settings).metric
    return Program(Maker(name, "module"), Maker(name, "data"), arguments, metric, "max")


def one(name: str) -> dict[str, Any]:
    """Return everything that is measured of one program."""
    began = time.perf_counter()
    program = program_of(name)
    with silence():
        found = prescribe(
            program.make_module,
            program.make_data,
            metric=program.metric,
            mode="max",
            trainer_kwargs=program.trainer_arguments,
            seeds=SEEDS,
        )
        watched = run_trial(program, Trial(None, 0)) if BY_NAME[name].sick else None
        untreated = bounded(found.metric_untreated)
        if watched and found.best is None:  # then `prescribe` does not know the other seeds
            others = [run_trial(program, Trial(None, seed)) for seed in range(1, SEEDS)]
            untreated = mean([bounded(run.metric) for run in (watched, *others)])
        treated = untreated if found.best is None else bounded(found.best.metric)
        return {
            "name": name,
            "half": BY_NAME[name].half,
            "names": list(BY_NAME[name].names),
            "found": [f.id for f in found.findings if f.is_alarm],
            "untreated": untreated,
            "treated": treated,
            "noise": 0.0 if found.best is None else found.best.noise,
            "best": None if found.best is None else found.best.id,
            "outcome": None if found.best is None else found.best.outcome,
            "cost": found.cost,
            "tried": [[c.id, c.outcome, bounded(c.metric), c.cost] for c in found.cures],
            "replay": replayed(program, found),
            "advice": advised(program, watched) if watched else untreated,
            "rates": three_rates(program, watched.survey.learning_rate) if watched else untreated,
            "seconds": time.perf_counter() - began,
        }


def bounded(value: float) -> float:
    """Return a metric in 0 to 1, as the corpus counts it."""
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0


def replayed(program: Program, found: Prescription) -> float | None:
    """Fit with what stands in the overlay's text; return the mean metric, None without overlay."""
    if found.overlay is None:
        return None
    values = []
    for seed in range(SEEDS):
        trainer_part = yaml.safe_load(found.yaml())["trainer"]
        entries = trainer_part.pop(CALLBACKS, [])
        parser = ArgumentParser()
        parser.add_argument("--callbacks", type=list[Callback])
        callbacks = parser.instantiate_classes(
            parser.parse_object({"callbacks": entries})
        ).callbacks
        values.append(fitted(program, seed, {**trainer_part, "callbacks": callbacks}))
    return sum(values) / len(values)


def fitted(program: Program, seed: int, extra: dict[str, Any]) -> float:
    """Train once in the ordinary way; return the metric."""
    from lightning.pytorch import seed_everything

    seed_everything(seed, verbose=False)
    module: LightningModule = program.make_module()
    loaders = program.make_data()
    trainer = Trainer(**{**QUIET, **program.trainer_arguments, **extra})
    trainer.fit(module, *loaders)
    return bounded(float(trainer.callback_metrics[program.metric]))


def advised(program: Program, watched: Run) -> float:
    """Do what the first line says that the doctor printed for its first alarm.

    Where that is a change of code, or nothing, the program stays as it is.
    """
    finding = next((f for f in watched.findings if f.is_alarm), None)
    line = finding.advice[0] if finding and finding.advice else ""
    rows = [cure for cure in CURES if cure.is_automatic and says(cure, line)]
    if finding is None or not rows:
        return bounded(watched.metric)
    candidates = candidates_for(program, watched, [row.id for row in rows])
    ready = [each for each in candidates if not each.untried]
    return bounded(run_trial(program, Trial(ready[0], 0)).metric if ready else watched.metric)


def says(cure: Cure, line: str) -> bool:
    """Say whether a line of advice is that of a row of the table, whatever its numbers."""
    pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(cure.what))
    return re.fullmatch(pattern, line) is not None


def three_rates(program: Program, rate: float) -> float:
    """Return the best of three other learning rates."""
    values = []
    for factor in RATES:
        change = ((SETTINGS, {"learning_rate": rate * factor}),)
        values.append(run_trial(program, Trial(Candidate("", "", "", change), 0)).metric)
    return max(map(bounded, values))

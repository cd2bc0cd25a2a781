"""`prescribe`: watch a program, try cures against the program as it is, and say what helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule

from lightning_stab.arguments import choices, integer, one_of, real
from lightning_stab.diagnosis import Finding
from lightning_stab.diagnosis.cures import advice_for
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.functional.stopping import MinOrMax
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.candidates import Choice, candidates_for, values_of
from lightning_stab.prescription.engines import Engine, EngineName, engine_for
from lightning_stab.prescription.judgement import CURED, HELPS, NO_BETTER, WORSE
from lightning_stab.prescription.prescription import (
    CureRecord,
    Prescription,
    record_of,
    untried_record,
)
from lightning_stab.prescription.search import Interrupted, Search
from lightning_stab.prescription.trial import Program

LENGTHS = ("max_epochs", "max_steps", "max_time")


def prescribe(
    make_module: Callable[[], LightningModule],
    make_data: Callable[[], Any],
    *,
    metric: str = "val_loss",
    mode: MinOrMax = "min",
    trainer_kwargs: Mapping[str, Any] | None = None,
    max_cost: float = 5.0,
    seeds: int = 2,
    jobs: int = 1,
    engine: EngineName = "local",
    cures: Sequence[Choice] | None = None,
) -> Prescription:
    """Find out what is wrong with a program, and which cure makes its metric better.

    The program is trained once and watched by `TrainingDoctor`. Where it finds something wrong,
    cures that answer it are tried, each against the untreated program with the same seed and the
    same order of the data; trials that fall behind are stopped early. A cure counts only where it
    is better by more than the noise of the untreated runs. Nothing of the caller's is touched:
    modules and data are built afresh for each trial, loggers, checkpoints, folders and the global
    random states stay as they are.

    Args:
        make_module: builds the module, a new one at each call.
        make_data: builds a ``LightningDataModule``, or ``(train_loader, val_loader)``.
        metric: the name of a metric that the module logs, by which cures are judged: its last
            value in the run.
        mode: ``min`` or ``max``: whether a smaller or a larger value is better.
        trainer_kwargs: arguments of the ``Trainer``; they say how long the run is.
        max_cost: the trials together take at most so many times the batches of the watched run,
            which is not counted itself; at least ``2 * seeds - 1``. Half-way losers cost less than
            a run, so five runs' worth (default) tries about ten cures.
        seeds: runs of the program as it is, and of the best cure, >= 1.
        jobs: trials at a time, >= 1; more than one run in processes of their own.
        engine: ``local``, or ``ray`` for a cluster.
        cures: ids of the table of cures in the order in which they are tried, and functions of
            ``(module, data, trainer_kwargs)`` that change these in place, or return others; None
            for every cure that answers a finding.

    Returns:
        What was found, what was tried, and the best cure as YAML and as fresh objects.

    Raises:
        InvalidArgumentError: if an argument breaks its rule, the metric is not logged, or the
            module is not built afresh.
        ConflictError: if the data are consumed by a run, or in another order each time.

    Example:
        >>> import torch
        >>> from lightning_stab.data import DigitsDataModule
        >>> from lightning_stab.models import MLPClassifier
        >>> p = prescribe(
        ...     lambda: MLPClassifier(depth=1, width=32),
        ...     lambda: DigitsDataModule(batch_size=32),
        ...     trainer_kwargs={"max_epochs": 4, "accelerator": "cpu"},
        ... )
        >>> p.best is None, p.is_healthy
        (True, True)

    Source: Li et al. 2020 (asynchronous successive halving).
    """
    program = _program(make_module, make_data, metric, mode, trainer_kwargs)
    integer("seeds", seeds, minimum=1)
    hint = "So much take the untreated runs and the runs that confirm one cure."
    real("max_cost", max_cost, minimum=2 * seeds - 1, hint=hint)
    with engine_for(program, engine, jobs) as run, _progress() as (report, total):
        return _search(program, run, jobs, seeds, max_cost, cures, report, total)


def _search(
    program: Program,
    engine: Engine,
    jobs: int,
    seeds: int,
    max_cost: float,
    cures: Sequence[Choice] | None,
    report: Callable[[str], None],
    total: Callable[[int], None],
) -> Prescription:
    search = Search(program, engine, jobs, seeds, max_cost, report)
    try:
        watched = search.watch()
    except (Interrupted, KeyboardInterrupt) as error:
        raise ConflictError(
            "The watched run was interrupted, so that there is nothing to judge by. Start again."
        ) from error
    candidates = candidates_for(program, watched, cures)
    ready = [each for each in candidates if not each.untried]
    total(len(ready) + 2 * seeds - 1)
    interrupted = False
    try:
        if ready:
            search.try_all(ready)
    except (Interrupted, KeyboardInterrupt):  # the latter while other processes run
        interrupted = True
    return _prescription(search, candidates, interrupted=interrupted)


def _prescription(
    search: Search, candidates: Sequence[Candidate], *, interrupted: bool
) -> Prescription:
    compared = search.comparisons()
    records: list[CureRecord] = []
    for each in compared:
        failed = search.runs[each.candidate][0]
        no_run = not failed.batches
        records.append(untried_record(each.candidate, failed.ended) if no_run else record_of(each))
    best = search.best()
    place = None if best is None else [c.candidate for c in compared].index(best.candidate)
    known = {each.candidate for each in compared}
    over = "The search was interrupted." if interrupted else "Others came first."
    left = [c for c in candidates if c not in known]
    records += [untried_record(c, c.untried or over) for c in left]
    return Prescription(
        cures=tuple(records),
        findings=tuple(_advised(search, finding, records) for finding in search.watched.findings),
        cost=search.cost,
        steps=search.watched.steps,
        metric=search.program.metric,
        mode=search.program.mode,
        metric_untreated=search.untreated_metric(),
        interrupted=interrupted,
        _best=place,
        _program=search.program,
        _candidate=None if best is None else best.candidate,
    )


def _advised(search: Search, finding: Finding, records: Sequence[CureRecord]) -> Finding:
    """Return a finding without advice that was followed in vain."""
    helped = {each.id for each in records if each.outcome in (CURED, HELPS)}
    tried = {each.id for each in records if each.outcome in (NO_BETTER, WORSE)} - helped
    survey = search.watched.survey
    values, there = values_of(search.program, search.watched), {**survey.callbacks}
    there[survey.optimizer] = {}
    return replace(finding, advice=advice_for(finding, values, there, tried))


def _program(
    make_module: Callable[[], LightningModule],
    make_data: Callable[[], Any],
    metric: str,
    mode: MinOrMax,
    trainer_kwargs: Mapping[str, Any] | None,
) -> Program:
    """Return the program; refuse one that cannot be tried."""
    for name, make in (("make_module", make_module), ("make_data", make_data)):
        if not callable(make) or isinstance(make, torch.nn.Module):
            raise InvalidArgumentError(
                f"`{name}` must be a function that builds it afresh, got {type(make).__name__}."
                f" Give `lambda: {type(make).__name__}(...)`."
            )
    one_of("mode", mode, choices(MinOrMax))
    arguments = dict(trainer_kwargs or {})
    if not any(arguments.get(name) for name in LENGTHS):
        raise InvalidArgumentError(
            "`trainer_kwargs` must say how long the run is, got neither max_epochs nor max_steps."
            " Add for example `max_epochs=10`."
        )
    return Program(make_module, make_data, arguments, metric, mode)


class _progress:  # noqa: N801  # used like a function
    """A bar over the trials on the error stream, where that is a terminal."""

    def __enter__(self) -> tuple[Callable[[str], None], Callable[[int], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("Trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        task = self._progress.add_task("watching the program as it is", total=None)
        self._progress.start()

        def report(text: str) -> None:
            self._progress.update(task, advance=1, description=text)

        return report, lambda number: self._progress.update(task, total=number)

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

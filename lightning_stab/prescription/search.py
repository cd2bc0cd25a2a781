"""The search for a cure: trials against the untreated twin, the losers stopped early.

Every trial follows the seed and the order of the data of a run without the cure. At a fifth and at
half of the run it goes on only if its metric is better than that of the untreated run, and among
the best of the trials so far (asynchronous successive halving with stopping: Li et al. 2020). The
best is then confirmed with the other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.engines import Engine
from lightning_stab.prescription.judgement import (
    CURED,
    HELPS,
    Comparison,
    compare,
    is_whole,
)
from lightning_stab.prescription.trial import INTERRUPTED, Program, Run, Trial

RUNGS = (0.2, 0.5)  # of a run, at which a trial has to be among the best
KEPT = 3  # of so many trials one goes on
ENOUGH = 1.5  # runs' worth of trials, after which a cure that is found is not improved any more


class Interrupted(Exception):  # noqa: N818  # it is no error
    """The user has interrupted a trial."""


@dataclass
class Search:
    """The trials of one program, and what they cost.

    Attributes:
        program: what is trained.
        engine: what runs trials.
        jobs: trials at a time.
        seeds: runs of the program as it is, and of the best cure.
        max_cost: of all trials, in runs of the program as it is; the watched run is not counted.
        report: called with a sentence after each trial.
    """

    program: Program
    engine: Engine
    jobs: int
    seeds: int
    max_cost: float
    report: Callable[[str], None]
    untreated: list[Run] = field(default_factory=list)
    runs: dict[Candidate, list[Run]] = field(default_factory=dict)
    batches: int = 0  # of all trials

    @property
    def watched(self) -> Run:
        """The run of the program as it is, with the first seed."""
        return self.untreated[0]

    @property
    def cost(self) -> float:
        """What all trials have cost, in watched runs."""
        return self.batches / self.watched.batches

    def watch(self) -> Run:
        """Run the program as it is, and refuse what cannot be judged.

        Raises:
            Interrupted: by the user.
            ConflictError: if the fit took no step.
            InvalidArgumentError: if the metric is missing.
        """
        run = next(iter(self.engine([Trial(None, 0)])))
        if run.ended == INTERRUPTED:
            raise Interrupted
        if not run.batches:
            raise ConflictError(
                "There must be steps to watch, and the fit took none: look at max_epochs,"
                " max_steps, limit_train_batches and the data."
            )
        if self.program.metric not in run.logged and run.ended == "":
            raise InvalidArgumentError(
                f"`metric` must be a metric that the module logs, got {self.program.metric!r}. It"
                f" logs: {', '.join(run.logged) or 'nothing'}."
            )
        self.untreated = [run]
        return run

    def try_all(self, candidates: Sequence[Candidate]) -> None:
        """Try candidates in their order until a cure is found, or the budget is spent.

        Raises:
            Interrupted: by the user; what is known stays.
            ConflictError: if the data are not the same in every run.
        """
        twins = self._run([Trial(None, seed) for seed in range(1, self.seeds)])
        self.untreated += twins
        waiting = list(candidates)
        while waiting and not self._is_enough():
            wave = self._affordable(waiting)
            if not wave:
                break
            waiting = [each for each in waiting if each not in wave]
            self._explore(wave)
        pair = [c for c in self._ranking() if self._compared(c).outcome in (CURED, HELPS)][:2]
        if len(pair) == 2 and not self._is_enough():
            both = pair[0].with_other(pair[1])
            if both is not None and self._affordable([both]):
                self._explore([both])
        self._confirm()

    def comparisons(self) -> list[Comparison]:
        """Return every candidate that was tried, the best first."""
        ranked = self._ranking()
        rest = [c for c in self.runs if c not in ranked]
        return [self._compared(candidate) for candidate in (*ranked, *rest)]

    def best(self) -> Comparison | None:
        """Return the best cure: confirmed with as many seeds as any."""
        good = [c for c in self.comparisons() if c.outcome in (CURED, HELPS) and c.is_whole]
        most = max((len(c.pairs) for c in good), default=0)
        confirmed = [c for c in good if len(c.pairs) == most]
        if most < min(self.seeds, len(self.untreated)) and self._failed_confirmation():
            return None
        return confirmed[0] if confirmed else None

    def _failed_confirmation(self) -> bool:
        return any(len(runs) > 1 for runs in self.runs.values())

    def _compared(self, candidate: Candidate) -> Comparison:
        return compare(self.program, candidate, self.runs[candidate], self.untreated)

    def _ranking(self) -> list[Candidate]:
        """Return the candidates whose first run is whole, by its metric."""
        whole = [c for c, runs in self.runs.items() if is_whole(runs[0], c, self.watched)]
        ranked: list[Candidate] = []
        for candidate in whole:
            value = self.runs[candidate][0].metric
            better = (self.program.is_better(value, self.runs[c][0].metric) for c in ranked)
            ranked.insert(next((i for i, b in enumerate(better) if b), len(ranked)), candidate)
        return ranked

    def _is_enough(self) -> bool:
        """Say whether a cure is found, and some others were tried beside it."""
        explored = self.cost - (self.seeds - 1)
        found = any(self._compared(c).outcome == CURED for c in self._ranking()[:1])
        return found and explored >= ENOUGH - 1e-9

    def _affordable(self, waiting: Sequence[Candidate]) -> list[Candidate]:
        """Return the next candidates that fit into the budget, with the runs that confirm one."""
        leader = next(iter(self._ranking()), None)
        kept = (self.seeds - 1) * max(leader.length if leader else 0.0, 1.0)
        left = self.max_cost - self.cost + 1e-9
        wave: list[Candidate] = []
        for candidate in waiting:
            most = candidate.length + max(kept, (self.seeds - 1) * candidate.length)
            if len(wave) < self.jobs and most <= left:
                wave.append(candidate)
                left -= candidate.length
        return wave

    def _explore(self, wave: Sequence[Candidate]) -> None:
        """Run candidates with the first seed; each has to be better at the rungs."""
        bars = tuple((rung, self._bar(rung)) for rung in RUNGS)
        trials = [Trial(c, 0, bars, self.watched.batches) for c in wave]
        for candidate, run in zip(wave, self._run(trials), strict=True):
            self.runs[candidate] = [run]
            if candidate.change is None and run.batches:
                self._check_order(run)
            self.report(self.leader_text())

    def _bar(self, rung: float) -> float:
        """Return what the metric has to be better than at a rung."""
        place = rung * self.watched.batches
        values = [runs[0].at(place) for runs in self.runs.values() if runs[0].batches >= place]
        better: list[float] = []
        for value in values:
            places = (i for i, v in enumerate(better) if self.program.is_better(value, v))
            better.insert(next(places, len(better)), value)
        # a program that fails late is no measure of what is good before
        before, last = self.watched.at(place), self.watched.metric
        before = last if self.program.is_better(before, last) else before
        bar = better[max(1, (len(better) + 1) // KEPT) - 1] if better else before
        return before if self.program.is_better(before, bar) else bar

    def _confirm(self) -> None:
        """Run the best with the other seeds; the next best, if it is not confirmed."""
        for candidate in self._ranking():
            seeds = range(1, self.seeds)
            if self._compared(candidate).outcome not in (CURED, HELPS):
                continue
            if self.cost + len(seeds) * candidate.length > self.max_cost + 1e-9:
                continue
            trials = [Trial(candidate, s, (), self.watched.batches) for s in seeds]
            self.runs[candidate] += self._run(trials)
            if self._compared(candidate).outcome in (CURED, HELPS):
                return

    def _run(self, trials: Sequence[Trial]) -> list[Run]:
        runs = []
        for trial, run in zip(trials, self.engine(trials), strict=True):
            if run.ended == INTERRUPTED:
                raise Interrupted
            self.batches += run.batches
            if trial.candidate is None and run.ended == "" and run.batches < self.watched.batches:
                raise ConflictError(
                    f"`make_data` must build the data afresh, got {run.batches} batches in the"
                    f" second run after {self.watched.batches} in the first: they were consumed."
                )
            runs.append(run)
            self.report(self.leader_text())
        return runs

    def _check_order(self, run: Run) -> None:
        now, before = (r.survey.batch_fingerprint for r in (run, self.watched))
        if now != before:
            raise ConflictError(
                "`make_data` must give the same batches in the same order for the same seed, and"
                " did not: no two runs can be compared. Build loaders without a generator that"
                " lives on, and seed what is drawn."
            )

    def leader_text(self) -> str:
        """Return what leads, in a few words."""
        leader = next(iter(self._ranking()), None)
        if leader is None:
            return f"{self.program.metric} {self.watched.metric:.4g} without a cure"
        value = self.runs[leader][0].metric
        return f"{leader.id} leads: {value:.4g}, {self.watched.metric:.4g} without"

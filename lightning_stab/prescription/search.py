"""The search for a cure: trials against the untreated twin, the losers stopped early.

Every trial follows the seed and the order of the data of a run without the cure. At a fifth and at
half of the run it goes on only if its metric is better than that of the untreated run, and among
the best of the trials so far (asynchronous successive halving with stopping: Li et al. 2020). Then
come the other seeds: of the program as it is, where a run that is clearly on the untreated side at
its half is ended there, and of the best cure, which has to be better with them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lightning_stab.arguments import did_you_mean
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.engines import Engine
from lightning_stab.prescription.judgement import (
    CURED,
    HELPS,
    Comparison,
    compare,
    fall_of,
    final_metric,
    is_whole,
    mean,
    noise_of,
)
from lightning_stab.prescription.trial import INTERRUPTED, STOPPED, Program, Run, Trial

RUNGS = (0.2, 0.5)  # of a run, at which a trial has to be among the best
KEPT = 3  # of so many trials one goes on
ENOUGH = 1.2  # runs' worth of trials, after which a cure that is found is not improved any more
ENOUGH_NUMBERS = 1.4  # the same where its number can be
HALF = 0.5  # of an untreated run with another seed, at which it may have shown enough
FORM = ("output-activation", "loss-function")  # their cures are not stopped on their way
CLEAR = 5  # times the noise: so much better is a cure beyond doubt


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
    explored: int = 0  # of those that look for a cure

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
            from lightning_stab.reporting.curves import OWN_TAGS

            name, logged = self.program.metric, [n for n in run.logged if not OWN_TAGS.match(n)]
            raise InvalidArgumentError(
                f"`metric` must be a metric that the module logs, got {name!r}."
                f"{did_you_mean(name, logged)} It logs: {', '.join(logged) or 'nothing'}."
            )
        self.untreated = [run]
        return run

    def try_all(self, candidates: Sequence[Candidate]) -> None:
        """Try candidates in their order until a cure is found, or the budget is spent.

        Raises:
            Interrupted: by the user; what is known stays.
            ConflictError: if the data are not the same in every run.
        """
        waiting = self._explore_while_needed(candidates)
        pair = self._promising()[:2]
        if len(pair) == 2 and not self._is_enough(waiting):
            both = pair[0].with_other(pair[1])
            if both is not None and self._affordable([both]):
                self._explore([both])
        if self._promising():
            self._run_twins()
            self._explore_while_needed(waiting)  # where the other seeds took a lead away
            self._confirm()

    def _promising(self) -> list[Candidate]:
        """Return what is better than the untreated program so far, the best first."""
        return [c for c in self._ranking() if self._compared(c).outcome in (CURED, HELPS)]

    def _explore_while_needed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Try candidates with the first seed; return those that have not been tried."""
        waiting = list(candidates)
        while waiting and not self._is_enough(waiting):
            leader = next(iter(self._ranking()), None)
            if leader is not None and self._compared(leader).outcome == CURED:
                waiting.sort(key=lambda c: c.id != leader.id)  # first other numbers of it
            wave = self._affordable(waiting)
            if not wave:
                break
            waiting = [each for each in waiting if each not in wave]
            self._explore(wave)
        return waiting

    def _run_twins(self) -> None:
        """Run the program as it is with the other seeds.

        Where the best cure is better beyond doubt, a run that at its half is nearer to what the
        watched one came to than to the cure has shown enough.
        """
        best, before = self.runs[self._promising()[0]][0].metric, self.watched.metric
        noise = noise_of(self.program, self.untreated)
        is_clear = not math.isfinite(before) or abs(best - before) > CLEAR * noise
        bars = ((HALF, (best + before) / 2),) if is_clear else ()
        trials = [Trial(None, s, bars, self.watched.batches) for s in range(1, self.seeds)]
        for run in self._run(trials):
            self.untreated.append(run)
            self.report(self.leader_text())

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
        failed = any(len(runs) > 1 for runs in self.runs.values())  # in its confirmation
        if most < min(self.seeds, len(self.untreated)) and failed:
            return None
        return confirmed[0] if confirmed else None

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

    def _is_enough(self, waiting: Sequence[Candidate]) -> bool:
        """Say whether a cure is found, and some others were tried beside it."""
        leader = next(iter(self._ranking()), None)
        if leader is None or self._compared(leader).outcome != CURED:
            return False
        more = any(each.id == leader.id for each in waiting)
        worth = (ENOUGH_NUMBERS if more else ENOUGH) * self.watched.batches
        return self.explored >= worth - 1e-6

    def _affordable(self, waiting: Sequence[Candidate]) -> list[Candidate]:
        """Return the next candidates that fit into the budget, with the runs that confirm one."""
        leader = next(iter(self._ranking()), None)
        kept = (self.seeds - 1) * max(leader.length if leader else 0.0, 1.0)
        left = self.max_cost - self.cost - (self.seeds - len(self.untreated)) + 1e-9
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
        # a run of another length cannot be compared on its way; what repairs a fault of form may
        # be slow at first, because the loss is another one
        raced = [c.length == 1 and c.for_finding not in FORM for c in wave]
        trials = [
            Trial(c, 0, bars if is_raced else (), self.watched.batches)
            for c, is_raced in zip(wave, raced, strict=True)
        ]
        for candidate, run in zip(wave, self._run(trials), strict=True):
            self.runs[candidate] = [run]
            self.explored += run.batches
            if candidate.change is None and not candidate.loader and run.batches:
                self._check_order(run)
            self.report(self.leader_text())

    def _bar(self, rung: float) -> float:
        """Return what the metric has to be better than at a rung."""
        place = rung * self.watched.batches
        runs = [each[0] for each in self.runs.values() if each[0].batches >= place]
        better: list[float] = []
        for value in (self._lasting(run, place) for run in runs):
            places = (i for i, v in enumerate(better) if self.program.is_better(value, v))
            better.insert(next(places, len(better)), value)
        before = self._lasting(self.watched, place)
        bar = better[max(1, (len(better) + 1) // KEPT) - 1] if better else before
        return before if self.program.is_better(before, bar) else bar

    def _lasting(self, run: Run, place: float) -> float:
        """Return the metric of a run at a place, or its last one if it has fallen off since.

        What fails late is no measure of what is good before.
        """
        has_failed = run.ended not in ("", STOPPED)
        return run.metric if has_failed or place <= fall_of(self.program, run) else run.at(place)

    def _confirm(self) -> None:
        """Run the best with the other seeds; the next best, if it is not confirmed."""
        for candidate in self._ranking():
            seeds = range(1, self.seeds)
            if self._compared(candidate).outcome not in (CURED, HELPS):
                continue
            if self.cost + len(seeds) * candidate.length > self.max_cost + 1e-9:
                continue
            trials = [Trial(candidate, s, (), self.watched.batches) for s in seeds]
            for run in self._run(trials):
                self.runs[candidate].append(run)
                self.report(self.leader_text())
            if self._compared(candidate).outcome in (CURED, HELPS):
                return

    def _run(self, trials: Sequence[Trial]) -> list[Run]:
        runs = []
        for trial, run in zip(trials, self.engine(trials), strict=True):
            if run.ended == INTERRUPTED:
                raise Interrupted
            self.batches += run.batches
            least = self.watched.batches if trial.candidate is None else 1
            if run.ended == "" and run.batches < least:
                raise ConflictError(
                    f"`make_data` must build the data afresh, got {run.batches} batches in the"
                    f" second run after {self.watched.batches} in the first: they were consumed."
                )
            runs.append(run)
        return runs

    def _check_order(self, run: Run) -> None:
        now, before = (r.survey.batch_fingerprint for r in (run, self.watched))
        if now != before:
            raise ConflictError(
                "`make_data` must give the same batches in the same order for the same seed, and"
                " did not: no two runs can be compared. Build loaders without a generator that"
                " lives on, and seed what is drawn."
            )

    def untreated_metric(self) -> float:
        """Return the metric of the program as it is, the mean over its seeds."""
        return mean([final_metric(self.program, run, self.watched) for run in self.untreated])

    def leader_text(self) -> str:
        """Return what leads, in a few words."""
        leader = next(iter(self._ranking()), None)
        if leader is None:
            return f"{self.program.metric} {self.watched.metric:.4g} without a cure"
        value = self.runs[leader][0].metric
        return f"{leader.id} leads: {value:.4g}, {self.watched.metric:.4g} without"

"""What is better: a cure's metric against that of the program as it is, beyond its noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.trial import STOPPED, Program, Run

TAIL = 1 / 3  # of a run, whose values show how far the metric moves by itself
FLOOR = 0.01  # of the metric: less is nothing
FALL = 3  # times the usual step from one value to the next
CURED, HELPS, NO_BETTER, WORSE, NOT_TRIED = "cured", "helps", "no better", "worse", "not tried"
OUTCOMES = (CURED, HELPS, NO_BETTER, WORSE, NOT_TRIED)


@dataclass(frozen=True)
class Comparison:
    """A cure's runs beside those of the program as it is.

    Attributes:
        candidate: the cure.
        pairs: for each seed the treated and the untreated metric, at the same point of the run.
        noise: how far the untreated metric gets by itself.
        outcome: one of `OUTCOMES`.
        steps: optimizer steps of all its runs.
        cost: of all its runs, in runs of the program as it is.
        is_whole: whether all its runs reached their end.
        left: the ids of alarms that are found with it.
        failure: what ended one of them before its time, if it was not another trial.
    """

    candidate: Candidate
    pairs: tuple[tuple[float, float], ...]
    noise: float
    outcome: str
    steps: int
    cost: float
    is_whole: bool
    left: tuple[str, ...] = ()
    failure: str = ""

    @property
    def metric(self) -> float:
        """The mean over the seeds."""
        return mean([treated for treated, _ in self.pairs])

    @property
    def untreated(self) -> float:
        """The mean over the seeds of the program as it is."""
        return mean([untreated for _, untreated in self.pairs])


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN for none."""
    return sum(values) / len(values) if values else math.nan


def final_metric(program: Program, run: Run, watched: Run) -> float:
    """Return the metric at the end of an untreated run.

    Of one that was stopped on its way because it went as the watched one had gone: the better of
    both.
    """
    if run.ended != STOPPED or program.is_better(run.metric, watched.metric):
        return run.metric
    return watched.metric


def fall_of(program: Program, run: Run) -> int:
    """Return how many batches of a run lie before a fall from which it has not recovered.

    The latest step of the metric to the worse that is larger than three usual steps before it, and
    after which every value is worse than the middle one before it. 0 where there is none.
    """
    curve = [(seen, value) for seen, value in run.curve if math.isfinite(value)]
    values = [value for _, value in curve]
    for place in range(len(values) - 1, 0, -1):
        before, after = values[:place], values[place:]
        drop, middle = abs(after[0] - before[-1]), median(before)
        usual = median([abs(b - a) for a, b in pairwise(before)] or [0.0])
        is_fall = program.is_better(before[-1], after[0]) and drop > FALL * usual
        if (
            is_fall
            and drop > FLOOR * abs(middle)
            and not any(program.is_better(value, middle) or value == middle for value in after)
        ):
            return curve[place - 1][0]
    return 0


def noise_of(program: Program, untreated: Sequence[Run]) -> float:
    """Return how far the metric of untreated runs gets above its mean by itself.

    The best value in the last third of any run, against the mean of the last ones, and 1 % of the
    metric at least. One-sided, so that wild values of a diverging run do not hide an improvement;
    and what a run had before it fell for good is no noise of what came after.
    """
    untreated = [run for run in untreated if run.ended != STOPPED]
    last = [run.metric for run in untreated if math.isfinite(run.metric)]
    if not last:
        return 0.0
    middle = mean(last)
    tail = [
        value
        for run in untreated
        for seen, value in run.curve
        if seen > fall_of(program, run)
        if seen >= (1 - TAIL) * run.batches and math.isfinite(value)
    ]
    best = min(tail) if program.mode == "min" else max(tail)
    return max(abs(best - middle), FLOOR * abs(middle))


def compare(
    program: Program, candidate: Candidate, runs: Sequence[Run], untreated: Sequence[Run]
) -> Comparison:
    """Judge a cure by its runs, one for each of the first seeds.

    Args:
        program: what is trained.
        candidate: the cure.
        runs: with it.
        untreated: without it; the first one is the watched run.
    """
    watched = untreated[0]
    whole = all(is_whole(run, candidate, watched) for run in runs)
    finals = [final_metric(program, run, watched) for run in untreated]
    pairs = tuple(
        (run.metric, final if whole else before.at(run.batches))
        for run, before, final in zip(runs, untreated, finals, strict=False)
    )
    noise = noise_of(program, untreated)
    # of a cure that has been tried with one seed as yet, all that is known of the others counts
    before = mean(finals if whole else [u for _, u in pairs])
    return Comparison(
        candidate=candidate,
        pairs=pairs,
        noise=noise,
        outcome=_outcome(program, candidate, runs, pairs, before, noise, watched),
        steps=sum(run.steps for run in runs),
        cost=sum(run.batches for run in runs) / watched.batches,
        is_whole=whole,
        left=tuple(dict.fromkeys(id_ for run in runs for id_ in run.alarms)),
        failure=next((run.ended for run in runs if run.ended not in ("", STOPPED)), ""),
    )


def is_whole(run: Run, candidate: Candidate, watched: Run) -> bool:
    """Say whether a run was not stopped on its way."""
    return run.ended == "" or run.batches >= candidate.length * watched.batches


def _outcome(
    program: Program,
    candidate: Candidate,
    runs: Sequence[Run],
    pairs: Sequence[tuple[float, float]],
    before: float,
    noise: float,
    watched: Run,
) -> str:
    if not any(run.batches for run in runs):
        return NOT_TRIED
    treated = mean([t for t, _ in pairs])
    sign = -1 if program.mode == "min" else 1
    if not math.isfinite(before) or not math.isfinite(treated):
        better = program.is_better(treated, before)
        worse = program.is_better(before, treated)
    else:
        better = sign * (treated - before) > noise
        worse = sign * (before - treated) > noise
    if better and all(program.is_better(t, u) for t, u in pairs):
        left = {id_ for run in runs for id_ in run.alarms}
        cleared = candidate.for_finding not in left and left <= set(watched.alarms)
        whole = all(is_whole(run, candidate, watched) for run in runs)
        return CURED if cleared and whole else HELPS
    return WORSE if worse else NO_BETTER

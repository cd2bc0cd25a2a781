"""Many Trainers in one process, stepping in turn: what a step costs, side by side."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback


@dataclass
class Contender:
    """One way of training, and what its steps cost.

    Attributes:
        name: what the table calls it.
        fit: runs a fit with the given callback first in the list; called in a thread of its own.
        period: steps after which its costs repeat; 1 unless it acts at intervals.
        seconds: CPU seconds of the whole process at a step, the mean of each turn, filled by
            :func:`run_rounds`.
    """

    name: str
    fit: Callable[[Callback], None]
    period: int = 1
    seconds: list[float] = field(default_factory=list)


class _Turn(Callback):
    """Lets a fit take some steps, from batch start to batch start, whenever it is its turn."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self.go = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self.steps = 0  # of a turn; 0 ends the fit
        self._left = 0
        self._start: float | None = None

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if self._left:
            self._left -= 1
            return
        if self._start is not None:
            self.seconds.append((time.process_time() - self._start) / self.steps)
        self.done.release()
        self.go.acquire()
        if not self.steps:
            trainer.should_stop = True
            return
        self._left = self.steps - 1
        self._start = time.process_time()


def run_rounds(
    contenders: Sequence[Contender], rounds: int, warmup: int = 20, steps: int = 1
) -> None:
    """Let every contender have one turn per round, in a new random order each round.

    The CPU time of the whole process counts, background writers included; only one contender runs
    at a time.

    Args:
        contenders: filled with their seconds, one per round, first round first.
        rounds: counted turns of each.
        warmup: steps before them that are not counted.
        steps: of a turn. One of many steps has the caches to itself, as a run has, and everything
            in it counts that is done now and then.
    """
    turns = [_Turn(c.seconds) for c in contenders]
    threads = [
        threading.Thread(target=c.fit, args=(t,), daemon=True)
        for c, t in zip(contenders, turns, strict=True)
    ]
    for thread, turn in zip(threads, turns, strict=True):
        thread.start()
        turn.done.acquire()
    order = list(range(len(turns)))
    shuffle = random.Random(0).shuffle
    for length in (warmup, *[steps] * rounds):
        shuffle(order)
        for turn in (turns[place] for place in order):
            turn.steps = length
            turn.go.release()
            turn.done.acquire()
    for thread, turn in zip(threads, turns, strict=True):
        turn.steps = 0
        turn.go.release()
        thread.join()
    for contender in contenders:
        del contender.seconds[0]


def added_seconds(contender: Contender, base: Contender, steps: int = 1) -> float:
    """Return what a contender adds to a step of ``base``: medians of paired differences.

    With a period, the median is taken apart for each place in the period, and the places averaged,
    so that costs at intervals are spread over all steps and no single slow moment counts.
    ``steps`` are those of a turn.
    """
    period = max(1, contender.period // steps)
    pairs = zip(contender.seconds, base.seconds, strict=True)
    differences = [own - other for own, other in pairs]
    places = [differences[start::period] for start in range(period)]
    return statistics.fmean(statistics.median(place) for place in places if place)

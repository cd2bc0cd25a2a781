"""What it costs on the device: Trainers that step in turn, and the waits of each step."""

from __future__ import annotations

import importlib.util
import random
import statistics
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import grad_norm
from torch import nn

from benchmarks.gpu.nets import Endless, Task, device, synchronize, trainer
from lightning_stab import (
    ActivationMonitor,
    GradientClipping,
    GradientMonitor,
    StepGuard,
    TrainingDoctor,
)
from lightning_stab.callbacks.gradients.gradient_monitor import STATISTICS

START = 740  # steps 749, 799, 849 log; 799 is sampled by what acts every 200 steps
SETTLING = ((0, 41), (595, 5))  # steps before that, with what is measured once in a run
INTERVAL, LONG_INTERVAL = 50, 200
DENSE = 30  # first steps of a callback, which ask more than later ones


class TorchClip(pl.Callback):
    """torch's own clipping, the reference of most goals."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Clip."""
        nn.utils.clip_grad_norm_(pl_module.parameters(), 1.0)


class LightningNorms(pl.Callback):
    """The norms as Lightning's documentation logs them."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Log."""
        pl_module.log_dict(grad_norm(pl_module, 2))


def _suite() -> list[Any]:
    return [GradientMonitor(), GradientClipping(), StepGuard("skip")]


def _doctor() -> list[Any]:
    return [TrainingDoctor(print_findings=False)]


PLAIN, TORCH_CLIP = "nothing", "torch clip_grad_norm_"
WAYS: dict[str, Callable[[], list[Any]]] = {
    PLAIN: list,
    "nothing, again": list,
    TORCH_CLIP: lambda: [TorchClip()],
    "GradientMonitor": lambda: [GradientMonitor()],
    "norms, each step": lambda: [GradientMonitor(1, statistics=())],
    "every statistic, each step": lambda: [GradientMonitor(1, statistics=STATISTICS)],
    "StepGuard": lambda: [StepGuard("skip")],
    "StepGuard, spikes too": lambda: [StepGuard("skip", "skip", min_window=8)],
    "monitor + clip + guard": _suite,
    "TrainingDoctor": _doctor,
    "all": lambda: [*_suite(), ActivationMonitor(), *_doctor()],
}
LIGHTNING = {"Lightning grad_norm + log_dict": lambda: [LightningNorms()]}


class Turn(pl.Callback):
    """Lets a fit take some steps whenever it is its turn, and times each of them."""

    def __init__(self, start: int) -> None:
        self.jump: int | None = start  # what the next step is numbered, None: one more
        self.number = start
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.num, self.begun, self.stop, self.error = 0, False, False, ""
        self.seconds: list[float] = []  # per step, of each turn
        self.steps: list[tuple[int, float]] = []  # number and milliseconds of single ones
        self._marks: list[tuple[int, Any]] = []
        self._start = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> int | None:
        """Wait for the turn; mark the step's beginning."""
        loop = trainer.fit_loop.epoch_loop
        number = loop._batches_that_stepped
        if self.num == 0:
            if self.begun:
                self._end(number)
            self.begun = True
            self.done.release()
            self.go.acquire()
            if self.stop:
                trainer.should_stop = True
                return -1
            if self.jump is not None:
                number = loop._batches_that_stepped = self.jump
                self.jump = None
            synchronize()
            self._start = time.perf_counter()
        self.number = number
        self.num -= 1
        self._marks.append((number, _mark()))
        return None

    def _end(self, number: int) -> None:
        self._marks.append((number, _mark()))
        synchronize()
        taken = len(self._marks) - 1
        self.seconds.append((time.perf_counter() - self._start) / max(taken, 1))
        for (place, first), (_, second) in zip(self._marks, self._marks[1:], strict=False):
            self.steps.append((place, _between(first, second)))
        self._marks.clear()


def cost_rows(
    make_net: Callable[[], nn.Module],
    data: Sequence[Any],
    turns: int,
    steps: int,
    left: Callable[[], float],
) -> list[dict[str, Any]]:
    """Return a row for each way of training.

    Args:
        make_net: makes the net.
        data: batches on the device.
        turns: how often each way has its turn, in an order that is drawn each time.
        steps: steps in a turn.
        left: seconds that are left; without any, fewer turns are taken.
    """
    clocks, peaks, kept = {}, Counter[str](), {}
    for name, make in {**WAYS, **LIGHTNING}.items():
        before = _allocated()
        clocks[name] = _settled(_begin(make, make_net, data), START)
        _take(clocks[name], 8)
        clocks[name].seconds.clear()
        clocks[name].steps.clear()
        synchronize()
        kept[name] = _allocated() - before
    shuffle = random.Random(0).shuffle
    for _ in range(turns):
        order = [name for name, clock in clocks.items() if not clock.error]
        shuffle(order)
        if left() < 0:
            break
        for name in order:
            before = _allocated(reset=True)
            _take(clocks[name], steps)
            peaks[name] = max(peaks[name], _allocated(peak=True) - before)
    for clock in clocks.values():
        clock.stop = True
        clock.go.release()
    return [_row(name, clocks, kept, peaks) for name in clocks]


def _row(
    name: str, clocks: dict[str, Turn], kept: dict[str, int], peaks: Counter[str]
) -> dict[str, Any]:
    clock, plain, clip = clocks[name], clocks[PLAIN], clocks[TORCH_CLIP]
    if clock.error or not clock.seconds:
        return {"way": name, "error": clock.error or "no time"}
    usual = statistics.median(ms for _, ms in plain.steps)

    def added(*, every: int) -> float:
        rest = INTERVAL if every == LONG_INTERVAL else 0
        at = [ms for step, ms in clock.steps if (step + 1) % every == 0]
        at = at if rest else [m for s, m in clock.steps if (s + 1) % every == 0 and (s + 1) % 200]
        return statistics.median(at) - usual if at else float("nan")

    mib = 2**20
    return {
        "way": name,
        "ms": 1e3 * statistics.median(clock.seconds),
        "times_nothing": _ratio(clock, plain),
        "times_torch_clip": _ratio(clock, clip),
        "quiet_times_clip": _quiet(clock) / _quiet(clip),
        "ms_more_each_50th": added(every=INTERVAL),
        "ms_more_each_200th": added(every=LONG_INTERVAL),
        "kept_MiB": (kept[name] - kept[PLAIN]) / mib,
        "peak_MiB": (kept[name] + peaks[name] - kept[PLAIN] - peaks[PLAIN]) / mib,
    }


def _ratio(clock: Turn, base: Turn) -> float:
    pairs = zip(clock.seconds, base.seconds, strict=False)
    return statistics.median(own / other for own, other in pairs)


def _quiet(clock: Turn) -> float:
    return statistics.median(ms for step, ms in clock.steps if (step + 1) % INTERVAL not in (0, 49))


def wait_rows(make_net: Callable[[], nn.Module], data: Sequence[Any]) -> list[dict[str, Any]]:
    """Return how often each way waits for the device in a quiet step and in one that logs."""
    if device().type != "cuda":
        return []
    found = []
    for name, make in {**WAYS, **LIGHTNING}.items():
        waits = _Waits()
        clock = _begin(make, make_net, data, START - DENSE)
        _take(clock, DENSE)  # updates that the doctor measures, a window that the guard fills
        for number in range(START, START + 14):
            waits.count(clock, number)
        clock.stop = True
        clock.go.release()
        quiet = [waits.counts[n] for n in range(START + 2, START + 8)]
        places = Counter(p for n in range(START + 2, START + 8) for p in waits.places[n])
        found.append(
            {
                "way": name,
                "quiet": clock.error or statistics.median(quiet),
                "logging": waits.counts[START + 9],
                "where": ", ".join(f"{place} {n / 6:.1f}" for place, n in places.most_common(3)),
            }
        )
    return found


def calls_of(
    make: Callable[[], list[Any]],
    make_net: Callable[[], nn.Module],
    data: Sequence[Any],
    mode: Callable[[Turn], Any],
    first: int,
    last: int,
) -> Any:
    """Return a mode, made of a clock, that was entered for the steps from one to another."""
    entered: list[Any] = []

    def enter(clock: Turn) -> Any:
        entered.append(mode(clock))
        return entered[0]

    clock = _settled(_begin(make, make_net, data, mode=enter), first)
    _take(clock, last - first)
    clock.stop = True
    clock.go.release()
    clock.done.acquire()
    if clock.error:
        raise RuntimeError(clock.error)
    return entered[0]


class _Waits:
    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.places: dict[int, list[str]] = {}

    def count(self, clock: Turn, number: int) -> None:
        """Let one step be taken, and count its waits."""
        shown = warnings.showwarning
        self.places[number] = []

        def note(message: Any, category: Any, filename: str, line: int, *rest: Any) -> None:
            if "synchroniz" in str(message):
                self.counts[number] += 1
                self.places[number].append(f"{filename.rsplit('/', 1)[-1]}:{line}")

        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            _take(clock, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = shown
            warnings.simplefilter("ignore")


def _settled(clock: Turn, start: int) -> Turn:
    """Let a run take its first steps, and go on late in its course."""
    for first, steps in SETTLING:
        clock.jump = first
        _take(clock, steps)
    clock.jump = start
    return clock


def _begin(
    make: Callable[[], list[Any]],
    make_net: Callable[[], nn.Module],
    data: Sequence[Any],
    start: int = 0,
    mode: Callable[[Turn], Any] | None = None,
) -> Turn:
    clock = Turn(start)

    def fit() -> None:
        try:
            torch.manual_seed(0)
            with torch.device(device()):
                module = Task(make_net(), keeps=False)
            with tempfile.TemporaryDirectory() as folder:
                has_board = importlib.util.find_spec("tensorboard") is not None
                logger = TensorBoardLogger(folder) if has_board else CSVLogger(folder)
                precision: Any = "bf16-mixed" if device().type == "cuda" else "32-true"
                fitted = trainer([clock, *make()], logger=logger, precision=precision)
                with mode(clock) if mode is not None else nullcontext():
                    fitted.fit(module, Endless(data))
        except BaseException as error:
            clock.error = f"{type(error).__name__}: {error}"[:300]
        finally:
            clock.done.release()

    threading.Thread(target=fit, daemon=True).start()
    clock.done.acquire()
    return clock


def _take(clock: Turn, steps: int) -> None:
    if not clock.error:
        clock.num = steps
        clock.go.release()
        clock.done.acquire()


def _allocated(*, reset: bool = False, peak: bool = False) -> int:
    if device().type != "cuda":
        return 0
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()


def _mark() -> Any:
    if device().type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(first: Any, second: Any) -> float:
    """Return the milliseconds between two marks."""
    if isinstance(first, float):
        return 1e3 * (second - first)
    return float(first.elapsed_time(second))

"""Run tests in a copy of the project until one fails, in a process that has torch loaded already.

Each run is forked from a server that has imported what every test needs, but nothing of the
project, so that a run of a few tests takes about a second more than the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LOADED = ["torch.utils.tensorboard", "torchmetrics", "lightning.pytorch", "sklearn.datasets"]
SECONDS = 1200  # a fault that makes a loop endless counts as noticed


class FirstFailure:
    """A plugin of pytest: which tests run, in which order, for how long, and which one failed."""

    def __init__(self, chosen: Sequence[str] | None, seconds: float) -> None:
        self.chosen = chosen
        self.ends = time.process_time() + seconds
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep the chosen tests, in their order."""
        if self.chosen is not None:
            place = {name: number for number, name in enumerate(self.chosen)}
            kept = [item for item in items if item.nodeid in place]
            items[:] = sorted(kept, key=lambda item: place[item.nodeid])

    def pytest_collectreport(self, report: Any) -> None:
        """Note what cannot be imported."""
        if report.failed:
            self.failed = self.failed or f"ERROR {report.nodeid}"

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the first test that fails."""
        if report.failed:
            self.failed = self.failed or f"FAILED {report.nodeid}"

    def pytest_runtest_logfinish(self) -> None:
        """End the run after this test, where its time is over."""
        if time.process_time() > self.ends:
            import pytest

            pytest.exit("the time is over", returncode=0)


def first_failure(
    copy: Path, words: Sequence[str], chosen: Sequence[str] | None = None, seconds: float = SECONDS
) -> str:
    """Return the first test that fails in a copy of the project, or nothing.

    Args:
        copy: the root of the copy.
        words: what pytest is given: files, folders.
        chosen: the tests of these that run, in this order; None for all.
        seconds: of CPU, after which no further test begins. Nothing has failed then.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(copy, words, chosen, seconds, theirs))
    process.start()
    theirs.close()
    try:
        return str(ours.recv()) if ours.poll(SECONDS + seconds) else "it never ended"
    except EOFError:
        return "the process died"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def _run(
    copy: Path,
    words: Sequence[str],
    chosen: Sequence[str] | None,
    seconds: float,
    answer: Connection,
) -> None:
    os.setpgid(0, 0)
    os.chdir(copy)
    os.environ.update(PYTHONPATH=str(copy), OMP_NUM_THREADS="1")
    sys.dont_write_bytecode = False  # the next run need not compile what is as it was
    import pytest

    elsewhere = {str(Path(__file__).parents[2]), ""}
    sys.path[:] = [str(copy), *(place for place in sys.path if place not in elsewhere)]
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    plugin = FirstFailure(chosen, seconds)
    options = ["-x", "-q", "--no-cov", "-p", "no:cacheprovider", "-m", "not nightly"]
    code = int(pytest.main([*options, *words], plugins=[plugin]))
    ended = "" if code in (0, 5) else f"pytest ended with {code}"  # all passed, or none to run
    answer.send(plugin.failed or ended)
    answer.close()
    os._exit(0)

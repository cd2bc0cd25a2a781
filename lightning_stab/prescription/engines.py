"""Where trials run: in this process, on worker processes, or on Ray."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch

from lightning_stab.arguments import choices, integer, one_of
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.prescription.trial import Program, Run, Trial, run_trial

EngineName = Literal["local", "ray"]
# takes trials, gives their runs in the same order
Engine = Callable[[Sequence[Trial]], Iterator[Run]]


@contextmanager
def engine_for(program: Program, name: str, jobs: int) -> Iterator[Engine]:
    """Give what runs trials, ``jobs`` at a time.

    Raises:
        InvalidArgumentError: for an engine that does not exist, or functions that cannot be sent
            to another process.
        ConflictError: if Ray is asked for and not installed.
    """
    one_of("engine", name, choices(EngineName))
    integer("jobs", jobs, minimum=1)
    if name == "ray":
        with _ray(program, jobs) as engine:
            yield engine
    elif jobs == 1:
        yield partial(map, partial(run_trial, program))
    else:
        with _processes(program, jobs) as engine:
            yield engine


@contextmanager
def _processes(program: Program, jobs: int) -> Iterator[Engine]:
    try:
        pickle.dumps(program)
    except Exception as error:  # what cannot be pickled raises what it likes
        raise InvalidArgumentError(
            "`make_module`, `make_data` and `trainer_kwargs` must be importable by other processes"
            f" for `jobs` > 1, got {type(error).__name__}: {error}. Define them at the top of a"
            " module, or leave `jobs` at 1."
        ) from error
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool:
        try:
            yield lambda trials: pool.map(partial(run_trial, program), trials)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _ray(program: Program, jobs: int) -> Iterator[Engine]:
    try:
        import ray
    except ImportError as error:
        raise ConflictError(
            "`engine='ray'` needs Ray, which is not installed. Install it:"
            " pip install 'lightning-stab[ray]'"
        ) from error
    was_running = ray.is_initialized()
    if not was_running:
        # what this process can import its workers can, as those of `jobs` can
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        ray.init(log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    shared = ray.cluster_resources()
    share = {name: shared.get(name, 0) / jobs for name in ("CPU", "GPU")}
    options: dict[str, Any] = {"num_cpus": max(1, int(share["CPU"]))}
    if share["GPU"]:
        options["num_gpus"] = min(1.0, share["GPU"])
    try:
        remote = ray.remote(**options)(run_trial)
        kept = ray.put(program)
        yield lambda trials: iter(ray.get([remote.remote(kept, trial) for trial in trials]))
    finally:
        if not was_running:
            ray.shutdown()

"""How often `TrainingDoctor` finds what is wrong, names it rightly, and leaves healthy runs alone.

python -m benchmarks.diagnosis.run                       every program, 3 seeds, all detectors
python -m benchmarks.diagnosis.run --half report         the architectures that no rule was tuned on
python -m benchmarks.diagnosis.run --no-labels           one seed; the labels stand already
python -m benchmarks.diagnosis.run --small               a few programs

Each program of the corpus is trained with a real Trainer; seed 0 is watched by every
detector at once, since none of them changes a run. A sick program counts as found if a detector
gives an alarm (ours: a warning or an error), as named if the id of its first alarm is a right name
of the fault. A healthy one with an alarm is a false alarm.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import _script
from benchmarks.diagnosis.corpus import PROGRAMS, Program, run
from benchmarks.diagnosis.corpus.check import label_problem
from benchmarks.diagnosis.corpus.labels import BY_NAME, measured, with_twins
from benchmarks.diagnosis.detectors import DETECTORS, OURS, watch
from benchmarks.diagnosis.score import Run, misses, table

SMALL = (
    "mlp_digits/base",
    "mlp_digits/constant",
    "regression_mlp/targets_sgd",
    "regression_mlp/base",
    "binary_mlp/zero",
)


def main(argv: list[str] | None = None) -> int:
    """Run the programs, print the tables, return 1 if a label contradicts an outcome."""
    options = parsed(argv)
    began = time.perf_counter()
    chosen = [p for p in PROGRAMS if options.half in ("all", p.half)]
    chosen = [p for p in chosen if re.search(options.only, p.name)]
    if options.small:
        chosen = [p for p in chosen if p.name in SMALL]
    runs: list[Run] = []
    for one_run in watched(chosen, options.jobs):
        runs.append(one_run)
        print(f"{one_run.name:42} {told(one_run)}", flush=True)
        _script.write_json(options.json, [r.to_dict() for r in runs])
    for half in ("tune", "report"):
        part = [r for r in runs if r.half == half]
        if part:
            print(f"\n## {half} half\n\n{table(part, list(DETECTORS))}\n\n{misses(part)}")
    problems = relabelled(chosen, options.jobs) if options.labels else []
    if options.labels:
        print("\n".join(problems) or "labels and outcomes agree")
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if problems else 0


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = _script.parser(__doc__)
    parser.add_argument("--half", choices=("all", "tune", "report"), default="all")
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose names match")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--no-labels", dest="labels", action="store_false", help="do not run seeds 1 and 2"
    )
    options = parser.parse_args(argv)
    if options.small:  # the labels need two more runs of each program and of its twin
        options.labels, options.jobs = False, 1
    return options


def watched(programs: list[Program], jobs: int) -> Iterator[Run]:
    """Train each program with seed 0 under the eyes of every detector, and yield what they said."""
    names = [program.name for program in programs]
    if jobs == 1:
        yield from map(one, names)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(one, names, chunksize=2)


def told(run: Run) -> str:
    """Return the label of a run and what the doctor said of it."""
    said = ", ".join(id_ for id_, _ in run.alarms[OURS]) or "nothing"
    return f"{'/'.join(run.names) or 'healthy':40} {said}"


def one(name: str) -> Run:
    """Train one program, and return what the detectors said."""
    torch.set_num_threads(1)
    program = BY_NAME[name]
    callbacks = watch()
    outcome = run(program, 0, list(callbacks.values()))
    return Run.of(program, outcome.metric, callbacks)


def relabelled(programs: list[Program], jobs: int) -> list[str]:
    """Train with three seeds and return where outcomes contradict labels."""
    outcomes: dict[str, Any] = measured(with_twins(programs), 3, jobs)
    found = (label_problem(program, outcomes) for program in programs)
    return [problem for problem in found if problem]


if __name__ == "__main__":
    sys.exit(main())

"""Run the programs, write how they ended, and hold the labels against it.

python -m benchmarks.diagnosis.corpus.labels                       3 seeds: writes outcomes.json
python -m benchmarks.diagnosis.corpus.labels --only gan --seeds 1  some of them; writes nothing
python -m benchmarks.diagnosis.corpus.labels --check               compares labels with the file
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
from typing import Any

import torch

from benchmarks.diagnosis.corpus import PROGRAMS, Program, run
from benchmarks.diagnosis.corpus.check import OUTCOMES, check, label_problem, median_metric

BY_NAME = {program.name: program for program in PROGRAMS}


def main(argv: list[str] | None = None) -> int:
    """Run, write, check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="names that match")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each program")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--write", action="store_true", help="keep the outcomes of --only too")
    parser.add_argument("--check", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    if not args.check:
        chosen = [p for p in PROGRAMS if re.search(args.only, p.name)]
        outcomes = measured(with_twins(chosen), args.seeds, args.jobs)
        print(f"{sum(sum(o['seconds']) for o in outcomes.values()):.0f} CPU seconds")
        if args.only and not args.write:
            return 0
        keep(outcomes, whole=not args.only)
    problems = check()
    print("\n".join(problems) or "labels and outcomes agree")
    return 1 if problems else 0


def with_twins(programs: list[Program]) -> list[Program]:
    """Add the twins that are not there."""
    names = {p.name for p in programs} | {p.twin for p in programs}
    return [p for p in PROGRAMS if p.name in names]


def measured(programs: list[Program], seeds: int, jobs: int) -> dict[str, Any]:
    """Run the programs; return metrics, losses and the rest by name, a list over the seeds."""
    work = [(p.name, seed) for p in programs for seed in range(seeds)]
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=one_thread) as pool:
        outcomes: dict[str, Any] = {}
        for (name, seed), row in zip(work, pool.imap(once, work, chunksize=2), strict=True):
            collected = outcomes.setdefault(name, {key: [] for key in row})
            for key, value in row.items():
                collected[key].append(value)
            if seed + 1 == seeds and BY_NAME[name].twin in outcomes:
                print(line(BY_NAME[name], outcomes), flush=True)
    return outcomes


def one_thread() -> None:
    """Keep a process to one core."""
    torch.set_num_threads(1)


def once(work: tuple[str, int]) -> dict[str, Any]:
    """Run one program with one seed."""
    name, seed = work
    try:
        ended = run(BY_NAME[name], seed)
    except Exception as error:
        raise RuntimeError(f"{name} with seed {seed} did not run") from error
    return {
        "metric": round(ended.metric, 4),
        "loss": float(f"{ended.loss:.4g}") if abs(ended.loss) < 1e30 else None,
        "finite": ended.finite,
        "orphans": ended.orphans,
        "seconds": round(ended.seconds, 2),
    }


def line(program: Program, outcomes: dict[str, Any]) -> str:
    """Return a program, its outcome and its twin's, and what contradicts its label."""
    own = outcomes[program.name]
    label = "/".join(program.names) or "healthy"
    twin = median_metric(outcomes[program.twin])
    finite = "" if all(own["finite"]) else " NOT FINITE"
    verdict = label_problem(program, outcomes)
    return (
        f"{'WRONG ' if verdict else ''}{program.name:44} {label[:44]:44} "
        f"{median_metric(own):.2f} (twin {twin:.2f}) {min(own['metric']):.2f}"
        f"..{max(own['metric']):.2f} {sum(own['seconds']) / len(own['seconds']):.1f} s{finite}"
    )


def keep(outcomes: dict[str, Any], whole: bool) -> None:
    """Write the outcomes, beside the ones that stand where only a part was run."""
    before = {} if whole or not OUTCOMES.exists() else json.loads(OUTCOMES.read_text())
    merged = {**before, **outcomes}
    rows = [f'"{n}": {json.dumps(merged[n])}' for n in BY_NAME if n in merged]
    OUTCOMES.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())

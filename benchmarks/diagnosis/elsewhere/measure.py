"""Label the drawn programs by how they end, and count what the doctor said of them.

python -m benchmarks.diagnosis.elsewhere --part tune --jobs 2 --json runs.json
python -m benchmarks.diagnosis.elsewhere --part report --jobs 16 --json runs.json   one look
python -m benchmarks.diagnosis.elsewhere --small                                    a few programs
python -m benchmarks.diagnosis.elsewhere --json runs.json --facts folder --replay   seconds: the
    present rules, on the facts that --facts has kept of each run
python -m benchmarks.diagnosis.elsewhere --json runs.json --facts folder --again ^  the first seed
    again, where what is measured has changed: a label does not depend on the doctor

Every program is run under the doctor's eyes with as many of three seeds as its label needs, and
with `--vary` with another seed, twice the batch and twice the epochs. With `--json` a broken-off
measurement goes on where it stopped. Each look at the report part is written to `looks.json`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import _script
from benchmarks.diagnosis.elsewhere.labels import (
    Key,
    Row,
    counts,
    labelled,
    learns,
    mistakes,
    needs_seed,
    needs_simple,
)
from benchmarks.diagnosis.elsewhere.programs import PARTS, Drawn, programs
from benchmarks.diagnosis.elsewhere.replay import keep, path_of, replayed
from benchmarks.diagnosis.elsewhere.running import VARIATIONS, run
from benchmarks.diagnosis.elsewhere.simple_models import simple_skill

Moments = list[dict[str, Any]]
LOOKS = Path(__file__).with_name("looks.json")


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, print the counts and the mistakes."""
    options = parsed(argv)
    began = time.perf_counter()
    chosen = [p for p in programs() if options.part in ("all", p.part)]
    if options.small:
        chosen, options.seeds, options.jobs = chosen[:3], 1, 1
    wanted = {p.twin for p in chosen if re.search(options.only, p.name)}
    chosen = [p for p in chosen if re.search(options.only, p.name) or p.name in wanted]
    results = {(name, s, v): row for name, s, v, row in _script.read_json(options.json, [])}
    options.stale = set()
    if options.replay:
        for key in [key for key in results if path_of(options.facts, key).exists()]:
            results[key] |= replayed(options.facts, key)
    twins = [p for p in chosen if not p.change]
    for seed in range(options.seeds):
        measure([(p.name, seed, "") for p in twins], options, results, began)
    # of a twin that does not learn, nothing is drawn
    good = {p.name for p in twins if learns(p, results)}
    chosen = [p for p in chosen if p.twin in good]
    # a label does not depend on the doctor, so that the first run of each is enough
    options.stale = {
        (p.name, 0, "") for p in chosen if options.again and re.search(options.again, p.name)
    }
    for seed in range(options.seeds):
        needed = [p for p in chosen if needs_seed(p, seed, results)]
        measure([(p.name, seed, "") for p in needed], options, results, began)
    if options.vary:
        for seed, variation in ((1, ""), *((0, name) for name in VARIATIONS)):
            varied = [p for p in chosen if re.search(options.vary, p.name)]
            measure([(p.name, seed, variation) for p in varied], options, results, began)
    for part in () if options.record else PARTS:
        own = [p for p in chosen if p.part == part]
        if own:
            report(part, own, results, is_look=part == "report" and not options.small)
    return 0


def measure(
    work: list[Key], options: argparse.Namespace, results: dict[Key, Row], began: float
) -> None:
    """Run what is missing, and keep it now and then."""
    missing = [key for key in work if key not in results or key in options.stale]
    missing = [] if options.replay else missing
    for done, (key, row, moments) in enumerate(watched(missing, options.jobs), start=1):
        results[key] = row
        options.stale.discard(key)
        if options.facts is not None:
            keep(options.facts, key, moments)
        if done % 50 == 0 or done == len(missing):
            write(options.json, results)
            print(f"{done} of {len(missing)} runs, {time.perf_counter() - began:.0f} s", flush=True)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = _script.parser(__doc__)
    parser.add_argument("--part", choices=("all", *PARTS), default="tune")
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose names match")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seeds", type=int, default=3, help="1: no labels by median")
    parser.add_argument("--vary", metavar="PATTERN", help="programs that are also varied")
    parser.add_argument("--record", action="store_true", help="run, and show nothing")
    parser.add_argument("--facts", type=Path, help="keep the facts of each run in this folder")
    parser.add_argument("--replay", action="store_true", help="apply the rules to the kept facts")
    parser.add_argument("--again", metavar="PATTERN", help="run the first seed of these again")
    options = parser.parse_args(argv)
    if options.replay and (options.facts is None or options.json is None):
        parser.error("--replay needs --facts and --json of an earlier measurement")
    return options


def watched(work: list[Key], jobs: int) -> Iterator[tuple[Key, Row, Moments]]:
    """Run the programs and yield what came of each, in any order."""
    if jobs == 1:
        yield from map(once, work)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(once, work, chunksize=2)


def once(key: Key) -> tuple[Key, Row, Moments]:
    """Run one program."""
    torch.set_num_threads(1)
    name, seed, variation = key
    program = next(p for p in programs(name.partition("/")[0]) if p.name == name)
    row, moments = run(program.settings, seed, variation)
    if needs_simple(program) and (seed, variation) == (0, ""):
        row["simple"] = simple_skill(program.settings)
    return key, row, moments


def write(path: Path | None, results: dict[Key, Row]) -> None:
    """Keep what was measured, a run in a line."""
    if path is not None:
        lines = ",\n".join(json.dumps([*key, row]) for key, row in sorted(results.items()))
        path.write_text(f"[\n{lines}\n]\n")


def report(part: str, chosen: list[Drawn], results: dict[Key, Row], *, is_look: bool) -> None:
    """Print a part's counts and mistakes; note a look at the report part."""
    found = labelled(chosen, results)
    sick = sum(bool(p.names) for p in found)
    numbers: dict[str, Any] = {"programs": len(chosen), "sick": sick, "healthy": len(found) - sick}
    numbers |= counts(found)
    print(f"\n## {part}\n")
    print("\n".join(f"{name}: {value}" for name, value in numbers.items()))
    wrong = mistakes(found)
    print("\n".join(["", *wrong]))
    if is_look:
        looks = _script.read_json(LOOKS, [])
        looks.append({"date": date.today().isoformat(), **numbers, "mistakes": wrong})
        _script.write_json(LOOKS, looks)

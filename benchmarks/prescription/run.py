"""Whether `prescribe` cures the sick programs of the doctor's corpus, and leaves healthy ones.

python -m benchmarks.prescription.run --json results.json       every program that can be helped
python -m benchmarks.prescription.run --half tune --sample 12   so many sick, a third healthy ones
python -m benchmarks.prescription.run --small                   two programs

Each program is prescribed for, judged by its own metric. What comes out is held against the healthy
twin's median over three seeds (`outcomes.json` of the corpus), replayed from the text of its
overlay in fresh fits, and set beside two rivals: the first advice of the doctor followed literally,
and three other learning rates (a tenth, a hundredth, ten times), of which the best counts. With
--json a run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import _script
from benchmarks.diagnosis.corpus import PROGRAMS, Program
from benchmarks.diagnosis.corpus.check import OUTCOMES
from benchmarks.diagnosis.corpus.labels import BY_NAME
from benchmarks.diagnosis.score import share
from benchmarks.prescription.one import one
from lightning_stab.diagnosis.cures import CURES

SMALL = ("binary_mlp/zero", "mlp_digits/base")
CLOSE = 0.05  # to the healthy twin's metric: cured
# what differs from the twin in these settings no cure of the table can undo
BEYOND = {
    *("optimize", "detach", "unregistered", "sorted", "rows", "transform", "contrast", "loss"),
    *("no_zero_grad", "hide_first"),
}
UNKNOWABLE = ("autoencoder/divided_by_zero",)  # in the data


def main(argv: list[str] | None = None) -> int:
    """Prescribe, replay, print the tables."""
    options = parsed(argv)
    results = _script.read_json(options.json, {})
    names = [p.name for p in chosen(options) if p.name not in results]
    began = time.perf_counter()
    for row in prescribed(names, options.jobs):
        results[row["name"]] = row
        print(line(row), flush=True)
        _script.write_json(options.json, results)
    print(f"{time.perf_counter() - began:.0f} s\n")
    print(summary(list(results.values())))
    return 0


def parsed(argv: list[str] | None) -> Any:
    """Return the options."""
    parser = _script.parser(__doc__)
    parser.add_argument("--half", choices=("tune", "report", "all"), default="all")
    parser.add_argument("--only", default="", metavar="PATTERN", help="names that match")
    parser.add_argument("--sample", type=int, default=0, help="so many sick ones, a third healthy")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser.parse_args(argv)


def chosen(options: Any) -> list[Program]:
    """Return the programs: of the sick ones those that some cure of the table can help."""
    if options.small:
        return [BY_NAME[name] for name in SMALL]
    fit = [p for p in PROGRAMS if options.half in ("all", p.half)]
    fit = [p for p in fit if re.search(options.only, p.name)]
    sick = mixed([p for p in fit if p.sick and can_be_helped(p)])
    healthy = mixed([p for p in fit if not p.sick and "pretrained" not in p.settings])
    if options.sample:
        return sick[: options.sample] + healthy[: -(-options.sample // 3)]
    return sick + healthy


def can_be_helped(program: Program) -> bool:
    """Say whether a row that can be tried answers the fault, and the fault is not in the data."""
    twin = BY_NAME[program.twin].settings
    changed = {k for k, v in program.settings.items() if twin.get(k) != v}
    rows = [c for c in CURES if c.is_automatic]
    answered = {a.partition(":")[0] for c in rows for a in (*c.answers, *c.tried_for)}
    hopeless = changed & BEYOND or program.settings.get("label_noise") == 1.0
    hopeless = hopeless or program.name in UNKNOWABLE
    return bool(answered & set(program.names)) and not hopeless


def mixed(programs: list[Program]) -> list[Program]:
    """Return the programs in an order that has nothing to do with their names, and stays."""
    return sorted(programs, key=lambda p: hashlib.sha256(p.name.encode()).hexdigest())


def prescribed(names: list[str], jobs: int) -> Iterator[dict[str, Any]]:
    """Yield the result of each program."""
    if jobs == 1:
        yield from map(one, names)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap(one, names)


def twin_metric(name: str) -> float:
    """Return the healthy twin's median over its seeds."""
    outcomes = json.loads(OUTCOMES.read_text())
    return float(median(outcomes[BY_NAME[name].twin]["metric"]))


def line(row: dict[str, Any]) -> str:
    """Return one result as a line."""
    twin = twin_metric(row["name"])
    return (
        f"{row['name']:34} {'/'.join(row['found']) or 'nothing':44} {row['untreated']:.3f} ->"
        f" {row['treated']:.3f} (twin {twin:.3f}) {row['best'] or '-':28} cost {row['cost']:.1f}"
        f"  advice {row['advice']:.3f}  rates {row['rates']:.3f}  {row['seconds']:.0f} s"
    )


def is_cured(row: dict[str, Any], key: str = "treated") -> bool:
    """Say whether a metric is within 5 points of the healthy twin's."""
    return bool(row[key] >= twin_metric(row["name"]) - CLOSE)


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the measures, and a table by problem."""
    sick = [r for r in rows if r["names"]]
    healthy = [r for r in rows if not r["names"]]
    replays = [r for r in sick if r["replay"] is not None]
    named = [r for r in sick if r["found"][:1] and r["found"][0] in r["names"]]
    measures = {
        "within 5 points of the healthy twin": (sum(map(is_cured, sick)), len(sick)),
        "of those that the doctor found": (
            sum(is_cured(r) for r in sick if r["found"]),
            sum(bool(r["found"]) for r in sick),
        ),
        "no worse than untreated": (
            sum(r["treated"] >= r["untreated"] - r["noise"] for r in sick),
            len(sick),
        ),
        "the overlay, replayed, is as good": (
            sum(r["replay"] >= r["treated"] - max(r["noise"], CLOSE) for r in replays),
            len(replays),
        ),
        "healthy: nothing to cure": (sum(r["best"] is None for r in healthy), len(healthy)),
        "first advice alone, of the rightly named": (
            sum(is_cured(r, "advice") for r in named),
            len(named),
        ),
        "three learning rates": (sum(is_cured(r, "rates") for r in sick), len(sick)),
    }
    lines = [f"- {name}: {share(*counts)}" for name, counts in measures.items() if counts[1]]
    costs = [r["cost"] for r in sick if r["found"]]
    if costs:
        lines.append(f"- cost of the trials: median {median(costs):.1f}, most {max(costs):.1f}")
    return "\n".join([*lines, "", by_problem(sick)])


def by_problem(sick: list[dict[str, Any]]) -> str:
    """Return a Markdown table: for each problem which cure won, how often, gain and cost."""
    lines = [
        "| problem | programs | cured | cures that won | gain | cost | three rates |",
        "|---|---|---|---|---|---|---|",
    ]
    for problem in sorted({r["names"][0] for r in sick}):
        group = [r for r in sick if r["names"][0] == problem]
        won = [r["best"] for r in group if r["best"]]
        counts = ", ".join(f"{name} {times}" for name, times in Counter(won).most_common())
        gain = median(r["treated"] - r["untreated"] for r in group)
        cost = median(r["cost"] for r in group)
        rates = sum(is_cured(r, "rates") for r in group)
        lines.append(
            f"| {problem} | {len(group)} | {sum(map(is_cured, group))} | {counts or '-'}"
            f" | {gain:+.2f} | {cost:.1f} | {rates} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""Hold the corpus against its own rules: counts, halves, twins, and labels by outcome."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.diagnosis.corpus.program import PROGRAMS, Program

OUTCOMES = Path(__file__).with_name("outcomes.json")
HARM = 0.10  # a sick program's median metric is at least so far below its twin's
WELL = 0.90  # a healthy one reaches this share of its reference's
SKILL = 0.30  # a reference is so far above what guessing reaches
ENOUGH = 60  # sick, and healthy, in each half
HALVES = ("tune", "report")


def check() -> list[str]:
    """Return what is wrong with the corpus, a sentence each; empty when all is well."""
    outcomes = json.loads(OUTCOMES.read_text())
    problems = [*wrong_counts(), *wrong_structure()]
    for program in PROGRAMS:
        if program.name not in outcomes or program.twin not in outcomes:
            problems.append(f"{program.name} or its twin has no outcome")
        elif problem := label_problem(program, outcomes):
            problems.append(problem)
    return problems


def wrong_counts() -> list[str]:
    """Return where a half is too small, or has too few near misses."""
    problems = []
    for half in HALVES:
        programs = [p for p in PROGRAMS if p.half == half]
        for sick in (True, False):
            group = [p for p in programs if p.sick == sick]
            near = sum(p.near_miss for p in group)
            label = f"{half}, {'sick' if sick else 'healthy'}"
            if len(group) < ENOUGH:
                problems.append(f"{label}: {len(group)} programs, {ENOUGH} are asked for")
            if 4 * near < len(group):
                problems.append(f"{label}: {near} near misses of {len(group)}, a quarter is asked")
    return problems


def wrong_structure() -> list[str]:
    """Return names given twice, twins that do not fit, architectures in both halves."""
    by_name = {p.name: p for p in PROGRAMS}
    twice = [n for n, count in Counter(p.name for p in PROGRAMS).items() if count > 1]
    problems = [f"{name} is there twice" for name in twice]
    halves = {(p.architecture, p.half) for p in PROGRAMS}
    both = [a for a, count in Counter(a for a, _ in halves).items() if count > 1]
    problems += [f"{architecture} is in both halves" for architecture in both]
    for p in PROGRAMS:
        twin = by_name.get(p.twin)
        if twin is None or twin.sick or twin.architecture != p.architecture:
            problems.append(f"{p.name}: its twin {p.twin} is no healthy program of its family")
        elif p.sick and (not p.change or p.settings == twin.settings):
            problems.append(f"{p.name} does not differ from its twin, or does not say how")
        elif not p.sick and twin.twin != twin.name:
            problems.append(f"{p.name}: its reference {p.twin} is none")
    return problems


def label_problem(program: Program, outcomes: dict[str, Any]) -> str:
    """Return how the outcomes contradict the label; empty where they agree."""
    own, twin = outcomes[program.name], outcomes[program.twin]
    metric, reference = median_metric(own), median_metric(twin)
    numbers = f"{metric:.2f} beside {reference:.2f}"
    if program.structural:
        return "" if has_structural_fault(program, own) else f"{program.name}: no such fault"
    if program.sick:
        harmed = round(reference - metric, 4) >= HARM
        return "" if harmed else f"{program.name} is called sick, but ends at {numbers}"
    if program.twin == program.name and metric < program.settings["chance"] + SKILL:
        return f"{program.name} is a reference, but ends at {metric:.2f}"
    well = metric >= WELL * reference and all(own["finite"]) and not any(own["orphans"])
    return "" if well else f"{program.name} is called healthy, but ends at {numbers}"


def has_structural_fault(program: Program, own: dict[str, Any]) -> bool:
    """Return whether the weights, the optimizer or the output show the fault."""
    broken = sum(not finite for finite in own["finite"]) * 2 > len(own["finite"])
    doubled = program.settings.get("output") in ("softmax", "sigmoid")
    return broken or all(own["orphans"]) or doubled


def median_metric(own: dict[str, Any]) -> float:
    """Return the median over the seeds."""
    return float(median(own["metric"]))

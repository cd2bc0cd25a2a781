"""The record of the slowest tests: shown after every run, beside the one that was kept."""

import re
from pathlib import Path

COUNT = 25
LEAST = 0.5  # seconds: below that a test is not slow
KEPT = Path(__file__).parents[1] / "slowest.md"
NEW = Path(".pytest_cache", "slowest.md")
HEAD = f"""# The {COUNT} slowest tests of the gate

Seconds of a run of all its tests. Each run writes its own record; to keep one:
`cp {NEW} tests/slowest.md`.

| seconds | test |
|---|---|
"""


def seconds_by_test(reports):
    """Add up the seconds of a test's parts: fixtures, the test, and what comes after it."""
    found = {}
    for report in reports:
        if hasattr(report, "duration") and hasattr(report, "nodeid"):
            found[report.nodeid] = found.get(report.nodeid, 0.0) + report.duration
    return found


def table(seconds):
    """Return the record as a page."""
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:COUNT]
    rows = [f"| {value:.1f} | `{name}` |\n" for name, value in slowest]
    return HEAD + "".join(rows) + f"| {sum(seconds.values()):.0f} | all {len(seconds)} |\n"


def read(page):
    """Return the seconds that stand in a page, by test."""
    return {name: float(value) for value, name in re.findall(r"\| ([\d.]+) \| `(.+)` \|", page)}


def lines(seconds, kept):
    """Return what is shown: each slow test, and what the record says of it."""
    for name, value in sorted(seconds.items(), key=lambda item: -item[1])[:COUNT]:
        if value >= LEAST:
            before = f"{kept[name]:.1f} s in the record" if name in kept else "not in the record"
            yield f"{value:6.1f} s  {name}  ({before})"


def show(terminal, folder):
    """Write the record of a run, and show it."""
    seconds = seconds_by_test(report for each in terminal.stats.values() for report in each)
    path = folder / NEW
    path.parent.mkdir(exist_ok=True)
    path.write_text(table(seconds))
    kept = read(KEPT.read_text()) if KEPT.exists() else {}
    if shown := list(lines(seconds, kept)):
        terminal.section(f"the {len(shown)} slowest tests")
        for line in shown:
            terminal.write_line(line)

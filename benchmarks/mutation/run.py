"""How many small faults, planted at random in the package, its tests notice.

    python -m benchmarks.mutation.run --number 120 --seed 1 --json out.json

Each fault is planted in a copy of the project, and the gate's tests run there until the first one
fails: first those of the file's own folder, then those of what imports it, then all. `--near`
leaves the third round out. `--reach FILE` runs the tests that reach the fault's line instead, those
of its own folder and the cheapest first, for at most 30 s of CPU; for what runs at an import, such
as a default, those that hold numbers and defaults and those of its folder come before them. Where
there is no FILE, one run of all tests makes it.
A fault that changes nothing that can be seen counts as missed until a reader marks it in
`equivalent.toml`, with the reason; such faults are left out. A stopped run goes on with what the
JSON lacks. A test that fails without a fault, too, has noticed nothing.
"""

from __future__ import annotations

import ast
import random
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any

from benchmarks._script import parser, print_table, read_json, write_json
from benchmarks.mutation.faults import PlantedFault, sites_of
from benchmarks.mutation.reach import Reach, record
from benchmarks.mutation.trial import first_failure

ROOT = Path(__file__).parents[2]
PACKAGE = "lightning_stab"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
# tests that hold a part of the package from outside its own folder, whoever imports it
ELSEWHERE = {
    "callbacks": ("tests/callbacks/test_*.py", "tests/contract/test_*.py", "tests/test_b*.py"),
    "data": ("tests/docs/test_defaults.py",),
    "diagnosis": ("tests/docs/test_*.py",),
    "functional/gradcheck": ("tests/callbacks/gradcheck/test_*.py",),
    "functional/initialization": ("tests/callbacks/initialization/test_*.py",),
    "models": ("tests/docs/test_defaults.py",),
}
# tests that hold what is set once, when a module is imported: numbers, defaults, rows of tables
AT_IMPORT = ("tests/test_signatures.py", "tests/diagnosis/test_numbers.py", "tests/docs/test_d*.py")
MOST_SECONDS = 30  # of CPU for the tests that reach a line; a fault not noticed by then is missed


def sample(number: int, seed: int, under: str = PACKAGE) -> list[PlantedFault]:
    """Draw faults from all that can be planted, each once."""
    sites = [site for path in sorted((ROOT / under).rglob("*.py")) for site in sites_of(path)]
    return [s.plant() for s in random.Random(seed).sample(sites, min(number, len(sites)))]


def name_of(fault: PlantedFault) -> str:
    """Return what tells a fault from others, for files of results."""
    return f"{fault.path.relative_to(ROOT).as_posix()}:{fault.line}:{fault.kind}:{fault.after}"


def equivalent_faults(path: Path = EQUIVALENT) -> list[dict[str, str]]:
    """Return the marked faults, each with its path, kind, line of code, change and reason."""
    entries: list[dict[str, str]] = tomllib.loads(path.read_text())["fault"]
    return entries


def is_marked(fault: PlantedFault, marked: Sequence[dict[str, str]]) -> bool:
    """Say whether a fault is one of those; line numbers age, so the text of its line tells."""
    return any(is_fault(fault, entry) for entry in marked)


def is_fault(fault: PlantedFault, entry: dict[str, str]) -> bool:
    """Say whether an entry names this fault; ``now`` may be the first line of a long change."""
    own = (fault.path.relative_to(ROOT).as_posix(), fault.kind, fault.code)
    named = (entry["path"], entry["kind"], entry["code"])
    return own == named and fault.after.splitlines()[0] == entry["now"]


def rounds_for(path: Path) -> list[list[str]]:
    """Return what to run, the likeliest to notice first: each round is what pytest is given.

    The tests of the file's folder and its doctests; the tests of the files that import it, and
    those that hold its part of the package from outside; all tests.
    """
    inside = path.relative_to(ROOT / PACKAGE)
    own = _tests_of(path)
    beside = {test for user in _users(path) for test in _tests_of(user)}
    for part, patterns in ELSEWHERE.items():
        if inside.is_relative_to(part):
            beside.update(test for pattern in patterns for test in ROOT.glob(pattern))
    rounds = [_nearest_first(tests, path) for tests in (own, beside - own) if tests]
    rounds[0].append(f"{PACKAGE}/{inside.as_posix()}")
    return [*rounds, ["tests"]]


def _tests_of(path: Path) -> set[Path]:
    """Return the files that test a file: those of its folder, or those at the top of the tests."""
    inside = path.relative_to(ROOT / PACKAGE)
    near = next(f for f in (ROOT / "tests" / parent for parent in inside.parents) if f.is_dir())
    return set(near.glob("test_*.py") if near == ROOT / "tests" else near.rglob("test_*.py"))


def _nearest_first(tests: Iterable[Path], path: Path) -> list[str]:
    """Order tests by how often they name what a file defines: the first failure ends a round."""
    tree = ast.parse(path.read_text())
    names = {n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
    word = re.compile(rf"\b({'|'.join([path.stem, *names])})\b")
    ordered = sorted(tests, key=lambda test: (-len(word.findall(test.read_text())), test))
    return [test.relative_to(ROOT).as_posix() for test in ordered]


def _users(path: Path) -> set[Path]:
    """Return the files of the package that import a file."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return {user for user in (ROOT / PACKAGE).rglob("*.py") if module in _imports(user)}


@cache
def _imports(path: Path) -> frozenset[str]:
    nodes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom))
    names = ((n.module, f"{n.module}.{each.name}") for n in nodes for each in n.names)
    return frozenset(name for pair in names for name in pair if name)


def notices(
    fault: PlantedFault, copy: Path, *, only_near: bool = False, reach: Reach | None = None
) -> str:
    """Plant a fault in a copy of the project; return the first test that fails, or nothing."""
    target = copy / fault.path.relative_to(ROOT)
    whole = target.read_text()
    target.write_text(fault.source)
    try:
        chosen = reach.tests_of(fault.path, fault.line) if reach else []
        if reach and not reach.is_run_by_tests(fault.path, fault.line):
            tables = [p.relative_to(ROOT).as_posix() for t in AT_IMPORT for p in ROOT.glob(t)]
            for words in (tables, rounds_for(fault.path)[0]):  # which read what no line of it runs
                first = first_failure(copy, words, None, MOST_SECONDS)
                if first:
                    return first
        if chosen:
            files = sorted({name.partition("::")[0] for name in chosen})
            there = [name for name in files if (copy / name).exists()]
            return first_failure(copy, there, chosen, MOST_SECONDS)
        rounds = rounds_for(fault.path)[: -1 if only_near or reach else None]
        return next(filter(None, (first_failure(copy, words) for words in rounds)), "")
    finally:
        target.write_text(whole)


def unsound(found: dict[str, str], copy: Path) -> list[str]:
    """Return the tests that noticed a fault and fail without one, too: they noticed nothing."""
    words = {first for first in found.values() if first.startswith("FAILED")}
    names = sorted(word.partition(" ")[2] for word in words)
    bad: list[str] = []
    while names:
        files = sorted({name.partition("::")[0] for name in names})
        failed = first_failure(copy, files, names).partition(" ")[2]
        if failed not in names:
            break
        names.remove(failed)
        bad.append(failed)
    return bad


def copy_of_project(folder: Path) -> Path:
    """Copy what the tests need, without environments and results."""
    left_out = shutil.ignore_patterns(".*", "runs", "recording", "*cache*", ".hypothesis")
    return Path(shutil.copytree(ROOT, folder / "project", ignore=left_out))


def results(
    faults: Sequence[PlantedFault],
    known: dict[str, str],
    jobs: int,
    *,
    only_near: bool,
    reach: Reach | None = None,
) -> Iterator[dict[str, str]]:
    """Yield all results up to now after each new one; every job has a copy of its own."""
    copies: Queue[Path] = Queue()

    def tried(fault: PlantedFault) -> tuple[str, str]:
        copy = copies.get()
        try:
            return name_of(fault), notices(fault, copy, only_near=only_near, reach=reach)
        finally:
            copies.put(copy)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for job in range(jobs):
            copies.put(copy_of_project(Path(folder, str(job))))
        of_fault = {
            pool.submit(tried, fault): fault for fault in faults if name_of(fault) not in known
        }
        for ended in as_completed(of_fault):
            name, known[name] = ended.result()
            word = "noticed" if known[name] else "MISSED"
            print(f"{word:8}{name}  [{of_fault[ended].before}]", flush=True)
            yield known


def table(found: dict[str, str]) -> list[dict[str, Any]]:
    """Return how many were noticed, for each part of the package and over all."""
    parts = sorted({name.split("/")[1] for name in found})
    rows = []
    for part in [*parts, "all"]:
        of_part = [n for n in found if part in ("all", n.split("/")[1])]
        noticed = sum(bool(found[n]) for n in of_part)
        percent = 100 * noticed / len(of_part)
        rows.append({"part": part, "planted": len(of_part), "noticed": noticed, "%": percent})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Plant, test, and say what was missed."""
    options = parser(__doc__)
    options.add_argument("--number", type=int, default=120, help="faults to plant")
    options.add_argument("--seed", type=int, default=0, help="of the sample: a fresh one each time")
    options.add_argument("--jobs", type=int, default=1, help="processes side by side")
    options.add_argument("--under", default=PACKAGE, help="the folder or part that is sampled")
    options.add_argument("--near", action="store_true", help="not all tests: those nearby")
    options.add_argument(
        "--reach", type=Path, help="only the tests that reach the line, by this file; else made"
    )
    options.add_argument(
        "--equivalent", type=Path, default=EQUIVALENT, help="faults that change nothing, left out"
    )
    chosen = options.parse_args(argv)
    number, under = (2, f"{PACKAGE}/models") if chosen.small else (chosen.number, chosen.under)
    marked = equivalent_faults(chosen.equivalent)
    faults = [f for f in sample(number, chosen.seed, under) if not is_marked(f, marked)]
    known = read_json(chosen.json, {}).get("first_failure", {})
    if chosen.reach and not chosen.reach.exists():
        record(chosen.reach)
    reach = Reach(chosen.reach) if chosen.reach else None
    near = chosen.near or chosen.small
    for found in results(faults, known, chosen.jobs, only_near=near, reach=reach):
        write_json(chosen.json, {"seed": chosen.seed, "first_failure": found})
    found = {name_of(fault): known[name_of(fault)] for fault in faults}
    with tempfile.TemporaryDirectory() as folder:
        bad = unsound(found, copy_of_project(Path(folder)))
    found = {name: "" if first.partition(" ")[2] in bad else first for name, first in found.items()}
    rows = table(found)
    print_table(rows, "small faults that the tests notice")
    missed = [name for name in found if not found[name]]
    everything = {"first_failure": found, "unsound": bad, "missed": missed, "table": rows}
    write_json(chosen.json, {"seed": chosen.seed, **everything})


if __name__ == "__main__":
    main()

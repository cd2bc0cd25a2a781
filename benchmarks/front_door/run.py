"""Seconds and lines of the commands that a newcomer types, and of ten typical mistakes.

Each runs in a process of its own, as the installed script would run it, in an empty folder with an
empty cache. Several versions take turns. A figure is the median over rounds: seconds on the wall,
and seconds of the CPU, which a busy machine changes less. Lines are those of both outputs together.

    python -m benchmarks.front_door.run [--rounds 3] [--tree before=FOLDER] [--json FILE]

A tree is a folder that holds another version of the package. Its imports are timed as well, beside
those of what it imports itself.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import _script

ROOT = Path(__file__).parents[2]
AGAIN = ", again"  # what is asked twice may be kept from the first time
ASKED = ("--version", "--help", "fit --help", f"fit --help{AGAIN}", "check --help")
ASKED = (*ASKED, "diagnose --help", f"diagnose --help{AGAIN}")
COMMANDS = {name: name.removesuffix(AGAIN).split() for name in ASKED}  # a row's name and its words
MISTAKES = {
    "a misspelt command": ["fitt"],
    "a misspelt option": ["fit", "--trainr.max_epochs=3"],
    "a misspelt argument of the model": ["fit", "--model.dept=3"],
    "a word for a number": ["fit", "--trainer.max_epochs=many"],
    "a misspelt choice": ["fit", "--model.activation=rleu"],
    "a file that is not there": ["fit", "--config=rum.yaml"],
    "a misspelt key in a file": ["fit", "--config=key.yaml"],
    "a misspelt callback in a file": ["fit", "--config=callback.yaml"],
    "a misspelt choice in a file": ["fit", "--config=choice.yaml"],
    "a module that is not there": ["fit", "--model=nowhere.Module"],
}
CALLBACK = "trainer:\n  callbacks:\n    - class_path: "
FILES = {
    "run.yaml": "trainer:\n  max_epochs: 1\n",
    "key.yaml": "trainer:\n  max_epoch: 1\n",
    "callback.yaml": f"{CALLBACK}StepGard\n",
    "choice.yaml": f"{CALLBACK}GradientClipping\n      init_args: {{rule: nrom}}\n",
}
IMPORTS = {  # what is added to the first: by the package, by one callback, by all it has
    "Lightning": "import lightning.pytorch",
    "the package": "import lightning.pytorch, lightning_stab",
    "a callback": "import lightning.pytorch; from lightning_stab import GradientClipping",
    "everything": "import lightning.pytorch; from lightning_stab import *",
}
NEW, OLD = "from _lightning_stab import main", "from lightning_stab.cli import main"


@dataclass
class Row:
    """What was measured of one command in one tree."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    lines: int = 0
    code: int = 0
    names_the_right_one: bool = False

    def summary(self) -> dict[str, Any]:
        """Return the medians."""
        return {
            "seconds": round(statistics.median(self.seconds), 2),
            "cpu_seconds": round(statistics.median(self.cpu_seconds), 2),
            "lines": self.lines,
            "exit_code": self.code,
            "names_the_right_one": self.names_the_right_one,
        }


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a table for each version."""
    parser = _script.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--import-rounds", type=int, default=7)
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FOLDER")
    options = parser.parse_args(argv)
    trees = {"now": ROOT, **{n: Path(f) for n, _, f in (t.partition("=") for t in options.tree)}}
    rows = {**COMMANDS, **MISTAKES}
    if options.small:
        rows = {name: rows[name] for name in ("--version", "a misspelt choice")}
    found: dict[str, dict[str, Row]] = {tree: {name: Row() for name in rows} for tree in trees}
    for _ in range(1 if options.small else options.rounds):
        for tree, folder in trees.items():
            _measure(folder, rows, found[tree])
    commands = {t: {n: row.summary() for n, row in own.items()} for t, own in found.items()}
    for tree, own in commands.items():
        _script.print_table([{"command": n, **row} for n, row in own.items()], tree)
    _script.write_json(options.json, {"commands": commands})
    rounds = 1 if options.small else options.import_rounds
    imports = {tree: _imports(folder, rounds) for tree, folder in trees.items()}
    _script.print_table([{"tree": tree, **each} for tree, each in imports.items()], "imports")
    _script.write_json(options.json, {"commands": commands, "imports": imports})
    return 0


def _measure(tree: Path, rows: dict[str, list[str]], found: dict[str, Row]) -> None:
    start = NEW if (tree / "_lightning_stab.py").exists() else OLD
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            Path(folder, name).write_text(text)
        for name, words in rows.items():
            row = found[name]
            program = f"import sys; sys.argv[1:] = {words!r}; {start}; main()"
            before, began = _cpu(), time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=folder,
                env=_environment(tree, folder),
                capture_output=True,
                text=True,
                check=False,
            )
            row.seconds.append(time.perf_counter() - began)
            row.cpu_seconds.append(_cpu() - before)
            said = done.stdout + done.stderr
            row.lines, row.code = len(said.splitlines()), done.returncode
            row.names_the_right_one = "Did you mean" in said


def _imports(tree: Path, rounds: int) -> dict[str, float]:
    """Return the CPU seconds of importing Lightning, and what each of the others adds to it."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, program in IMPORTS.items():
            before = _cpu()
            environment = _environment(tree, tempfile.gettempdir())
            subprocess.run([sys.executable, "-c", program], env=environment, check=True)
            times[name].append(_cpu() - before)
    alone, *others = ((name, statistics.median(each)) for name, each in times.items())
    return dict([alone, *((f"+ {name}", each - alone[1]) for name, each in others)])


def _environment(tree: Path, folder: str) -> dict[str, str]:
    own = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "COLUMNS": "100"}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())

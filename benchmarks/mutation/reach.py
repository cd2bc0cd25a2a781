"""Which tests reach a line of the package, recorded once in a file of coverage.py."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = "[run]\nbranch = false\nsource = lightning_stab\nrelative_files = true\ndata_file = {}\n"


def record(path: Path, words: Sequence[str] = ("tests", "lightning_stab")) -> None:
    """Run tests of the gate and add to the file what each of them reaches."""
    settings = path.with_suffix(".ini")
    settings.write_text(SETTINGS.format(path.absolute()))
    coverage = ["--cov", f"--cov-config={settings.absolute()}", "--cov-context=test"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not nightly", *coverage]
    subprocess.run([*command, "--cov-append", "--cov-report=", *words], cwd=ROOT, check=False)


class Reach:
    """What a file of coverage.py with a context for each test says.

    Args:
        path: the file, as :func:`record` writes it.
    """

    def __init__(self, path: Path) -> None:
        from coverage import CoverageData

        self._data = CoverageData(str(path))
        self._data.read()
        self._by_line: dict[str, dict[int, list[str]]] = {}

    def tests_of(self, path: Path, line: int) -> list[str]:
        """Return the tests that reach a line, those of the file's own folder first.

        Of each kind those come first that reach the least of the package.
        What runs at an import has none (a default, a constant of a class): then it is those that
        reach the statement around it, and so on up to the whole file.
        """
        by_line = self._lines_of(path)
        for first, last in _around(path, line):
            found = {t for n in range(first, last + 1) for t in by_line.get(n, ())}
            if found:
                inside = path.relative_to(ROOT / "lightning_stab").parent.as_posix()
                own = f"tests/{inside}/"
                return sorted(found, key=lambda t: (not t.startswith(own), self._sizes[t], t))
        return []

    def is_run_by_tests(self, path: Path, line: int) -> bool:
        """Say whether a test runs a line itself, and not only the import of its file does."""
        by_line = self._lines_of(path)
        first, last = _around(path, line, heads=True)[0]
        return any(by_line.get(number) for number in range(first, last + 1))

    def _lines_of(self, path: Path) -> dict[int, list[str]]:
        name = path.relative_to(ROOT).as_posix()
        if name not in self._by_line:
            found = self._data.contexts_by_lineno(name)
            self._by_line[name] = {
                line: [c.partition("|")[0] for c in contexts if c]
                for line, contexts in found.items()
            }
        return self._by_line[name]

    @cached_property
    def _sizes(self) -> Counter[str]:
        """Count the lines of the package that each test reaches: what it costs, about."""
        files = [ROOT / name for name in self._data.measured_files()]
        return Counter(
            test for file in files for tests in self._lines_of(file).values() for test in tests
        )


def _around(path: Path, line: int, *, heads: bool = False) -> list[tuple[int, int]]:
    """Return the lines of the statements that hold a line, the innermost first, then all.

    With ``heads`` a statement with others inside, such as a function, ends where these begin.
    """
    text = path.read_text()
    held = {(1, len(text.splitlines()))}
    for node in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)):
        first, last = node.lineno, node.end_lineno or node.lineno
        if heads and getattr(node, "body", None):
            last = max(first, node.body[0].lineno - 1)
        held |= {(first, last)} if first <= line <= last else set()
    return sorted(held, key=lambda span: span[1] - span[0])

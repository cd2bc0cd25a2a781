"""``lightning-stab report``: the page of a run from its logs, with an exit code."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NoReturn

from _lightning_stab import COMMANDS, PROGRAM
from lightning_stab.cli.mistakes import sentence
from lightning_stab.errors import StabError
from lightning_stab.reporting import NoRunError, read_run, report_page
from lightning_stab.reporting.causes import causes_of, is_alarm, verdict_of

WATCH_SECONDS = 10.0


class _PlainParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say in one sentence what is wrong with the words of the command line."""
        said = f"{self.prog}: {sentence(message, self)}\nAll options: {self.prog} --help\n"
        sys.stderr.write(said)
        self.exit(2)


def plain_parser(command: str) -> argparse.ArgumentParser:
    """Return a parser for a command that builds no module, with its sentence and its example."""
    what, example = COMMANDS[command]
    return _PlainParser(
        prog=f"{PROGRAM} {command}",
        description=f"{what}\n\nexample: {PROGRAM} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


class OutputError(StabError):
    """A file that cannot be written."""


def report(args: list[str]) -> int:
    """Write ``report.html`` into a run's folder, from its event files or CSV logs.

    Args:
        args: the words after ``report``.

    Returns:
        1 if something is wrong with the run, 0 otherwise.
    """
    parser = plain_parser("report")
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder of its logger")
    parser.add_argument("--output", help="where the page goes; RUN_DIR/report.html by default")
    parser.add_argument("--watch", action="store_true", help="write it again as the run goes on")
    every = "seconds between two looks at the logs, with --watch"
    parser.add_argument("--interval", type=float, default=WATCH_SECONDS, help=every)
    given = parser.parse_args(args)
    if not given.interval > 0:
        raise NoRunError(f"`--interval` must be > 0 seconds, got {given.interval:g}.")
    code = _write(given.run_dir, given.output)
    try:
        seen = _state(given.run_dir)
        while given.watch:
            time.sleep(given.interval)
            if seen != (seen := _state(given.run_dir)):
                code = _write(given.run_dir, given.output)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    return code


def _write(run_dir: str, output: str | None) -> int:
    run = read_run(run_dir)
    path = Path(output) if output else run.folder / "report.html"
    write_page(path, report_page(run))
    causes = causes_of(run)
    sys.stdout.write(f"{verdict_of(run, causes).plain}\n{path}\n")
    sys.stdout.flush()
    return int(is_alarm(run, causes))


def write_page(path: Path, page: str) -> None:
    """Write a page, replacing an old one at once."""
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.write_text(page, encoding="utf-8", errors="replace")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OutputError(f"{str(path)!r} cannot be written ({error}). Use --output.") from error


def _state(run_dir: str) -> list[tuple[str, int]]:
    """Return the sizes of the logs, by which new ones are noticed."""
    names = ("events.out.tfevents.*", "metrics.csv", "findings.json", "run.json")
    folder = Path(run_dir) if Path(run_dir).is_dir() else Path(run_dir).parent
    files = [p for name in names for p in folder.rglob(name)]
    return sorted((str(p), p.stat().st_size) for p in files)

"""What the benchmarks' scripts share: a command line, quiet Trainers, results as JSON, tables."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

QUIET: dict[str, Any] = {  # arguments of a Trainer that only trains
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the two options that every benchmark has.

    Args:
        description: the script's docstring, whose first line `--help` shows.
    """
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("--small", action="store_true", help="a few seconds, to try it out")
    options.add_argument("--json", type=Path, help="write the results to this file")
    return options


@contextmanager
def silence() -> Iterator[None]:
    """Keep Lightning's remarks and all warnings back for a while, and compute on one thread."""
    log = logging.getLogger("lightning.pytorch")
    level, threads = log.level, torch.get_num_threads()
    log.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        torch.set_num_threads(threads)


def read_json(path: Path | None, default: Any) -> Any:
    """Return what stands in the file, if it is there: a benchmark goes on where it stopped."""
    return json.loads(path.read_text()) if path is not None and path.exists() else default


def write_json(path: Path | None, results: Any) -> None:
    """Write results, if a file was named."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n")


def print_table(rows: Sequence[dict[str, Any]], title: str, width: int | None = None) -> None:
    """Print rows under the keys of the first, words to the left and numbers to the right."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:  # where only what the package itself needs is installed
        print(title, *rows, sep="\n")
        return
    table = Table(title=title)
    for name, value in rows[0].items():
        justify = "left" if isinstance(value, str) else "right"
        table.add_column(name.replace("_", " "), justify=justify)
    for row in rows:
        cells = [row.get(name, "") for name in rows[0]]
        table.add_row(*(f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells))
    Console(width=width).print(table)

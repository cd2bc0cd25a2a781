"""``lightning-stab compare``: runs side by side, and why some of them failed."""

from __future__ import annotations

import sys
from pathlib import Path

from lightning_stab.cli.report import plain_parser, write_page
from lightning_stab.reporting import NoRunError, read_run
from lightning_stab.reporting.compare import comparison_page, comparison_text, judged


def compare(args: list[str]) -> int:
    """Write a page that compares runs, and print what tells them apart.

    Args:
        args: the words after ``compare``.

    Returns:
        0, also where runs have failed.
    """
    parser = plain_parser("compare")
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="+", help="folders of loggers")
    parser.add_argument("--output", default="comparison.html", help="where the page goes")
    given = parser.parse_args(args)
    if len(given.run_dirs) < 2:
        raise NoRunError("`compare` needs the folders of at least two runs. For one, use `report`.")
    runs = judged([read_run(folder) for folder in given.run_dirs])
    write_page(Path(given.output), comparison_page(runs))
    sys.stdout.write(f"{comparison_text(runs)}\n{given.output}\n")
    return 0

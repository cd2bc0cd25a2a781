"""The table of the page on `prescribe` is that of the cures."""

import runpy
from pathlib import Path

MAIN = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "cure_table.py"))["main"]


def test_the_page_is_up_to_date():
    assert MAIN(["--check"]) == 0, "run: python docs/cure_table.py"

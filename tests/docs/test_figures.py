"""Every figure of the documentation can be drawn again by its script, found by its folder."""

from pathlib import Path

import pytest
from helpers.small_runs import results

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs" / "figures").glob("[!_]*.py"))


@pytest.mark.nightly
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_figure_can_be_drawn_in_a_small_size(path):
    picture = results(f"docs.figures.{path.stem}")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_figure_is_in_the_documentation(path):
    assert (ROOT / "docs" / "images" / f"{path.stem}.png").exists()
    assert f"images/{path.stem}.png" in (ROOT / "docs" / f"{path.stem}.md").read_text()

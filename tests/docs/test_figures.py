"""Every figure of the documentation can be drawn again by its script, found by its folder."""

import importlib
from pathlib import Path

import pytest

from docs.figures import _drawing

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs" / "figures").glob("[!_]*.py"))


@pytest.mark.nightly
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_figure_can_be_drawn_in_a_small_size(path, tmp_path):
    script = importlib.import_module(f"docs.figures.{path.stem}")
    out = tmp_path / "figure.png"
    words = ["--small", "--out", str(out)]
    assert _drawing.run(str(path), script.__doc__, script.draw, words) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_figure_is_in_the_documentation(path):
    assert (ROOT / "docs" / "images" / f"{path.stem}.png").exists()
    assert f"images/{path.stem}.png" in (ROOT / "docs" / f"{path.stem}.md").read_text()

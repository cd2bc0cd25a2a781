"""Every figure of the documentation can be drawn anew by its script, found by its folder."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs" / "figures").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(f"figure_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_figure_can_be_drawn_in_a_small_size(path, tmp_path):
    out = tmp_path / "figure.png"
    assert load(path).main(["--small", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_figure_is_in_the_documentation(path):
    assert (ROOT / "docs" / "images" / f"{path.stem}.png").exists()
    assert f"images/{path.stem}.png" in (ROOT / "docs" / f"{path.stem}.md").read_text()

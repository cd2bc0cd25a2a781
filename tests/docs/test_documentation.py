"""Links between the pages lead somewhere, and nothing was left to be filled in."""

import re
from pathlib import Path

from helpers.cases import for_each

from docs import badges

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "benchmarks", "examples")
PAGES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))])


@for_each(PAGES)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [x for x in links if "://" not in x and not (page.parent / x).exists()]
    assert missing == []


@for_each(PAGES)
def test_nothing_was_left_to_be_filled_in(page):
    assert re.findall(r"@[A-Z]+@|TODO|FIXME", page.read_text()) == []


def test_the_callbacks_have_a_page_each():
    import lightning_stab.callbacks as callbacks

    for name in callbacks.__all__:
        page = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() + ".md"
        assert f"docs/{page}" in (ROOT / "README.md").read_text()
        assert (ROOT / "docs" / page).read_text().startswith(f"# {name}")


def test_the_badges_are_those_of_the_project():
    assert badges.PICTURE.read_text() == badges.drawn(), "run: python docs/badges.py"

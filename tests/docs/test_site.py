"""The site is built without a warning, has every page, and loads nothing from elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.doc_blocks import ROOT

CONFIG = ROOT / "mkdocs.yml"
LOADED = re.compile(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="?((?:https?:)?//[^"\s>]+)')
FROM_ELSEWHERE = re.compile(r"url\(\s*['\"]?https?:|@import\s+['\"]?https?:")


def test_nothing_is_asked_of_other_hosts():
    settings = yaml.load(CONFIG.read_text(), Loader=yaml.BaseLoader)
    assert settings["theme"]["font"] == "false"
    assert settings["strict"] == "true"
    assert {"offline", "search"} <= {each for each in settings["plugins"] if isinstance(each, str)}
    assert "//" not in json.dumps([settings["extra"], settings["extra_css"]])


def test_the_versions_and_names_of_the_readme_are_those_of_the_project():
    readme = (ROOT / "README.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    lowest = re.search(r'"torch>=([\d.]+)', project)[1]
    lightning = re.search(r'"lightning>=([\d.]+)', project)[1]
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    assert f"![Python {pythons[0]} to {pythons[-1]}, torch {lowest} or later" in readme
    assert f", Lightning {lightning}, types mypy --strict, licence Apache-2.0]" in readme


def test_the_readme_counts_the_faults():
    from lightning_stab.diagnosis import IDS

    assert f"names {len(IDS)} faults" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the built site; `scripts/nightly` has built it already."""
    pytest.importorskip("mkdocs")
    if "NIGHTLY_SMALL_RESULTS" in os.environ:
        return Path(os.environ["NIGHTLY_SMALL_RESULTS"]) / "site"
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.nightly
def test_every_page_is_in_the_site_and_in_its_search(site):
    known = {entry["location"].partition("#")[0] for entry in _index(site)}
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert (site / name).is_file(), name
        assert name in known | {"index.html"}, name
    assert {"tutorial.html", "ARCHITECTURE.html", "benchmarks/overhead/index.html"} <= known


@pytest.mark.nightly
def test_the_reference_shows_arguments_and_examples(site):
    page = (site / "reference" / "callbacks.html").read_text()
    for name in ("every_n_steps", "on_nonfinite", "grad_norm/total", "rewind_after"):
        assert name in page
    assert "====" not in page  # tables of the docstrings became tables
    assert page.count("Examples:") >= 10


@pytest.mark.nightly
def test_no_page_loads_from_another_host(site):
    for page in site.rglob("*.html"):
        assert LOADED.findall(page.read_text()) == [], page
    for sheet in site.rglob("*.css"):
        assert FROM_ELSEWHERE.findall(sheet.read_text()) == [], sheet


def _index(site):
    text = (site / "search" / "search_index.js").read_text()
    return json.loads(text.removeprefix("var __index = "))["docs"]

"""The tables of the doctor's page are those of its rules, thresholds and facts."""

import importlib.util
import re
from pathlib import Path

import pytest

from lightning_stab.diagnosis import IDS, RULES, THRESHOLDS

_SPEC = importlib.util.spec_from_file_location(
    "doctor_tables", Path(__file__).parents[2] / "docs" / "doctor_tables.py"
)
doctor_tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(doctor_tables)


def rows(name):
    page = doctor_tables.PAGE.read_text()
    table = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
    return [[cell.strip() for cell in line.split(" | ")] for line in table.split("\n")[3:] if line]


def test_the_page_is_up_to_date():
    assert doctor_tables.main(["--check"]) == 0, "run: python docs/doctor_tables.py"


def test_every_id_has_its_meaning():
    assert [row[0].strip("| `") for row in rows("ids")] == list(IDS)
    assert all(row[1] for row in rows("ids"))


def test_every_rule_stands_in_the_page():
    shown = [(row[0].strip("| `"), row[1]) for row in rows("rules")]
    assert shown == [(rule.id, rule.severity) for rule in RULES]


def test_every_threshold_stands_in_the_page_with_its_default():
    shown = {row[0].strip("| `"): float(row[1]) for row in rows("thresholds")}
    assert shown == pytest.approx(dict(THRESHOLDS), rel=1e-5)


def test_the_tables_hold_no_gap_to_be_filled():
    page = doctor_tables.PAGE.read_text()
    assert re.findall(r"\{\w+[^}]*\}", page.partition("## The faults")[2]) == []
    assert "``" not in page.partition("## The faults")[2]


def test_a_stale_page_is_seen_and_rewritten(tmp_path):
    page = tmp_path / "page.md"
    fresh = doctor_tables.PAGE.read_text()
    page.write_text(fresh.replace("| `plateau` |", "| `flat` |"))
    assert doctor_tables.main(["--check", "--page", str(page)]) == 1
    assert doctor_tables.main(["--page", str(page)]) == 0
    assert page.read_text() == fresh


def test_a_page_without_a_place_is_refused():
    with pytest.raises(SystemExit, match="no place for the table of ids"):
        doctor_tables.rewritten("# A page")

"""The lesson in its small size: every claim is measured, and holds."""

import json

import pytest
from helpers.small_runs import results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.lesson.results import Claim, Row
from examples.lesson.run import CLAIMS, main
from examples.lesson.table import short

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def lesson():
    """Return the claims; the script has ended with status 0."""
    return json.loads((results("examples.lesson.run") / "lesson.json").read_text())


def numbers(lesson, claim, case):
    return next(r for r in lesson[claim - 1]["rows"] if r["case"] == case)["numbers"]


@pytest.mark.parametrize("claim", range(1, len(CLAIMS) + 1))
def test_every_row_of_the_claim_holds(lesson, claim):
    evidence = lesson[claim - 1]
    assert evidence["number"] == claim
    assert evidence["rows"]
    assert [row for row in evidence["rows"] if not row["holds"]] == []


def test_a_picture_is_drawn():
    picture = results("examples.lesson.run") / "lesson.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_every_claim_left_tensorboard_runs():
    out = results("examples.lesson.run")
    folders = {path.name for path in (out / "runs").iterdir()}
    assert folders == {f"claim-{number}" for number in range(1, 9)}
    clipped = EventAccumulator(str(out / "runs" / "claim-1" / "clip-1")).Reload()
    walked = [event.value for event in clipped.Scalars("x")]
    assert walked[:3] == pytest.approx([9.9, 9.8, 9.7], rel=1e-5)
    learned = EventAccumulator(str(out / "runs" / "claim-8" / "batch-norm")).Reload()
    assert "gamma/hidden.0.norm" in learned.Tags()["histograms"]


def test_the_quartic_takes_the_steps_of_the_formula(lesson):
    x, path = 10.0, []
    for _ in range(3):
        x -= 0.1 * 4 * x**3
        path.append(x)
    free = numbers(lesson, 1, "no clip")
    assert [free["x1"], free["x2"], free["x3"]] == pytest.approx(path, rel=1e-4)
    assert free["x4"] == "inf"


def test_the_numbers_are_finite_where_nothing_should_explode(lesson):
    for claim in lesson[1:]:
        for row in claim["rows"]:
            assert not {"inf", "-inf", "nan"} & set(map(str, row["numbers"].values()))


def test_one_claim_can_be_run_alone_and_a_failed_claim_shows(tmp_path, monkeypatch, capsys):
    failed = Claim(1, "a claim", [Row("a case", "more", {"less": 0.5}, holds=False)])
    module = type("Part", (), {"run": staticmethod(lambda lab: failed)})
    monkeypatch.setattr("examples.lesson.run.CLAIMS", (module,))
    assert main(["--small", "--out", str(tmp_path), "--claim", "1"]) == 1
    assert "Not borne out: a case" in capsys.readouterr().out
    assert json.loads((tmp_path / "lesson.json").read_text())[0]["holds"] is False


def test_numbers_are_shown_with_three_digits():
    assert short([0.123456, 23700000.0]) == "0.123 2.37e+07"
    assert short("named") == "named"

"""Runs read back from their folders: the same numbers as TensorBoard's own reader sees."""

import json

import numpy as np
import pytest
from helpers.events import events
from helpers.run_folders import FINDING, falling, write_curves, write_packed, write_record
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.reporting import NoRunError, read_run
from lightning_stab.reporting.series import Collected, Series, thin

TAGS = {f"grad_norm/layers.{i}.weight": float(i) for i in range(40)}


def points(series):
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_what_is_read_is_what_tensorboard_reads(tmp_path):
    rows = [(s, {t: v + s / 7 for t, v in TAGS.items()}) for s in range(0, 300, 3)]
    rows[7] = (rows[7][0], {**rows[7][1], "grad_norm/layers.3.weight": float("nan")})
    rows += [(900, {**TAGS, "another": 1.0}), (901, TAGS)]
    write_packed(tmp_path, rows)
    write_curves(tmp_path, {"loss": falling(20), "new": [1.0, -2.0]}, suffix="x")
    theirs, _ = events(tmp_path)
    ours = read_run(tmp_path).series
    assert set(ours) == set(theirs)
    for tag, expected in theirs.items():
        np.testing.assert_allclose(points(ours[tag]), expected, rtol=1e-7, err_msg=tag)


def test_a_cut_file_is_read_up_to_the_cut(tmp_path):
    write_packed(tmp_path, [(s, TAGS) for s in range(50)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-700])
    run = read_run(tmp_path)
    assert 40 < len(run.series["grad_norm/layers.0.weight"]) < 50
    assert "ends within a record" in run.notes[0]


def test_garbage_is_no_crash(tmp_path):
    write_curves(tmp_path, {"loss": falling(20)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + bytes(range(256)) * 4)
    run = read_run(tmp_path)
    assert len(run.series["loss"]) == 20
    assert run.notes


def test_a_restart_replaces_what_it_repeats(tmp_path):
    write_curves(tmp_path, {"loss": [(s, 1.0) for s in range(10)]}, suffix=".1")
    write_curves(tmp_path, {"loss": [(s, 2.0) for s in range(6, 12)]}, suffix=".2")
    run = read_run(tmp_path)
    assert points(run.series["loss"]) == [(s, 1.0 if s < 6 else 2.0) for s in range(12)]
    assert run.restarts == (6,)


def test_packed_facts_and_findings_are_read(tmp_path):
    write_record(tmp_path, "diagnosis/facts", {"learnt": 0.1, "name": "no number"}, step=1)
    write_record(tmp_path, "diagnosis/facts", {"learnt": 0.5}, step=9)
    write_record(tmp_path, "diagnosis/findings", [{**FINDING, "state": "raised"}], step=5)
    write_record(tmp_path, "diagnosis/findings", [{**FINDING, "state": "withdrawn"}], step=8)
    run = read_run(tmp_path)
    assert points(run.facts["learnt"]) == [(1, 0.1), (9, 0.5)]
    assert [f["state"] for f in run.findings] == ["withdrawn"]
    assert run.diagnosed
    assert run.texts == {}


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"findings": [3, {"id": 4}, {}]}', "null"])
def test_a_broken_file_of_findings_is_passed_over(tmp_path, text):
    write_curves(tmp_path, {"loss": falling()})
    (tmp_path / "findings.json").write_text(text)
    assert read_run(tmp_path).findings == ()


def test_a_finding_without_its_fields_is_completed(tmp_path):
    write_curves(tmp_path, {"loss": falling()})
    plain = {"id": "x", "step": None, "severity": "dreadful", "layers": 3, "evidence": []}
    (tmp_path / "findings.json").write_text(json.dumps({"findings": [plain]}))
    (found,) = read_run(tmp_path).findings
    assert (found["step"], found["severity"], found["layers"]) == (0, "warning", [])


def test_csv_logs_are_read(tmp_path):
    text = "epoch,step,train_loss,val_loss\n0,1,2.5,\n0,3,,nan\n1,5,1.5,oops\n"
    (tmp_path / "metrics.csv").write_text(text)
    run = read_run(tmp_path)
    assert points(run.series["train_loss"]) == [(1, 2.5), (5, 1.5)]
    assert run.series["val_loss"].first_nonfinite == 3


def test_the_only_run_below_a_folder_is_taken_and_several_are_named(tmp_path):
    write_curves(tmp_path / "version_0", {"loss": [1.0]})
    write_curves(tmp_path / "version_0" / "outcome", {"outcome/healthy": [1.0]})
    assert read_run(tmp_path).folder.name == "version_0"
    (event_file,) = (tmp_path / "version_0").glob("events*")
    assert read_run(event_file).folder.name == "version_0"  # a log file stands for its folder
    write_curves(tmp_path / "version_1", {"loss": [1.0]})
    with pytest.raises(NoRunError, match="version_1"):
        read_run(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoRunError, match="with none"):
        read_run(tmp_path / "empty")
    with pytest.raises(NoRunError, match="must be a folder"):
        read_run(tmp_path / "missing")


@given(
    st.lists(st.floats(-1e6, 1e6, width=32) | st.just(float("nan")), min_size=1, max_size=200),
    st.integers(2, 9),
)
def test_thinning_keeps_ends_extremes_and_what_is_not_finite(values, stretch):
    array = np.array(values)[:, None]
    steps, kept = thin(np.arange(len(values))[:, None], array, stretch)
    assert (np.diff(steps[:, 0]) >= 0).all()
    assert steps[-1, 0] == len(values) - 1
    np.testing.assert_array_equal(kept[:, 0], array[steps[:, 0], 0])
    before, after = array[np.isfinite(array)], kept[np.isfinite(kept)]
    if len(before) == len(values):
        assert after.min() == before.min()
        assert after.max() == before.max()
    whole = (len(values) - 1) // stretch * stretch
    assert np.isnan(kept).any() == np.isnan(array).any() or whole == 0


def test_long_curves_stay_small_and_keep_their_extremes():
    collected = Collected(["a", "b"])
    for step in range(60_000):
        collected.add(step, np.array([step == 31_234, -step], np.float32))
    series = collected.series()
    assert series["a"].num_logged == 60_000
    assert len(series["a"]) <= 8192
    assert series["a"].steps[series["a"].values.argmax()] == 31_234
    assert series["b"].steps[-1] == 59_999


@pytest.mark.parametrize(("tags", "most"), [(1, 8192), (1000, 4000), (8000, 512)])
def test_a_group_of_curves_keeps_four_million_numbers_and_no_curve_fewer_than_512(tags, most):
    collected = Collected([str(i) for i in range(tags)])
    row = np.zeros(tags, np.float32)
    for step in range(most - 1):
        collected.add(step, row)
    assert len(collected.series()["0"]) == most - 1
    collected.add(most - 1, row)
    kept = collected.series()["0"]
    assert len(kept) < 0.3 * most  # two of eight neighbours
    assert kept.steps[-1] == most - 1
    assert kept.num_logged == most


def test_thinned_series_are_drawn_from_at_most_so_many_points():
    long = Series(np.arange(10_000), np.sin(np.arange(10_000.0)), 10_000)
    assert len(long.thinned(400)) <= 450
    assert long.thinned(400).values.max() == long.values.max()

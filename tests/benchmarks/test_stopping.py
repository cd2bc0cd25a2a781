"""The benchmark of stopping, in a small size, and runs that are killed and resumed."""

import json
import logging

import pytest
import torch

from benchmarks.stopping import run as bench_stopping
from benchmarks.stopping.kills import kill_and_resume
from benchmarks.stopping.tasks import TASKS


@pytest.fixture(autouse=True)
def _lightnings_log_level():
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture
def results(tmp_path, capsys):
    """The small table and its results."""
    path = tmp_path / "results.json"
    assert bench_stopping.main(["--small", "--json", str(path)]) == 0
    return capsys.readouterr().out, json.loads(path.read_text())


def by_arm(results, arm):
    return {(r["task"], r["seed"]): r for r in results if r["arm"] == arm}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_small_benchmark(results):
    table, rows = results
    for arm in bench_stopping.ARMS:
        assert f"| {arm} |" in table
        assert f"{arm}: mean score" in table
    reload, ours = by_arm(rows, "lightning"), by_arm(rows, "ours")
    assert len(ours) == 2
    for key, row in ours.items():
        assert row["score"] == reload[key]["score"]
        assert row["steps_share"] == reload[key]["steps_share"]
        assert row["writes"] == row["files"] == 0
        assert reload[key]["writes"] > 0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_splits_the_same_way_for_the_same_seed(task):
    first, again, other = task.split(0), task.split(0), task.split(1)
    for part in ("train", "val", "test"):
        inputs, targets = getattr(first, part)
        assert len(inputs) == len(targets) > 0
        assert torch.isfinite(inputs).all()
        assert torch.equal(inputs, getattr(again, part)[0])
    assert not torch.equal(first.train[0], other.train[0])
    assert (len(first.train[0]), len(first.val[0])) == task.shares


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_killed_runs_end_like_the_whole_one_bit_for_bit():
    outcomes = kill_and_resume(3, seed=1)
    assert [outcome for outcome in outcomes if not outcome.identical] == []
    assert all(outcome.killed for outcome in outcomes)

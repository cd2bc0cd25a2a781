"""The benchmark of stopping, in a small size, and runs that are killed and resumed."""

import pytest
import torch
from helpers.small_runs import numbers, printed

from benchmarks.stopping import run as bench_stopping
from benchmarks.stopping.tasks import TASKS

pytestmark = pytest.mark.nightly
SCRIPT = "benchmarks.stopping.run"


def by_arm(results, arm):
    return {(r["task"], r["seed"]): r for r in results if r["arm"] == arm}


def test_the_small_benchmark():
    table, rows = printed(SCRIPT), numbers(SCRIPT)
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


def test_killed_runs_end_like_the_whole_one_bit_for_bit():
    outcomes = numbers("benchmarks.stopping.kills")
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert outcome["killed"]
        assert outcome["weights"]
        assert outcome["best_metric"]
        assert outcome["stopping_step"]

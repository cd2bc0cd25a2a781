"""The check on a GPU runs in a small size on a CPU, and finds every regime right."""

import pytest
from helpers.small_runs import numbers

from benchmarks.gpu import calls, costs
from benchmarks.gpu.costs import WAYS
from benchmarks.gpu.nets import GPT, tokens
from benchmarks.gpu.regimes import REGIMES

pytestmark = pytest.mark.nightly


def test_every_regime_is_right_and_every_way_is_timed():
    results = numbers("benchmarks.gpu.check")
    found = {row.pop("regime"): set(row.values()) for row in results["regimes"]}
    assert found.keys() == REGIMES.keys()
    assert set().union(*found.values()) <= {"ok", "no time"}  # on a busy machine
    timed = {row["way"]: row["ms"] for row in results["cost of a step"]}
    assert timed.keys() >= WAYS.keys()
    assert min(timed.values()) > 0


def test_operators_are_counted_by_step():
    rows = {row.pop("way"): row for row in numbers("benchmarks.gpu.calls")["rows"]}
    assert rows.keys() == WAYS.keys()
    assert set(rows["nothing, again"].values()) == {0}
    monitor = rows["GradientMonitor"]
    assert monitor["quiet"] == 0 < monitor["logging"]


def test_a_run_that_is_timed_has_its_first_steps_behind_it():
    """What is measured once in a run is no cost of a step late in its course."""
    net = {"layers": 1, "width": 8, "heads": 2, "context": 4, "vocabulary": 8}
    data = tokens(2, 2, 4, 8)
    counted = costs.calls_of(list, lambda: GPT(**net), data, calls.Calls, 797, 801)
    taken = [n for n in counted.steps if counted.steps[n]]
    assert taken == [*range(41), *range(595, 600), *range(797, 801)]

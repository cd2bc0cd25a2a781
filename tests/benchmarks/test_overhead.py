"""The benchmark of overhead runs in a small size, and says what it measured."""

import pytest
from helpers.small_runs import numbers

from benchmarks.overhead.rounds import Contender, added_seconds

pytestmark = pytest.mark.nightly


def test_the_overhead_is_measured_for_every_way():
    results = numbers("benchmarks.overhead.run")
    added = {row["way"]: row["added_us"] for row in results["MLP"]}
    assert added["a step of plain Lightning"] > 0
    assert added["Lightning grad_norm + log_dict"] > added["GradientMonitor, norms every step"]
    assert {row["tensors"] for row in results["scaling"]} == {10, 100}


def test_costs_at_intervals_are_spread_over_the_period():
    base = Contender("base", lambda turn: None, seconds=[1.0] * 8)
    own = Contender("own", lambda turn: None, period=4, seconds=[1.0, 1.0, 1.0, 5.0] * 2)
    assert added_seconds(own, base) == 1.0
    every = Contender("every", lambda turn: None, seconds=[1.5, 1.5, 9.0, 1.5])
    assert added_seconds(every, Contender("b", base.fit, seconds=[1.0] * 4)) == 0.5

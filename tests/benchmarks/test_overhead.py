"""The benchmark of overhead runs in a small size, and says what it measured."""

from types import SimpleNamespace

import pytest
from helpers.small_runs import numbers

from benchmarks.overhead.rounds import Contender, added_seconds, run_rounds

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
    turns = Contender("turns", base.fit, period=4, seconds=[1.0, 5.0] * 4)
    assert added_seconds(turns, base, steps=2) == 2.0  # a period is two turns


def test_everyone_takes_as_many_steps_in_each_turn():
    order = []

    def fit_of(name):
        def fit(turn):
            trainer = SimpleNamespace(should_stop=False)
            turn.on_train_batch_start(trainer)
            while not trainer.should_stop:
                order.append(name)
                turn.on_train_batch_start(trainer)

        return fit

    both = [Contender(name, fit_of(name)) for name in "ab"]
    run_rounds(both, 3, warmup=2, steps=4)
    assert [len(each.seconds) for each in both] == [3, 3]
    lengths = [2, 2, *[4] * 6]
    for length in lengths:
        turn, order = order[:length], order[length:]
        assert len(set(turn)) == 1
        assert len(turn) == length
    assert order == []

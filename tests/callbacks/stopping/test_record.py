"""What early stopping remembers of its metrics, and when it stops and why, check by check."""

import math

import pytest

from lightning_stab.callbacks.stopping.record import StoppingOptions, StoppingRecord
from lightning_stab.functional.stopping import (
    Position,
    Track,
    improves,
    margin,
    measure_swing,
    observe,
    oscillates,
    rising_checks,
    time_since_best,
)

nan, inf = math.nan, math.inf


def observed(*values, per_epoch=1, steps=10, record=None, **settings):
    """Return a record of checks of these values, each a number or one by metric."""
    record = record or StoppingRecord(StoppingOptions(**{"monitor": "a", **settings}))
    for value in values:
        check = record.now.check + 1
        now = Position(check, (check - 1) // per_epoch, steps * check)
        record.observe(now, value if isinstance(value, dict) else {"a": value})
    return record


def stops(*values, **settings):
    """Return after which check it stops, and why."""
    record = observed(**settings)
    for value in values:
        observed(value, record=record)
        if record.reason_to_stop():
            return record.now.check, *record.reason_to_stop()
    return None


def test_patience_counts_the_checks_after_the_best():
    why = ("patience", "a did not improve for 2 checks")
    assert stops(3.0, 2.0, 2.0, 2.0, patience=2) == (4, *why)
    assert stops(3.0, 2.0, 2.0, 1.0, 1.0, 1.0, patience=2) == (6, *why)
    assert stops(1.0, 2.0, patience=1) == (2, "patience", "a did not improve for 1 check")
    assert stops(1.0, 0.5, 0.5, patience=0) == (3, "patience", "a did not improve for 1 check")
    assert stops(1.0, 2.0, 3.0, 2.0, mode="max", patience=1) == (
        4, "patience", "a did not improve for 1 check",
    )  # fmt: skip
    assert observed(patience=0).reason_to_stop() is None  # before any check


@pytest.mark.parametrize(
    ("unit", "patience", "check", "wait"),
    [("epochs", 2, 5, "2 epochs"), ("steps", 21, 4, "30 steps"), ("steps", 30, 4, "30 steps")],
)
def test_patience_in_epochs_of_two_checks_and_in_steps(unit, patience, check, wait):
    record = observed(per_epoch=2, patience=patience, patience_unit=unit)
    for _ in range(9):
        observed(1.0, record=record, per_epoch=2)
        if record.reason_to_stop():
            break
    assert record.now.check == check
    assert record.reason_to_stop() == ("patience", f"a did not improve for {wait}")


def test_an_improvement_is_more_than_the_margin():
    assert stops(1.0, 0.9, 0.8, patience=1, min_delta=0.1) is not None
    assert stops(1.0, 0.89, 0.78, patience=1, min_delta=0.1) is None
    # relative to the best, of either sign
    assert stops(-10.0, -10.9, patience=1, min_delta=0.1, relative_min_delta=True) is not None
    assert stops(-10.0, -11.1, patience=1, min_delta=0.1, relative_min_delta=True) is None
    assert margin(-4.0, -0.5, relative=True) == 2.0
    assert margin(-4.0, -0.5, relative=False) == 0.5
    assert margin(nan, 0.5, relative=True) == 0.0
    for mode, better, as_good in (("min", 0.89, 0.9), ("max", 1.11, 1.1)):
        assert improves(better, 1.0, mode=mode, by=0.1)
        assert not improves(as_good, 1.0, mode=mode, by=0.1)
        assert improves(5.0, nan, mode=mode, by=9.0)
        assert not improves(inf, nan, mode=mode)
        assert not improves(nan, 1.0, mode=mode)


def test_of_several_metrics_any_or_all_may_stall():
    rows = [{"a": 1.0, "b": 9.0 - i} for i in range(5)]
    both = {"monitor": ["a", "b"], "patience": 2}
    assert stops(*rows, **both, stall="any") == (3, "patience", "a did not improve for 2 checks")
    assert stops(*rows, **both, stall="all") is None
    flat = [{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 1.0}, *[{"a": 1.0, "b": 1.0}] * 3]
    assert stops(*flat, **both, stall="all") == (
        4, "patience", "a and b did not improve for 2 checks",
    )  # fmt: skip
    record = observed({"a": 2.0, "b": 2.0}, **both)
    for row, improved in (({"a": 1.0, "b": 3.0}, True), ({"a": 1.0, "b": 1.0}, False)):
        observed(row, record=record)
        assert record.improved == improved  # that of the first metric
    assert record.options.leading == "a"


def test_a_metric_that_is_never_a_number_has_a_reason_of_its_own():
    assert stops(nan, inf, patience=2) == (
        2, "never_finite", "a was not finite in any of 2 checks",
    )  # fmt: skip
    assert stops(2.0, nan, nan, patience=2)[1] == "patience"
    record = observed(2.0, nan)
    assert record.track("a") == Track(2.0, Position(1, 0, 10), 2, 1)
    assert repr(record.track("other")) == repr(Track())  # NaN is not itself
    found = observe(Track(), nan, Position(), improved=True)
    assert repr(found) == repr(Track(nan, Position(), 1, 0))


@pytest.mark.parametrize(
    ("settings", "ends"), [({"warmup_checks": 3}, 3), ({"warmup_steps": 31}, 3),
                           ({"warmup_steps": 30}, 2), ({}, 0)]
)  # fmt: skip
def test_nothing_counts_within_the_burn_in_nor_from_before_its_end(settings, ends):
    record = observed(patience=2, rising_checks=1, **settings)
    for check in range(1, 9):
        observed(1.0, record=record)
        assert record.in_warmup == (check <= ends)
        assert len(record.recent) == min(2, max(0, check - ends))
        if record.reason_to_stop():
            break
    assert check == max(ends, 1) + 2
    assert record.waited("a", "steps") == 20


def test_a_rise_is_one_of_so_many_checks_in_a_row():
    patient = {"patience": 99, "rising_checks": 2}
    assert stops(3.0, 1.0, 2.0, 2.0, 3.0, **patient) is None
    assert stops(3.0, 1.0, 2.0, 3.0, **patient) == (4, "rising", "a rose for 2 checks in a row")
    assert stops(1.0, 0.5, patience=99, rising_checks=1, mode="max") == (
        2, "rising", "a fell for 1 check in a row",
    )  # fmt: skip
    assert stops(1.0, 0.5, 0.6, 0.5, 0.4, patience=99, rising_checks=2, mode="max")[0] == 5
    assert rising_checks([], "min") == rising_checks([1.0], "min") == 0
    assert rising_checks([1.0, 2.0, 3.0], "min") == rising_checks([3.0, 2.0, 1.0], "max") == 2


def test_an_oscillation_is_judged_by_the_latest_window():
    swings = [1.0, 2.0] * 5
    found = stops(9.0, *swings, patience=99, oscillation_window=4)
    assert found == (5, "oscillation", "a swung around 1.5 for 4 checks without improving")
    assert stops(*swings, patience=99, oscillation_window=4, oscillation_amplitude=0.4) is None
    record = observed(*range(9), oscillation_window=4)
    assert record.recent == [5, 6, 7, 8]
    record = observed(*range(9), oscillation_window=4, rising_checks=6)
    assert len(record.recent) == 7  # of six rises seven values
    record = observed(*range(9))
    assert len(record.recent) == 1


def test_a_swing_by_hand():
    swing = measure_swing([1.0, 3.0, 1.0, 3.0])
    # the line of least squares rises by 0.4 a step: what is left is -0.4, 1.2, -1.2, 0.4
    assert swing.level == 2.0
    assert swing.trend == pytest.approx(1.2)
    assert swing.amplitude == pytest.approx(math.sqrt((0.16 + 1.44 + 1.44 + 0.16) / 4))
    # differences of 1.6, -2.4 and 1.6
    assert swing.autocorrelation == pytest.approx(-2 * 1.6 * 2.4 / (2 * 2.56 + 5.76))
    still = measure_swing([2.0] * 4)
    assert (still.amplitude, still.autocorrelation, still.trend) == (0.0, 0.0, 0.0)
    assert not oscillates([1.0, 3.0, 1.0], amplitude=0.0)
    assert not oscillates([1.0, nan, 1.0, 3.0], amplitude=0.0)
    assert oscillates([1.0, 3.0, 1.0, 3.0], amplitude=0.4)
    assert not oscillates([1.0, 3.0, 1.0, 3.0], amplitude=0.45)
    assert oscillates([3.0, 1.0, 3.0, 1.0], amplitude=0.1, mode="max")
    steep = [10.0, 8.5, 8.5, 7.0, 7.0, 5.5]
    assert not oscillates(steep, amplitude=0.0)
    assert oscillates(steep, amplitude=0.0, mode="max")


def test_the_time_since_the_best_is_that_since_the_start_if_it_is_later():
    track = Track(1.0, Position(2, 1, 20), 3, 3)
    now = Position(9, 5, 90)
    for unit, since_best, since_start in (("checks", 7, 5), ("epochs", 4, 2), ("steps", 70, 50)):
        assert time_since_best(track, now, Position(), unit) == since_best
        assert time_since_best(track, now, Position(4, 3, 40), unit) == since_start


def test_a_later_fit_waits_from_its_start_and_keeps_the_best():
    record = observed(1.0, 2.0, patience=2, rising_checks=1)
    record.begin_waiting()
    assert record.recent == []
    assert record.waited("a", "checks") == 0
    assert record.track("a").best == 1.0
    observed(2.0, record=record)
    assert record.reason_to_stop() is None
    observed(2.0, record=record)
    assert record.reason_to_stop()[0] == "patience"


def test_how_a_run_ended_in_words():
    record = observed(2.0, 0.123456789, 1.0)
    assert record.ending("why.") == "Stopped after check 3 (epoch 2, step 30): why."
    assert record.ending("") == "The run ended by itself after 3 checks"
    assert observed(1.0).ending("") == "The run ended by itself after 1 check"
    best = "the best was check 2 (epoch 1, step 20) with a = 0.123457, "
    assert record.summarize("So", restored=True) == (
        f"So; {best}whose weights and buffers were restored."
    )
    assert record.summarize("So", restored=False) == f"So; {best}and nothing was restored."
    assert observed(nan).summarize("So", restored=False) == (
        "So; a was never finite, so there were no weights to restore."
    )


def test_a_record_goes_on_from_its_state_and_from_that_of_lightnings_class():
    settings = {"patience": 3, "rising_checks": 4, "warmup_checks": 1}
    record = observed(3.0, nan, 2.0, 2.5, **settings)
    again = StoppingRecord(StoppingOptions(monitor="a", **settings))
    again.load_state_dict(record.state_dict())
    for each in (record, again):
        observed(2.6, 2.7, record=each)
        assert each.reason_to_stop() == ("patience", "a did not improve for 3 checks")
        assert each.recent == [2.0, 2.5, 2.6, 2.7]
        assert each.start.check == 1
    empty = StoppingRecord(StoppingOptions(monitor="a"))
    empty.load_state_dict(observed(nan).state_dict())
    assert math.isnan(empty.track("a").best)
    for best, known in ((0.5, True), (inf, False)):
        taken = StoppingRecord(StoppingOptions(monitor="a"), recent=[9.0], start=Position(9, 9, 9))
        taken.load_lightning_state(best, 2)
        assert taken.now == Position(check=2)
        assert taken.start == Position()
        assert taken.recent == []
        track = taken.track("a")
        assert (track.observed, track.finite) == ((3, 3) if known else (2, 2))
        assert track.best == 0.5 if known else math.isnan(track.best)
        assert taken.waited("a", "checks") == 2

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.functional.stopping import (
    UNITS,
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

numbers = st.floats(-1e6, 1e6)
windows = st.lists(st.floats(-100, 100), min_size=4, max_size=30)


@given(best=numbers, delta=st.floats(0, 1e3), relative=st.booleans())
def test_a_margin_is_never_negative(best, delta, relative):
    assert margin(best, delta, relative=relative) >= 0


@given(best=st.floats(-1e6, -1e-3), delta=st.floats(0.01, 0.5))
def test_a_relative_margin_asks_for_an_improvement_of_a_negative_metric(best, delta):
    by = margin(best, delta, relative=True)
    assert not improves(best, best, mode="min", by=by)
    assert not improves(best * (1 + delta / 2), best, mode="min", by=by)
    assert improves(best * (1 + 2 * delta), best, mode="min", by=by)


@given(value=numbers, best=numbers, by=st.floats(0, 10))
def test_min_and_max_mirror_each_other(value, best, by):
    assert improves(value, best, mode="min", by=by) == improves(-value, -best, mode="max", by=by)


@given(best=numbers, mode=st.sampled_from(["min", "max"]))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_never_improves(value, best, mode):
    assert not improves(value, best, mode=mode)
    assert not improves(value, math.nan, mode=mode)


@given(best=numbers, value=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_non_finite_value_is_counted_and_not_kept(best, value):
    track = Track(best=best, at=Position(1, 1, 10), observed=1, finite=1)
    after = observe(track, value, Position(2, 2, 20), improved=False)
    assert (after.best, after.at, after.finite) == (best, track.at, 1)
    assert after.observed == 2


@given(values=st.lists(numbers, min_size=1, max_size=20), mode=st.sampled_from(["min", "max"]))
def test_the_track_keeps_the_first_best_value_and_its_position(values, mode):
    track = Track()
    for i, value in enumerate(values, start=1):
        improved = improves(value, track.best, mode=mode)
        track = observe(track, value, Position(i, i, 10 * i), improved=improved)
    best = min(values) if mode == "min" else max(values)
    assert track.best == best
    assert track.at.check == values.index(best) + 1
    assert track.at.step == 10 * track.at.check


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.sampled_from(UNITS))
def test_waiting_begins_at_the_best_or_at_the_end_of_the_burn_in(best, start, more, unit):
    now = max(best, start) + more
    track = Track(at=Position(best, best, best))
    assert (
        time_since_best(track, Position(now, now, now), Position(start, start, start), unit) == more
    )


@given(st.lists(numbers, min_size=1, max_size=20), st.integers(1, 10))
def test_rising_counts_only_the_end(values, rises):
    up = [values[-1] + i for i in range(rises + 1)]
    assert rising_checks([*values[:-1], values[-1] + 1, *up], "min") == rises
    assert rising_checks([-v for v in [*values[:-1], values[-1] + 1, *up]], "max") == rises
    assert rising_checks([*up, up[-1]], "min") == 0


@given(windows, st.floats(-50, 50), st.floats(0.1, 10))
def test_a_swing_does_not_depend_on_the_level_nor_its_autocorrelation_on_the_scale(
    values, shift, scale
):
    swing = measure_swing(values)
    moved = measure_swing([scale * v + shift for v in values])
    assert -1 <= swing.autocorrelation <= 1
    assert moved.amplitude == pytest.approx(scale * swing.amplitude, abs=1e-6)
    assert moved.trend == pytest.approx(scale * swing.trend, abs=1e-6)
    if swing.amplitude > 1e-3:
        assert moved.autocorrelation == pytest.approx(swing.autocorrelation, abs=1e-6)


@given(st.floats(-10, 10), st.floats(-1, 1), st.integers(4, 30))
def test_a_straight_line_has_no_amplitude(start, slope, length):
    swing = measure_swing([start + slope * i for i in range(length)])
    assert swing.amplitude == pytest.approx(0, abs=1e-6)
    assert swing.trend == pytest.approx(slope * (length - 1), abs=1e-6)


def oscillating(values, mode="min"):
    return oscillates(values, amplitude=0.05, mode=mode)


def test_alternation_is_oscillation_and_a_fall_is_not():
    assert oscillating([1.0, 1.3] * 5)
    assert not oscillating([math.exp(-0.3 * i) for i in range(10)])
    assert not oscillating([1.0] * 10)


def test_a_small_swing_does_not_count():
    assert not oscillating([1.0, 1.01] * 5)


def test_a_fall_that_alternates_goes_on_improving():
    falling = [5 - 0.4 * i + 0.2 * (-1) ** i for i in range(10)]
    assert not oscillating(falling)
    assert oscillating(falling[::-1])  # the same swing without getting better
    assert not oscillating([-v for v in falling], mode="max")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_window_with_a_non_finite_value_does_not_oscillate(value):
    assert not oscillating([1.0, 2.0] * 5 + [value])


def rate_of(make, length=10, runs=300):
    generator = random.Random(0)
    return sum(oscillating(make(generator, length)) for _ in range(runs)) / runs


def noise_about_a_level(generator, length):
    return [1 + 0.2 * generator.gauss(0, 1) for _ in range(length)]


def alternation(generator, length):
    return [1 + 0.2 * (-1) ** i * (1 + 0.3 * generator.gauss(0, 1)) for i in range(length)]


def noisy_descent(generator, length):
    return [math.exp(-0.25 * i) * (1 + 0.05 * generator.gauss(0, 1)) for i in range(length)]


def random_walk(generator, length):
    walk = [3.0]
    while len(walk) < length:
        walk.append(walk[-1] + 0.2 * generator.gauss(0, 1))
    return walk


def test_how_often_each_kind_of_run_is_called_an_oscillation():
    assert rate_of(alternation) == 1
    assert rate_of(noise_about_a_level) > 0.6
    assert rate_of(noise_about_a_level, length=20) > 0.75
    assert rate_of(noisy_descent) == 0
    assert rate_of(random_walk) < 0.06


@pytest.mark.parametrize(
    ("values", "mode", "count"),
    [
        ([1.0, 2.0, 3.0], "min", 2),  # every check was worse
        ([3.0, 1.0, 2.0], "min", 1),
        ([3.0, 2.0, 1.0], "min", 0),
        ([3.0, 2.0, 1.0], "max", 2),
        ([1.0, 1.0], "min", 0),  # as good is not worse
        ([1.0], "min", 0),
        ([], "max", 0),
    ],
)
def test_the_last_checks_that_were_each_worse_are_counted(values, mode, count):
    assert rising_checks(values, mode) == count

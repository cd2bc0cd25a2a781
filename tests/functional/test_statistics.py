"""Statistics of the past: right, forgetful as promised, never poisoned, and resumable."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.functional.statistics import ExponentialStatistics, RollingWindow

FINITE = st.floats(-1e6, 1e6)
ANY = st.one_of(FINITE, st.sampled_from([math.nan, math.inf, -math.inf]))
SIZES = st.integers(1, 8)


def window_of(values, size):
    window = RollingWindow(size)
    for value in values:
        window.add(value)
    return window


@given(st.lists(ANY, min_size=1, max_size=30), SIZES)
def test_the_window_holds_the_newest_finite_values(values, size):
    window = window_of(values, size)
    finite = [v for v in values if math.isfinite(v)]
    assert window.values() == finite[-size:]
    assert len(window) == min(len(finite), size)
    assert window.num_nonfinite == len(values) - len(finite)


@given(st.lists(FINITE, min_size=1, max_size=30), SIZES, st.floats(0.0, 1.0))
def test_mean_deviation_and_quantile_are_torchs(values, size, fraction):
    window = window_of(values, size)
    held = torch.tensor(values[-size:], dtype=torch.float64)
    assert window.mean() == pytest.approx(held.mean().item(), rel=1e-9, abs=1e-6)
    assert window.deviation() == pytest.approx(held.std(correction=0).item(), rel=1e-6, abs=1e-6)
    expected = torch.quantile(held, fraction).item()
    assert window.quantile(fraction) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20), SIZES)
def test_no_value_makes_the_window_raise_or_turn_nan(values, size):
    window = window_of(values, size)
    if len(window):
        assert not math.isnan(window.mean())
        assert not math.isnan(window.deviation())
        assert not math.isnan(window.quantile(0.5))


def test_an_empty_window_knows_nothing():
    window = window_of([math.nan], 3)
    assert len(window) == 0
    assert all(map(math.isnan, (window.mean(), window.deviation(), window.quantile(0.5))))


@given(st.lists(ANY, max_size=20), st.lists(ANY, max_size=20), SIZES)
def test_a_restored_window_goes_on_as_if_never_stopped(before, after, size):
    whole, restored = window_of(before + after, size), RollingWindow(size)
    restored.load_state_dict(json.loads(json.dumps(window_of(before, size).state_dict())))
    for value in after:
        restored.add(value)
    assert restored.state_dict() == whole.state_dict()
    assert restored.values() == whole.values()
    if len(whole):
        assert restored.quantile(0.3) == whole.quantile(0.3)


def test_a_smaller_window_keeps_the_newest_of_a_saved_one():
    small = RollingWindow(2)
    small.load_state_dict(window_of([1.0, 2.0, 3.0, 4.0], 4).state_dict())
    assert small.values() == [3.0, 4.0]
    assert small.quantile(0.0) == 3.0


# --- exponential statistics -----------------------------------------------------------------------


def exponential(values, decay=0.9, warmup=5):
    statistics = ExponentialStatistics(decay, warmup)
    for value in values:
        statistics.add(value)
    return statistics


@given(st.lists(FINITE, min_size=1, max_size=5))
def test_the_warm_up_is_the_plain_mean_and_deviation(values):
    statistics = exponential(values)
    held = torch.tensor(values, dtype=torch.float64)
    assert statistics.mean == pytest.approx(held.mean().item(), rel=1e-9, abs=1e-6)
    expected = held.std(correction=0).item()
    assert statistics.deviation == pytest.approx(expected, rel=1e-6, abs=1e-3)
    assert statistics.ready == (len(values) == 5)


@given(st.lists(FINITE, min_size=5, max_size=5), FINITE, st.floats(0.01, 0.99))
def test_after_the_warm_up_the_past_decays(values, new, decay):
    statistics = exponential(values, decay)
    mean, variance = statistics.mean, statistics.variance
    statistics.add(new)
    expected_mean = decay * mean + (1 - decay) * new
    expected = decay * variance + (1 - decay) * (new - expected_mean) ** 2
    assert statistics.mean == pytest.approx(expected_mean, rel=1e-9, abs=1e-6)
    assert statistics.variance == pytest.approx(expected, rel=1e-6, abs=1e-3)


@given(st.lists(ANY, max_size=20))
def test_nonfinite_observations_are_counted_and_never_enter(values):
    statistics = exponential(values)
    finite = [v for v in values if math.isfinite(v)]
    clean = exponential(finite)
    assert (statistics.mean, statistics.variance) == (clean.mean, clean.variance)
    assert statistics.count == len(finite)
    assert statistics.num_nonfinite == len(values) - len(finite)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_no_value_poisons_the_exponential_statistics(values):
    statistics = exponential(values)
    assert math.isfinite(statistics.mean)
    assert math.isfinite(statistics.deviation)
    assert statistics.variance >= 0


@given(st.lists(ANY, max_size=20), st.lists(ANY, max_size=20))
def test_restored_statistics_go_on_as_if_never_stopped(before, after):
    restored = ExponentialStatistics(0.9, 5)
    restored.load_state_dict(json.loads(json.dumps(exponential(before).state_dict())))
    for value in after:
        restored.add(value)
    assert restored.state_dict() == exponential(before + after).state_dict()

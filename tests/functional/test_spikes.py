"""When a value is a spike: firing and quiet examples of each rule, from accepted values only."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_stab.functional.spikes import BEYOND_ANY_SCALE, SpikeDetector

NOISE = st.lists(st.floats(0.9, 1.1), min_size=64, max_size=150)


def detector_of(values, **arguments):
    detector = SpikeDetector(**arguments)
    for value in values:
        detector.accept(value)
    return detector


def wave(count, mean=2.0, size=0.1):
    return [mean + size * (i % 5 - 2) for i in range(count)]


@settings(max_examples=30)
@given(NOISE)
def test_steady_values_are_never_spikes(values):
    # a jump is in units of the first value: 0.2 / 0.9 is the largest that the noise can make
    detector = detector_of(values, jump=0.25)
    assert not any(detector.is_spike(v) for v in values)
    assert not detector.is_spike(detector.window.mean())


@settings(max_examples=30)
@given(NOISE, st.floats(1.0, 10.0), st.floats(0.0, 1.0), st.floats(0.0, 9.0))
def test_the_windows_rule_is_the_formula(values, deviations, jump, factor):
    detector = detector_of(values, deviations=deviations, jump=jump, factor=factor)
    held = values[-128:]
    mean = sum(held) / len(held)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in held) / len(held))
    median = sorted(held)
    median = (median[(len(held) - 1) // 2] + median[len(held) // 2]) / 2
    limit = max(mean + deviations * deviation, mean + jump * values[0], factor * median)
    assert detector.limit() == pytest.approx(limit, rel=1e-9)
    assert detector.is_spike(limit * 1.001)
    assert not detector.is_spike(limit * 0.999)


@settings(max_examples=30)
@given(st.floats(0.01, 100.0))
def test_the_rule_has_no_scale(scale):
    plain = detector_of(wave(100), jump=0.2, factor=2.0)
    scaled = detector_of([scale * v for v in wave(100)], jump=0.2, factor=2.0)
    assert scaled.limit() == pytest.approx(scale * plain.limit(), rel=1e-9)


@pytest.mark.parametrize("level", [0.0, -5.0, -100.0])
def test_losses_below_zero_spike_too(level):
    detector = detector_of([level + v for v in wave(100, mean=0.0)], jump=0.2)
    assert not detector.is_spike(level + 0.2)
    assert detector.is_spike(level + 0.2 * abs(level) + 3.0)


def test_a_jump_that_does_not_matter_is_no_spike():
    values = [10.0] + [1.0 + 1e-4 * (i % 3) for i in range(127)]
    detector = detector_of(values[1:], jump=0.0)
    assert detector.is_spike(1.5)
    assert not detector_of(values, jump=0.2).is_spike(2.5)


def test_before_the_window_is_filled_the_median_judges():
    detector = detector_of(wave(5))
    assert not detector.is_spike(199.0)
    assert detector.is_spike(201.0)
    few = detector_of(wave(4, size=0.0))
    assert not few.is_spike(19_999.0)
    assert few.is_spike(20_001.0)
    assert not detector_of(wave(63)).is_spike(199.0)
    assert detector_of(wave(64)).is_spike(199.0)


def test_without_a_past_only_absurd_values_are_spikes():
    detector = detector_of([math.nan])
    assert detector.limit() == BEYOND_ANY_SCALE
    assert not detector.is_spike(1e10)
    assert detector.is_spike(1e30)


def test_a_median_of_zero_says_nothing_about_what_is_large():
    detector = detector_of([2.0] + [0.0] * 10)
    assert not detector.is_spike(1.0)
    assert detector.is_spike(3.0)


@given(st.sampled_from([math.nan, math.inf, -math.inf]))
def test_nonfinite_values_are_not_this_rules_business(value):
    detector = detector_of(wave(100))
    before = detector.limit()
    assert not detector.is_spike(value)
    detector.accept(value)
    assert detector.limit() == before
    assert detector.window.num_nonfinite == 1


def test_the_first_finite_value_gives_the_scale():
    detector = detector_of([math.inf, 4.0, *wave(80, mean=1.0, size=0.0)], jump=1.0)
    assert detector.first == 4.0
    assert not detector.is_spike(4.9)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 10), max_size=100), st.lists(st.floats(0, 10), max_size=40))
def test_a_restored_detector_decides_alike(before, after):
    restored = SpikeDetector()
    restored.load_state_dict(json.loads(json.dumps(detector_of(before).state_dict())))
    for value in after:
        restored.accept(value)
    assert restored.limit() == detector_of(before + after).limit()
    assert restored.state_dict() == detector_of(before + after).state_dict()

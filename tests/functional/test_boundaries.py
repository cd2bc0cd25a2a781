"""What holds at exactly the limit, and one step beside it."""

import math

import pytest
import torch

from lightning_stab.functional.activation_kinds import activation_kind
from lightning_stab.functional.activations import (
    pool_moments,
    saturated_fraction,
    unit_dimension,
    unit_is_dead,
)
from lightning_stab.functional.gradient_statistics import log_ratio, ratios
from lightning_stab.functional.spikes import SpikeDetector
from lightning_stab.functional.stopping import (
    Position,
    Track,
    improves,
    measure_swing,
    observe,
    oscillates,
    rising_checks,
    time_since_best,
)

LN = math.log(0.02)  # where an exponential is 2 % of its slope at 0
# dead below, saturated below, saturated above: from f' = 0.02 max f', solved by hand
FLAT_SIDES = {
    ("relu",): (0.0, None, None),
    ("relu6",): (0.0, None, 6.0),
    ("threshold", 0.5, 0.0): (0.5, None, None),
    ("elu",): (None, LN, None),
    ("celu",): (None, LN, None),
    ("selu",): (None, LN, None),
    ("hardtanh",): (None, -1.0, 1.0),
    ("hardtanh", -2.0, 2.0): (None, -2.0, 2.0),
    ("hardsigmoid",): (None, -3.0, 3.0),
    ("hardswish",): (-3.0, None, None),
    ("sigmoid",): (None, *(s * 2 * math.acosh(math.sqrt(50)) for s in (-1, 1))),
    ("tanh",): (None, *(s * math.atanh(math.sqrt(0.98)) for s in (-1, 1))),
    ("softsign",): (None, 1 - math.sqrt(50), math.sqrt(50) - 1),
    ("softplus",): (math.log(0.02 / 0.98), None, None),
    ("logsigmoid",): (None, None, math.log(0.98 / 0.02)),
    ("leaky_relu",): (None, None, None),
}


@pytest.mark.parametrize("call", FLAT_SIDES, ids=str)
def test_the_flat_sides_of_an_activation_are_where_its_formula_says(call):
    kind = activation_kind(*call)
    found = (kind.dead_below, kind.saturated_below, kind.saturated_above)
    for value, expected in zip(found, FLAT_SIDES[call], strict=True):
        assert value == (None if expected is None else pytest.approx(expected, abs=1e-9))
    assert kind.can_be_dead == (FLAT_SIDES[call][0] is not None)
    assert kind.can_saturate == (FLAT_SIDES[call][1:] != (None, None))


def test_a_unit_that_reaches_exactly_zero_is_dead_and_one_beyond_is_not():
    z = torch.tensor([[-1.0, -2.0, 0.0, math.nan], [0.0, -3.0, 1e-30, -1.0]])
    dead = unit_is_dead(z, activation_kind("relu"))
    assert dead.tolist() == [True, True, False, False]


def test_an_entry_at_exactly_the_bound_is_saturated():
    z = torch.tensor([-2.0, -1.999, 1.999, 2.0])
    assert saturated_fraction(z, activation_kind("hardtanh", -2.0, 2.0)) == 0.5
    assert saturated_fraction(z, activation_kind("hardtanh", -2.0, 3.0)) == 0.25
    assert saturated_fraction(z + 4, activation_kind("relu6")) == 0.25


@pytest.mark.parametrize(("shape", "place"), [((8, 5), 1), ((8, 5, 7), 2), ((8, 5, 7, 7), 1)])
def test_channels_stand_second_from_four_dimensions_on(shape, place):
    assert unit_dimension(shape) == place
    assert unit_dimension(shape, -1) == len(shape) - 1
    assert unit_dimension(shape, -len(shape)) == 0
    assert (
        unit_dimension(shape, -len(shape) - 1)
        == unit_dimension(shape, len(shape))
        == len(shape) - 1
    )


@pytest.mark.parametrize(("counts", "known"), [((1.0, 0.0), False), ((1.0, 1.0), True)])
def test_a_deviation_is_known_from_two_entries_on(counts, known):
    means, variances = torch.tensor([1.0, 3.0]), torch.zeros(2)
    _, std = pool_moments(means, variances, torch.tensor(counts), torch.zeros(2).long(), 1)
    assert float(std) == pytest.approx(math.sqrt(2)) if known else math.isnan(std)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_an_improvement_must_be_more_than_the_margin(mode):
    sign = -1.0 if mode == "min" else 1.0
    for by in (0.0, 0.25):
        assert not improves(sign * by, 0.0, mode=mode, by=by)
        assert improves(sign * (by + 1e-12), 0.0, mode=mode, by=by)
    assert improves(5.0, math.nan, mode=mode)
    assert not improves(math.nan, math.nan, mode=mode)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_check_that_is_no_worse_ends_a_rise(mode):
    sign = 1.0 if mode == "min" else -1.0
    for values, count in (([1, 2, 2], 0), ([2, 2, 3], 1), ([3, 2, 3, 4], 2), ([1], 0), ([], 0)):
        assert rising_checks([sign * v for v in values], mode) == count


def test_a_window_oscillates_from_the_turning_on_and_beyond_the_amplitude():
    values = [1.0, 3.0] * 5  # about a level of 2
    swing = measure_swing(values)
    relative = swing.amplitude / 2
    assert oscillates(values, amplitude=0.999 * relative)
    assert not oscillates(values, amplitude=relative)
    assert oscillates(values, amplitude=0.1, turning=swing.autocorrelation)
    assert not oscillates(values, amplitude=0.1, turning=swing.autocorrelation - 1e-9)
    assert oscillates(values[:4], amplitude=0.1)
    assert not oscillates(values[:3], amplitude=0.1)


@pytest.mark.parametrize(("part", "oscillating"), [(1.99, True), (2.01, False)])
def test_a_window_that_gets_better_by_two_amplitudes_does_not_oscillate(part, oscillating):
    around = [1.0, -1.0, -1.0, 1.0] * 3
    amplitude = measure_swing(around).amplitude
    line = [-part * amplitude * i / 11 for i in range(12)]
    values = [50.0 + 0.0 * line[0] + a + b for a, b in zip(line, around, strict=True)]
    for mode, sign in (("min", 1.0), ("max", -1.0)):
        signed = [sign * v for v in values]
        found = oscillates(signed, amplitude=0.0, mode=mode, turning=1.0)
        assert found == oscillating
        assert oscillates([-v for v in signed], amplitude=0.0, mode=mode, turning=1.0)


def test_waiting_counts_from_the_later_of_best_and_start_in_its_own_unit():
    track = observe(Track(), 1.0, Position(check=2, epoch=5, step=70), improved=True)
    now, start = Position(check=9, epoch=11, step=100), Position(check=4, epoch=4, step=90)
    waited = {
        unit: time_since_best(track, now, start, unit) for unit in ("checks", "epochs", "steps")
    }
    assert waited == {"checks": 5, "epochs": 6, "steps": 10}
    assert (track.observed, track.finite) == (1, 1)
    lost = observe(track, math.nan, now, improved=True)
    assert (lost.best, lost.at, lost.observed, lost.finite) == (1.0, track.at, 2, 1)


@pytest.mark.parametrize(
    ("seen", "limit"), [(1, 400.0), (4, 400.0), (5, 20.0), (9, 20.0), (10, 1.0)]
)
def test_a_detector_changes_its_rule_when_it_has_seen_enough(seen, limit):
    detector = SpikeDetector(window=20, minimum=10, deviations=6.0, early_factor=20.0)
    for _ in range(seen):
        detector.accept(1.0)
    assert detector.limit() == pytest.approx(limit)
    assert not detector.is_spike(detector.limit())
    assert detector.is_spike(detector.limit() + 1e-9)


@pytest.mark.parametrize(
    "pair", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.inf, 1.0), (1.0, math.nan)]
)
def test_a_ratio_of_what_is_not_positive_and_finite_is_unknown(pair):
    assert math.isnan(log_ratio(*pair))
    assert log_ratio(1e-3, 1e3) == pytest.approx(-6.0)


def test_quotients_by_zero_are_left_out():
    assert ratios({"a": 1.0, "b": 0.0, "c": 3.0}, {"a": 0.0, "b": 2.0, "c": -2.0}) == {
        "b": 0.0, "c": -1.5,
    }  # fmt: skip

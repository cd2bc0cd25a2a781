import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.errors import UnstableStepError
from lightning_stab.functional.decay import (
    LOSS_FUNCTIONS,
    LossSchedule,
    OscillationSchedule,
    PlateauSchedule,
    loss_factor,
    smooth,
)

losses = st.floats(1e-6, 1e6)
POISON = (math.nan, math.inf, -math.inf)


def by_loss(name="linear", floor=0.01, ceiling=1.0):
    return LossSchedule(LOSS_FUNCTIONS[name], floor=floor, ceiling=ceiling)


def plateau(**changes):
    settings = {"gamma": 0.5, "patience": 2, "min_delta": 0.0, "floor": 0.0, "mode": "min"}
    return PlateauSchedule(**{**settings, **changes})


def oscillation(**changes):
    settings = {"gamma": 0.5, "window": 6, "amplitude": 0.05, "floor": 0.1, "mode": "min"}
    return OscillationSchedule(**{**settings, **changes})


def feed(schedule, values):
    return [schedule.advance(value) for value in values]


@given(loss=losses, first=losses, name=st.sampled_from(sorted(LOSS_FUNCTIONS)))
def test_the_factor_stays_between_floor_and_ceiling(loss, first, name):
    assert 0.05 <= loss_factor(loss, first, LOSS_FUNCTIONS[name], 0.05, 2.0) <= 2.0


@given(a=losses, b=losses, first=losses, name=st.sampled_from(sorted(LOSS_FUNCTIONS)))
def test_a_smaller_loss_never_gives_a_larger_factor(a, b, first, name):
    small, large = sorted((a, b))
    function = LOSS_FUNCTIONS[name]
    assert loss_factor(small, first, function, 0.0, 1.0) <= loss_factor(
        large, first, function, 0.0, 1.0
    )


@pytest.mark.parametrize(("name", "wanted"), [("linear", 0.25), ("sqrt", 0.5), ("square", 0.0625)])
def test_each_named_function(name, wanted):
    assert feed(by_loss(name), [8.0, 2.0]) == [1.0, wanted]


def test_the_ceiling_holds_a_rising_loss_and_may_be_raised():
    assert feed(by_loss(), [1.0, 5.0]) == [1.0, 1.0]
    assert feed(by_loss(ceiling=3.0), [1.0, 5.0]) == [1.0, 3.0]


@pytest.mark.parametrize("first", [0.0, -1.0])
def test_a_first_loss_that_is_not_positive_is_refused(first):
    with pytest.raises(UnstableStepError, match="positive first loss"):
        by_loss().advance(first)


def test_a_later_loss_may_be_negative():
    assert feed(by_loss(), [1.0, -3.0]) == [1.0, 0.01]


@pytest.mark.parametrize("make", [by_loss, plateau, oscillation])
@pytest.mark.parametrize("bad", POISON)
def test_a_non_finite_value_changes_nothing(make, bad):
    values = [3.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 2.0, 2.5]
    clean, poisoned = make(), make()
    poisoned.advance(bad)
    for value in values:
        assert clean.advance(value) == poisoned.advance(value)
        poisoned.advance(bad)
    assert clean.state_dict() == poisoned.state_dict()


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_a_plateau_is_cut_after_so_many_values_without_improvement(patience):
    factors = feed(plateau(patience=patience), [1.0, *[1.0] * patience])
    assert factors == [1.0] * patience + [0.5]


def test_a_plateau_of_a_negative_metric_is_judged_like_any_other():
    assert feed(plateau(min_delta=0.1), [-1.0, -1.2, -1.4, -1.6]) == [1.0] * 4
    assert feed(plateau(min_delta=0.1), [-1.0, -1.05, -1.08])[-1] == 0.5


def test_a_plateau_cuts_down_to_the_floor_however_small():
    schedule = plateau(patience=1, gamma=0.1, floor=1e-12)
    assert feed(schedule, [1.0] * 20)[-1] == 1e-12


def test_oscillation_is_cut_and_then_given_a_whole_new_window():
    factors = feed(oscillation(), [1.0, 2.0] * 9)
    assert [i for i in range(1, 18) if factors[i] < factors[i - 1]] == [5, 11, 17]
    assert factors[-1] == 0.125


@given(
    st.sampled_from([by_loss, plateau, oscillation]),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=15),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=15),
)
def test_a_saved_schedule_goes_on_bit_for_bit(make, before, after):
    whole, resumed = make(), make()
    feed(whole, before)
    resumed.load_state_dict(whole.state_dict())
    assert feed(whole, after) == feed(resumed, after)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.floats(0, 0.99))
def test_the_smoothed_loss_lies_within_the_values_and_is_unbiased(values, smoothing):
    mean = weight = torch.zeros((), dtype=torch.float64)
    for value in values:
        mean, weight = smooth(mean, weight, torch.tensor(value, dtype=torch.float64), smoothing)
    shares = [smoothing ** (len(values) - 1 - i) for i in range(len(values))]
    wanted = sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
    assert float(mean / weight) == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert min(values) - 1e-6 <= float(mean / weight) <= max(values) + 1e-6


@pytest.mark.parametrize("bad", POISON)
def test_a_non_finite_loss_never_enters_the_mean(bad):
    mean, weight = torch.tensor(1.0), torch.tensor(0.5)
    after = smooth(mean, weight, torch.tensor(bad), 0.9)
    assert (float(after[0]), float(after[1])) == (1.0, 0.5)

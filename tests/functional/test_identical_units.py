"""Units that share weights and gradients are found, whatever else they stand among."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_stab.functional.gradient_statistics import identical_fraction

FEW = settings(max_examples=30)
SHAPES = st.tuples(st.integers(3, 24), st.integers(2, 24))
SEEDS = st.integers(0, 10_000)


def drawn(seed, units, features, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, units, features, generator=generator) * scale
    return pair[0], pair[1]


def planted(seed, units, features, twins):
    """Return weights and gradients of which ``twins`` units, in random places, are alike."""
    weight, gradient = drawn(seed, units, features)
    places = torch.randperm(units, generator=torch.Generator().manual_seed(seed))[:twins]
    weight[places] = weight[places[0]].clone()
    gradient[places] = gradient[places[0]].clone()
    return weight, gradient


@given(SEEDS, SHAPES, st.data())
@FEW
def test_planted_twins_are_counted(seed, shape, data):
    units, features = shape
    twins = data.draw(st.integers(2, units))
    weight, gradient = planted(seed, units, features, twins)
    assert identical_fraction(weight, gradient).item() == pytest.approx(twins / units)


@given(SEEDS, SHAPES, st.sampled_from([1e-12, 1e-3, 1.0, 1e6]))
@FEW
def test_random_units_are_told_apart_at_any_scale(seed, shape, scale):
    weight, gradient = drawn(seed, *shape, scale)
    assert identical_fraction(weight, gradient).item() == 0


@given(SEEDS, SHAPES)
@FEW
def test_equal_weights_with_other_gradients_are_no_twins_and_the_other_way_round(seed, shape):
    """A head may start at zero, and dead units of different weights have no gradient."""
    weight, gradient = drawn(seed, *shape)
    for constant in (0.0, 0.3):
        flat = torch.full_like(weight, constant)
        assert identical_fraction(flat, gradient).item() == 0
        assert identical_fraction(weight, flat).item() == 0
        assert identical_fraction(flat, flat).item() == 1


@given(SEEDS, SHAPES, st.integers(2, 3))
@FEW
def test_the_order_of_units_does_not_matter(seed, shape, twins):
    weight, gradient = planted(seed, *shape, twins)
    mixed = torch.randperm(len(weight), generator=torch.Generator().manual_seed(seed + 1))
    first = identical_fraction(weight, gradient)
    assert torch.equal(identical_fraction(weight[mixed], gradient[mixed]), first)


@given(SEEDS, SHAPES)
@FEW
def test_the_scales_of_weights_and_gradients_do_not_matter(seed, shape):
    weight, gradient = planted(seed, *shape, 2)
    first = identical_fraction(weight, gradient)
    assert torch.equal(identical_fraction(weight * 1e-9, gradient * 1e7), first)


def test_kernels_are_units_too():
    weight, gradient = planted(0, 8, 27, 4)
    as_kernels = [t.reshape(8, 3, 3, 3) for t in (weight, gradient)]
    assert identical_fraction(*as_kernels).item() == 0.5


def test_several_families_of_twins_are_all_counted():
    weight, gradient = drawn(0, 4, 6)
    doubled = [t.repeat(2, 1) for t in (weight, gradient)]
    assert identical_fraction(*doubled).item() == 1
    assert identical_fraction(*(t[:6] for t in doubled)).item() == pytest.approx(4 / 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    weight, gradient = (t.to(dtype) for t in planted(0, 10, 30, 4))
    assert identical_fraction(weight, gradient).item() == pytest.approx(0.4)


def test_a_default_precision_of_double_changes_nothing():
    """Lightning sets it under ``precision="64-true"``."""
    weight, gradient = planted(0, 10, 30, 4)
    torch.set_default_dtype(torch.float64)
    try:
        fractions = [identical_fraction(weight, gradient),
                     identical_fraction(weight.double(), gradient.double())]  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)
    assert [f.item() for f in fractions] == pytest.approx([0.4, 0.4])


def test_nothing_that_is_not_finite_is_called_a_twin():
    weight, gradient = drawn(0, 4, 5)
    weight[1:3] = float("nan")
    assert identical_fraction(weight, gradient).item() == 0


def test_it_draws_no_random_number_and_needs_no_graph():
    state = torch.get_rng_state()
    weight, gradient = (t.requires_grad_() for t in drawn(0, 4, 5))
    fraction = identical_fraction(weight, gradient)
    assert not fraction.requires_grad
    assert torch.equal(torch.get_rng_state(), state)

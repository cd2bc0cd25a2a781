"""The clipping rules: bounds hold, small gradients stay, clipping again changes nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_stab.functional.clipping import (
    clip_adaptively_,
    clip_by_norm_,
    clip_by_value_,
    fraction_beyond,
    norm_coefficient,
    scale_,
    unit_norms,
)
from lightning_stab.functional.norms import full_tensor, tensor_norms, total_norm

SEEDS = st.integers(0, 1000)
SIZES = st.floats(1e-4, 1e6)
THRESHOLDS = st.floats(1e-3, 1e3)
SHAPES = [(4, 3), (5,), (), (2, 3, 2), (0,)]


def gradients(seed, size=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [(size * torch.randn(s, generator=generator)).to(dtype) for s in SHAPES]


def copies(tensors):
    return [t.clone() for t in tensors]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def total(tensors):
    return total_norm(tensor_norms(tensors))


def sparse(rows, values, size):
    indices = torch.tensor([rows], dtype=torch.long)
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=True)


# --- by value -------------------------------------------------------------------------------------


@given(SEEDS, SIZES, THRESHOLDS)
def test_value_clipping_is_torchs(seed, size, threshold):
    ours, params = gradients(seed, size), [nn.Parameter(torch.zeros(s)) for s in SHAPES]
    for p, g in zip(params, ours, strict=True):
        p.grad = g.clone()
    clip_by_value_(ours, threshold)
    torch.nn.utils.clip_grad_value_(params, threshold)
    assert same(ours, [p.grad for p in params])


@given(SEEDS, SIZES, THRESHOLDS)
def test_value_clipping_bounds_and_agrees_with_itself(seed, size, threshold):
    once = gradients(seed, size)
    fraction = fraction_beyond(once, threshold)
    assert 0.0 <= fraction <= 1.0
    small = fraction == 0
    before = copies(once)
    clip_by_value_(once, threshold)
    assert all(bool((g.abs() <= torch.tensor(threshold)).all()) for g in once)
    assert same(once, before) or not small
    assert fraction_beyond(once, threshold) == 0
    twice = copies(once)
    clip_by_value_(twice, threshold)
    assert same(once, twice)


@given(SEEDS, THRESHOLDS)
def test_the_fraction_counts_entries(seed, threshold):
    tensors = gradients(seed, 10.0)
    entries = torch.cat([t.flatten() for t in tensors])
    expected = (entries.abs() > threshold).double().mean()
    assert fraction_beyond(tensors, threshold).item() == pytest.approx(expected.item())


def test_the_fraction_of_nothing_is_zero():
    assert fraction_beyond([], 1.0) == 0
    assert fraction_beyond([torch.zeros(0)], 1.0) == 0


def test_value_clipping_bounds_infinities_and_leaves_nan():
    gradient = torch.tensor([math.inf, -math.inf, math.nan, 0.5])
    clip_by_value_([gradient], 2.0)
    assert gradient[[0, 1, 3]].tolist() == [2.0, -2.0, 0.5]
    assert gradient[2].isnan()


def test_value_clipping_bounds_both_parts_of_complex_entries():
    gradient = torch.tensor([3.0 - 4.0j, 0.5j])
    clip_by_value_([gradient, torch.tensor([9.0])], 1.0)
    assert gradient.tolist() == [1.0 - 1.0j, 0.5j]


def test_value_clipping_of_a_sparse_gradient_adds_its_duplicates_first():
    gradient = sparse([1, 1, 2], torch.tensor([0.6, 0.6, 0.3]), (4,))
    clip_by_value_([gradient], 1.0)
    torch.testing.assert_close(gradient.to_dense(), torch.tensor([0.0, 1.0, 0.3, 0.0]))
    assert fraction_beyond([sparse([1, 1], torch.tensor([0.6, 0.6]), (4,))], 1.0) == 1


# --- by norm --------------------------------------------------------------------------------------


@given(SEEDS, SIZES, THRESHOLDS)
def test_norm_clipping_is_torchs_bit_for_bit(seed, size, threshold):
    ours, params = gradients(seed, size), [nn.Parameter(torch.zeros(s)) for s in SHAPES]
    for p, g in zip(params, ours, strict=True):
        p.grad = g.clone()
    norm = total(ours)
    clip_by_norm_(ours, norm, threshold)
    theirs = torch.nn.utils.clip_grad_norm_(params, threshold)
    assert torch.equal(norm, theirs)
    assert same(ours, [p.grad for p in params])


@given(SEEDS, SIZES, THRESHOLDS)
def test_norm_clipping_bounds_keeps_direction_and_leaves_small_gradients(seed, size, threshold):
    tensors = gradients(seed, size, torch.float64)
    before, norm = copies(tensors), total(tensors)
    coefficient = clip_by_norm_(tensors, norm, threshold)
    assert total(tensors) <= threshold * (1 + 1e-12)
    assert 0.0 < coefficient <= 1.0
    assert same(tensors, [coefficient * g for g in before])
    if norm + 1e-6 <= threshold:
        assert same(tensors, before)
    twice = copies(tensors)
    clip_by_norm_(twice, total(twice), threshold)
    torch.testing.assert_close(twice, tensors, rtol=2e-6 / threshold, atol=0.0)  # 1e-6 + norm


@given(THRESHOLDS)
def test_a_nonfinite_norm_spreads_to_no_other_entry(threshold):
    assert norm_coefficient(torch.tensor(math.nan), threshold) == 1
    assert norm_coefficient(torch.tensor(math.inf), threshold) == 1
    good, bad = torch.ones(3), torch.tensor([math.nan])
    clip_by_norm_([good, bad], total([good, bad]), threshold)
    assert good.tolist() == [1.0, 1.0, 1.0]


@given(st.floats(0.0, 2.0), st.booleans())
def test_scaling_takes_all_kinds_of_gradients(factor, as_tensor):
    kinds = [
        torch.randn(3),
        torch.randn(3, dtype=torch.float64),
        torch.randn(3).to(torch.bfloat16),
        torch.randn(3, dtype=torch.complex64),
        sparse([0, 0, 2], torch.randn(3), (4,)),
        torch.zeros(0),
    ]
    before = [t.clone().to_dense() if t.is_sparse else t.clone() for t in kinds]
    scale_(kinds, torch.tensor(factor) if as_tensor else factor)
    for now, was in zip(kinds, before, strict=True):
        torch.testing.assert_close(now.to_dense() if now.is_sparse else now, was * factor)


# --- per unit -------------------------------------------------------------------------------------


def agc_reference(gradient, weight, threshold, floor, dim=0):
    """The formula of the source, one unit at a time, in double precision."""
    result = gradient.double().clone()
    if gradient.ndim < 2:
        units = [...]
    else:
        units = [(slice(None),) * dim + (i,) for i in range(gradient.shape[dim])]
    for unit in units:
        g, w = result[unit].norm(), weight.double()[unit].norm().clamp(min=floor)
        result[unit] *= min(1.0, float(threshold * w / g.clamp(min=1e-6)))
    return result


@given(SEEDS, st.floats(1e-3, 1e3), st.floats(1e-3, 1.0), st.sampled_from([1e-3, 0.5]))
def test_adaptive_clipping_is_the_formula(seed, size, threshold, floor):
    grads, weights = gradients(seed, size), gradients(seed + 1)
    expected = [agc_reference(g, w, threshold, floor) for g, w in zip(grads, weights, strict=True)]
    clip_adaptively_(grads, weights, threshold, floor)
    for got, right in zip(grads, expected, strict=True):
        torch.testing.assert_close(got.double(), right, rtol=1e-5, atol=1e-9)


@given(SEEDS, st.floats(1e-3, 1e3), st.floats(1e-3, 1.0))
def test_adaptive_clipping_bounds_each_unit_and_agrees_with_itself(seed, size, threshold):
    grads, weights = gradients(seed, size, torch.float64), gradients(seed + 1, 1, torch.float64)
    before = copies(grads)
    clipped, units = clip_adaptively_(grads, weights, threshold)
    assert units == 4 + 1 + 1 + 2
    assert 0 <= clipped <= units
    for g, w in zip(grads[:-1], weights[:-1], strict=True):
        limit = threshold * unit_norms(w).clamp(min=1e-3)
        assert bool((unit_norms(g) <= limit * (1 + 1e-9)).all())
    if clipped == 0:
        assert same(grads, before)
    twice = copies(grads)
    clip_adaptively_(twice, weights, threshold)
    torch.testing.assert_close(twice, grads, rtol=1e-12, atol=0.0)


@given(SEEDS)
def test_adaptive_clipping_follows_a_permutation_of_units(seed):
    (gradient, *_), (weight, *_) = gradients(seed, 10.0), gradients(seed + 1)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    permuted = gradient[order].clone()
    clip_adaptively_([gradient], [weight])
    clip_adaptively_([permuted], [weight[order]])
    assert torch.equal(permuted, gradient[order])


def test_the_unit_dimension_of_transposed_convolutions_is_the_second():
    gradient, weight = torch.randn(3, 5, 2, 2), torch.randn(3, 5, 2, 2)
    expected = agc_reference(gradient, weight, 0.01, 1e-3, dim=1)
    _, units = clip_adaptively_([gradient], [weight], unit_dims=[1])
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-9)
    assert units == 5


def test_zero_initialised_weights_can_move():
    gradient = torch.ones(2, 4)
    clip_adaptively_([gradient], [torch.zeros(2, 4)], 0.01)
    torch.testing.assert_close(gradient.norm(dim=1), torch.full((2,), 1e-5))


def test_a_unit_with_a_nan_is_left_alone_and_spoils_no_other():
    gradient = torch.ones(2, 2)
    gradient[0, 0] = math.nan
    clip_adaptively_([gradient], [torch.ones(2, 2)])
    assert gradient[0, 1] == 1.0
    assert gradient[1].norm().item() == pytest.approx(0.01 * math.sqrt(2))


def test_adaptive_clipping_of_nothing():
    clipped, units = clip_adaptively_([], [])
    assert (int(clipped), units) == (0, 0)
    clipped, units = clip_adaptively_([torch.zeros(0, 3)], [torch.zeros(0, 3)])
    assert (int(clipped), units) == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_adaptive_clipping_keeps_the_precision(dtype):
    gradient, weight = torch.full((2, 4), 100.0, dtype=dtype), torch.ones(2, 4, dtype=dtype)
    clip_adaptively_([gradient], [weight])
    assert gradient.dtype is dtype
    torch.testing.assert_close(unit_norms(gradient), torch.full((2, 1), 0.02), rtol=1e-2, atol=0)


def test_adaptive_clipping_of_a_sparse_gradient_bounds_the_rows_that_it_has():
    gradient = sparse([1, 1, 3], 10.0 * torch.ones(3, 4), (5, 4))
    dense, weight = gradient.to_dense(), torch.randn(5, 4)
    clip_adaptively_([gradient], [weight])
    clip_adaptively_([dense], [weight])
    torch.testing.assert_close(gradient.to_dense(), dense)
    empty = sparse([], torch.zeros(0, 4), (5, 4))
    clip_adaptively_([empty], [weight])
    assert not empty.to_dense().any()


def test_unit_norms_of_vectors_scalars_and_filters():
    assert unit_norms(torch.tensor([3.0, 4.0])).tolist() == [5.0]
    assert unit_norms(torch.tensor(-2.0)).item() == 2.0
    assert unit_norms(torch.ones(2, 3, 3)).shape == (2, 1, 1)
    assert unit_norms(torch.full((1, 4), 300.0, dtype=torch.float16)).item() == 600.0


def test_sharded_units_are_clipped_and_counted_like_whole_ones(mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    gradient, weight = torch.randn(4, 3), torch.randn(4, 3)
    plain = gradient.clone()
    split = [distribute_tensor(t.clone(), mesh, [Shard(0)]) for t in (gradient, weight)]
    expected = clip_adaptively_([plain], [weight])
    count, units = clip_adaptively_(split[:1], split[1:])
    assert (int(full_tensor(count)), units) == (int(expected[0]), expected[1])
    torch.testing.assert_close(full_tensor(split[0]), plain)
    count, units = clip_adaptively_([split[0], gradient], [split[1], weight])
    assert units == 8
    assert 4 <= int(count) <= 8

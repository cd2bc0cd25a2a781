"""Norms of many tensors: every reference is torch's own norm, or a sum in double precision."""

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.functional.norms import (
    exact_total_norm,
    first_nonfinite,
    full_tensor,
    is_sharded,
    local_shard,
    plain_values,
    storage_of,
    tensor_norms,
    total_norm,
)

SHAPES = st.lists(
    st.sampled_from([(), (0,), (1,), (7,), (3, 4), (2, 3, 5), (0, 4)]), min_size=1, max_size=8
)
FLOAT_TYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
ORDERS = st.sampled_from([1.0, 2.0, 3.0, math.inf])


def drawn(shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator).to(dtype) for s in shapes]


def sparse(rows, values, size):
    indices = torch.tensor([rows], dtype=torch.long)
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=True)


def reference(tensor, order=2.0):
    values = (tensor.to_dense() if tensor.is_sparse else tensor).flatten()
    wide = values.to(torch.complex128 if values.is_complex() else torch.float64).abs()
    return torch.linalg.vector_norm(wide, order).item() if wide.numel() else 0.0


def assert_right(tensors, order=2.0):
    norms = tensor_norms(tensors, order)
    assert norms.shape == (len(tensors),)
    expected = torch.tensor([reference(t, order) for t in tensors], dtype=torch.float64)
    torch.testing.assert_close(norms.double(), expected, rtol=1e-5, atol=1e-6)


@given(SHAPES, FLOAT_TYPES, ORDERS, st.integers(0, 9))
def test_each_norm_is_that_of_the_tensor_alone(shapes, dtype, order, seed):
    assert_right(drawn(shapes, dtype, seed), order)


@given(st.lists(FLOAT_TYPES, min_size=2, max_size=6), ORDERS)
def test_precisions_may_be_mixed(dtypes, order):
    tensors = [drawn([(5,)], dtype, i)[0] for i, dtype in enumerate(dtypes)]
    assert_right(tensors, order)
    wide = torch.float64 in dtypes
    assert tensor_norms(tensors, order).dtype is (torch.float64 if wide else torch.float32)


@given(SHAPES, st.randoms(use_true_random=False))
def test_norms_follow_a_permutation(shapes, random):
    tensors = drawn(shapes)
    order = list(range(len(tensors)))
    random.shuffle(order)
    assert torch.equal(tensor_norms([tensors[i] for i in order]), tensor_norms(tensors)[order])


@given(SHAPES, ORDERS)
def test_the_total_is_the_norm_of_the_concatenation(shapes, order):
    tensors = drawn(shapes)
    whole = torch.cat([t.flatten() for t in tensors])
    expected = torch.linalg.vector_norm(whole, order) if whole.numel() else torch.tensor(0.0)
    torch.testing.assert_close(total_norm(tensor_norms(tensors, order), order), expected)


@given(SHAPES, st.integers(0, 9))
def test_the_total_equals_torchs_bit_for_bit(shapes, seed):
    tensors = drawn(shapes, seed=seed)
    expected = torch.nn.utils.get_total_norm(tensors)
    assert torch.equal(total_norm(tensor_norms(tensors)), expected)


@given(st.floats(-1e3, 1e3, allow_nan=False).filter(lambda c: abs(c) > 1e-3))
def test_norms_scale_with_the_tensors(factor):
    tensors = drawn([(4, 4), (3,)], torch.float64)
    scaled = tensor_norms([factor * t for t in tensors])
    torch.testing.assert_close(scaled, abs(factor) * tensor_norms(tensors))


def test_no_tensors_have_no_norms_and_a_total_of_zero():
    assert tensor_norms([]).shape == (0,)
    assert total_norm(tensor_norms([])).item() == 0.0


def test_a_bfloat16_norm_is_accumulated_in_float32():
    tensor = torch.full((99_540,), 1.0, dtype=torch.bfloat16)
    assert tensor_norms([tensor]).item() == pytest.approx(math.sqrt(99_540), rel=1e-6)
    assert tensor_norms([tensor]).dtype is torch.float32


@pytest.mark.parametrize("order", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_entries_count_with_their_magnitude(dtype, order):
    tensors = [torch.randn(3, 4, dtype=dtype), torch.randn(5, dtype=dtype).conj()]
    assert_right(tensors, order)
    assert not tensor_norms(tensors, order).is_complex()


@pytest.mark.parametrize("order", [2.0, math.inf])
def test_sparse_gradients_are_measured_like_dense_ones(order):
    filled = sparse([0, 2, 2], torch.randn(3, 4), (5, 4))  # row 2 stands twice
    empty = sparse([], torch.zeros(0, 4), (5, 4))
    assert_right([filled, torch.randn(3), empty], order)
    assert exact_total_norm([filled, empty]) == pytest.approx(reference(filled))


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 3))
def test_a_nonfinite_entry_shows_in_its_own_norm_only(bad, place):
    tensors = drawn([(3,)] * 4)
    tensors[place][1] = bad
    finite = torch.isfinite(tensor_norms(tensors)).tolist()
    assert finite == [i != place for i in range(4)]
    assert not math.isfinite(total_norm(tensor_norms(tensors)))
    assert first_nonfinite(tensors) == place
    assert not math.isfinite(exact_total_norm(tensors))


def test_first_nonfinite_passes_over_finite_tensors():
    assert first_nonfinite([torch.ones(2), torch.zeros(0)]) is None
    assert first_nonfinite([]) is None
    bad = sparse([1], torch.tensor([math.nan]), (3,))
    assert first_nonfinite([torch.ones(1), bad]) == 1


@given(st.floats(1e-30, 1e37), st.integers(1, 50))
def test_the_exact_norm_holds_where_float32_overflows(size, count):
    entries = torch.full((count,), size)
    expected = math.sqrt(count) * float(entries[0])
    assert exact_total_norm([entries, torch.zeros(0)]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1e-200, 1e200, 1e307])
def test_the_exact_norm_is_scaled_against_overflow_and_underflow(size):
    entries = torch.full((4,), size, dtype=torch.float64)
    assert exact_total_norm([entries]) == pytest.approx(2 * size, rel=1e-12, abs=0.0)


def test_the_exact_norm_of_zeros_and_of_nothing_is_zero():
    assert exact_total_norm([]) == 0.0
    assert exact_total_norm([torch.zeros(3), torch.zeros(0)]) == 0.0


def test_the_exact_norm_of_complex_and_sparse_gradients():
    entries = torch.full((4,), 3e30 + 4e30j, dtype=torch.complex64)
    assert exact_total_norm([entries]) == pytest.approx(1e31, rel=1e-6)
    twice = sparse([0, 0], torch.tensor([1e30, 1e30]), (3,))
    assert exact_total_norm([twice]) == pytest.approx(2e30, rel=1e-6)


def test_a_whole_tensor_is_its_own_shard():
    tensor = torch.ones(2)
    assert local_shard(tensor) is tensor
    assert not is_sharded(tensor)
    assert plain_values(tensor) is tensor


@pytest.mark.parametrize("order", [2.0, math.inf])
def test_sharded_tensors_have_the_norm_of_the_whole(mesh, order):
    from torch.distributed.tensor import Shard, distribute_tensor

    whole = drawn([(4, 3), (5,)])
    shards = [distribute_tensor(t, mesh, [Shard(0)]) for t in whole]
    mixed = [shards[0], torch.ones(2), shards[1]]
    norms = tensor_norms(mixed, order)
    assert not is_sharded(norms)
    torch.testing.assert_close(norms, tensor_norms([whole[0], torch.ones(2), whole[1]], order))
    assert torch.equal(tensor_norms(shards), tensor_norms(whole))
    assert exact_total_norm(shards) == exact_total_norm(whole)
    assert is_sharded(shards[0])
    half = [t.bfloat16() for t in whole]  # measured in single precision, sharded or not
    halves = [distribute_tensor(t, mesh, [Shard(0)]) for t in half]
    assert tensor_norms(halves, order).dtype == torch.float32
    assert torch.equal(tensor_norms(halves, order), tensor_norms(half, order))
    assert torch.equal(full_tensor(shards[0]), whole[0])
    assert full_tensor(whole[0]) is whole[0]
    assert torch.equal(local_shard(shards[0]), whole[0])
    assert first_nonfinite([shards[0], shards[1] / 0]) == 1


def test_norms_work_in_a_torch_without_distributed_tensors(monkeypatch):
    import importlib.util

    from lightning_stab.functional import norms

    monkeypatch.setitem(sys.modules, "torch.distributed.tensor", None)
    spec = importlib.util.spec_from_file_location("norms_alone", norms.__file__)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert alone.tensor_norms([torch.tensor([3.0, 4.0])]).tolist() == [5.0]
    assert not alone.is_sharded(torch.ones(1))


KINDS = {
    "coo": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.zeros(3, device="meta"),
    "lazy": lambda: torch.nn.LazyLinear(2).weight,
    "empty": lambda: torch.zeros(0),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2)], layout=torch.jagged),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_without_an_address_is_known_by_itself(kind):
    one, other = KINDS[kind](), KINDS[kind]()
    assert storage_of(one) == storage_of(one) != storage_of(other)


def test_views_share_their_storage_also_inside_of_vmap():
    whole = torch.zeros(4, 2)
    assert storage_of(whole.T[1:]) == storage_of(whole.detach()) != storage_of(whole.clone())
    seen = []
    torch.vmap(lambda row: seen.append(storage_of(row)) or row)(whole)
    assert len(seen) == 1


def test_measuring_changes_nothing():
    tensors = drawn([(3, 4), (5,)])
    before = [t.clone() for t in tensors]
    tensor_norms(tensors)
    exact_total_norm(tensors)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_greatest_magnitude_is_that_of_torchs_own_call(dtype):
    generator = torch.Generator().manual_seed(0)
    some = [torch.randn(shape, generator=generator).to(dtype) for shape in ((), (7,), (3, 5, 2))]
    some += [some[2].mT, some[1][::2], -some[1].abs(), torch.zeros(2, dtype=dtype)]
    for bad in (math.inf, -math.inf, math.nan):
        some.append(torch.tensor([1.0, bad, -2.0], dtype=dtype))
    whole = torch.stack(torch._foreach_norm(some, math.inf)).to(tensor_norms(some, math.inf))
    torch.testing.assert_close(tensor_norms(some, math.inf), whole, rtol=0, atol=0, equal_nan=True)
    elsewhere = [each.to("meta") for each in some]  # of a device that is no CPU
    found = tensor_norms(elsewhere, math.inf)
    assert (found.device.type, found.shape) == ("meta", (len(some),))

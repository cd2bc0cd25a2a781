"""Statistics of gradients and weight changes against torch's own functions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.functional.gradient_statistics import (
    WeightChange,
    by_layer,
    change_and_size,
    cosine,
    count_zero_and_nonfinite,
    largest_magnitudes,
    layer_of,
    log_ratio,
    ratios,
)

SEEDS = st.integers(0, 1000)
SHAPES = [(3, 4), (5,), ()]


def drawn(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=dtype) for s in SHAPES]


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def sparse(rows, values, size):
    indices = torch.tensor([rows], dtype=torch.long)
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=True)


@given(SEEDS)
def test_largest_magnitudes(seed):
    tensors = [*drawn(seed), torch.zeros(0, dtype=torch.float64)]
    assert largest_magnitudes(tensors).tolist() == [*(t.abs().max().item() for t in tensors[:3]), 0]


@given(st.lists(st.sampled_from([0.0, 1.0, -2.0, math.nan, math.inf]), max_size=12))
def test_zero_and_nonfinite_entries_are_counted(entries):
    tensor = torch.tensor(entries)
    expected = [entries.count(0.0), sum(not math.isfinite(e) for e in entries)]
    assert count_zero_and_nonfinite([tensor, torch.ones(2)]).tolist() == [expected, [0, 0]]


def test_counting_nothing_and_sparse_and_complex():
    assert count_zero_and_nonfinite([]).shape == (0, 2)
    gradient = sparse([1, 1], torch.tensor([[1.0, 0.0], [1.0, math.nan]]), (3, 2))
    assert count_zero_and_nonfinite([gradient]).tolist() == [[4, 1]]
    assert count_zero_and_nonfinite([torch.tensor([0j, 1j])]).tolist() == [[1, 0]]


@given(SEEDS, SEEDS)
def test_the_cosine_is_torchs(first, second):
    a, b = drawn(first), drawn(second)
    expected = torch.cosine_similarity(flat(a), flat(b), dim=0)
    torch.testing.assert_close(cosine(a, b), expected)
    assert torch.equal(cosine(a, b), cosine(b, a))


@given(SEEDS, st.floats(1e-6, 1e6))
def test_the_cosine_has_no_scale_and_knows_itself(seed, factor):
    a = drawn(seed)
    torch.testing.assert_close(cosine(a, [factor * t for t in a]).item(), 1.0)
    torch.testing.assert_close(cosine(a, [-factor * t for t in a]).item(), -1.0)


@pytest.mark.parametrize("size", [1e-15, 1e-9, 1e9, 1e15])
def test_the_cosine_of_tiny_and_huge_gradients(size):
    a, b = [size * torch.tensor([1.0, 0.0])], [size * torch.tensor([1.0, 1.0])]
    assert cosine(a, b).item() == pytest.approx(math.sqrt(0.5), rel=1e-5)


def test_the_cosine_with_a_zero_gradient_is_zero():
    assert cosine([torch.zeros(3)], [torch.ones(3)]) == 0


def test_the_cosine_of_low_precisions_sparse_and_complex_gradients():
    low = [torch.full((1000,), 0.1, dtype=torch.bfloat16)]
    assert cosine(low, low).item() == pytest.approx(1.0, abs=1e-5)
    rows = sparse([0, 2], torch.tensor([1.0, 1.0]), (3,))
    assert cosine([rows], [torch.tensor([1.0, 0.0, 0.0])]).item() == pytest.approx(math.sqrt(0.5))
    turned = cosine([torch.tensor([1 + 0j])], [torch.tensor([0 + 1j])])
    assert turned == 0
    assert not turned.is_complex()


@given(SEEDS)
def test_change_and_size_are_norms(seed):
    before, after = drawn(seed), drawn(seed + 1)
    change, size = change_and_size(before, after)
    assert change.tolist() == pytest.approx(
        [(a - b).norm().item() for a, b in zip(after, before, strict=True)]
    )
    assert size.tolist() == pytest.approx([b.norm().item() for b in before])


@given(SEEDS)
def test_the_change_of_weights_is_that_since_the_copies(seed):
    weights, after = drawn(seed), drawn(seed + 1)
    expected = change_and_size([w.clone() for w in weights], after)
    whole, sampled = WeightChange(weights), WeightChange(weights, sample=64)
    for weight, value in zip(weights, after, strict=True):
        weight.copy_(value)
    for change in (whole, sampled):  # a sample as large as the weights is all of them
        assert all(torch.equal(*pair) for pair in zip(change.norms(), expected, strict=True))


def test_a_sample_is_spread_over_the_weight():
    weight = torch.nn.Parameter(torch.ones(100, 10))
    change = WeightChange([weight], sample=100)
    weight.data[:, 0] = 3.0
    weight.data[:, 5] = 0.0  # between the entries of the sample
    assert [norms.item() for norms in change.norms()] == [20.0, 10.0]


def test_a_change_below_bfloat16s_resolution_of_the_sum_is_seen():
    before = torch.full((4,), 1.0, dtype=torch.bfloat16)
    change, _ = change_and_size([before], [before + 2**-7])
    assert change.item() == pytest.approx(2 * 2**-7, rel=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_layers_keep_the_total_norm(norms):
    names = [f"layer{i % 3}.{i}" for i in range(len(norms))]
    layers = by_layer(names, norms)
    assert set(layers) == {f"layer{i % 3}" for i in range(len(norms))}
    total = math.sqrt(sum(n * n for n in layers.values()))
    assert total == pytest.approx(math.sqrt(sum(n * n for n in norms)))


def test_the_layer_of_a_parameter():
    assert layer_of("net.0.weight") == "net.0"
    assert layer_of("scale") == "scale"


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_log_ratio(first, last):
    assert log_ratio(first, last) == pytest.approx(math.log10(first) - math.log10(last), abs=1e-9)
    assert log_ratio(first, last) == pytest.approx(-log_ratio(last, first), abs=1e-9)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_log_ratio_of_what_has_none(bad):
    assert math.isnan(log_ratio(bad, 1.0))
    assert math.isnan(log_ratio(1.0, bad))


def test_log_ratio_of_the_farthest_values():
    assert log_ratio(1e300, 1e-300) == pytest.approx(600.0)
    assert log_ratio(1e-300, 1e300) == pytest.approx(-600.0)


def test_ratios_leave_out_zero_denominators():
    assert ratios({"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 0.0}) == {"a": 0.25}

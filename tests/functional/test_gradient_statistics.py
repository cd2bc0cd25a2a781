"""Statistics of gradients and weight changes against torch's own functions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.functional import gradient_statistics
from lightning_stab.functional.gradient_statistics import (
    by_layer,
    change_and_size,
    copy_entries,
    cosine,
    count_zero_and_nonfinite,
    largest_magnitudes,
    layer_of,
    log_ratio,
    noise_and_signal,
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("size", [4095, 4096, 2**16, 2**16 + 1, 200_000])
def test_zeros_of_large_tensors_are_counted_whatever_else_is_in_them(size, dtype):
    whole = torch.arange(size) % 5 - 2
    rest = [math.nan, math.inf, -math.inf] if dtype.is_floating_point else [1, 2, -3]
    tensor = whole.to(dtype)
    tensor[:3] = torch.tensor(rest, dtype=dtype)
    zeros = int((whole[3:] == 0).sum())
    nonfinite = 3 * dtype.is_floating_point
    found = count_zero_and_nonfinite([tensor, tensor.reshape(1, -1), tensor[:0]])
    assert found.tolist() == [[zeros, nonfinite]] * 2 + [[0, 0]]


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16, torch.float64])
def test_zeros_are_counted_exactly_whatever_the_default_precision(default):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        found = count_zero_and_nonfinite([torch.ones(2**16 - 1), torch.zeros(5001)])
    finally:
        torch.set_default_dtype(before)
    assert found.tolist() == [[0, 0], [5001, 0]]


def test_zeros_are_counted_whatever_the_default_device():
    tensor = torch.ones(5000)
    torch.set_default_device("meta")
    try:
        found = count_zero_and_nonfinite([tensor], nonfinite=False)
    finally:
        torch.set_default_device(None)
    assert found.tolist() == [[0, 0]]


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


def test_a_change_below_bfloat16s_resolution_of_the_sum_is_seen():
    before = torch.full((4,), 1.0, dtype=torch.bfloat16)
    change, _ = change_and_size([before], [before + 2**-7])
    assert change.item() == pytest.approx(2 * 2**-7, rel=1e-6)


@given(SEEDS, st.integers(1, 100))
def test_a_sample_of_the_entries_tells_the_size_of_a_change(seed, sample):
    before = [torch.randn(40, 50, generator=torch.Generator().manual_seed(seed)), torch.ones(())]
    copies = copy_entries(before, sample)
    assert all(sample <= c.numel() <= 2 * sample for c in copies[:1])
    expected = [t.reshape(-1)[:: max(1, t.numel() // sample)] for t in before]
    assert all(map(torch.equal, copies, expected))
    change, size = change_and_size(copies, [1.5 * t for t in before], sample)
    torch.testing.assert_close(change / size, torch.full((2,), 0.5))


@pytest.mark.parametrize("sample", [None, 4, [4, 4]])
def test_copies_and_changes_of_weights_need_no_gradient(sample):
    weights = [torch.nn.Parameter(torch.ones(size)) for size in ((3,), (3, 4))]
    copies = copy_entries(weights, sample)
    found = change_and_size(copies, weights, sample)
    assert not any(t.requires_grad for t in (*copies, *found))
    with torch.no_grad():
        for weight in weights:
            weight.mul_(2.0)
    assert all(bool((copy == 1).all()) for copy in copies)
    change, size = change_and_size(copies, weights, sample)
    torch.testing.assert_close(change, size)


def test_copies_do_not_follow_the_weights():
    weight = torch.nn.Parameter(torch.ones(3))
    (copy,) = copy_entries([weight])
    with torch.no_grad():
        weight.mul_(2.0)
    assert copy.tolist() == [1.0, 1.0, 1.0]
    assert not copy.requires_grad


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


# --- the noise scale ------------------------------------------------------------------------------


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


def test_gradients_of_several_lengths_are_refused():
    one, two = [torch.ones(2)], [torch.ones(2), torch.ones(3)]
    for call in (cosine, change_and_size):
        for pair in ((one, two), (two, one)):
            with pytest.raises(ValueError, match="argument 2 is"):
                call(*pair)
    with pytest.raises(ValueError, match="argument 2 is"):
        by_layer(["a.weight"], [1.0, 2.0])


def test_the_cosine_of_nothing_is_zero_and_of_what_is_not_finite_too():
    zero = [torch.zeros(3)]
    assert cosine(zero, zero) == 0
    for broken in (math.nan, math.inf, -math.inf):
        assert cosine([torch.tensor([1.0, broken])], [torch.ones(2)]) == 0
        assert cosine([torch.ones(2)], [torch.tensor([1.0, broken])]) == 0


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_the_cosine_of_doubles_beyond_single_precision(size):
    gradient = [size * torch.tensor([1.0, 2.0], dtype=torch.float64)]
    assert cosine(gradient, gradient).item() == pytest.approx(1.0)


@given(SEEDS)
def test_the_cosine_stays_within_its_range(seed):
    gradient = drawn(seed)
    for factor in (1.0, 3.0, -0.1):
        assert abs(cosine(gradient, [factor * t for t in gradient]).item()) <= 1.0


def test_samples_of_sharded_tensors_say_what_those_of_whole_ones_say(mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    first, second = [torch.randn(4, 3), torch.randn(7)], [torch.randn(4, 3), torch.randn(7)]
    sample = [6, 3]
    shards = [[distribute_tensor(ts[0], mesh, [Shard(0)]), ts[1]] for ts in (first, second)]
    results = []
    for before, after in ((first, second), shards):
        kept = copy_entries(before, sample)
        cosine_ = cosine(kept, copy_entries(after, sample), after)
        results.append([cosine_, *change_and_size(kept, after, sample)])
    torch.testing.assert_close(results[0], results[1])


def test_counts_are_the_same_in_pieces_and_without_the_second_column(monkeypatch):
    values = torch.tensor([0.0, 1.0, math.nan, 0.0, math.inf, 2.0, 0.0])
    whole = count_zero_and_nonfinite([values, values[:2]])
    assert whole.tolist() == [[3, 2], [1, 0]]
    zeros = count_zero_and_nonfinite([values, values[:2]], nonfinite=False)
    assert zeros.tolist() == [[3, 0], [1, 0]]
    monkeypatch.setattr(gradient_statistics, "CHUNK", 3)
    assert torch.equal(count_zero_and_nonfinite([values, values[:2]]), whole)


def test_the_cosine_of_any_precisions_and_layouts_is_that_in_double_precision():
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, -8.0]])
    half, turned = a.half(), a.T.contiguous().T
    expected = torch.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0)
    for one, other in (
        (a, b), (a, b.double()), (half, b), (half, b.half()), (turned, b),
        (a, b.to_sparse()), (a.to_sparse(), b), (a, b.requires_grad_()),
    ):  # fmt: skip
        kept = one.clone()
        found = cosine([one, one], [other, other])
        assert found.dtype is torch.float64
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
        assert torch.equal(one.to_dense(), kept.to_dense())  # what is weighed is a copy
    z, w = torch.tensor([1 + 2j, 3 - 1j]), torch.tensor([2 - 1j, 1 + 1j])
    real = [torch.view_as_real(each).flatten().double() for each in (z, w)]
    assert cosine([z.conj()], [w.conj()]).item() == cosine([z], [w]).item()
    assert cosine([z], [w]).item() == pytest.approx(torch.cosine_similarity(*real, dim=0).item())


def test_double_precision_is_not_changed_by_the_cosine():
    whole = torch.arange(8.0, dtype=torch.float64)
    copies = copy_entries([whole], [4])
    kept = copies[0].clone()
    assert cosine(copies, copies, [whole]).item() == pytest.approx(1.0)
    assert torch.equal(copies[0], kept)

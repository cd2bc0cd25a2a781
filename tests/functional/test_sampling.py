"""Fixed samples: all columns have their turn, estimates keep their bounds, memory stays small."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_stab.functional import gradient_statistics, sampling
from lightning_stab.functional.activation_kinds import activation_kind
from lightning_stab.functional.activations import mean_and_variance, saturated_fraction
from lightning_stab.functional.gradient_statistics import (
    change_and_size,
    copy_entries,
    cosine,
)

SHAPES = [(3000, 2048), (64, 3, 7, 7), (500,), (4096, 512)]


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 200))
def test_a_sample_is_large_enough_and_visits_every_column_that_it_can(rows, columns, size):
    tensor = torch.arange(rows * columns).reshape(rows, columns)
    found = sampling.sampled(tensor, size)
    assert len(found) >= min(size, tensor.numel())
    stride = int(found[1] - found[0]) if len(found) > 1 else 1
    assert math.gcd(stride, columns) == 1
    if len(found) >= columns:
        assert len((found % columns).unique()) == columns


@given(st.integers(2, 60), st.integers(1, 40), st.sampled_from([1, 2, 3, 4, 5]), st.integers(1, 99))
def test_of_a_convolution_every_place_of_a_filter_has_its_turn(filters, channels, width, size):
    tensor = torch.arange(filters * channels * width).reshape(filters, channels, width)
    found = sampling.sampled(tensor, size)
    places = (found % (channels * width)).unique()
    assert len(places) == min(len(found), channels * width)


def test_channels_of_different_sizes_do_not_bias_a_sample():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-3, 0, 128)[None, :, None, None]
    filters = sizes * torch.randn(256, 128, 3, 3, generator=generator)
    found = sampling.sampled(filters, 4608)
    # half the entries of a filter are in channels below 0.03 of the largest
    expected = float(filters.square().mean().sqrt())
    assert float(found.square().mean().sqrt()) == pytest.approx(expected, rel=0.1)


def test_samples_of_large_nets_are_small_and_small_nets_are_read_whole(weights):
    sizes = sampling.sample_sizes(weights)
    copies = copy_entries(weights, sizes)
    entries = sum(w.numel() for w in weights)
    assert entries > sampling.WHOLE
    storages = {c.untyped_storage().data_ptr(): c.untyped_storage().nbytes() for c in copies}
    assert sum(storages.values()) < 0.02 * 4 * entries
    assert sampling.sample_sizes(weights[1:3]) == [64 * 3 * 7 * 7, 500]


def test_the_update_ratio_of_a_sample_is_that_of_all_within_its_bound(weights):
    sizes = sampling.sample_sizes(weights)
    generator = torch.Generator().manual_seed(1)
    noise = [1e-3 * torch.randn(w.shape, generator=generator) for w in weights]
    after = [w + n for w, n in zip(weights, noise, strict=True)]
    change, size = change_and_size(copy_entries(weights, sizes), after, sizes)
    for c, s, w, n in zip(change, size, weights, noise, strict=True):
        bound = 4 / math.sqrt(2 * min(sampling.LEAST, w.numel()))  # four standard deviations
        assert float(c) == pytest.approx(float(n.norm()), rel=bound)
        assert float(s) == pytest.approx(float(w.norm()), rel=bound)


@pytest.mark.parametrize("mixture", [0.0, 0.3, 1.0, -0.8])
def test_the_cosine_of_a_sample_is_that_of_all_within_its_bound(weights, mixture):
    sizes = sampling.sample_sizes(weights)
    generator = torch.Generator().manual_seed(2)
    other = [
        mixture * w + math.sqrt(1 - mixture**2) * torch.randn(w.shape, generator=generator)
        for w in weights
    ]
    found = float(cosine(copy_entries(weights, sizes), copy_entries(other, sizes), weights))
    exact = float(cosine(weights, other))
    entries = sum(map(len, copy_entries(weights, sizes)))
    assert abs(found - exact) <= 4 / math.sqrt(entries) + 1e-6
    assert -1 - 1e-6 <= found <= 1 + 1e-6


def test_each_tensor_counts_by_its_whole_size_in_the_cosine():
    tensors = [torch.ones(1000, 2048), torch.ones(500), torch.ones(2000, 500)]
    other = [tensors[0], -tensors[1], -tensors[2]]
    sizes = sampling.sample_sizes(tensors)
    copies = copy_entries(tensors, sizes), copy_entries(other, sizes)
    assert [t.numel() // c.numel() for t, c in zip(tensors, copies[0], strict=True)] == [62, 1, 62]
    found = float(cosine(*copies, tensors))
    assert found == pytest.approx(float(cosine(tensors, other)), abs=1e-6)


def test_the_cosine_of_a_large_sample_converts_few_entries_at_a_time(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    first, second = ([torch.randn(50, generator=generator) for _ in range(20)] for _ in range(2))
    whole, alone = cosine(first, second), []
    original = gradient_statistics.in_double
    monkeypatch.setattr(gradient_statistics, "JOINED", 120)
    monkeypatch.setattr(
        gradient_statistics, "in_double", lambda t: alone.append(t.numel()) or original(t)
    )
    assert cosine(first, second).item() == pytest.approx(whole.item(), rel=1e-12)
    assert alone == [150] * 12 + [100] * 2


def test_the_cosine_with_nothing_is_nothing(weights):
    sizes = sampling.sample_sizes(weights)
    zeros = [torch.zeros_like(w) for w in weights]
    assert float(cosine(copy_entries(zeros, sizes), copy_entries(weights, sizes), zeros)) == 0


def test_samples_of_activations_keep_mean_and_spread():
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(16, 24, 96, 96, generator=generator)  # 3.5 million entries
    values += torch.arange(24.0)[:, None, None]
    mean, variance = mean_and_variance(values)
    assert float(mean) == pytest.approx(float(values.mean()), rel=2e-3)
    assert float(variance) == pytest.approx(float(values.var()), rel=5e-3)
    mean, variance = mean_and_variance(values, 1)
    assert float(variance) == pytest.approx(1.0, rel=5e-3)
    found = saturated_fraction(values - 12, activation_kind("tanh"))
    flat = ((values - 12).abs() > 2.65).float().mean()
    assert float(found) == pytest.approx(float(flat), abs=5e-3)


def test_views_are_taken_where_values_are_few():
    small = torch.ones(4, 3)
    assert sampling.few_rows(small) is small
    assert sampling.few_entries(small) is small
    assert sampling.per_sample(small) is small
    assert sampling.few_rows(torch.ones(())).shape == ()
    assert sampling.per_sample(torch.ones(0, 3), most=-1).shape == (0, 3)
    assert sampling.few_rows(torch.ones(10, 3), most=6).shape == (2, 3)


def test_fixed_signs_are_those_of_a_hash_in_whole_numbers_and_balanced():
    def sign(place):
        bits = place
        for factor in (-2048144789, -1028477387, -1640531535):
            bits = (bits ^ bits >> 15) * factor % 2**32
        return -1.0 if (bits ^ bits >> 15) >> 31 else 1.0

    signs = sampling.fixed_signs(torch.empty(300, 1000, dtype=torch.bfloat16))
    assert signs.dtype == torch.bfloat16
    assert signs.flatten()[-500:].tolist() == [sign(place) for place in range(299_500, 300_000)]
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    rows = signs.float()
    assert float(rows.mean()) == pytest.approx(0, abs=5 / math.sqrt(rows.numel()))
    between = (rows @ rows.T / 1000).fill_diagonal_(0)  # as of independent signs
    assert float(between.std()) == pytest.approx(1 / math.sqrt(1000), rel=0.05)


def test_fixed_numbers_are_uniform():
    numbers = sampling.fixed_numbers(torch.empty(100_000, dtype=torch.float64))
    shares = torch.histc(numbers, 10, -1, 1) / len(numbers)
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.005)


def test_samples_at_the_very_limits():
    x = torch.arange(12).reshape(2, 6)
    for most, few, entries, of_each in (
        (12, x, x, x),
        (11, x[::2], x.flatten(), x),  # a stride of 1: 12 // 11; of 2 it shares with a row of 6
        (6, x[::2], x.flatten(), x),
        (2, x[::2], x.flatten()[::5], x[:, ::5]),
        (1, x[::2], x.flatten()[::11], x[:, ::11]),
        (0, None, x.flatten()[::11], x[:, ::11]),
    ):
        if few is not None:
            assert sampling.few_rows(x, most).tolist() == few.tolist(), most
        assert sampling.few_entries(x, most).flatten().tolist() == entries.flatten().tolist(), most
        assert sampling.per_sample(x, most).tolist() == of_each.tolist(), most
    assert (
        sampling.few_rows(x, 12) is sampling.few_entries(x, 12) is sampling.per_sample(x, 12) is x
    )
    deep = torch.arange(24).reshape(2, 3, 4)  # the entries of a sample in one row
    assert sampling.per_sample(deep, 1).tolist() == [[0], [12]]
    whole, least = 524_288, 4_096
    meta = [torch.empty(n, device="meta") for n in (whole, 1, 64 * 5_000, 64 * 65_537)]
    assert sampling.sample_sizes(meta[:1]) == [meta[0].numel()]
    assert sampling.sample_sizes(meta[:2]) == [8_192, least]
    assert sampling.sample_sizes(meta) == [8_192, least, 5_000, 65_536]

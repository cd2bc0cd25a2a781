"""Laws of the statistics of activations: permutations, batches taken together, references."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_stab.functional.activation_kinds import CATALOGUE, activation_kind
from lightning_stab.functional.activations import (
    dead_units,
    mean_and_variance,
    pool_moments,
    saturated_fraction,
    unit_dimension,
    unit_is_dead,
    unit_peaks,
)

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(6, 5), (4, 3, 5), (3, 5, 4, 2), (2, 5, 3, 2, 2)])


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "maker", "features", "unit"),
    [
        ((8, 16), -1, 16, 1),
        ((8, 5, 16), -1, 16, 2),
        ((8, 16, 5), -2, 16, 1),  # Conv1d
        ((8, 16, 5, 5), -3, 16, 1),
        ((16, 5, 5), -3, 16, 0),  # Conv2d without a batch
        ((8, 16, 5, 5, 5), -4, 16, 1),
        ((8, 16), 1, 16, 1),  # BatchNorm1d
        ((8, 16, 5), 1, 16, 1),
        ((8, 5, 5, 16), -1, 16, 3),  # a linear layer in a channels-last net
        ((8, 5, 5, 16), 1, 16, 3),  # features tell where the channels are
        ((8, 16, 5, 5), -1, 16, 1),
        ((8, 32, 5, 5), -3, 16, 1),  # after a concatenation
        ((8, 400), -3, 16, 1),  # after a flattening
        ((8, 16, 5, 5), None, 0, 1),
        ((8, 5, 16), None, 0, 2),
        ((8, 16), None, 0, 1),
    ],
)
def test_what_made_a_tensor_says_which_dimension_counts_units(shape, maker, features, unit):
    assert unit_dimension(shape, maker, features) == unit


# --- dead -----------------------------------------------------------------------------------------


@given(seed=SEEDS, shape=SHAPES, unit=st.integers(0, 1))
def test_a_relu_unit_is_dead_when_its_output_is_zero_everywhere(seed, shape, unit):
    z = drawn(seed, *shape) - 1.5
    outputs = torch.relu(z).transpose(unit, 0).flatten(1)
    expected = (outputs == 0).all(1)
    assert torch.equal(unit_is_dead(z, activation_kind("relu"), unit), expected)


@given(seed=SEEDS, cut=st.integers(1, 5))
def test_peaks_of_two_batches_are_the_peaks_of_both_together(seed, cut):
    z = drawn(seed, 6, 4) - 1.5
    together = torch.maximum(unit_peaks(z[:cut]), unit_peaks(z[cut:]))
    assert torch.equal(together, unit_peaks(z))
    kind = activation_kind("relu")
    both = unit_is_dead(z[:cut], kind) & unit_is_dead(z[cut:], kind)
    assert torch.equal(dead_units(together, kind), both)


@given(seed=SEEDS)
def test_the_order_of_samples_does_not_matter(seed):
    z = drawn(seed, 6, 4)
    mixed = z[torch.randperm(6, generator=torch.Generator().manual_seed(seed))]
    for name in CATALOGUE:
        kind = activation_kind(name)
        assert torch.equal(unit_is_dead(z, kind), unit_is_dead(mixed, kind))
        assert torch.equal(saturated_fraction(z, kind), saturated_fraction(mixed, kind))


def test_elementwise_zeros_are_not_dead_units():
    z = torch.eye(4) - 0.5
    assert (torch.relu(z) == 0).float().mean() == 0.75
    assert not unit_is_dead(z, activation_kind("relu")).any()


def test_a_unit_that_saw_a_nan_is_not_dead():
    z = torch.tensor([[-1.0, -1.0], [math.nan, -1.0]])
    assert unit_is_dead(z, activation_kind("relu")).tolist() == [False, True]


def test_a_kind_without_a_dead_side_has_no_dead_units():
    z = torch.full((3, 2), -1e3)
    assert not unit_is_dead(z, activation_kind("tanh")).any()
    assert not unit_is_dead(z, activation_kind("leaky_relu")).any()
    assert unit_is_dead(z, activation_kind("gelu")).all()


# --- saturated ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in CATALOGUE if activation_kind(n).can_saturate])
@settings(max_examples=5)
@given(seed=SEEDS)
def test_the_saturated_fraction_counts_entries_beyond_the_bounds(name, seed):
    kind = activation_kind(name)
    z = 6 * drawn(seed, 8, 5)
    low = -math.inf if kind.saturated_below is None else kind.saturated_below
    high = math.inf if kind.saturated_above is None else kind.saturated_above
    flat = [v <= low or v >= high for v in z.flatten().tolist()]
    assert saturated_fraction(z, kind).item() == pytest.approx(sum(flat) / len(flat))
    assert saturated_fraction(z, kind, -1).mean().item() == pytest.approx(sum(flat) / len(flat))


def test_two_bounds_of_different_size_and_nan():
    z = torch.tensor([[-2.0, -1.0, 0.0], [2.0, 3.0, math.nan]])
    assert saturated_fraction(z, activation_kind("hardtanh", -1.0, 3.0)).item() == 0.5
    assert saturated_fraction(z, activation_kind("relu")).item() == 0


# --- mean and spread ------------------------------------------------------------------------------


@given(seed=SEEDS, shape=SHAPES)
def test_mean_and_variance_are_torchs(seed, shape):
    z = drawn(seed, *shape) + 3
    mean, spread = mean_and_variance(z)
    assert mean.item() == pytest.approx(z.mean().item())
    assert spread.item() == pytest.approx(z.var(correction=0).item())
    _, own = mean_and_variance(z, unit=1)
    others = [d for d in range(z.dim()) if d != 1]
    assert own.item() == pytest.approx(z.var(others, correction=0).mean().item())


def test_offsets_between_units_do_not_count_around_each_units_mean():
    z = 1e-6 * drawn(0, 100, 4) + torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert mean_and_variance(z)[1].sqrt() > 1
    assert mean_and_variance(z, unit=1)[1].sqrt().item() == pytest.approx(1e-6, rel=0.2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype):
    z = torch.full((300, 300), 3.0, dtype=dtype)
    z[0, 0] = 5.0
    mean, spread = mean_and_variance(z)
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(3 + 2 / 90_000)
    assert spread.item() == pytest.approx(4 / 90_000, rel=1e-3)


@given(seed=SEEDS, cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_pooled_observations_are_those_of_the_concatenation(seed, cuts):
    z = drawn(seed, sum(cuts) + 1, 3) * 2 + 1
    parts = [z[:1], *z[1:].split(cuts)]
    observed = [mean_and_variance(part) for part in parts]
    counts = torch.tensor([float(part.numel()) for part in parts], dtype=torch.float64)
    mean, std = pool_moments(
        torch.stack([m for m, _ in observed]),
        torch.stack([s for _, s in observed]),
        counts,
        torch.zeros(len(parts), dtype=torch.long),
        1,
    )
    assert mean.item() == pytest.approx(z.mean().item())
    assert std.item() == pytest.approx(z.std().item())


def test_groups_do_not_mix_and_a_single_entry_has_no_deviation():
    means = torch.tensor([1.0, math.nan, 5.0])
    groups = torch.tensor([0, 1, 2])
    mean, std = pool_moments(means, torch.ones(3), torch.tensor([4.0, 4.0, 1.0]), groups, 4)
    assert mean[[0, 2]].tolist() == [1.0, 5.0]
    assert mean[[1, 3]].isnan().all()
    assert std[0].item() == pytest.approx(math.sqrt(4 / 3))
    assert std[1:].isnan().all()

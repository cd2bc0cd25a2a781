"""The baselines are torch's own losses of the constant predictions that they speak of."""

import math

import pytest
import torch
from helpers.laws import FEW, SEEDS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lightning_stab.functional.loss_baselines import (
    binary_cross_entropy,
    class_frequencies,
    cross_entropy,
    probabilities,
    regression,
)

MANY = 4000


def classes_of(seed, num_classes, samples=MANY):
    """Return classes that are drawn with unequal chances."""
    generator = torch.Generator().manual_seed(seed)
    chances = torch.rand(num_classes, generator=generator) + 0.05
    return torch.multinomial(chances, samples, True, generator=generator)


def best_constant_loss(target, num_classes, **options):
    """Return torch's loss, in float64, of the frequencies as the prediction for every sample."""
    options.setdefault("ignore_index", -100)
    counted = target[target != options["ignore_index"]]
    frequencies = torch.bincount(counted.flatten(), minlength=num_classes).double()
    smoothing = options.get("label_smoothing", 0.0)
    chances = (1 - smoothing) * frequencies / frequencies.sum() + smoothing / num_classes
    logits = chances.clamp(min=1e-300).log().expand(counted.numel(), num_classes)
    return functional.cross_entropy(logits, counted.flatten(), **options).item()


@given(SEEDS, st.integers(2, 12), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@FEW
def test_the_best_constant_is_that_of_torchs_cross_entropy(seed, num_classes, smoothing):
    target = classes_of(seed, num_classes)
    counts = class_frequencies(torch.zeros(MANY, num_classes), target)
    best, blind = cross_entropy(counts, smoothing)
    expected = best_constant_loss(target, num_classes, label_smoothing=smoothing)
    assert best.item() == pytest.approx(expected, abs=1e-3 + num_classes / MANY)
    assert blind.item() == pytest.approx(math.log(num_classes), rel=1e-5)


@given(SEEDS, st.integers(2, 6), st.sampled_from([-100, 0, 1]))
@FEW
def test_an_ignored_class_is_not_counted(seed, num_classes, ignored):
    target = classes_of(seed, num_classes)
    target[::7] = ignored
    logits = torch.zeros(MANY, num_classes)
    counts = class_frequencies(logits, target, ignored)
    expected = torch.bincount(target[target != ignored], minlength=num_classes)
    assert counts.tolist() == expected.tolist()
    best, _ = cross_entropy(counts)
    truth = best_constant_loss(target, num_classes, ignore_index=ignored)
    assert best.item() == pytest.approx(truth, abs=1e-3 + num_classes / MANY)


@given(SEEDS, st.integers(2, 5), st.sampled_from([(6,), (3, 4), (2, 3, 2)]))
@FEW
def test_classes_over_further_dimensions_count_like_a_flat_batch(seed, num_classes, shape):
    target = classes_of(seed, num_classes, 8 * math.prod(shape)).reshape(8, *shape)
    over = class_frequencies(torch.zeros(8, num_classes, *shape), target)
    flat = class_frequencies(torch.zeros(target.numel(), num_classes), target.flatten())
    assert over.tolist() == flat.tolist()
    one_hot = functional.one_hot(target, num_classes).movedim(-1, 1).float()
    soft = class_frequencies(torch.zeros(8, num_classes, *shape), one_hot)
    assert soft.tolist() == flat.tolist()


@given(SEEDS, st.integers(2, 6))
@FEW
def test_of_class_probabilities_the_mean_is_the_best_constant(seed, num_classes):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(MANY, num_classes, generator=generator).softmax(1)
    counts = class_frequencies(torch.zeros(MANY, num_classes), rows)
    best, _ = cross_entropy(counts)
    constant = rows.double().mean(0).log().expand(MANY, num_classes)
    truth = functional.cross_entropy(constant, rows.double()).item()
    assert best.item() == pytest.approx(truth, abs=1e-3 + num_classes / MANY)


def test_logits_of_one_sample_without_a_batch_dimension():
    assert class_frequencies(torch.zeros(3), torch.tensor(2)).tolist() == [0, 0, 1]
    assert class_frequencies(torch.zeros(3), torch.tensor([0.2, 0.3, 0.5])).tolist() == (
        pytest.approx([0.2, 0.3, 0.5])
    )


@given(SEEDS, st.integers(2, 8), st.integers(2, 60), st.floats(0, 1))
@FEW
def test_a_cross_entropys_baselines_are_in_order_and_forget_the_order_of_classes(
    seed, num_classes, samples, smoothing
):
    counts = class_frequencies(torch.zeros(1, num_classes), classes_of(seed, num_classes, samples))
    best, blind = cross_entropy(counts, smoothing)
    bias = ((counts > 0).sum().item() - 1) / (2 * samples)
    assert 0 <= best.item() <= blind.item() + bias + 1e-5
    mixed = counts[torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))]
    assert cross_entropy(mixed, smoothing)[0].item() == pytest.approx(best.item(), abs=1e-5)


def test_the_bias_makes_up_for_an_entropy_of_few_samples():
    """Over many small draws the mean comes closer to the entropy of the source."""
    chances = torch.tensor([0.4, 0.3, 0.2, 0.1])
    truth = -(chances * chances.log()).sum().item()
    generator = torch.Generator().manual_seed(0)
    draws = [torch.multinomial(chances, 20, True, generator=generator) for _ in range(400)]
    counts = [torch.bincount(draw, minlength=4).float() for draw in draws]
    with_bias = sum(cross_entropy(c)[0].item() for c in counts) / len(counts)
    naive = sum(-torch.special.xlogy(c / 20, c / 20).sum().item() for c in counts) / len(counts)
    assert abs(with_bias - truth) < 0.3 * abs(naive - truth)


def test_a_default_precision_of_double_changes_nothing():
    """Lightning sets it under ``precision="64-true"``."""
    target = classes_of(0, 4)
    expected = cross_entropy(class_frequencies(torch.zeros(MANY, 4), target))
    torch.set_default_dtype(torch.float64)
    try:
        found = cross_entropy(class_frequencies(torch.zeros(MANY, 4), target))
    finally:
        torch.set_default_dtype(torch.float32)
    assert [x.item() for x in found] == pytest.approx([x.item() for x in expected])


def test_counts_of_nothing_are_no_error():
    counts = class_frequencies(torch.zeros(3, 4), torch.full((3,), -100))
    assert counts.tolist() == [0] * 4
    best, blind = cross_entropy(counts)
    assert best.item() == 0
    assert blind.item() == pytest.approx(math.log(4))


@given(SEEDS, st.integers(1, 5))
@FEW
def test_a_binary_cross_entropys_baselines_are_torchs(seed, columns):
    generator = torch.Generator().manual_seed(seed)
    chances = torch.rand(columns, generator=generator)
    target = (torch.rand(MANY, columns, generator=generator) < chances).double()
    mean = target.mean(0)
    best, blind = binary_cross_entropy(mean, MANY)
    truth = functional.binary_cross_entropy(mean.expand_as(target), target).item()
    assert best.item() == pytest.approx(truth, abs=1e-3)
    zero = torch.zeros_like(target)
    truth = functional.binary_cross_entropy_with_logits(zero, target).item()
    assert blind.item() == pytest.approx(truth, rel=1e-5)


LOSSES = {
    "squared": (functional.mse_loss, {}),
    "absolute": (functional.l1_loss, {}),
    "smooth": (functional.smooth_l1_loss, {"beta": 0.5}),
    "huber": (functional.huber_loss, {"delta": 2.0}),
}


@pytest.mark.parametrize("name", LOSSES)
@given(seed=SEEDS, shape=st.sampled_from([(), (3,), (2, 4)]), offset=st.floats(-5, 5))
@settings(max_examples=12)
def test_a_regressions_baselines_are_torchs(name, seed, shape, offset):
    function, options = LOSSES[name]
    generator = torch.Generator().manual_seed(seed)
    target = offset + torch.randn(MANY, *shape, generator=generator, dtype=torch.float64)
    best, blind = regression(function, target, target.mean(0), MANY, options)
    truth = function(target.mean(0).expand_as(target), target, **options)
    assert best.item() == pytest.approx(truth.item(), rel=2 / MANY)
    truth = function(torch.zeros_like(target), target, **options)
    assert blind.item() == pytest.approx(truth.item(), rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("exclusive", [True, False])
def test_no_constant_chances_lose_less_than_the_baseline(name, exclusive):
    function, options = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    classes = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 500, True, generator=generator)
    target = functional.one_hot(classes, 3).double()
    mean = target.mean(0)
    best, blind = probabilities(function, target, mean, options, exclusive=exclusive)
    tried = torch.rand(500, 3, generator=generator, dtype=torch.float64)
    tried = tried / tried.sum(1, keepdim=True) if exclusive else tried
    losses = [float(function(q.expand_as(target), target, **options)) for q in tried]
    assert float(best) <= min(losses) * 1.02  # between a square and a magnitude, nearly the best
    even = torch.full_like(mean, 1 / 3 if exclusive else 0.5).expand_as(target)
    assert float(blind) == pytest.approx(float(function(even, target, **options)))


def test_the_mean_of_few_rows_is_not_flattered():
    """The mean of the same few rows is too good a prediction; the variance is that of new ones."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(500, 5, generator=generator)
    losses = [regression(functional.mse_loss, d, d.mean(0), 5, {})[0].item() for d in draws]
    assert sum(losses) / len(losses) == pytest.approx(1.0, rel=0.1)


def test_baselines_leave_their_arguments_and_the_random_state_alone():
    state = torch.get_rng_state()
    logits, target = torch.zeros(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 2, -100, 1])
    kept = target.clone()
    counts = class_frequencies(logits, target)
    copy = counts.clone()
    cross_entropy(counts, 0.1)
    assert torch.equal(target, kept)
    assert torch.equal(counts, copy)
    assert not counts.requires_grad
    assert torch.equal(torch.get_rng_state(), state)

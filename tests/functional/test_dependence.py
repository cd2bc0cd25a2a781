"""Neighbours agree in their targets where these depend on the inputs, and not more than chance."""

import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from lightning_stab.functional.dependence import (
    PENALTY,
    SMOOTHNESS,
    WIDTHS,
    _guesses,
    neighbour_agreement,
    simple_skill,
)


def drawn(seed, rows=200, features=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=generator)
    return x, torch.randperm(rows, generator=generator)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["classes", "numbers", "columns"])
def test_a_dependence_is_seen_in_any_unit_and_a_shuffle_hides_it(kind, scale):
    shuffled = []
    for seed in range(20):
        x, order = drawn(seed)
        y = {"classes": (x[:, 0] > 0).long() * 7, "numbers": x[:, 0] * 9, "columns": x[:, :2]}[kind]
        assert neighbour_agreement(x * scale + 3 * scale, y) > 4
        shuffled.append(float(neighbour_agreement(x * scale, y[order])))
    assert sum(abs(z) > 2.5 for z in shuffled) <= 2
    assert abs(sum(shuffled) / 20) < 1


def test_a_row_that_comes_again_is_no_neighbour():
    x, order = drawn(0, 100)
    y = (x[:, 0] > 0).long()[order]
    assert neighbour_agreement(torch.cat([x, x]), torch.cat([y, y])) < 3


def test_neither_the_units_of_a_feature_nor_a_constant_one_matters():
    x, _ = drawn(1)
    y = (x[:, 0] > 0).long()
    other = torch.cat([x * torch.tensor([1e-3, 1.0, 1e3]), torch.ones(len(x), 1)], 1)
    assert neighbour_agreement(other, y) == pytest.approx(
        float(neighbour_agreement(x, y)), rel=1e-3
    )


def test_the_random_state_is_left_alone_and_the_answer_is_the_same_each_time():
    x, _ = drawn(2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (neighbour_agreement(x, x[:, 0]) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second


def test_equal_targets_say_nothing():
    x, _ = drawn(3)
    for y in (torch.zeros(200), torch.zeros(200, dtype=torch.long)):
        assert torch.isnan(neighbour_agreement(x, y))


def test_simple_models_learn_what_is_near_or_linear():
    """By hand: two tight groups are told apart, a line is found, noise is not."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 3, generator=generator)
    groups = noise * 0.1 + torch.arange(200)[:, None] % 2
    assert simple_skill(groups, torch.arange(200) % 2) == 1.0
    line = noise @ torch.tensor([[1.0], [-2.0], [0.5]])
    assert simple_skill(noise, line) > 0.999
    assert simple_skill(noise, line[:, 0] + 0.5 * line[:, 0].std()) > 0.999
    ring = (noise[:, 0].square() + noise[:, 1].square() > 1.4).long()  # no line tells
    assert 0.4 < simple_skill(noise, ring) < 0.95
    alone = torch.randn(200, generator=generator)
    assert simple_skill(noise, alone) < 0.1
    assert simple_skill(noise, (alone > 0.5).long()) < 0.1


def test_a_row_is_never_its_own_neighbour_and_scales_do_not_matter():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(120, 2, generator=generator)
    labels = torch.randint(0, 4, (120,), generator=generator)
    assert simple_skill(x, labels) < 0.15
    y = (x[:, 0] > 0).long()
    scaled = x * torch.tensor([1e4, 0.1]) + torch.tensor([1e5, 1.0])
    assert simple_skill(scaled, y) == pytest.approx(float(simple_skill(x, y)), abs=0.03)


def test_the_skill_of_simple_models_is_unknown_for_targets_that_are_all_the_same():
    x = torch.linspace(0, 1, 80)[:, None]
    assert torch.isnan(simple_skill(x, torch.zeros(80, dtype=torch.long)))
    assert torch.isnan(simple_skill(x, torch.ones(80)))
    constant_inputs = simple_skill(torch.ones(80, 2), torch.arange(80) % 2)
    assert constant_inputs <= 0
    x[3] = float("nan")
    assert simple_skill(x, (x[:, 0] > 0.5).long()) > 0.9


def test_the_skill_of_a_commonest_class_is_none():
    """Of 100 rows 90 are of one class, at random: to guess it always is right in 90 %."""
    generator = torch.Generator().manual_seed(2)
    y = torch.zeros(100, dtype=torch.long)
    y[torch.randperm(100, generator=generator)[:10]] = 1
    assert -1.5 < simple_skill(torch.randn(100, 5, generator=generator), y) <= 0.0


def test_simple_models_learn_what_is_smooth():
    """By hand: neighbours know a product to a fifth of its variance, a line knows nothing of it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator)
    assert simple_skill(x, x[:, 0] * x[:, 1]) > 0.9
    assert simple_skill(x, (2 * x[:, 0]).sin() + x[:, 1]) > 0.97


@pytest.mark.parametrize("first", [0, 30_000], ids=["small", "large"])
def test_simple_models_read_symbols_by_place_and_by_number(first):
    """By hand: the third symbol decides, or how often one occurs; its number says nothing."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 8, (200, 12), generator=generator)
    names = first + torch.randperm(8, generator=generator)
    symbols = names[drawn]
    assert simple_skill(symbols, drawn[:, 2]) > 0.9
    assert simple_skill(symbols, (drawn == 5).sum(1).float()) > 0.9
    assert simple_skill(symbols, torch.randint(0, 2, (200,), generator=generator)) < 0.2
    assert simple_skill(symbols, (drawn.sum(1) > 42).long()) > 0.5  # a sum of what each stands for


def test_of_whole_numbers_that_are_no_symbols_a_line_is_found():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 10_000, (150, 3), generator=generator)
    assert simple_skill(counts, counts.float() @ torch.tensor([1.0, -2.0, 0.5])) > 0.99


def test_the_skill_is_unknown_of_several_classes_a_row_and_known_of_several_labels():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 3, generator=generator)
    labels = (x > 0).long()
    assert simple_skill(x, labels) > 0.4
    assert torch.isnan(simple_skill(x, labels + 3 * labels.roll(1, 1)))


def test_the_guess_for_a_row_is_that_of_the_models_fitted_without_it():
    """Each model's guess is compared with a fit to the other rows, by scikit-learn."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator, dtype=torch.double)
    y = x @ torch.randn(3, 2, generator=generator, dtype=torch.double) + 4.0
    squared = torch.cdist(x, x).square()
    guesses = list(_guesses(squared, y))
    typical = float(squared.median())
    for row in (0, 17, 39):
        rest = [other for other in range(40) if other != row]
        models = [KNeighborsRegressor(1), KNeighborsRegressor(5), Ridge(PENALTY)]
        for model, guess in zip(models, guesses, strict=False):
            known = model.fit(x[rest].numpy(), y[rest].numpy()).predict(x[[row]].numpy())
            assert guess[row].numpy() == pytest.approx(known[0], rel=1e-6)
        for width, guess in zip(WIDTHS, guesses[3:], strict=True):
            # a free constant beside the kernel, as a kernel that is much larger
            kernel = torch.exp(-squared / typical / width) / SMOOTHNESS + 1e7
            model = KernelRidge(alpha=1.0, kernel="precomputed")
            model.fit(kernel[rest][:, rest].numpy(), y[rest].numpy())
            known = model.predict(kernel[[row]][:, rest].numpy())
            assert guess[row].numpy() == pytest.approx(known[0], rel=1e-4)

"""Neighbours agree in their targets where these depend on the inputs, and not more than chance."""

import pytest
import torch

from lightning_stab.functional.dependence import neighbour_agreement


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

"""Nets that train together end as if each had trained alone, up to rounding."""

import pytest
import torch
from torch import nn

from benchmarks.initialization import batched as bench_init_batched
from benchmarks.initialization import nets as bench_init_nets
from benchmarks.initialization import training as bench_init_training

pytestmark = pytest.mark.nightly
RATES, SEEDS = (0.01, 0.1, 0.03), (0, 0, 1)


def nets(batch_norm):
    torch.manual_seed(0)
    made = [bench_init_nets.build("mlp", "digits", "relu", 3, batch_norm, 16) for _ in RATES]
    for net in made:
        bench_init_nets.prepare(net, "kaiming", "relu", 0, torch.empty(0))
    return [net.double() for net in made]


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(200, 64, generator=generator, dtype=torch.float64)
    return values, torch.randint(0, 10, (200,), generator=generator)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_together_is_as_alone(batch_norm):
    together, alone = nets(batch_norm), nets(batch_norm)
    before = [net[0].weight.clone() for net in alone]
    bench_init_batched.train_together(together, images(), RATES, SEEDS, 3)
    for net, rate, seed in zip(alone, RATES, SEEDS, strict=True):
        bench_init_training.train(net, images(), rate, seed, 3)
    for ours, plain, start in zip(together, alone, before, strict=True):
        for (name, ours_value), value in zip(
            ours.state_dict().items(), plain.state_dict().values(), strict=True
        ):
            if value.is_floating_point():
                torch.testing.assert_close(ours_value, value, rtol=1e-8, atol=1e-9, msg=name)
        assert (plain[0].weight - start).abs().max() > 1e-3
    assert not torch.allclose(together[0][0].weight, together[1][0].weight)


def test_a_loss_that_is_not_finite_stops_its_own_net_alone():
    together, alone = nets(False), nets(False)
    for group in (together, alone):
        with torch.no_grad():
            group[1][0].weight[0, 0] = float("inf")
    bench_init_batched.train_together(together, images(), RATES, SEEDS, 2)
    for place in (0, 2):
        bench_init_training.train(alone[place], images(), RATES[place], SEEDS[place], 2)
    for ours, plain in zip(together, alone, strict=True):
        torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-8, atol=1e-9)


def test_it_ends_when_no_net_is_left():
    made = nets(False)[:1]
    nn.init.constant_(made[0][0].weight, float("nan"))
    start = made[0][2].weight.clone()
    bench_init_batched.train_together(made, images(), RATES[:1], SEEDS[:1], 2)
    assert torch.equal(made[0][2].weight, start)

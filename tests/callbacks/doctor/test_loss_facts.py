"""Each trend of the loss beside its own noise, and what validation rows look like."""

import math
import random

import pytest
import torch

from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts
from lightning_stab.callbacks.doctor.loss_facts import LossHistory, noise
from lightning_stab.callbacks.doctor.validation_facts import RowMoments


def history(losses, rows=32, epoch_steps=20, every=25):
    """Return what is known after these losses."""
    found = LossHistory(BatchFacts())
    found.rows, found.epoch_steps = rows, epoch_steps
    for start in range(0, len(losses), every):
        for loss in losses[start : start + every]:
            found.add(torch.tensor(loss))
        to_host(found.pending())
    return found.facts()


def noisy(level, count, spread=0.3, seed=0):
    rng = random.Random(seed)
    return [level(i) + spread * rng.gauss(0, 1) for i in range(count)]


def test_the_noise_of_a_ramp_is_that_of_its_noise():
    assert noise(noisy(lambda i: 0.01 * i, 4000)) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_noise_alone_is_no_trend(seed):
    facts = history(noisy(lambda i: 1.5, 300, seed=seed))
    assert abs(facts["gain_noise"]) < 4
    assert abs(facts["falling"]) < 4
    assert not facts.get("relapse_noise", 0.0) > 4


@pytest.mark.parametrize("rows", [1, 4, 32])
def test_the_noise_of_single_rows_is_no_trend(rows):
    """Losses of one row are far from normal: mostly small, sometimes large."""
    rng = random.Random(1)
    losses = [rng.expovariate(1.0) for _ in range(300)]
    facts = history(losses, rows=rows)
    assert abs(facts["gain_noise"]) < 4
    assert not facts.get("relapse_noise", 0.0) > 4
    assert not facts["highest_rise"] > 3 or rows == 32


def test_a_steady_fall_is_a_trend():
    facts = history(noisy(lambda i: 3 - i / 100, 200))
    assert facts["falling"] > 4
    assert facts["gain_noise"] > 4
    assert facts["recent_fall"] == pytest.approx(0.5 / 3, rel=0.3)


def test_a_relapse_is_told_in_standard_errors():
    facts = history(noisy(lambda i: max(0.5, 3 - i / 20) if i < 150 else 2.5, 200, 0.1))
    assert facts["relapse"] > 0.5
    assert facts["relapse_noise"] > 4


def test_a_rise_that_has_passed_is_remembered():
    facts = history([1.0] * 60 + [50.0] * 10 + [1.0] * 60)
    assert facts["highest_rise"] == pytest.approx(50)
    assert facts["loss_ratio"] == pytest.approx(1)


def moments(train, val):
    found = RowMoments()
    for kind, x in (("training", train), ("validation", val)):
        for part in x.split(50):
            found.add(kind, (part, torch.zeros(len(part))))
    to_host(found.pending())
    return found.facts()


def test_validation_rows_like_those_of_training_are_near_and_others_far():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator) * torch.tensor([1.0, 10, 0.1, 5, 2]) + 3
    assert moments(x[:200], x[200:])["validation_shift"] < 0.3
    assert moments((x[:200] - x.mean(0)) / x.std(0), x[200:])["validation_shift"] > 1.5
    assert moments(x[:200], x[200:] / 255)["validation_shift"] > 1.5


def test_few_rows_tell_nothing_of_a_shift():
    assert moments(torch.zeros(8, 3), torch.ones(8, 3)) == {}
    assert moments(torch.zeros(100, 3), torch.ones(100, 4)) == {}
    assert not math.isnan(moments(torch.randn(99, 3), torch.randn(99, 3))["validation_shift"])

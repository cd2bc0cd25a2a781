"""Each trend of the loss beside its own noise, and what validation rows look like."""

import math
import random

import pytest
import torch

from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts
from lightning_stab.callbacks.doctor.loss_facts import LossHistory, noise
from lightning_stab.callbacks.doctor.validation_facts import RowMoments, ValidationHistory


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


def of(losses, rows=32, epoch_steps=20, blind=math.nan, epoch=0.0):
    """Return a history of losses that came one by one."""
    batches = BatchFacts()
    found = LossHistory(batches)
    found.rows, found.epoch_steps, found.epoch = rows, epoch_steps, epoch
    for loss in losses:
        found.add(torch.tensor(loss))
        to_host(found.pending())
    return found


def test_the_facts_of_a_loss_by_hand():
    facts = of([4.0] * 20 + [3.0] * 40 + [1.0] * 20).facts()
    assert facts["loss_ratio"] == 0.25
    assert facts["improvement"] == facts["learnt"] == 0.75
    assert facts["recent_improvement"] == 0.5  # from 3 to 1, of 4
    assert facts["oscillation"] == 0.0
    # of 80 losses each half has 25: the level goes from 3 to 1
    assert facts["recent_fall"] == 0.5
    spread = (2.0 / 49) * math.sqrt(math.pi) / 2
    assert facts["falling"] == pytest.approx(2.0 / (1.25 * spread * math.sqrt(2 / 25)), rel=1e-6)
    assert facts["highest_rise"] == facts["early_rise"] == 1.0
    assert (facts["spikes"], facts["spiky_epochs"], facts["nonfinite_losses"]) == (0, 0, 0)
    assert math.isnan(facts["spike_height"])
    assert facts["relapse"] == 0.0


def test_the_gain_is_told_in_standard_errors():
    first = [4.0, 4.2] * 10
    last = [1.0, 1.1] * 30
    facts = of(first + last).facts()
    # the start are five losses; the noise before is that of the first twenty
    before = 0.2 * math.sqrt(math.pi) / 2 / math.sqrt(5)
    after = 0.1 * math.sqrt(math.pi) / 2 / math.sqrt(20)
    expected = (4.0 - 1.05) / (1.25 * math.hypot(before, after))
    assert facts["gain_noise"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("losses", "rows", "ratio"),
    [
        ([2.0, 3.0, 3.0, 3.0, 3.0], 8, 3.0),  # by half at most: the middle is the start
        ([2.0, 3.1, 3.1, 3.1, 3.1], 8, 2.0),  # it had risen from the very first one
        ([1.0] * 5 + [3.1] * 27, 1, 1.0),  # of single rows by three times
        ([1.0] * 5 + [2.9] * 27, 1, 2.9),
        ([2.0, 9.0, 9.0, 9.0, 9.0], 7, 9.0),  # of few rows, one alone is left to chance
    ],
)
def test_the_start_is_the_middle_of_the_first_losses_unless_they_had_risen(losses, rows, ratio):
    now = of(losses, rows=rows)
    assert now.facts()["loss_ratio"] * ratio == pytest.approx(now._recent_level())


@pytest.mark.parametrize(("rows", "losses"), [(32, 5), (8, 5), (4, 8), (1, 32)])
def test_the_start_holds_thirty_two_rows_and_five_losses(rows, losses):
    found = of([1.0] * losses + [0.5] * 99, rows=rows)
    assert found.facts()["loss_ratio"] == 0.5
    assert len(found._first) == losses


@pytest.mark.parametrize(
    ("height", "spikes"), [(10.0, 0), (11.1, 1)]  # ten times a tenth of the first loss of 10 is 10
)  # fmt: skip
def test_a_spike_stands_out_by_ten_swings(height, spikes):
    facts = of([10.0] * 30 + [10.0 + height]).facts()
    assert facts["spikes"] == spikes
    if spikes:
        assert facts["spike_height"] == pytest.approx(height / 10)
        assert facts["spiky_epochs"] == 1


def test_a_spike_is_measured_from_the_tenth_loss_on_in_the_swings_of_the_last_fifty():
    assert of([10.0] * 9 + [99.0]).facts()["spikes"] == 0
    assert of([10.0] * 10 + [99.0]).facts()["spikes"] == 1
    wild = [10.0, 14.0] * 25  # a median deviation of 2
    assert of([*wild, 31.9]).facts()["spikes"] == 0
    assert of([*wild, 32.1]).facts()["spikes"] == 1
    assert (
        of([1e3] * 5 + [10.0] * 50 + [900.0]).facts()["spikes"] == 0
    )  # swings of the start's scale


def test_spikes_are_those_of_the_latest_losses_and_epochs_are_counted():
    found = of([10.0] * 30 + [99.0], epoch=0.5)
    found.add(torch.tensor(10.0))
    to_host(found.pending())
    assert (found.facts()["spikes"], found.facts()["spiky_epochs"]) == (0, 1)
    for epoch in (0.9, 1.2):
        found.epoch = epoch
        found.add(torch.tensor(99.0))
        to_host(found.pending())
    assert found.facts()["spiky_epochs"] == 2


def test_losses_that_are_not_finite_are_counted_and_enter_nothing():
    found = of([2.0] * 20)
    for loss in (math.nan, math.inf, 2.0):
        found.add(torch.tensor(loss))
    to_host(found.pending())
    facts = found.facts()
    assert facts["nonfinite_losses"] == 2
    assert facts["loss_ratio"] == 1.0
    assert of([math.nan]).facts()["nonfinite_losses"] == 1


@pytest.mark.parametrize(("count", "known"), [(7, False), (8, True)])
def test_a_trend_needs_four_losses_in_each_half(count, known):
    assert ("falling" in of([1.0] * count).facts()) == known


@pytest.mark.parametrize(("count", "known"), [(39, False), (40, True)])
def test_the_last_epoch_is_compared_with_the_one_before(count, known):
    losses = [2.0] * (count - 20) + [1.0] * 20
    facts = of(losses).facts()
    assert ("recent_improvement" in facts) == known
    assert not known or facts["recent_improvement"] == 0.5


@pytest.mark.parametrize(("best", "known"), [(1.81, False), (1.79, True)])
def test_a_relapse_needs_a_gain_of_a_tenth(best, known):
    facts = of([2.0] * 20 + [best] * 20 + [2.0] * 20, epoch_steps=10).facts()
    assert ("relapse" in facts) == known
    assert not known or facts["relapse"] == pytest.approx(1.0)


def test_of_a_negative_loss_ratios_are_unknown_and_the_improvement_is_not():
    facts = of([-1.0] * 20 + [-2.0] * 40).facts()
    assert all(math.isnan(facts[name]) for name in ("loss_ratio", "early_rise", "highest_rise"))
    assert facts["improvement"] == 1.0
    nothing = of([0.0] * 20 + [5.0]).facts()  # a loss that begins at 0 gives no scale
    assert math.isnan(nothing["improvement"])
    assert nothing["spikes"] == 0


def test_early_rise_is_the_largest_of_the_first_twenty():
    assert of([1.0] * 19 + [7.0] + [1.0] * 9).facts()["early_rise"] == 7.0
    assert of([1.0] * 20 + [7.0] + [1.0] * 9).facts()["early_rise"] == 1.0
    assert math.isnan(of([1.0] * 30, rows=7).facts()["early_rise"])


def test_the_history_goes_on_from_its_state():
    found = of([4.0] * 20 + [3.0] * 20 + [90.0], epoch=3.0)
    again = LossHistory(BatchFacts())
    again.load_state_dict(found.state_dict())
    for each in (found, again):
        each.rows, each.epoch_steps, each.epoch = 32, 20, 4.0
        for loss in [1.0] * 30:
            each.add(torch.tensor(loss))
            to_host(each.pending())
    assert again.facts() == found.facts()


def validated(*metrics, training=None):
    found = ValidationHistory(training or of([4.0] * 20))
    for each in metrics:
        found.add(each)
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("val_loss", "loss"), ("valid/nll", "loss"), ("eval_perplexity", "loss"),
        ("my_val_loss", "loss"), ("val_acc", "metric"), ("val/F1", "metric"),
        ("val-auroc", "metric"),
        ("val_rmse", "error"), ("val_mean_mae", "error"), ("value_loss", ""), ("train_loss", ""),
        ("diagnosis/validation_rise", ""), ("interval_acc", ""), ("val_epoch", ""),
        ("eval.iou", ""),  # a point separates no words
    ],
)  # fmt: skip
def test_validation_metrics_are_known_by_their_names(name, kind):
    found = ValidationHistory(of([4.0] * 20))
    assert found.add({name: 2.0}) == bool(kind)
    assert found._loss == ([2.0] if kind == "loss" else [])
    assert found._metric == {"metric": [2.0], "error": [-2.0]}.get(kind, [])


def test_the_facts_of_validation_by_hand():
    facts = validated(
        {"val_loss": 3.0, "val_acc": 0.5}, {"val_loss": 1.0, "val_acc": 0.8},
        {"val_loss": 2.0, "val_acc": 0.6}, {"val_loss": 1.5, "val_acc": 0.7},
    ).facts()  # fmt: skip
    assert facts["validation_fall"] == pytest.approx(0.1 / 0.8)
    assert facts["validation_rise"] == 0.25
    assert facts["epochs_since_best"] == 2.0
    assert facts["validation_nonfinite"] == facts["validation_stuck"] == 0.0
    assert math.isnan(facts["validation_learnt"])  # what a constant loses is not known


def test_errors_fall_as_they_get_better():
    facts = validated({"val_mae": 4.0}, {"val_mae": 2.0}, {"val_mae": 3.0}).facts()
    assert facts == {"validation_fall": 0.25}  # by 1, of the first error of 4
    assert validated({"val_mae": 4.0}).facts() == {}


@pytest.mark.parametrize(
    ("accuracies", "losses", "stuck"),
    [
        ([0.5] * 4, [2.0, 1.0, 1.0, 0.99], 1.0),
        ([0.5] * 4, [2.0, 1.0, 1.0, 1.0], 0.0),  # halved, and not more
        ([0.5] * 3, [2.0, 1.0, 0.5], 0.0),
        ([0.5, 0.5, 0.5, 0.51], [2.0, 1.0, 1.0, 0.5], 0.0),
        ([1.0] * 4, [2.0, 1.0, 1.0, 0.5], 0.0),  # it can get no better
    ],
)
def test_a_metric_is_stuck_where_the_loss_halves_and_it_does_not_move(accuracies, losses, stuck):
    pairs = [{"val_loss": v, "val_acc": a} for a, v in zip(accuracies, losses, strict=True)]
    assert validated(*pairs).facts()["validation_stuck"] == stuck


def test_values_that_are_not_finite_are_passed_over():
    nan = math.nan
    found = validated({"val_loss": 2.0, "val_auc": nan}, {"val_loss": 1.0, "val_auc": 0.5},
                      {"val_loss": nan, "val_auc": 0.25})  # fmt: skip
    facts = found.facts()
    assert facts["validation_nonfinite"] == 1.0
    assert facts["validation_fall"] == 0.5
    assert facts["epochs_since_best"] == 0.0
    assert found.count == 3


def test_the_shift_of_validation_rows_by_hand():
    train = torch.tensor([[0.0], [2.0]]).repeat(40, 1)  # mean 1, deviation 1
    assert moments(train, train + 3)["validation_shift"] == pytest.approx(3.0, abs=1e-4)
    assert moments(train, train * 2 - 1)["validation_shift"] == pytest.approx(math.log(2), abs=1e-4)
    constant = torch.ones(80, 1)
    both = moments(torch.cat([train, constant], 1), torch.cat([train + 3, constant + 9], 1))
    assert both["validation_shift"] == pytest.approx(
        3.0, abs=1e-4
    )  # what is constant tells nothing


@pytest.mark.parametrize(("rows", "known"), [(31, False), (32, True)])
def test_rows_are_compared_from_thirty_two_on(rows, known):
    x = torch.randn(rows, 2)
    assert bool(moments(x, torch.randn(40, 2))) == known
    assert bool(moments(torch.randn(40, 2), x)) == known


@pytest.mark.parametrize(
    ("count", "half"), [(8, 4), (12, 6), (40, 20), (60, 25), (120, 30), (400, 100), (800, 100)]
)
def test_the_halves_of_a_trend(count, half):
    """Half of few losses, 25 of more, a quarter of many, a hundred at most."""
    facts = of([2.0] * (count - half) + [1.0] * half).facts()
    assert facts["recent_fall"] == 0.5
    noise_ = 1.0 / (2 * half - 1) * math.sqrt(math.pi) / 2  # one step of 1 among all
    expected = 1.0 / (1.25 * max(noise_ * math.sqrt(2 / half), 5e-4 * 2))
    assert facts["falling"] == pytest.approx(expected, rel=1e-6)


def test_the_least_error_of_a_trend_is_a_part_of_what_a_constant_loses():
    batches = BatchFacts()
    batches.load_state_dict({"known": {}, "baselines": [[80.0, 80.0]], "variety": []})
    found = LossHistory(batches)
    for loss in [1.0] * 25 + [0.9] * 25:  # a single step of 0.1 in 49
        found.add(torch.tensor(loss, dtype=torch.float64))
    to_host(found.pending())
    facts = found.facts()
    assert facts["recent_fall"] == pytest.approx(0.1 / 80)
    assert facts["falling"] == pytest.approx(0.1 / (1.25 * 5e-4 * 80), rel=1e-6)
    nothing = of([0.0] * 50).facts()
    assert math.isnan(nothing["recent_fall"])
    assert nothing["falling"] == 0.0


def test_the_present_is_the_middle_of_an_epoch_of_ten_losses_and_two_hundred():
    def recent(epoch_steps, rows=32):
        found = LossHistory(BatchFacts())
        found.rows, found.epoch_steps = rows, epoch_steps
        for loss in range(300):
            found.add(torch.tensor(float(loss)))
        to_host(found.pending())
        return found.level

    assert recent(5) == 294.5  # of ten
    assert recent(20) == 289.5
    assert recent(1000) == 199.5  # of two hundred
    assert recent(5, rows=8) == 294.5
    # of single rows the middle of five means, of 64 losses: twelve each, from the front
    assert recent(5, rows=1) == 236 + 24 + 5.5
    assert math.isnan(of([]).level)


def test_losses_beyond_two_thousand_are_forgotten():
    found = of([])
    for loss in range(2100):
        found.add(torch.tensor(float(loss)))
    to_host(found.pending())
    assert len(found._recent) == 2048
    assert found._recent[0] == 52.0


def test_the_height_of_a_spike_over_a_usual_loss_of_nothing_is_in_swings():
    facts = of([5.0] * 5 + [0.0] * 60 + [6.0]).facts()
    assert facts["spikes"] == 1  # by 12 times a tenth of the first loss
    assert facts["spike_height"] == 12.0
    assert of([-1.0] * 20 + [9.5]).facts()["spike_height"] == 10.5  # over the loss's size


def test_a_relapse_in_standard_errors_by_hand():
    facts = of([4.0] * 20 + [1.0] * 20 + [2.0, 2.2] * 5).facts()
    # the last ten against the best level, with the noise of the last twenty
    spread = (1.0 + 9 * 0.2) / 19 * math.sqrt(math.pi) / 2
    error = spread * math.sqrt(1 / 10 + 1 / 20)
    assert facts["relapse"] == pytest.approx((2.1 - 1.0) / 3.0)
    assert facts["relapse_noise"] == pytest.approx(1.1 / (1.25 * error), rel=1e-6)


def test_a_rise_is_seen_from_the_fifth_loss_on_and_as_a_level():
    assert math.isinf(of([1.0] * 4).facts()["highest_rise"])
    assert of([1.0] * 5).facts()["highest_rise"] == 1.0
    assert of([1.0] * 20 + [9.0, 9.0] + [1.0] * 20).facts()["highest_rise"] == 1.0
    assert of([1.0] * 20 + [9.0, 9.0, 9.0] + [1.0] * 20).facts()["highest_rise"] == 9.0


def test_the_baseline_of_an_unknown_loss_is_its_start_at_most():
    batches = BatchFacts()
    found = LossHistory(batches)
    assert math.isnan(found.baseline)
    assert math.isnan(found.unexplained)
    batches.pairs._update([6.0])
    assert found.baseline == 6.0
    for loss in [4.0] * 5 + [2.0] * 20:
        found.add(torch.tensor(loss))
    found.epoch_steps = 10
    to_host(found.pending())
    assert found.baseline == 4.0
    assert found.unexplained == 0.5
    batches._add_baseline([8.0, 16.0, 1.0])  # the loss functions know it
    assert found.baseline == 8.0
    assert found.unexplained == 0.25
    assert found.facts()["start_loss_ratio"] == 0.25
    batches._add_baseline([-8.0, -16.0, 1.0])
    assert found.baseline == 0.0
    assert math.isnan(found.unexplained)
    assert math.isnan(found.facts()["start_loss_ratio"])


def test_which_rows_tell_of_a_shift():
    def kept(*batches):
        found = RowMoments()
        for batch in batches:
            found.add("training", batch)
        to_host(found.pending())
        return found._moments.get("training", [0, []])

    whole = torch.ones(3, 2, dtype=torch.long)
    for batch in (whole, "text", torch.ones(3), torch.ones(0, 2), torch.ones(3, 2).to_sparse()):
        assert kept(batch) == [0, []]
    assert kept(torch.ones(3, 2) * math.nan) == [0, []]
    x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    assert kept((x,)) == [2, [2.0, 20.0, 5.0, 500.0]]  # means, then means of squares
    # six rows of another batch have three times the weight of two
    assert kept(x, torch.tensor([[6.0, 0.0]] * 6)) == [8, [5.0, 5.0, 28.25, 125.0]]
    images = torch.arange(12.0).reshape(1, 3, 2, 2)  # features are channels
    assert kept(images)[1][:3] == [1.5, 5.5, 9.5]
    sequence = torch.arange(6.0).reshape(1, 3, 2)  # or the last dimension
    assert kept(sequence)[1][:2] == [2.0, 3.0]
    assert [len(kept(torch.ones(1, n))[1]) for n in (64, 65, 128, 129)] == [128, 66, 128, 86]
    assert kept(x, torch.ones(1, 3)) == [3, [1.0] * 6]  # of another width: the later one


def test_rows_are_looked_at_until_two_thousand():
    found = RowMoments()
    for count in (1999, 1, 7):
        found.add("training", torch.ones(count, 2))
        to_host(found.pending())
    assert found._moments["training"][0] == 2000
    again = RowMoments()
    again.load_state_dict(found.state_dict())
    again.add("training", torch.ones(7, 2))
    assert again.pending() == []
    again.add("validation", torch.ones(7, 2))
    assert len(again.pending()) == 1


def test_features_that_hardly_vary_tell_of_no_shift():
    wide, other = torch.tensor([[-1000.0], [1000.0]]).repeat(40, 1), torch.zeros(80, 1)
    for spread, shift in ((0.5, 0.0), (2.0, 9.0)):  # of a thousandth of the widest: 1
        narrow = torch.tensor([[-spread], [spread]]).repeat(40, 1)
        train = torch.cat([wide, narrow], 1)
        found = moments(train, torch.cat([wide, narrow + 9 * spread], 1))["validation_shift"]
        assert found == pytest.approx(shift / math.sqrt(2), abs=1e-3)
    assert moments(other, other + 1) == {}
    # what varies no more is as narrow as a thousandth of the widest
    one = torch.tensor([[-1.0], [1.0]]).repeat(40, 1)
    assert moments(one, other)["validation_shift"] == pytest.approx(math.log(1000), rel=1e-4)


def test_the_level_of_the_first_validation_is_kept_over_a_restart():
    training = of([2.0] * 20)
    found = ValidationHistory(training)
    assert "level" not in found.state_dict()
    found.add({"val_loss": 1.0})
    again = ValidationHistory(of([50.0] * 20))
    again.load_state_dict(found.state_dict())
    again.add({"val_loss": 0.5})
    assert again._level == 2.0
    assert again.state_dict()["level"] == 2.0
    earlier = {k: v for k, v in found.state_dict().items() if k != "level"}
    again.load_state_dict(earlier)
    assert math.isnan(again._level)


def test_of_a_loss_and_an_error_the_error_is_the_metric_unless_there_is_another():
    found = validated({"val_mse_loss": 2.0, "val_mae": 3.0}, {"val_loss": 1.0, "val_mae": 2.0})
    assert (found._loss, found._metric) == ([2.0, 1.0], [-3.0, -2.0])
    found = validated({"val_mae": 3.0, "val_error_acc": 0.1, "val_acc": 0.5, "val_f1": 0.9})
    assert (found._loss, found._metric) == ([], [0.5])
    assert found.count == 1


def test_the_fall_of_a_metric_of_nothing_is_unknown():
    facts = validated({"val_acc": 0.0}, {"val_acc": 0.0}).facts()
    assert math.isnan(facts["validation_fall"])
    facts = validated({"val_mae": 0.0}, {"val_mae": 1.0}).facts()
    assert math.isnan(facts["validation_fall"])

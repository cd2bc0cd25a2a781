"""The facts that the doctor measures are their formulas, worked out by hand."""

import math

import pytest
import torch
from helpers.doctor_programs import Program, doctor, examined, learnable, mlp
from helpers.lightning_twins import SmallGAN, batches, built, fit
from torch.nn import functional

from lightning_stab import StepGuard
from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts, InputPeaks
from lightning_stab.callbacks.doctor.loss_facts import LossHistory
from lightning_stab.callbacks.doctor.loss_functions import LossFunctions
from lightning_stab.callbacks.doctor.pairs import NeighbourRows
from lightning_stab.callbacks.doctor.report import FACTS
from lightning_stab.callbacks.doctor.validation_facts import ValidationHistory

BASELINE, BLIND = 2.0, 4.0


def trained(losses=(), epoch=0.0):
    """Return the history of these losses, where the best constant and the blind loss are known."""
    facts = BatchFacts()
    facts.load_state_dict({"known": {}, "baselines": [[BASELINE, BLIND]], "variety": []})
    history = LossHistory(facts)
    history.epoch, history.epoch_steps = epoch, 10
    for loss in losses:
        history.add(torch.tensor(loss))
    to_host(history.pending())
    return history


# --- losses ---------------------------------------------------------------------------------------


def test_the_course_of_a_loss_in_numbers():
    losses = [4.0, 5.0, 3.0, 6.0, 4.5, *[1.0] * 10, *[0.8, 0.6] * 5]
    facts = trained(losses).facts()
    start, now = 4.5, 0.7  # medians of the first five and of the last ten
    assert {name: facts[name] for name in ("nonfinite_losses", "spikes", "spiky_epochs")} == {
        "nonfinite_losses": 0, "spikes": 0, "spiky_epochs": 0,
    }  # fmt: skip
    assert facts["early_rise"] == pytest.approx(6.0 / start)
    assert facts["loss_ratio"] == pytest.approx(now / start)
    assert facts["improvement"] == pytest.approx((start - now) / start)
    assert facts["start_loss_ratio"] == pytest.approx(4.0 / BLIND)
    assert facts["unexplained"] == pytest.approx(now / BASELINE)
    assert facts["learnt"] == pytest.approx(1 - now / BASELINE)
    assert facts["relapse"] == pytest.approx(0.0)
    assert facts["recent_improvement"] == pytest.approx((1.0 - now) / start)
    assert facts["oscillation"] == pytest.approx(0.2 / start)


def test_losses_that_are_all_zero_have_no_spikes():
    facts = trained([0.0] * 20 + [1.0]).facts()
    assert facts["spikes"] == 0
    assert math.isnan(facts["loss_ratio"])


def test_what_was_lost_again_is_a_part_of_the_best_gain():
    history = trained([4.0] * 10 + [1.0] * 10)
    for _ in range(10):
        history.add(torch.tensor(2.5))
    to_host(history.pending())
    assert history.facts()["relapse"] == pytest.approx((2.5 - 1.0) / (4.0 - 1.0))


@pytest.mark.parametrize(("loss", "spikes"), [(2.0, 0), (2.001, 1), (-1.0, 0), (0.0, 0)])
def test_a_spike_stands_above_the_usual_loss_by_more_than_ten_swings(loss, spikes):
    facts = trained([1.0] * 20 + [loss]).facts()  # a swing is a tenth of the first loss at least
    assert facts["spikes"] == facts["spiky_epochs"] == spikes
    if spikes:
        assert facts["spike_height"] == pytest.approx(loss - 1.0)
    else:
        assert math.isnan(facts["spike_height"])


@pytest.mark.parametrize(("before", "spikes"), [(9, 0), (10, 1)])
def test_no_spike_is_seen_before_ten_losses(before, spikes):
    assert trained([1.0] * before + [9.0]).facts()["spikes"] == spikes


def test_the_loss_of_a_start_that_rises_is_its_very_first():
    assert trained([1.0, 1.5, 1.5, 1.5, 1.5]).facts()["loss_ratio"] == pytest.approx(1.0)
    assert trained([1.0, 1.6, 1.6, 1.6, 1.6]).facts()["loss_ratio"] == pytest.approx(1.6)


def test_a_loss_that_is_no_number_is_counted_and_enters_no_median():
    plain, holed = trained([1.0, 2.0, 3.0]), trained([1.0, math.nan, 2.0, math.inf, 3.0])
    facts = holed.facts()
    assert facts.pop("nonfinite_losses") == 2
    expected = {n: value for n, value in plain.facts().items() if n != "nonfinite_losses"}
    assert facts == pytest.approx(expected, nan_ok=True)


def test_the_history_goes_on_after_a_restart():
    losses = [4.0, 5.0, 3.0, *[1.0] * 20, 9.0]
    history, restored = trained(losses, epoch=1.5), trained(epoch=2.5)
    restored.load_state_dict(history.state_dict())
    for each in (history, restored):
        each.epoch = 2.5
        each.add(torch.tensor(9.0))
        to_host(each.pending())
    assert restored.facts() == pytest.approx(history.facts(), nan_ok=True)
    assert restored.facts()["spiky_epochs"] == 2


# --- validation -----------------------------------------------------------------------------------


def validated(training=None, **metrics):
    history = ValidationHistory(trained([0.4] * 10) if training is None else training)
    for values in zip(*metrics.values(), strict=True):
        assert history.add(
            {n: torch.tensor(v, dtype=torch.float64) for n, v in zip(metrics, values, strict=True)}
        )
    return history.facts()


def test_the_facts_of_validation_in_numbers():
    facts = validated(val_loss=[2.0, 1.0, 1.5], val_accuracy=[0.5, 0.8, 0.6])
    assert facts == pytest.approx(
        {
            "validation_nonfinite": 0.0,
            "validation_fall": 0.2 / 0.8,
            "validation_rise": 0.5 / 1.0,
            "validation_learnt": 1 - 1.0 / BASELINE,
            "generalization_gap": 1 - 0.5 - 0.4 / BASELINE,
            "epochs_since_best": 1.0,
            "validation_stuck": 0.0,
        }
    )


def test_errors_fall_upwards():
    assert validated(val_mae=[4.0, 2.0, 3.0]) == pytest.approx({"validation_fall": 1.0 / 4.0})


def test_a_single_validation_has_no_course_and_what_never_fell_cannot_rise():
    assert validated(val_loss=[2.0]) == {"validation_nonfinite": 0.0}
    assert validated(val_loss=[2.0, math.nan])["validation_nonfinite"] == 1.0
    assert math.isnan(validated(val_loss=[2.0, 2.0, 3.0])["validation_rise"])


@pytest.mark.parametrize(
    ("loss", "known"), [(0.4, False), (0.41, True), (5.0, True), (9.9, True), (10.0, False)]
)
def test_a_validation_loss_of_another_kind_says_nothing_of_what_is_learnt(loss, known):
    history = ValidationHistory(trained())
    for value in (loss, 0.1):
        history.add({"val_loss": torch.tensor(value, dtype=torch.float64)})
    assert math.isnan(history.facts()["validation_learnt"]) != known


@pytest.mark.parametrize(("level", "known"), [(0.001, True), (1e-5, False)])
def test_a_validation_loss_near_that_of_training_is_of_its_kind(level, known):
    """A fast learner's first validation lies far below the loss of a constant prediction."""
    history = ValidationHistory(trained([2.0] * 5 + [level] * 20))
    for value in (0.002, 0.001):
        history.add({"val_loss": torch.tensor(value)})
    learnt = history.facts()["validation_learnt"]
    assert learnt == pytest.approx(1 - 0.001 / BASELINE) if known else math.isnan(learnt)


def test_metrics_of_training_are_none_of_validation():
    history = ValidationHistory(trained())
    assert not history.add({"train_loss": torch.tensor(1.0), "value_loss": torch.tensor(1.0)})
    assert history.count == 0
    assert history.add({"val_loss": torch.tensor(1.0), "loss": torch.tensor(2.0)})
    assert history.count == 1


# --- batches --------------------------------------------------------------------------------------


def variety(*targets, classes):
    """Return the variety of the last of several batches."""
    known = LossFunctions()
    for target in targets:
        listener = LossFunctions(targets=known.targets)
        logits = torch.zeros(len(target), classes, requires_grad=True)
        result = functional.cross_entropy(logits, target)
        listener(functional.cross_entropy, (logits, target), {}, result)
    return float(listener.measured["batch_variety"])


def entropy(*counts):
    """Miller's estimate of the entropy behind these counts, in float64."""
    total = sum(counts)
    seen = [n / total for n in counts if n]
    return -sum(p * math.log(p) for p in seen) + (len(seen) - 1) / (2 * total)


def labels(*counts):
    return torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])


def test_the_variety_of_a_batch_is_its_entropy_over_that_of_all_targets():
    found = variety(labels(90, 30), labels(20, 20), classes=2)
    assert found == pytest.approx(entropy(20, 20) / entropy(110, 50), rel=1e-5)


def test_a_small_batch_cannot_have_more_variety_than_it_has_samples():
    every = torch.arange(100).repeat(10)
    assert variety(every, torch.arange(8), classes=100) == pytest.approx(1.0, rel=1e-5)
    assert variety(every, torch.zeros(8, dtype=torch.long), classes=100) == 0.0


@pytest.mark.parametrize("size", [7, 8])
def test_the_variety_of_fewer_than_eight_samples_is_left_to_chance(size):
    found = variety(torch.arange(100).repeat(10), torch.arange(size), classes=100)
    assert math.isnan(found) == (size < 8)


def test_the_largest_value_of_a_batch_counts_over_the_usual_one_from_twenty_batches_on():
    peaks = InputPeaks()
    for count in range(1, 21):
        x = torch.full((4, 3), 2.0)
        x[1, 1] = -50.0 if count == 7 else 2.0
        peaks.add([x, torch.full((4,), 3.0 * count)])
        to_host(peaks.pending())
        assert math.isnan(peaks.facts()["input_peak"]) == (count < 20)
    assert peaks.facts()["target_peak"] == pytest.approx(60.0 / 31.5)
    assert peaks.facts()["input_peak"] == pytest.approx(25.0)
    restored = InputPeaks()
    restored.load_state_dict(peaks.state_dict())
    assert restored.facts() == peaks.facts()


# --- steps ----------------------------------------------------------------------------------------


def test_a_step_that_is_not_taken_is_no_step_of_size_zero():
    watcher = doctor(1, log_facts=True)
    trainer = fit(Program(mlp()), [watcher, StepGuard("skip")], batches(8, poison=[3]))
    ratios = [v for _, values in sorted(trainer.logger.steps.items())
              for n, v in values.items() if n == f"{FACTS}/update_ratio"]  # fmt: skip
    assert len(ratios) >= 7
    assert min(ratios) > 0.2 * max(ratios)
    assert ratios[3] == ratios[2] != ratios[1]


def test_it_is_said_that_the_loss_of_several_optimizers_is_not_judged():
    for program, data, said in ((built(SmallGAN), batches(4), 1), (Program(mlp()), learnable(), 0)):
        watcher = doctor(1)
        examined(program, data, watcher=watcher)
        assert len([s for s in watcher.unseen if "several optimizers" in s]) == said


@pytest.mark.parametrize("factor", [0.01, 1.0, 20.0])
def test_the_scale_of_the_first_weights(factor):
    net = mlp(depth=3, width=64)
    with torch.no_grad():
        for weight in [p for p in net.parameters() if p.dim() > 1]:
            weight.normal_(std=factor / weight.shape[1] ** 0.5)
    watcher = doctor()
    examined(Program(net), learnable(32), watcher=watcher)
    assert watcher._state.steps.facts()["start_scale"] == pytest.approx(factor, rel=0.1)


def test_a_fall_of_nothing_is_no_trend_however_quiet_the_losses_are():
    steady = trained([1.0 - 1e-6 * i for i in range(100)]).facts()
    assert steady["falling"] < 1
    falling = trained([1.0 - 5e-3 * i for i in range(100)]).facts()
    assert falling["falling"] > 4


def test_neighbours_are_compared_by_the_rows_of_the_first_epoch():
    rows = NeighbourRows()
    x = torch.linspace(0, 1, 100)[:, None]
    for start in range(0, 96, 4):
        rows.add((x[start : start + 4], (x[start : start + 4, 0] > 0.5).long()), 0)
    to_host(rows.pending())
    agreement = rows.facts()["neighbour_agreement"]
    assert agreement > 4
    assert rows.pending() == []  # nothing new
    restored = NeighbourRows()
    restored.load_state_dict(rows.state_dict())
    assert restored.facts() == rows.facts()
    rows.add((x, torch.zeros(100)), 1)
    assert rows.pending() == []

"""The facts that the doctor measures are their formulas, worked out by hand."""

import math
from types import SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch
from helpers import contract
from helpers.doctor_programs import Program, doctor, examined, learnable, loader, mlp
from helpers.lightning_twins import SmallGAN, batches, built, fit
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lightning_stab import StepGuard, TrainingDoctor, WeightInitialization
from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks._trainer.logging import is_due
from lightning_stab.callbacks.doctor import pairs as pairs_of_rows
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts, InputPeaks, UnitFacts
from lightning_stab.callbacks.doctor.loss_facts import LossHistory
from lightning_stab.callbacks.doctor.loss_functions import LossFunctions
from lightning_stab.callbacks.doctor.pairs import NeighbourRows, ShuffledPairs
from lightning_stab.callbacks.doctor.report import FACTS
from lightning_stab.callbacks.doctor.state import DoctorState
from lightning_stab.callbacks.doctor.step_facts import StepFacts
from lightning_stab.callbacks.doctor.validation_facts import ValidationHistory
from lightning_stab.diagnosis import Facts
from lightning_stab.diagnosis.facts import OF_VALIDATION
from lightning_stab.diagnosis.rules import FAULTS

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


class Steps:
    """Plain steps of one weight and one bias, with changes by hand."""

    def __init__(self, *shapes, weight_decay=0.0):
        self.module = nn.ParameterDict({f"p{i}": nn.Parameter(torch.zeros(s))
                                        for i, s in enumerate(shapes)})  # fmt: skip
        self.optimizer = torch.optim.SGD(self.module.values(), 1.0, weight_decay=weight_decay)
        self.trainer = SimpleNamespace(optimizers=[self.optimizer])
        self.facts_of = StepFacts()

    def take(self, values, number, norm=1.0, first=False, early=True, full=True, index=0):
        params = list(self.module.values())
        step = SimpleNamespace(
            index=index, total=torch.tensor(norm), trainer=self.trainer, module=self.module,
            optimizer=self.optimizer, params=params, names=lambda: list(self.module),
        )  # fmt: skip
        self.facts_of.measure(step, first=first)
        with torch.no_grad():
            for p, value in zip(params, values, strict=True):
                p.fill_(value)
        self.facts_of.compare(number, early=early, full=full)
        to_host(self.facts_of.pending())
        return self.facts_of.facts()


def test_updates_and_distances_of_weights_in_numbers():
    steps = Steps((4, 4), (3, 3))
    with torch.no_grad():
        steps.module["p0"].fill_(1.0)
        steps.module["p1"].fill_(2.0)
    facts = steps.take([1.1, 2.4], 0, first=True)
    assert facts["update_ratio"] == facts["early_update_ratio"] == pytest.approx(0.15)
    assert facts["travelled"] == pytest.approx(0.15)  # from the start, relative to the weight
    assert facts["weight_growth"] == 1.0
    facts = steps.take([1.2, 2.8], 4, early=False)
    # one tenth of 1.1 and a sixth; the middle of this step's ratios beside the one before
    ratios = [0.15, (0.1 / 1.1 + 0.4 / 2.4) / 2]
    assert facts["update_ratio"] == pytest.approx(sum(ratios) / 2)
    assert facts["early_update_ratio"] == pytest.approx(0.15)
    assert facts["travelled"] == pytest.approx((0.2 / 1.1 + 0.8 / 2.4) / 2, rel=1e-5)
    # four steps of 0.1 would have gone 0.4: the weights came from 1.1 to 1.2 at one step's change
    assert facts["straightness"] == pytest.approx(0.25, rel=1e-5)
    size = math.sqrt(16 * 1.2**2 + 9 * 2.8**2) / math.sqrt(16 * 1.1**2 + 9 * 2.4**2)
    assert facts["weight_growth"] == pytest.approx(size)
    assert steps.facts_of.largest_ratio == pytest.approx(0.15)


def test_a_weight_that_starts_at_zero_has_no_ratio_and_does_not_grow():
    steps = Steps((4, 4), (3, 3))
    with torch.no_grad():
        steps.module["p1"].fill_(2.0)
    facts = steps.take([1.0, 2.2], 0, first=True)
    assert facts["update_ratio"] == pytest.approx(0.1)
    facts = steps.take([9.0, 2.2], 1)
    assert facts["weight_growth"] == 1.0
    assert facts["early_update_ratio"] == pytest.approx(0.1)  # its own 800 % are no update ratio


def test_the_present_ratio_is_the_middle_of_the_last_five():
    steps, value = Steps((2, 2)), 1.0
    with torch.no_grad():
        steps.module["p0"].fill_(value)
    for place, ratio in enumerate((0.9, 0.5, 0.1, 0.2, 0.3, 0.6)):
        value *= 1 + ratio
        facts = steps.take([value], place, first=place == 0, norm=0.0 if place > 2 else 1.0)
    assert facts["update_ratio"] == pytest.approx(0.3)
    assert facts["zero_gradient"] == pytest.approx(3 / 5)  # of the last five
    assert steps.facts_of.largest_ratio == pytest.approx(0.9)


def test_the_gradients_growth_is_that_of_the_last_over_the_middle_of_the_first_ten():
    steps = Steps((2, 2))
    for place in range(10):
        facts = steps.take([1.0], place, norm=2.0 if place else 50.0, index=0)
    assert "gradient_growth_log10" not in facts
    assert steps.facts_of.first_norm == 2.0
    facts = steps.take([1.0], 10, norm=7.0)
    facts = steps.take([1.0], 11, norm=200.0)
    assert facts["gradient_growth_log10"] == pytest.approx(2.0)
    assert steps.take([1.0], 12, norm=math.inf)["gradient_growth_log10"] == pytest.approx(2.0)
    assert "gradient_growth_log10" not in steps.take([1.0], 13, norm=0.0)
    assert steps.take([1.0], 14, norm=20.0, index=1).get("gradient_growth_log10") is None
    assert math.isnan(Steps((2, 2)).facts_of.first_norm)


def test_what_the_first_step_shows_of_optimizers():
    steps = Steps((2, 2), (2,), (3,), weight_decay=0.5)
    steps.module["p1"].requires_grad_(False)
    extra = nn.Parameter(torch.zeros(2, 2))
    steps.module["extra"] = extra
    facts_of, params = steps.facts_of, list(steps.module.values())[:3]
    step = SimpleNamespace(index=0, total=torch.tensor(1.0), trainer=steps.trainer, params=params,
                           module=steps.module, optimizer=steps.optimizer,
                           names=lambda: ["p0", "p1", "p2"])  # fmt: skip
    facts_of.measure(step, first=True)
    facts = facts_of.facts()
    assert facts["frozen_held"] == {"p1": 1.0}
    assert facts["unoptimized"] == {"extra": 1.0}
    assert facts["weight_decay"] == 0.5
    step.optimizer = torch.optim.SGD([extra], 1.0)  # the module's own: which it has is not known
    facts_of.measure(step, first=True)
    assert facts_of.facts()["unoptimized"] == {}
    assert facts_of.facts()["weight_decay"] == 0.0


def test_steps_without_a_gradient_are_counted_by_parameter_and_optimizer():
    steps = Steps((2, 2), (2,))
    steps.module["p1"].grad = torch.ones(2)
    for sampled in (True, False, True):
        steps.facts_of.before_step(steps.trainer, steps.module, steps.optimizer, sampled=sampled)
    steps.module["p0"].grad = torch.ones(2, 2)
    for _ in range(2):
        steps.facts_of.before_step(steps.trainer, steps.module, steps.optimizer, sampled=True)
    assert steps.facts_of.facts()["without_gradient"] == {"p0": 0.5}
    again = StepFacts()
    again.load_state_dict(steps.facts_of.state_dict())
    again.before_step(steps.trainer, steps.module, steps.optimizer, sampled=True)
    assert again.facts()["without_gradient"] == {"p0": 0.4}


@pytest.mark.parametrize(("cleared", "stale"), [(True, 0.0), (False, 1.0)])
def test_gradients_that_are_not_cleared_are_stale(cleared, stale):
    steps = Steps((2, 2), (2,))
    for p in steps.module.values():
        p.grad = torch.ones_like(p)
    steps.facts_of.before_step(steps.trainer, steps.module, steps.optimizer, sampled=True)
    if cleared:
        steps.optimizer.zero_grad()
    steps.facts_of.before_backward(torch.tensor(1.0), steps.module, first=False)
    for p in steps.module.values():
        p.grad = torch.ones_like(p)
    steps.facts_of.before_step(steps.trainer, steps.module, steps.optimizer, sampled=False)
    assert steps.facts_of.facts()["stale_gradients"] == stale


def test_after_a_failure_weights_and_gradients_are_looked_at():
    steps = Steps((2, 2), (2,))
    with torch.no_grad():
        steps.module["p1"][0] = math.nan
    steps.module["p0"].grad = torch.full((2, 2), math.inf)
    steps.facts_of.measure_end(steps.module, alone=False)
    assert steps.facts_of.facts()["nonfinite_weights"] == {"p1": 1.0}
    assert "nonfinite_gradients" not in steps.facts_of.facts()
    steps.facts_of.measure_end(steps.module, alone=True)
    assert steps.facts_of.facts()["nonfinite_gradients"] == {"p0": 1.0}


# --- which steps are sampled ----------------------------------------------------------------------


def sampled(steps, rates, every=1000):
    """Return at which steps everything is measured, and at which the update."""
    state, module = DoctorState(every), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(
        batch_progress=SimpleNamespace(total=SimpleNamespace(completed=0))))  # fmt: skip
    trainer = SimpleNamespace(optimizers=[optimizer], num_training_batches=10, fit_loop=loop,
                              accumulate_grad_batches=1, current_epoch=0)  # fmt: skip
    full, updates = [], []
    for step in steps:
        optimizer.param_groups[0]["lr"] = rates(step)
        state.begin_batch(trainer, module, [torch.zeros(4, 2)], step)
        full += [step] * state._is_full
        updates += [step] * state._is_early
        state.steps.early_seen += state._is_early
        state.remove_hooks()
    return full, updates


def test_the_first_steps_and_every_fiftieth_of_the_first_500_are_sampled():
    full, early = sampled(range(1200), lambda step: 0.1, every=300)
    beginning = [0, 4, 9, 19, *[s for s in range(1200) if s < 500 and is_due(s, 50)]]
    later = [s for s in range(500, 1200) if is_due(s, 300)]
    assert full == sorted({*beginning, *later})
    assert early == list(range(10))


@pytest.mark.parametrize(("begin", "interval"), [(0, 1), (60, 1), (100, 3), (460, 3), (500, 8)])
def test_the_largest_values_are_those_of_each_first_batch_and_of_one_in_so_many_then(
    monkeypatch, begin, interval
):
    seen = []
    monkeypatch.setattr(InputPeaks, "add", lambda *_, **__: seen.append(now[-1]))
    now = []
    steps = range(begin, begin + 40)
    sampled((now.append(step) or step for step in steps), lambda step: 0.1)
    full = {0, 4, 9, 19, *range(49, 500, 50)}  # of a step that is sampled in full, in any case
    assert seen == [step for step in steps if (step + 1) % interval == 0 or step in full]


def test_early_updates_are_those_after_the_warm_up():
    early = sampled(range(40), lambda step: 0.1 * min(step, 8))[1]
    assert early == list(range(9, 19))


# --- pairs ----------------------------------------------------------------------------------------


def test_the_baseline_of_pairs_is_the_least_mean_of_three_in_a_row():
    pairs = ShuffledPairs()
    assert math.isnan(pairs.baseline)
    pairs._update([4.0, math.nan, 2.0])
    assert pairs.baseline == 3.0
    pairs._update([3.0, 1.0, 5.0])
    assert pairs.baseline == 2.0  # of 2, 3 and 1


X, Y = torch.arange(8.0).reshape(4, 2), torch.arange(4)


@pytest.mark.parametrize(
    ("batch", "targets"),
    [
        ((X, Y), [2, 3, 0, 1]), ([X, Y, X], [2, 3, 0, 1]), ({"x": X, "Labels": Y}, [2, 3, 0, 1]),
        ({"x": X, "labels": Y, "y": Y}, None), ({"x": X, "z": Y}, None), ((X, Y[:3]), None),
        ((X,), None), (X, None), ((X, torch.tensor(1)), None), ({"y": torch.tensor(1)}, None),
        ((X[:1], Y[:1]), None),
    ],
)  # fmt: skip
def test_targets_are_exchanged_where_they_are_known(batch, targets):
    found = ShuffledPairs()._exchange(batch)
    if targets is None:
        assert found is None
    else:
        assert type(found) is type(batch)
        key = 1 if type(batch) is not dict else "Labels"
        assert found[key].tolist() == targets
        assert batch[key].tolist() == [0, 1, 2, 3]  # the batch itself stays


def test_of_single_rows_the_targets_of_the_batch_before_are_taken():
    pairs = ShuffledPairs()
    assert pairs._exchange((X[:1], Y[:1])) is None
    assert pairs._exchange((X[1:2], Y[1:2]))[1].tolist() == [0]
    assert pairs._exchange((X[2:3], Y[2:3]))[1].tolist() == [1]


# --- windows of units -----------------------------------------------------------------------------


def test_a_unit_is_followed_over_a_window_before_it_is_called_dead():
    units = UnitFacts()
    for steps, samples, known in ((1, 999.0, False), (2, 23.0, False), (2, 24.0, True)):
        units._known.clear()
        units._steps = steps
        units._update(["a", "b"], [0.5, math.nan, 0.1, 0.2, samples, samples])
        assert units._known.get("dead_fraction") == ({"a": 0.5} if known else None)
        assert units._known.get("most_dead") == (0.5 if known else None)
        assert units._known["saturated_fraction"] == {"a": 0.1, "b": 0.2}
    units._steps = 1
    units._update(["a"], [0.25, 0.3, 1000.0])
    assert units._known["dead_fraction"] == {"a": 0.25}
    assert units._known["saturated_at_start"] == {"a": 0.1, "b": 0.2}


@pytest.mark.parametrize(
    ("steps", "samples", "begins"),
    [(4, 24.0, True), (3, 24.0, False), (4, 23.0, False), (1, 1000.0, True), (1, 999.0, False)],
)
def test_a_window_ends_after_four_steps_or_a_thousand_samples(steps, samples, begins):
    units = UnitFacts()
    units._steps, units._samples = steps, samples
    units.start(nn.Linear(2, 2))
    units.stop()
    assert units._steps == (1 if begins else steps + 1)
    assert units._samples == (0.0 if begins else samples)


def test_what_has_shrunk_to_nothing_has_the_ratio_of_the_least_number():
    facts = BatchFacts()
    for rms, ratio in (
        ({"a": 0.0, "b": 1.0, "c": 5.0}, -45.0),
        ({"a": 10.0, "b": 1.0, "c": 9.0}, 1.0),
    ):
        facts._update_gradients(rms)
        assert facts._known["gradient_depth_log10"] == pytest.approx(ratio)
    assert facts._known["gradient_depth_start_log10"] == -45.0
    assert facts._known["depth"] == 3.0
    facts._update_time({"a": [1.0, 10.0], "b": [1e3, 1.0], "c": [math.nan, 1.0]})
    assert facts._known["gradient_time_log10"] == pytest.approx(3.0)
    facts._update_inputs([100.0, 0.1])
    assert facts._known["input_size"] == 100.0
    assert facts._known["input_spread"] == pytest.approx(3.0)


def test_the_variety_and_the_baseline_are_means_of_the_latest():
    facts = BatchFacts()
    for place in range(12):
        facts._update_loss_inputs({"batch_variety": float(place)})
        assert ("batch_variety" in facts._known) == (place >= 3)
    assert facts._known["batch_variety"] == sum(range(2, 12)) / 10
    facts._update_loss_inputs({"batch_variety": math.nan, "other": 3.0})
    assert facts._known["other"] == 3.0
    for place in range(7):
        facts._add_baseline([float(place), 1.0, 1.0])
    assert (facts.baseline, facts.blind, facts.knows_baseline) == (4.0, 1.0, True)
    facts._add_baseline([math.nan, math.nan, 0.0])  # of a loss that was NaN
    assert (facts.baseline, facts.knows_baseline) == (4.0, True)
    facts._add_baseline([math.nan, 1.0, 1.0])
    assert not facts.knows_baseline
    assert math.isnan(facts.baseline)


@pytest.mark.parametrize("end", ["end_fit", "end_validation"])
def test_the_latest_losses_are_taken_in_at_the_end(end):
    state, module = DoctorState(1000), nn.Linear(2, 2)
    state._losses.add(torch.tensor(math.nan))
    if end == "end_fit":
        state.end_fit(module, alone=False)
    else:
        state.end_validation(SimpleNamespace(callback_metrics={}))
    assert state._losses.facts()["nonfinite_losses"] == 1.0


def test_the_facts_of_a_fit_that_are_no_sources_own():
    state = DoctorState(1000)
    state._rate, state._highest_rate = 0.1, 0.4
    state._num_batches, state._losses.rows, state.steps._largest = 7, 8, 0.5
    trainer = SimpleNamespace(estimated_stepping_batches=40, global_step=10, overfit_batches=0,
                              num_training_batches=5, fast_dev_run=False,
                              optimizers=[None])  # fmt: skip
    facts = state.facts(trainer, "validation")
    assert (facts.moment, facts.step, facts.progress) == ("validation", 10, 0.25)
    assert (facts.learning_rate, facts.rate_left, facts.highest_rate) == (0.1, 0.25, 0.4)
    assert (facts.samples, facts.reach, facts.on_purpose) == (56.0, 20.0, 0.0)
    assert facts.warming_up == 1.0
    for name in ("overfit_batches", "fast_dev_run"):
        setattr(trainer, name, 1)
        assert state.facts(trainer).on_purpose == 1.0
        setattr(trainer, name, 0)
    for planned in (0, math.inf):
        trainer.estimated_stepping_batches = planned
        assert math.isnan(state.facts(trainer).progress)
        assert math.isnan(state.facts(trainer).reach)
    state._highest_rate = 0.0
    assert math.isnan(state.facts(trainer).rate_left)
    trainer.estimated_stepping_batches, trainer.optimizers = 40, [None, None]
    trainer.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=5))
    facts = state.facts(trainer)  # 5 batches, each a step of two optimizers
    assert (facts.step, facts.progress) == (10, 0.125)
    assert math.isnan(state.facts(trainer).failed)
    state.note_failure(IndexError("Target 7 is out of bounds."))
    assert state.facts(trainer).class_out_of_range == 1.0
    state.note_failure(ValueError("Target 7 is out of bounds."))
    assert state.facts(trainer).class_out_of_range != 1.0
    assert state.facts(trainer).failed == 1.0
    state.note_failure(KeyboardInterrupt())  # by whoever watches the run
    assert state.facts(trainer).failed == 0.0


def test_an_input_peak_is_remembered_when_its_batch_is_forgotten():
    peaks = InputPeaks()
    for place in range(600):
        peaks.add([torch.full((2,), 90.0 if place == 0 else 3.0)])
        to_host(peaks.pending())
    assert len(peaks._peaks[0]) == 500
    assert peaks.facts()["input_peak"] == pytest.approx(30.0)
    assert math.isnan(peaks.facts()["target_peak"])
    peaks.add({"text": "a", "n": torch.tensor([3])})  # nothing real in it
    assert peaks.pending() == []


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


def test_of_large_inputs_and_masks_few_entries_are_kept():
    rows = NeighbourRows()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(160, 3, 8, 8, generator=generator)
        rows.add((images, (images[:, 0] > 0).long()), 0)
    assert {(x.shape, y.shape) for x, y in rows._rows} == {((150, 64), (150, 64))}
    rows.ask()
    to_host(rows.pending())
    assert math.isfinite(rows.facts()["neighbour_agreement"])


def test_rows_of_different_widths_are_not_compared():
    rows = NeighbourRows()
    for width in (3, 4):
        rows.add((torch.randn(32, width), torch.arange(32)), 0)
    rows.ask()
    assert rows.pending() == []
    assert math.isnan(rows.facts()["neighbour_agreement"])


def test_neighbours_are_compared_by_the_rows_of_the_first_epoch():
    rows = NeighbourRows()
    x = torch.linspace(0, 1, 100)[:, None]
    for start in range(0, 96, 4):
        rows.add((x[start : start + 4], (x[start : start + 4, 0] > 0.5).long()), 0)
    rows.ask()
    to_host(rows.pending())
    agreement = rows.facts()["neighbour_agreement"]
    assert agreement > 4
    assert rows.facts()["simple_skill"] == pytest.approx(0.98, abs=0.03)  # all but the border
    assert rows.pending() == []  # nothing new
    restored = NeighbourRows()
    restored.load_state_dict(rows.state_dict())
    assert restored.facts() == rows.facts()
    rows.add((x, torch.zeros(100)), 1)
    assert rows.pending() == []


def some_rows(count, batches, epoch=0):
    rows, generator = NeighbourRows(), torch.Generator().manual_seed(0)
    for _ in range(batches):
        rows.add((torch.randn(count, 2, generator=generator), torch.arange(count)), epoch)
    return rows


@pytest.mark.parametrize("size", [29, 30])
def test_rows_are_compared_when_they_are_asked_for_from_sixty_on_and_once(size):
    rows = some_rows(size, 2)
    assert rows.pending() == []
    rows.add((torch.randn(size, 2), torch.arange(size)), 1)  # of a later epoch
    assert rows._count == 2 * size
    rows.ask()
    assert bool(rows.pending()) == (size == 30)
    rows.ask()
    assert rows.pending() == []
    rows = some_rows(size, 10)
    rows.ask()
    assert rows.pending()
    rows.add((torch.randn(size, 2), torch.arange(size)), 0)
    assert rows._count == (300 if size == 30 else 319)  # no more than are enough
    assert rows.pending() == []  # not asked for
    rows.ask()
    assert bool(rows.pending()) == (size == 29)


def test_no_step_waits_for_what_simple_models_learn():
    """Whatever is concluded from it is about a validation, too; it took as long as four steps."""
    watcher = doctor()
    seen = []

    class Sees(lightning.Callback):
        def on_train_batch_end(self, *_):
            seen.append(watcher._state._neighbours.facts()["simple_skill"])

    fit(Program(mlp()), [watcher, Sees()], learnable(640, 8), epochs=1)
    assert len(seen) == 80
    assert all(map(math.isnan, seen))
    assert watcher._state._neighbours.facts()["simple_skill"] > 0.5


def test_what_simple_models_learn_is_saved_in_a_checkpoint_before_any_validation():
    watcher = doctor()

    class Saves(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 20:
                self.saved = watcher.state_dict()

    fit(Program(mlp()), [watcher, saves := Saves()], learnable(640, 8), epochs=1)
    assert saves.saved["patient"]["neighbours"]["skill"] > 0.5


def test_many_checkpoints_of_the_first_epoch_compare_the_rows_twice_at_most(monkeypatch):
    counts = []
    original = pairs_of_rows.simple_skill
    monkeypatch.setattr(
        pairs_of_rows, "simple_skill", lambda x, y: counts.append(len(x)) or original(x, y)
    )
    watcher = doctor()

    class Saves(lightning.Callback):
        def on_train_batch_end(self, *_):
            watcher.state_dict()

    fit(Program(mlp()), [watcher, Saves()], learnable(640, 8), epochs=1)
    assert counts == [64, 304]  # the first sixty, and enough


def test_every_conclusion_from_the_first_rows_waits_for_a_validation():
    """So that they need not be compared before."""
    from_rows = {"neighbour_agreement", "simple_skill"}
    for rule in (rule for fault in FAULTS for rule in fault.rules):
        read = {condition.fact for condition in rule.conditions}
        if read & from_rows:
            assert read & OF_VALIDATION, rule
    assert math.isnan(Facts(simple_skill=0.5).skill_reached)


def test_what_simple_models_learn_is_known_at_the_end_of_a_short_run():
    watcher = doctor()
    fit(Program(mlp()), [watcher], learnable(96, 8), epochs=1)  # 12 steps
    assert watcher._state._neighbours.facts()["simple_skill"] > 0.5


def test_what_simple_models_learn_is_known_when_a_validation_ends():
    watcher = doctor()
    fit(Program(mlp()), [watcher], learnable(32, 8), epochs=1)
    state, x = watcher._state, torch.randn(96, 3)
    state._neighbours.__init__()
    state._neighbours.add((x, (x[:, 0] > 0).long()), 0)
    assert state._neighbours.pending() == []
    state.end_validation(SimpleNamespace(callback_metrics={}))
    assert state._neighbours.facts()["simple_skill"] > 0.5


class Distance(lightning.LightningModule):
    """Loses the mean distance of its inputs from the targets."""

    def __init__(self):
        super().__init__()
        self.weight, self.steps = nn.Parameter(torch.ones(1)), 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return (self.weight * batch[0][:, 0] - batch[1]).abs().mean()


def test_the_loss_of_exchanged_pairs_is_measured_on_a_copy(monkeypatch):
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    module, found = Distance(), ShuffledPairs()
    found.measure(module, (x, x[:, 0]), 0)
    assert to_host(found.pending()) == {}
    assert found.baseline == 2.0  # of 0, 1, 2 and 3 from 2, 3, 0 and 1
    assert module.steps == 0
    module.automatic_optimization = False
    for net, batch in ((module, (x, x[:, 0])), (Distance(), (x, x[:2, 0])), (Distance(), x)):
        other = ShuffledPairs()
        other.measure(net, batch, 0)
        assert math.isnan(other.baseline)
        assert [w for w in other.pending() if w.update == other._update] == []
    for parameters, known in ((1, True), (0, False)):
        monkeypatch.setattr(pairs_of_rows, "MOST_PARAMETERS", parameters)
        other = ShuffledPairs()
        other.measure(Distance(), (x, x[:, 0]), 0)
        to_host(other.pending())
        assert math.isnan(other.baseline) != known
        assert other._is_possible == known
    monkeypatch.setattr(pairs_of_rows, "MOST_PARAMETERS", 9)

    class Broken(Distance):
        def training_step(self, batch, batch_idx):
            raise KeyError

    other = ShuffledPairs()
    other.measure(Broken(), (x, x[:, 0]), 0)
    assert not other._is_possible
    other.measure(Distance(), (x, x[:, 0]), 0)  # it is not tried again
    to_host(other.pending())
    assert math.isnan(other.baseline)


def test_a_row_far_out_is_seen_although_every_batch_holds_one():
    peaks = InputPeaks()
    for count in range(3):
        x = torch.ones(64, 5)
        x[count] = 1000.0
        peaks.add([x, torch.zeros(64)], sampled=count > 0)
        to_host(peaks.pending())
        assert math.isnan(peaks.facts()["input_peak"]) == (count == 0)
    assert peaks.facts()["input_peak"] == pytest.approx(1000.0)
    few = InputPeaks()
    few.add([x[:7], torch.zeros(7)], sampled=True)  # among so few rows none stands out
    to_host(few.pending())
    assert math.isnan(few.facts()["input_peak"])
    restored = InputPeaks()
    restored.load_state_dict(peaks.state_dict())
    assert restored.facts() == pytest.approx(peaks.facts(), nan_ok=True)


def test_the_share_of_batches_with_nan_counts_their_first_tensor():
    peaks = InputPeaks()
    for count in range(4):
        x, y = torch.ones(6, 2), torch.full((6,), math.nan)  # targets are NaN where unknown
        x[0, 0] = math.inf if count == 2 else 1.0
        peaks.add([x, y])
    to_host(peaks.pending())
    assert peaks.facts()["nonfinite_inputs"] == 0.25


def test_the_agreement_of_symbols_is_unknown_and_what_simple_models_learn_of_them_known():
    rows = NeighbourRows()
    generator = torch.Generator().manual_seed(0)
    symbols = torch.randint(0, 6, (100, 4), generator=generator)
    rows.add((symbols, symbols[:, 1]), 0)
    rows.ask()
    to_host(rows.pending())
    assert math.isnan(rows.facts()["neighbour_agreement"])
    assert rows.facts()["simple_skill"] == pytest.approx(1.0, abs=0.05)


def test_pixels_of_eight_bits_are_numbers():
    rows = NeighbourRows()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 1, 4, 4), generator=generator, dtype=torch.uint8)
    rows.add((images, images.float().mean((1, 2, 3))), 0)
    rows.ask()
    to_host(rows.pending())
    assert rows.facts()["neighbour_agreement"] > 3
    assert rows.facts()["simple_skill"] > 0.99


def test_nan_rows_leave_the_other_neighbours():
    rows = NeighbourRows()
    x = torch.linspace(0, 1, 100)[:, None].repeat(1, 2)
    y = (x[:, 0] > 0.5).long()
    x[7] = math.nan
    rows.add((x, y), 0)
    rows.ask()
    to_host(rows.pending())
    assert rows.facts()["neighbour_agreement"] > 5
    assert rows.facts()["simple_skill"] > 0.9


def test_constant_targets_of_a_loss_of_ones_own_are_seen_in_the_first_batches():
    pairs = ShuffledPairs()
    for count in range(10):
        pairs.note((torch.zeros(2, 3), torch.ones(2)))
        to_host(pairs.pending())
        assert pairs.facts().get("constant_rows", math.nan) == pytest.approx(
            1.0 if count > 6 else math.nan, nan_ok=True
        )
    pairs.note((torch.zeros(2, 3), torch.zeros(2)))
    to_host(pairs.pending())
    assert pairs.facts()["constant_rows"] == 0.0


def test_the_rows_that_batch_normalisation_sees():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    watcher = doctor()
    data = loader(torch.randn(12, 1, 8, 8), torch.arange(12) % 3, size=2)
    examined(Program(net), data, watcher=watcher)
    facts = watcher._state._layers.facts()
    assert (facts["norm_rows"], facts["norm_values"]) == (2.0, 72.0)


class Reconstruction(Program):
    """Learns its inputs, flat or as they are, or its targets."""

    def __init__(self, net, learns):
        super().__init__(net)
        self.learns = learns

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.net(x)
        if self.learns == "inputs":
            return nn.functional.mse_loss(z, x)
        if self.learns == "flat inputs":
            return nn.functional.l1_loss(z.flatten(), x.view(-1))
        return nn.functional.mse_loss(z[:, 0], y.float())


@pytest.mark.parametrize(
    ("learns", "known"), [("inputs", 1.0), ("flat inputs", 1.0), ("targets", 0.0)]
)
def test_a_loss_about_the_inputs_is_known(learns, known):
    watcher = doctor()
    net = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 8))
    data = loader(torch.randn(32, 8), torch.arange(32) % 3, size=8)
    examined(Reconstruction(net, learns), data, watcher=watcher)
    assert watcher._state._batches.facts()["reconstructs"] == known


class OwnIterator(DataLoader):
    """Its first batch is seen when the run fetches it, and the weights are drawn then."""

    def __iter__(self):
        return super().__iter__()


@pytest.mark.parametrize("is_first", [True, False])
def test_the_passes_of_a_late_initialisation_are_no_part_of_the_batch(is_first, monkeypatch):
    known, facts = [], DoctorState.facts

    def noted(self, *arguments):
        known.append(facts(self, *arguments))
        return known[-1]

    monkeypatch.setattr(DoctorState, "facts", noted)
    callbacks = [TrainingDoctor(print_findings=False), WeightInitialization(verbose=False)]
    contract.fit(
        callbacks if is_first else callbacks[::-1],
        data=[OwnIterator(contract.samples(6), batch_size=None)],
        max_epochs=1,
        num_sanity_val_steps=0,
    )
    # by hand: the loss of equal chances for the three classes of the first batch
    first = contract.samples(6)[0][1]
    shares = torch.bincount(first, minlength=3) / len(first)
    chance = -float((shares * shares.clamp_min(1e-9).log()).sum())
    assert known[0].learnt == pytest.approx(1 - known[0].unexplained)
    assert 0.3 < known[0].start_loss_ratio * chance < 3.0


def test_a_loss_that_is_called_in_a_form_which_is_not_understood_ends_no_fit():
    class Odd(contract.Net):
        def training_step(self, batch, batch_idx):
            z, y = self.net(batch[0]), batch[1]
            alone = functional.multilabel_soft_margin_loss(
                z[0, :1], y[0].float().clamp(max=1), reduction="sum"
            )
            return functional.cross_entropy(z, y) + 0 * alone

    watched = TrainingDoctor(print_findings=False)
    seen = contract.end_of(contract.fit([watched], Odd()))
    assert contract.same(seen, contract.end_of(contract.fit([], Odd())))

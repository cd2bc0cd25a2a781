"""The parts of the doctor at their limits: pairs of rows, steps, batches, what is said and when."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab import TrainingDoctor
from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks.doctor import report, training_doctor
from lightning_stab.callbacks.doctor.batch_facts import BatchFacts, InputPeaks, UnitFacts
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.callbacks.doctor.module_facts import ModuleFacts
from lightning_stab.callbacks.doctor.pairs import NeighbourRows, ShuffledPairs, place_of_targets
from lightning_stab.callbacks.doctor.state import NO_BASELINE, DoctorState
from lightning_stab.callbacks.doctor.step_facts import StepFacts
from lightning_stab.diagnosis import Evidence, Facts, Finding
from lightning_stab.diagnosis.facts import SAMPLED_STEP

# --- pairs of rows --------------------------------------------------------------------------------


def test_where_the_targets_of_a_batch_are():
    x, y = torch.zeros(4, 2), torch.zeros(4)
    for batch, place in (
        ((x, y), 1), ([x, y, y], 1), ((x, y, y[:2]), 1), ((x, y[:3]), None), ((x,), None),
        ((x, "y"), None), (("x", y), None), ((x, torch.tensor(1.0)), None),
        ((torch.tensor(1.0), torch.tensor(1.0)), None), (x, None), ([], None),
        ({"a": x, "LABELS": y}, "LABELS"), ({"a": x, "target": y, "label": y}, None),
        ({"a": x, "y": torch.tensor(1.0)}, None), ({"a": x, "y": [1]}, None),
        ({0: x, "ys": y}, "ys"),
    ):  # fmt: skip
        assert place_of_targets(batch) == place


def test_pairs_go_on_after_a_restart():
    pairs = ShuffledPairs()
    pairs._exchange((torch.zeros(1, 2), torch.tensor([7])))
    for _ in range(2):
        pairs.note((torch.zeros(8, 2), torch.ones(8)))
    to_host(pairs.pending())
    assert pairs.facts() == {"constant_rows": 1.0}
    assert pairs.pending() == []  # said once
    again = ShuffledPairs()
    again.load_state_dict(pairs.state_dict())
    assert again.facts() == {"constant_rows": 1.0}
    assert again._exchange((torch.zeros(1, 2), torch.tensor([3])))[1].tolist() == [7]
    again.note((torch.zeros(1, 2), torch.zeros(1)))
    to_host(again.pending())
    assert again.facts() == {"constant_rows": 0.0}
    again.load_state_dict({**ShuffledPairs().state_dict()})
    assert again._exchange((torch.zeros(1, 2), torch.tensor([3]))) is None
    # after a whole batch there is no single row before
    pairs._exchange((torch.zeros(2, 2), torch.tensor([1, 2])))
    assert pairs._exchange((torch.zeros(1, 2), torch.tensor([3]))) is None
    assert pairs._exchange((torch.zeros(1, 2), torch.tensor([[3]]))) is None  # of another shape


def test_targets_that_are_not_plain_are_not_compared():
    pairs = ShuffledPairs()
    for batch in ({"y": torch.ones(20).to_sparse()}, (torch.zeros(20, 2),), "text"):
        pairs.note(batch)
        assert pairs.pending() == []


def test_targets_move_by_half_a_batch():
    x = torch.zeros(5, 1)
    assert ShuffledPairs()._exchange((x, torch.arange(5)))[1].tolist() == [3, 4, 0, 1, 2]
    named = {"x": x, "y": torch.arange(5)}
    found = ShuffledPairs()._exchange(named)
    assert found["x"] is x
    assert found["y"].tolist() == [3, 4, 0, 1, 2]


def test_which_rows_have_neighbours():
    def rows(batch, epoch=0):
        found = NeighbourRows()
        found.add(batch, epoch)
        return found._count

    x, y = torch.randn(40, 3), torch.arange(40)
    assert rows((x, y)) == 40
    assert rows((torch.randn(200, 3), torch.arange(200))) == 150
    assert rows((torch.randn(200, 3), torch.randn(200, 2))) == 150
    assert rows((x, y), 1) == 0
    assert rows((x.long(), y)) == 40  # symbols
    for other in ({"x": x, "y": y}, (x[:, 0], y), (x.to_sparse(), y), (x, y[:3]), (x + 1j, y)):
        assert rows(other) == 0


def test_of_wide_rows_sixty_four_features_are_compared():
    for width, kept in ((64, 64), (65, 33), (128, 64), (129, 43)):
        found = NeighbourRows()
        found.add((torch.arange(2.0 * width).reshape(2, width), torch.arange(2)), 0)
        assert found._rows[0][0].shape == (2, kept)
        assert found._rows[0][0][0, 1] == -(-width // 64)


# --- steps ----------------------------------------------------------------------------------------


def step_of(module, optimizer, **settings):
    params = [p for p in module.parameters() if p.requires_grad]
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    trainer = SimpleNamespace(optimizers=[optimizer])
    return SimpleNamespace(index=0, total=torch.tensor(1.0), trainer=trainer, module=module,
                           optimizer=optimizer, params=params, names=lambda: names,
                           is_repeated=False, rejected=False, **settings)  # fmt: skip


def test_units_that_are_the_same_and_the_scale_of_the_start():
    net = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Tanh(), nn.Linear(4, 9, bias=False))
    with torch.no_grad():
        net[0].weight.fill_(3.0)  # each of the 4 units has a norm of 3 sqrt(2)
        net[2].weight.copy_(torch.arange(36.0).reshape(9, 4) / 10)
    net(torch.randn(5, 2)).square().sum().backward()
    net[0].weight.grad.fill_(1.0)
    facts = StepFacts()
    facts.measure(step_of(net, torch.optim.SGD(net.parameters(), 0.1)), first=True)
    to_host(facts.pending())
    known = facts.facts()
    assert known["identical_units"] == {"0": 1.0, "2": 0.0}
    last = math.sqrt(sum((i / 10) ** 2 for i in range(36)) / 9)
    assert known["start_scale"] == pytest.approx((3 * math.sqrt(2) + last) / 2)
    again = StepFacts()
    again.load_state_dict(facts.state_dict())
    assert again.facts()["start_scale"] == known["start_scale"]
    with torch.no_grad():
        net[2].weight.zero_()  # what starts at zero says nothing
    facts.measure(step_of(net, torch.optim.SGD(net.parameters(), 0.1)), first=True)
    to_host(facts.pending())
    assert facts.facts()["start_scale"] == pytest.approx(3 * math.sqrt(2))


def test_parameters_that_the_module_does_not_know():
    net, hidden = nn.Linear(2, 1), nn.Linear(1, 1)
    loss = hidden(net(torch.ones(3, 2))).sum()
    for first, known in ((False, None), (True, 2.0)):
        facts = StepFacts()
        facts.before_backward(loss, net, first=first)
        assert facts.facts().get("unregistered") == known
    facts.before_backward(net(torch.ones(3, 2)).sum(), net, first=True)
    assert facts.facts()["unregistered"] == 0.0


def test_each_optimizers_own_steps_are_counted():
    one, two = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    module = nn.ModuleDict({"one": one, "two": two})
    optimizers = [torch.optim.SGD(each.parameters(), 1.0) for each in (one, two)]
    wrapped = SimpleNamespace(optimizer=optimizers[1])  # as Lightning gives it
    trainer, facts = SimpleNamespace(optimizers=[optimizers[0], wrapped]), StepFacts()
    for place, gradients in ((0, False), (1, False), (1, True), (1, True), (1, True)):
        (one, two)[place].weight.grad = torch.ones(1, 1) if gradients else None
        facts.before_step(trainer, module, optimizers[place], sampled=True)
    assert facts.facts()["without_gradient"] == {"one.weight": 1.0, "two.weight": 0.25}
    assert facts.state_dict()["looks"] == {"0": 1, "1": 4}
    module["one"].weight.requires_grad_(False)
    again = StepFacts()
    again.before_step(trainer, module, optimizers[0], sampled=True)
    assert again.facts()["without_gradient"] == {}


def test_gradients_are_followed_by_the_smallest_parameter():
    large, small = nn.Parameter(torch.ones(9)), nn.Parameter(torch.ones(1))
    optimizer, module = torch.optim.SGD([large, small], 1.0), nn.ParameterList([large, small])
    trainer = SimpleNamespace(optimizers=[optimizer])

    def stale(first, then):
        facts = StepFacts()
        large.grad, small.grad = torch.ones(9), first
        facts.before_step(trainer, module, optimizer, sampled=True)
        small.grad = then
        facts.before_backward(torch.tensor(1.0), module, first=False)
        facts.before_backward(torch.tensor(1.0), module, first=False)
        facts.before_step(trainer, module, optimizer, sampled=False)
        return facts.facts().get("stale_gradients")

    one, zero = torch.ones(1), torch.zeros(1)
    assert stale(one, one) == 1.0
    assert stale(one, zero) == 0.0
    assert stale(zero, zero) is None  # a zero cannot be cleared
    assert stale(None, one) == 1.0  # of the other one, then
    facts = StepFacts()
    large.grad = None
    small.grad = None
    facts.before_step(trainer, module, optimizer, sampled=True)
    facts.before_step(trainer, module, optimizer, sampled=False)
    assert "stale_gradients" not in facts.facts()


def test_how_far_weights_have_come_is_remembered_over_a_restart():
    facts = StepFacts()
    # by row: the change, the size before, the norm, how far from the start and the step before
    facts._add_changes(["a"], [0.1, 1.0, 1.0, 0.5, 0.1], early=True, full=True, step=1)
    assert facts.facts()["travelled"] == 0.5
    again = StepFacts()
    again.load_state_dict(facts.state_dict())
    for far, known in ((0.2, 0.5), (0.7, 0.7)):
        again._add_changes(["a"], [0.1, 1.0, 1.0, far, 0.1], early=False, full=True, step=2)
        assert again.facts()["travelled"] == known
    assert again.early_seen == 1
    old = {k: v for k, v in facts.state_dict().items() if k != "early_seen"}
    again.load_state_dict(old)
    assert again.early_seen == 1  # one update of an earlier version


def test_a_straight_way_is_as_long_as_its_steps():
    facts = StepFacts()

    def step(number, path, change=0.1):
        facts._add_changes(["a", "b"], [change, change, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, path, path],
                           early=False, full=True, step=number)  # fmt: skip
        return facts.facts()["straightness"]

    assert math.isnan(step(1, 0.1))
    assert math.isnan(step(2, 0.1))  # of a single step there is no way
    assert step(4, 0.2) == 1.0
    assert step(14, 0.5, change=0.3) == pytest.approx(0.25)  # ten steps of 0.2 on average
    facts._add_changes(["a"], [0.1, 1.0, 1.0, 0.0, 9.0], early=False, full=True, step=24)
    assert facts.facts()["straightness"] == pytest.approx(0.25)  # of other weights: as it was


def test_weights_that_are_no_numbers_are_named_and_count_in_no_ratio():
    facts = StepFacts()
    facts._add_changes(["a", "b"], [0.5, math.nan, 1.0, 1.0, 2.0, math.nan], early=True, full=False,
                       step=0)  # fmt: skip
    assert facts.facts()["nonfinite_weights"] == {"b": 1.0}
    assert facts.facts()["update_ratio"] == facts.facts()["early_update_ratio"] == 0.5
    facts._add_changes(["a"], [0.5, 1.0, 6.0], early=True, full=False, step=1)
    assert facts.facts()["weight_growth"] == 3.0
    assert facts.facts()["nonfinite_weights"] == {}


# --- batches --------------------------------------------------------------------------------------


def test_few_peaks_or_a_usual_one_of_nothing_tell_nothing():
    peaks = InputPeaks()
    for place in range(20):
        peaks.add([torch.zeros(4)])
        peaks.add([torch.full((4,), 9.0 * (place == 3))])
    to_host(peaks.pending())
    assert math.isnan(peaks.facts()["input_peak"])  # nine over nothing
    assert math.isnan(peaks.facts()["target_peak"])
    for _ in range(20):
        peaks.add([torch.zeros(4), torch.ones(4)])
    to_host(peaks.pending())
    assert peaks.facts() == {"input_peak": 1.0, "target_peak": 1.0, "nonfinite_inputs": 0.0}
    assert math.isnan(InputPeaks().facts()["nonfinite_inputs"])


def test_of_large_tensors_evenly_spread_entries_are_looked_at():
    peaks = InputPeaks()
    x = torch.zeros(65537)
    x[1::2] = 5.0  # every second one is left out
    for values in (x, x[:65536]):
        peaks.add([values])
    to_host(peaks.pending())
    assert peaks._peaks[0] == [0.0, 5.0]


def test_the_row_far_out_is_that_of_eight_at_least_over_the_middle_one():
    for count, wide, known in ((7, 5, False), (8, 5, True), (8, 64, True), (8, 128, True)):
        x = torch.ones(count, wide)
        x[2] = 12.0
        x[:, 1::2] = 0.0 if wide == 128 else x[:, 1::2]  # every second feature is left out
        peaks = InputPeaks()
        peaks.add((x, torch.ones(count)), sampled=True)
        to_host(peaks.pending())
        assert peaks.facts()["input_peak"] == pytest.approx(
            12.0 if known else math.nan, nan_ok=True
        )
    peaks.add((torch.ones(9), torch.ones(9)), sampled=True)  # numbers alone have no rows
    peaks.add({"x": torch.ones(9, 2, dtype=torch.long)}, sampled=True)
    assert peaks._pending_rows == []


def test_the_inputs_size_is_that_of_the_first_sampled_batch():
    facts = BatchFacts()

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 1)

    for scale in (3.0, 50.0):
        part = Scaled()
        facts.start(part, None)
        part.net(torch.tensor([[scale, scale / 100]] * 4)).sum().backward()
        to_host(facts.pending())
    assert facts.facts()["input_size"] == pytest.approx(3.0)
    assert facts.facts()["input_spread"] == pytest.approx(2.0)
    assert facts.facts()["depth"] == 1.0
    assert facts.pending() == []
    facts.start(part, None)
    facts.stop()
    facts.drop()
    assert facts.pending() == []


def test_units_that_are_dropped_are_read_with_the_next_batch():
    layer, units = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)), UnitFacts()
    units.start(layer)
    layer(torch.ones(30, 1))
    units.stop()
    units.drop()
    assert units.pending() == []
    units.start(layer)
    layer(torch.ones(30, 1))
    units.stop()
    assert len(units.pending()) == 1
    assert units.pending() == []


def test_normalisation_of_the_smallest_batch_counts_and_is_forgotten():
    part, facts = nn.BatchNorm1d(3), ModuleFacts()
    facts.start(part)
    for size in (6, 2, 9):
        part(torch.randn(size, 3, 5))
    facts.stop()
    assert facts.facts()["norm_rows"] == 9.0  # of the layer's latest batch
    assert facts.facts()["norm_values"] == 45.0
    assert not part._forward_pre_hooks


class Source(FactSource):
    SAVED = ("names", "numbers", "new")
    SAVED_FACTS = ("weight_decay", "loss_ratio")

    def __init__(self):
        super().__init__()
        self._names, self._numbers, self._new = {"b", "a"}, [1.0], 7


def test_what_a_source_saves_is_plain_its_own_and_of_facts_that_there_are():
    source = Source()
    source._known |= {"weight_decay": {"x": [1.0]}, "update_ratio": 2.0, "of_old": 3.0}
    state = source.state_dict()
    assert state == {
        "names": ["a", "b"], "numbers": [1.0], "new": 7, "weight_decay": {"x": [1.0]},
    }  # fmt: skip
    source._known["weight_decay"]["x"].append(2.0)
    source._numbers.append(2.0)
    assert state["weight_decay"] == {"x": [1.0]}
    again = Source()
    again._names = set()
    again._known["of_old"] = 3.0  # no fact any more
    again.load_state_dict({k: v for k, v in state.items() if k != "new"})
    assert (again._names, again._numbers, again._new) == ({"a", "b"}, [1.0], 7)
    assert again.facts() == {"weight_decay": {"x": [1.0]}}
    again._numbers.append(5.0)
    assert state["numbers"] == [1.0]
    assert again.pending() == []


# --- the state of a fit ---------------------------------------------------------------------------


def trainer_of(optimizer=None, **settings):
    total = SimpleNamespace(completed=settings.pop("completed", 0))
    progress = SimpleNamespace(batch_progress=SimpleNamespace(total=total))
    return SimpleNamespace(**{
        "optimizers": [] if optimizer is None else [optimizer], "num_training_batches": 10,
        "fit_loop": SimpleNamespace(epoch_loop=progress), "accumulate_grad_batches": 1,
        "current_epoch": 0, "global_step": 5, **settings,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("batches", "completed", "steps", "epoch"),
    [(10, 25, 10, 2.5), (math.inf, 500, 1000, 0.5), (0, 500, 1000, 0.5), (1, 3, 1, 3.0)],
)
def test_epochs_with_fractions(batches, completed, steps, epoch):
    state = DoctorState(5)
    state._note_epoch(trainer_of(num_training_batches=batches, completed=completed))
    assert (state._losses.epoch_steps, state._losses.epoch) == (steps, epoch)
    assert state._num_batches == completed


def test_a_rate_that_rises_is_a_warm_up_and_one_that_stays_or_is_missing_is_none():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    group, module, state = optimizer.param_groups[0], nn.Linear(1, 1), DoctorState(1000)
    seen = []
    for step, rate in enumerate((0.0, 0.1, 0.2, 0.2, 0.2 * (1 + 5e-10), 0.1, 0.0, None, 0.3)):
        group["lr"] = rate
        state.begin_batch(trainer_of(optimizer), module, [torch.zeros(4, 2)], step + 600)
        seen.append(state._is_warming_up)
    assert seen == [True, True, True, False, False, False, True, False, False]
    assert state._highest_rate == 0.3
    state.begin_batch(trainer_of(), module, [torch.zeros(4, 2)], 700)  # of no optimizer
    assert state._rate == 0.3


def test_the_rows_of_a_batch_are_kept_where_the_next_has_none():
    state, module = DoctorState(1), nn.Linear(1, 1)
    assert state._losses.rows == 32
    for batch, rows in (([torch.zeros(4, 2)], 4), ("text", 4), ({"x": torch.zeros(3)}, 3)):
        state.begin_batch(trainer_of(), module, batch, 0)
        assert state._losses.rows == rows
    state.remove_hooks()


@pytest.mark.parametrize(
    ("step", "every", "noted"),
    [(0, 1000, True), (19, 1000, True), (20, 1000, False), (49, 1000, True), (25, 1, True)],
)
def test_constant_targets_are_looked_for_in_twenty_batches_and_in_sampled_ones(step, every, noted):
    state, seen = DoctorState(every), []
    state._batches.pairs.note = seen.append
    state.begin_batch(trainer_of(), nn.Linear(1, 1), [torch.zeros(4, 2)], step)
    state.remove_hooks()
    assert bool(seen) == noted


def test_a_batch_without_a_step_is_dropped_only_where_gradients_are_accumulated():
    for accumulated, stepped, taken in ((2, False, False), (2, True, True), (1, False, True)):
        state, dropped = DoctorState(1), []
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
        trainer = trainer_of(optimizer, accumulate_grad_batches=accumulated)
        state.begin_batch(trainer, nn.Linear(1, 1), [torch.zeros(4, 2)], 0)
        state._batches.drop = lambda: dropped.append("batch")  # noqa: B023
        state._units.drop = lambda: dropped.append("units")  # noqa: B023
        state._has_stepped = stepped
        assert state.end_batch(trainer, [torch.zeros(4, 2)], 0) == taken
        assert dropped == ([] if taken else ["batch", "units"])
        assert not state.is_sampled
        assert state.is_first == (not stepped)
        assert not state.end_batch(trainer)  # it is over


def test_what_is_not_known_is_said_while_it_is_not():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    with_step = nn.Linear(1, 1)
    with_step.training_step = None
    for module, knew, optimizers, unseen in (
        (nn.Linear(1, 1), False, 1, (NO_BASELINE,)), (with_step, False, 1, ()),
        (nn.Linear(1, 1), True, 1, ()),
        (nn.Linear(1, 1), False, 2,
         ("There are several optimizers and no one loss: the loss is not judged.",)),
    ):  # fmt: skip
        state, trainer = DoctorState(1), trainer_of(optimizers=[optimizer] * optimizers)
        measured = []
        state._batches.pairs.measure = lambda *each: measured.append(each)  # noqa: B023
        state.begin_batch(trainer, module, ["x"], 0)
        state._knew_baseline = knew
        state.end_batch(trainer, ["x"], 4)
        assert state.unseen == unseen
        assert measured == ([(module, ["x"], 4)] if optimizers == 1 else [])
        measured.clear()
        state.begin_batch(trainer, module, ["x"], 0)
        state.end_batch(trainer)  # of a batch that nobody names
        assert measured == ([(module, None, 0)] if optimizers == 1 else [])


def test_the_memory_of_a_fit_goes_on_and_its_first_step_is_over():
    state = DoctorState(5)
    state._highest_rate = 0.7
    state._losses.add(torch.tensor(2.0))  # still on the device
    again = DoctorState(5)
    again.load_state_dict(state.state_dict())
    assert again._highest_rate == 0.7
    assert again._losses._recent == [2.0]
    assert not again.is_first
    assert state.is_first


def test_the_rows_of_an_epoch_are_its_batches_times_those_of_one():
    state = DoctorState(5)
    state._losses.rows = 8
    trainer = trainer_of(estimated_stepping_batches=40, overfit_batches=0, fast_dev_run=False)
    assert state.facts(trainer).epoch_rows == 80.0
    trainer.num_training_batches = 0
    assert math.isnan(state.facts(trainer).epoch_rows)
    assert state.facts(trainer).moment == ""


# --- what the callback does when ------------------------------------------------------------------


@pytest.fixture
def watcher():
    """Return a doctor that only notes what it would diagnose."""
    doctor = TrainingDoctor(print_findings=False)
    doctor.moments = []
    doctor._diagnose = lambda trainer, moment: doctor.moments.append(moment)
    return doctor


def test_the_first_step_is_diagnosed_before_it_is_taken_and_a_repeated_one_is_not(watcher):
    measured = []
    watcher._state = SimpleNamespace(
        is_sampled=True, is_first=True, measure=measured.append,
        steps=SimpleNamespace(drop_step=lambda: measured.append("dropped")),
    )  # fmt: skip
    step = SimpleNamespace(is_repeated=False, trainer=None, rejected=False)
    for sampled, repeated, first, moments, count in (
        (True, False, True, ["start"], 1), (True, False, False, [], 1), (True, True, True, [], 0),
        (False, False, True, [], 0),
    ):  # fmt: skip
        watcher._state.is_sampled, watcher._state.is_first = sampled, first
        step.is_repeated = repeated
        watcher.moments.clear()
        measured.clear()
        watcher.measure_step(step)
        assert (watcher.moments, len(measured)) == (moments, count)
        assert watcher.wants_step(None) == sampled
    measured.clear()
    watcher.record_step(step)
    assert measured == []
    step.rejected = True
    watcher.record_step(step)
    assert measured == ["dropped"]


def test_the_rows_of_two_validation_batches_of_the_first_loader_are_looked_at(watcher):
    seen, levels = [], []
    watcher._state.rows.add = lambda kind, batch: seen.append((kind, batch))
    watcher._state.level.add = lambda batch, loader: levels.append((batch, loader))
    fit = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False, validating=True)
    for place, loader in ((0, 0), (1, 0), (2, 0), (0, 1)):
        watcher.on_validation_batch_start(fit, None, (place, loader), place, loader)
    assert seen == [("validation", (0, 0)), ("validation", (1, 0))]
    assert levels == [((p, n), n) for p, n in ((0, 0), (1, 0), (2, 0), (0, 1))]
    fit.state.fn = "validate"
    watcher.on_validation_batch_start(fit, None, None, 0, 0)
    assert len(levels) == 4


def test_a_validation_is_diagnosed_where_it_logged_something(watcher):
    fit = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False, validating=True)
    for logged in (True, False):
        watcher._state.end_validation = lambda trainer: logged  # noqa: B023
        watcher.moments.clear()
        watcher.on_validation_end(fit, None)
        assert watcher.moments == ["validation"] * logged


def finding(id_="dead-units", severity="warning", state="new", **more):
    evidence = {"most_dead": Evidence(0.75, ">", 0.5, "dead_layer")}
    made = Finding(id_, severity, 7, ("net.0",), evidence, "It is so.", ("Do this.", "Or that."))
    return Finding(**{**{f: getattr(made, f) for f in made.__dataclass_fields__}, "state": state,
                      **more})  # fmt: skip


def test_advice_is_given_with_the_planned_steps_and_the_first_norm(monkeypatch):
    doctor, asked, said = TrainingDoctor(), [], []
    old, one, two = finding("plateau"), finding(), finding("overfitting")
    doctor._engine = SimpleNamespace(
        update=lambda facts: [one, two], findings=[old, one, two], changed=[], withdrawn=[]
    )

    def advise(there, found, facts, norm, steps, optimizers):
        asked.append((norm, steps))
        assert list(optimizers) == list(trainer.optimizers)
        return found.id

    monkeypatch.setattr(training_doctor, "advise_beside", advise)
    monkeypatch.setattr(training_doctor, "callbacks_of", lambda trainer: [])
    for name in ("log_findings", "log_facts", "print_findings"):
        monkeypatch.setattr(
            report, name,
            lambda trainer, what, name=name, **more: said.append((name, what, more)),
        )  # fmt: skip
    trainer = trainer_of(estimated_stepping_batches=40.0, overfit_batches=0, fast_dev_run=False)
    doctor._state.steps._norms = [2.0, 4.0]
    doctor._diagnose(trainer, "end")
    assert asked == [(3.0, 40)] * 2
    assert doctor._engine.findings == [old, "dead-units", "overfitting"]
    assert [name for name, *_ in said] == ["log_findings", "print_findings"]
    trainer.estimated_stepping_batches = math.inf
    doctor._engine.update = lambda facts: [one]
    doctor._diagnose(trainer, SAMPLED_STEP)
    assert asked[-1] == (3.0, 0)
    assert said[2][0] == "log_facts"
    assert said[2][2] == {"as_scalars": False}
    said.clear()
    doctor._engine.update = lambda facts: []
    doctor._diagnose(trainer, "validation")
    assert said == []  # nothing is new
    doctor._engine.changed = [old]
    doctor._diagnose(trainer, "validation")
    assert [(name, what) for name, what, _ in said] == [
        ("log_findings", [old]), ("print_findings", [old]),
    ]  # fmt: skip


def test_the_file_has_the_place_and_what_was_not_seen_and_is_tried_no_more_once_it_failed(
    monkeypatch,
):
    doctor, written, works = TrainingDoctor(), [], [True]

    def write(trainer, folder, findings, place):
        written.append((folder, dict(place)))
        return works[0]

    monkeypatch.setattr(report, "write_findings", write)
    trainer = SimpleNamespace(global_step=9, current_epoch=2, is_global_zero=True)
    doctor._write(trainer)
    assert written == []  # without a folder
    doctor._folder = "runs"
    doctor._write(trainer)
    assert written.pop() == ("runs", {"step": 9, "epoch": 2})
    doctor._state._hidden = "It is compiled."
    doctor._engine.withdrawn.append(finding(state="withdrawn", withdrawn_at=8))
    doctor._write(trainer)
    place = written.pop()[1]
    assert place["unseen"] == ["It is compiled."]
    assert [each["id"] for each in place["withdrawn"]] == ["dead-units"]
    trainer.is_global_zero = False
    doctor._write(trainer)
    trainer.is_global_zero, works[0] = True, False
    doctor._write(trainer)
    doctor._write(trainer)
    assert len(written) == 1


# --- what is said ---------------------------------------------------------------------------------


def test_a_finding_as_plain_text():
    assert report.text_of(finding()) == (
        "warning: dead-units (step 7)\nIt is so.\n  1. Do this.\n  2. Or that."
    )
    again = finding(seen=2, since=3)
    assert report.text_of(again).startswith(
        "warning: dead-units (step 7, since step 3, at 2 checks in a row)\n"
    )
    gone = finding(state="withdrawn", withdrawn_at=9)
    assert report.text_of(gone) == "withdrawn: dead-units (step 9): it no longer holds."
    explained = finding(state="withdrawn", withdrawn_at=9, explained_by="non-finite")
    assert report.text_of(explained) == (
        "withdrawn: dead-units (step 9): `non-finite` explains it."
    )


def test_a_finding_as_markdown():
    assert report.markdown(finding()) == (
        "**warning**, step 7, `net.0`\n\nIt is so.\n\n1. Do this.\n2. Or that.\n\n"
        "| measured | value | threshold |\n| --- | --- | --- |\n"
        "| `most_dead` | 0.75 | `dead_layer` > 0.5 |"
    )
    gone = report.markdown(finding(state="withdrawn", withdrawn_at=9, layers=()))
    assert gone == "**withdrawn**, step 9, the whole run\n\n~~It is so.~~"


def test_findings_are_printed_at_their_level_on_the_first_rank(caplog):
    caplog.set_level(logging.INFO, logger="lightning_stab")
    each = [finding(severity=s, state=t) for s, t in (
        ("info", "new"), ("warning", "new"), ("error", "new"), ("error", "confirmed"),
        ("info", "withdrawn"), ("warning", "withdrawn"), ("error", "withdrawn"),
    )]  # fmt: skip
    trainer = SimpleNamespace(is_global_zero=True, progress_bar_callback=None)
    report.print_findings(trainer, each)
    assert [r.levelname for r in caplog.records] == [
        "INFO", "WARNING", "ERROR", "INFO", "WARNING", "WARNING",
    ]  # fmt: skip
    caplog.clear()
    trainer.is_global_zero = False
    report.print_findings(trainer, each)
    assert caplog.records == []


def test_the_severity_of_a_finding_is_a_scalar_and_that_of_one_taken_back_is_0(monkeypatch):
    scalars, texts, packed = {}, [], []
    monkeypatch.setattr(report, "log_scalars", lambda trainer, values: scalars.update(values))
    monkeypatch.setattr(report, "log_text", lambda trainer, name, text: texts.append(name))
    monkeypatch.setattr(report, "log_json", lambda trainer, name, what: packed.append((name, what)))
    ids_ = ("plateau", "overfitting", "dead-units", "non-finite", "loss-spike")
    kinds = (("info", "new"), ("warning", "new"), ("error", "new"), ("error", "withdrawn"),
             ("error", "confirmed"))  # fmt: skip
    each = [finding(i, s, t) for i, (s, t) in zip(ids_, kinds, strict=True)]
    report.log_findings(None, each)
    assert scalars == {
        "diagnosis/plateau": 1.0, "diagnosis/overfitting": 2.0, "diagnosis/dead-units": 3.0,
        "diagnosis/non-finite": 0.0,
    }  # fmt: skip
    assert texts == list(scalars)
    ((name, what),) = packed
    assert name == "diagnosis/findings"
    assert [each["id"] for each in what] == list(ids_)
    packed.clear()
    scalars.clear()
    facts = Facts(step=4, learning_rate=0.1, loss_ratio=0.5, early_rise=math.inf)
    for as_scalars in (False, True):
        report.log_facts(None, facts, as_scalars=as_scalars)
        known = packed.pop()
        assert known[0] == "diagnosis/facts"
        assert known[1]["loss_ratio"] == 0.5
        assert not known[1].keys() & {"early_rise", "step", "learning_rate", "moment"}
        assert scalars == (
            {f"diagnosis_facts/{n}": v for n, v in known[1].items()} if as_scalars else {}
        )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [4, 100_000])
def test_the_largest_values_of_a_batch_are_known_in_every_precision(dtype, count):
    values = torch.ones(count).mul(-2.0)
    values[0] = -16.0  # which is sampled, and is the largest by its size
    peaks = InputPeaks()
    peaks.add([values.to(dtype), torch.ones(3, dtype=torch.float64)])
    peaks.add([torch.ones(2)])
    to_host(peaks.pending())
    assert peaks.state_dict()["peaks"] == [[16.0, 1.0], [1.0]]

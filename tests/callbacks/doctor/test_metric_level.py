"""How good the validation metric is: against what the best constant prediction reaches."""

import math

import pytest
import torch
from helpers.doctor_programs import Program, doctor, examined, loader, mlp, samples

from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks.doctor.metric_level import LEAST_ROWS, MetricLevel, constant_levels

CLASSES = torch.tensor([0] * 12 + [1] * 4 + [2] * 4)  # a constant is right in 60 %
NUMBERS = torch.tensor([0.0, 0.0, 0.0, 4.0] * 5)  # mean absolute error 1, squared 3


def level(*targets, names=0):
    """Return the level after a validation of these batches of targets."""
    found = MetricLevel()
    for y in targets:
        found.add((torch.zeros(len(y), 2), y), names)
    to_host(found.pending())
    return found


def skill(targets, *metrics):
    """Return the fact after validations that logged these metrics."""
    found = level(targets[:7], targets[7:])
    for each in metrics:
        found.note(each)
    return found.facts()["validation_skill"]


def test_what_the_best_constant_reaches_is_worked_out_by_hand():
    assert constant_levels(CLASSES[:, None])[0] == 0.6
    assert constant_levels(NUMBERS[:, None]).tolist()[1:] == [1.0, 3.0]
    assert math.isnan(constant_levels(NUMBERS[:, None])[0])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    assert constant_levels(labels)[0] == 0.75  # each label alone
    one_hot = torch.eye(3)[torch.tensor([0, 0, 1, 2])]
    assert constant_levels(one_hot)[0] == 0.5  # the commonest class
    assert math.isnan(constant_levels(torch.full((4, 2), 3))[0])  # no classes


def test_the_skill_is_0_for_a_constant_and_1_for_no_error():
    cases = [
        (CLASSES, "val_acc", 0.6, 0.0),
        (CLASSES, "val/accuracy", 1.0, 1.0),
        (CLASSES, "val_acc", 0.8, 0.5),
        (CLASSES, "val_acc", 80.0, 0.5),  # in percent
        (NUMBERS, "val_mae", 1.0, 0.0),
        (NUMBERS, "val_mae", 0.5, 0.75),  # as R2 has it: by squares
        (NUMBERS, "valid_mse", 0.75, 0.75),
        (NUMBERS, "val_rmse", math.sqrt(0.75), 0.75),
        (NUMBERS, "val_r2", 0.3, 0.3),
    ]
    for targets, name, value, wanted in cases:
        assert skill(targets, {name: torch.tensor(value)}) == pytest.approx(wanted, abs=1e-6), (
            name,
            value,
        )


def test_of_the_latest_metric():
    assert skill(CLASSES, {"val_acc": 1.0}, {"val_acc": 0.8}) == pytest.approx(0.5)
    assert skill(CLASSES, {"val_acc": 70.0}, {"val_acc": 0.9}) < -1  # 0.9 %


def test_what_cannot_be_compared_is_unknown():
    unknown = [
        (CLASSES, {"val_macro_acc": 0.8}),
        (CLASSES, {"val_top5_acc": 0.8}),
        (CLASSES, {"val_auroc": 0.8}),
        (CLASSES, {"train_acc": 0.8}),
        (CLASSES, {"val_loss": 0.8}),
        (torch.zeros(20, dtype=torch.long), {"val_acc": 1.0}),  # one class alone
        (NUMBERS, {"val_acc": 0.8}),  # accuracy of numbers
        (NUMBERS, {"val_mae": 40.0}),  # in other units
        (CLASSES[: LEAST_ROWS - 1], {"val_acc": 0.8}),
        (torch.zeros(20, 4, 4), {"val_mae": 0.1}),  # images
    ]
    for targets, metrics in unknown:
        assert math.isnan(skill(targets, metrics)), metrics
    blown = skill(NUMBERS, {"val_mae": 0.9}, {"val_mae": 40.0})
    assert blown == pytest.approx(-1599.0)  # the units were the same at first
    # weights that start too large: the units turn out to be the same
    assert skill(NUMBERS, {"val_mae": 40.0}, {"val_mae": 0.5}) == pytest.approx(0.75)


def test_of_several_loaders_or_targets_that_are_not_plain_nothing_is_known():
    several = level(CLASSES)
    several._levels = []
    several.add((torch.zeros(20, 2), CLASSES), 1)
    several.note({"val_acc": 0.8})
    assert math.isnan(several.facts()["validation_skill"])
    odd = MetricLevel()
    odd.add({"x": CLASSES}, 0)
    to_host(odd.pending())
    odd.note({"val_acc": 0.8})
    assert math.isnan(odd.facts()["validation_skill"])


@pytest.mark.parametrize("name", ["val_neg_mse", "val_neg_mae", "val_neg_rmse"])
def test_an_error_that_is_turned_round_ends_no_fit_and_is_unknown(name):
    found = level(NUMBERS)
    found.note({name: -3.0})
    assert math.isnan(found.facts()["validation_skill"])


def test_it_is_known_again_after_a_restart():
    before = level(NUMBERS)
    before.note({"val_mae": 0.5})
    after = MetricLevel()
    after.load_state_dict(before.state_dict())
    assert after.facts() == before.facts()
    after.add((torch.zeros(20, 2), CLASSES), 0)  # of a later validation, which is not counted
    assert after.pending() == []
    after.note({"val_mae": 1.0})
    assert after.facts()["validation_skill"] == 0.0


def test_a_fit_measures_it_from_the_targets_of_its_validation():
    x, y = samples(90)

    class Validated(Program):
        def val_dataloader(self):
            return loader(x, y, 32)

        def validation_step(self, batch, batch_idx):
            inputs, targets = batch
            self.log("val_acc", (self(inputs).argmax(1) == targets).float().mean())

    watcher, program = doctor(), Validated(mlp())
    examined(program, loader(x, y), 2, watcher=watcher)
    with torch.no_grad():
        right = float((program(x).argmax(1) == y).float().mean())
    most = float(y.bincount().max()) / len(y)
    wanted = (right - most) / (1 - most)
    assert watcher._state.level.facts()["validation_skill"] == pytest.approx(wanted, abs=1e-6)


def test_no_error_is_a_skill_of_1_and_targets_that_do_not_vary_have_none():
    assert skill(NUMBERS, {"val_mae": 0.0}) == 1.0
    assert skill(NUMBERS, {"val_mse": 0.0}) == 1.0
    for name in ("val_mae", "val_mse", "val_rmse"):
        assert math.isnan(skill(torch.full((20,), 3.0), {name: 0.5}))


def test_the_first_metric_that_can_be_compared_counts_and_each_time_it_is_logged():
    assert skill(CLASSES, {"val_acc": 0.8, "val_r2": 0.1}) == pytest.approx(0.5)
    assert skill(CLASSES, {"val_macro_acc": 0.9, "val_r2": 0.1}) == 0.1
    assert math.isnan(skill(CLASSES, {"val_acc": 0.8}, {"val_loss": 1.0}))
    assert math.isnan(skill(CLASSES, {"val_r2_acc": 0.8}))  # two kinds in one name


def test_where_one_class_is_nearly_all_an_accuracy_says_nothing():
    for others, known in ((1, False), (2, True)):  # of 100: 99 % and 98 %
        targets = torch.tensor([0] * (100 - others) + [1] * others)
        assert math.isnan(skill(targets, {"val_acc": 0.99})) != known
    assert skill(targets, {"val_acc": 0.99}) == pytest.approx(0.5)


def test_an_error_of_five_times_that_of_a_constant_is_of_the_same_units():
    assert skill(NUMBERS, {"val_mae": 5.0}) == pytest.approx(-24.0)
    assert math.isnan(skill(NUMBERS, {"val_mae": 5.1}))
    assert skill(NUMBERS, {"val_mse": 74.9}) == pytest.approx(-23.967, abs=1e-3)  # 3 times 25
    assert math.isnan(skill(NUMBERS, {"val_mse": 75.1}))


def test_sixteen_targets_suffice_and_those_of_several_columns():
    for count, known in ((15, False), (16, True)):
        assert math.isnan(skill(CLASSES[:count], {"val_acc": 0.9})) != known
    columns = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).repeat(8, 1)  # 1 and 1/2 of them are right
    assert skill(columns, {"val_acc": 0.875}) == pytest.approx(0.5)
    mixed = MetricLevel()
    for width in (1, 2):
        mixed.add((torch.zeros(16, 2), torch.zeros(16, width)), 0)
    assert mixed.pending() == []
    waves = level(torch.ones(20, dtype=torch.complex64))
    waves.note({"val_mae": 0.5})
    assert math.isnan(waves.facts()["validation_skill"])


def test_a_million_targets_are_kept_and_no_more():
    for more, known in ((0, True), (1, False)):
        found = MetricLevel()
        for count in (500_000, 500_000 + more):
            y = torch.zeros(count, dtype=torch.uint8)
            y[: count // 2] = 1
            found.add((torch.zeros(count), y), 0)
        assert bool(found.pending()) == known
        assert (found._levels == []) == known

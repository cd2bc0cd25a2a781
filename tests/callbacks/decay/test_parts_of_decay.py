"""The parts of the decay by hand: rates of groups, the clock, the lengths, the smoothed loss."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab import LearningRateDecay
from lightning_stab.callbacks._trainer.fit_state import FitStart
from lightning_stab.callbacks.decay import state as decay_state
from lightning_stab.callbacks.decay.options import DecayClock, DecayOptions
from lightning_stab.callbacks.decay.param_groups import (
    GroupRates,
    call_after_steps,
    group_names,
    learning_rates,
    scale_during_steps,
    undo_first_write,
)
from lightning_stab.callbacks.decay.state import DecayState, SmoothedLoss, total_length
from lightning_stab.errors import ConflictError


def sgd(*rates, **settings):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0, **settings)


# --- rates of groups ------------------------------------------------------------------------------


def test_the_rates_of_groups_are_their_first_ones_times_the_factor():
    optimizer = sgd(1.0, 0.5)
    own = GroupRates(optimizer)
    own.write(0.5)
    assert learning_rates(optimizer) == [0.5, 0.25]
    optimizer.param_groups[1]["lr"] = 0.75  # three times as much, by somebody else
    own.write(0.25)
    assert learning_rates(optimizer) == [0.25, 0.375]
    optimizer.param_groups[0]["lr"] = 0.5  # the one before the last comes back with an undone step
    own.write(0.125)
    assert learning_rates(optimizer) == [0.125, 0.1875]
    optimizer.param_groups[0]["lr"] = 0.0  # switched off,
    own.write(0.5)
    assert learning_rates(optimizer)[0] == 0.0
    optimizer.param_groups[0]["lr"] = 4.0  # and on again: the new rate is the first one
    own.write(0.5)
    assert learning_rates(optimizer)[0] == 2.0
    own.put_back()
    assert learning_rates(optimizer) == [4.0, 1.5]


def test_a_group_that_is_added_has_its_rate_as_of_now():
    optimizer = sgd(1.0)
    own = GroupRates(optimizer)
    own.write(0.25)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.5})
    own.write(0.5)
    assert learning_rates(optimizer) == [0.5, 1.0]
    own.write(0.0)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 3.0})
    own.write(0.5)  # from a factor of nothing there is no way back
    assert learning_rates(optimizer) == [0.5, 1.0, 1.5]
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": None})
    own.write(0.25)
    assert learning_rates(optimizer)[:3] == [0.25, 0.5, 0.75]
    assert math.isnan(learning_rates(optimizer)[3])
    assert optimizer.param_groups[3]["lr"] is None


def test_rates_go_on_from_their_state_and_from_scaled_ones():
    optimizer = sgd(1.0, 0.5)
    own = GroupRates(optimizer)
    assert not own.is_written(1.0)
    own.write(0.5)
    assert own.is_written(0.5)
    assert not own.is_written(0.25)
    again = GroupRates(optimizer)
    again.load_state_dict(own.state_dict())
    assert again.is_written(0.5)
    for group in optimizer.param_groups:
        group["lr"] /= 4
    assert not again.is_written(0.5)
    again.scale(0.25)
    again.write(1.0)
    assert learning_rates(optimizer) == [0.25, 0.125]


def test_the_rate_of_a_replaced_scheduler_is_given_back_with_its_momentum():
    optimizer = sgd(1.0, 2.0, momentum=0.9)
    first, second = optimizer.param_groups
    first |= {"lr": 0.1, "initial_lr": 0.7, "max_lr": 3.0, "max_momentum": 0.95, "momentum": 0.5}
    second |= {"lr": 0.2, "initial_lr": 2.0, "momentum": 0.5}
    undo_first_write(optimizer)
    assert learning_rates(optimizer) == [3.0, 2.0]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.5]
    plain = sgd(0.3)
    undo_first_write(plain)
    assert learning_rates(plain) == [0.3]


def test_names_of_groups():
    assert group_names([sgd(1.0, 1.0)]) == ["group0", "group1"]
    assert group_names([sgd(1.0), sgd(1.0)]) == ["opt0/group0", "opt1/group0"]


def test_a_step_counts_where_a_gradient_is_there_and_nothing_overflowed():
    class Idle(torch.optim.SGD):
        def step(self):
            pass

    groups = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimizer, counted = Idle(groups, lr=1.0), []
    handle = call_after_steps(optimizer, lambda: counted.append(1))
    optimizer.step()
    assert counted == []
    optimizer.param_groups[1]["params"][0].grad = torch.ones(1)
    optimizer.step()
    assert len(counted) == 1
    for overflow, steps in ((torch.tensor(1.0), 1), (torch.tensor(0.0), 2)):
        optimizer.found_inf = overflow
        optimizer.step()
        assert len(counted) == steps
    handle.remove()
    optimizer.step()
    assert len(counted) == 2


def test_the_factor_is_in_the_rates_only_while_the_optimizer_steps():
    optimizer = sgd(1.0)
    weight = optimizer.param_groups[0]["params"][0]
    weight.grad = torch.ones(1)
    handles = scale_during_steps(optimizer, SimpleNamespace(factor=0.25))
    optimizer.step()
    assert weight.item() == -0.25
    assert learning_rates(optimizer) == [1.0]
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert weight.item() == -1.25


# --- the clock ------------------------------------------------------------------------------------


def clock(total=1, **settings):
    return DecayClock(DecayOptions(**settings), total)


def test_a_warm_up_rises_in_equal_parts_and_the_decay_begins_behind_it():
    found = clock(gamma=0.5, interval="step", warmup_steps=3)
    factors = []
    for _ in range(6):
        factors.append(found.factor)
        found.step()
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.5, 0.25])
    assert found.steps == 6


def test_epochs_within_the_warm_up_or_ending_with_it_do_not_count():
    found = clock(gamma=0.5, warmup_steps=2)
    seen = []
    for _ in range(4):
        found.step()
        found.epoch()
        seen.append((found.epochs, found.factor))
    assert seen == [(0, pytest.approx(2 / 3)), (0, 1.0), (1, 0.5), (2, 0.25)]
    plain = clock(gamma=0.5)
    plain.epoch()  # without a warm-up an epoch without steps is one too
    assert (plain.epochs, plain.factor) == (1, 0.5)
    by_step = clock(gamma=0.5, interval="step")
    by_step.epoch()
    assert (by_step.epochs, by_step.factor) == (1, 1.0)
    by_epoch = clock(gamma=0.5)
    by_epoch.step()
    assert by_epoch.factor == 1.0


def test_a_value_is_not_observed_within_the_warm_up_and_a_cut_is_told():
    found = clock(schedule="plateau", patience=1, gamma=0.5, warmup_steps=1)
    assert not found.observe(1.0)
    found.step()
    assert [found.observe(v) for v in (1.0, 2.0, 2.0)] == [False, True, True]
    assert found.factor == 0.25
    assert not clock(schedule="loss").observe(1.0)
    by_loss = clock(schedule="loss", interval="step")
    by_loss.step()  # time does not move what follows a value
    by_loss.epoch()
    assert by_loss.factor == 1.0


def test_the_floor_holds_for_every_schedule():
    assert DecayOptions().least == 0.0
    assert DecayOptions(schedule="plateau").least == 0.01
    assert DecayOptions(schedule="plateau", floor=0.0).least == 0.0
    found = clock(gamma=0.1, floor=0.3)
    found.epoch()
    assert found.factor == 0.3


@pytest.mark.parametrize(
    ("schedule", "gamma"), [("exponential", 0.95), ("step", 0.1), ("plateau", 0.5)]
)
def test_the_factors_where_none_is_given(schedule, gamma):
    found = clock(schedule=schedule, every=1, patience=1)
    found.epoch()
    for value in (1.0, 1.0) if schedule == "plateau" else ():
        found.observe(value)
    assert found.factor == pytest.approx(gamma)


def test_a_clock_goes_on_with_the_present_settings():
    for interval in ("step", "epoch"):
        for steps in (1, 2, 5):
            old = clock(gamma=0.5, interval=interval, warmup_steps=2)
            new = clock(gamma=0.1, interval=interval, warmup_steps=2)
            for _ in range(steps):
                old.step()
                old.epoch()
            assert new.load_state_dict({**old.state_dict(), "epochs": old.epochs})
            assert (new.steps, new.epochs) == (steps, max(0, steps - 2))
            expected = [0.0, 2 / 3, 1.0, 0.0, 0.0, 1e-3][steps]
            assert new.factor == pytest.approx(expected)
    plateau = clock(schedule="plateau", patience=1)
    plateau.observe(1.0)
    plateau.observe(2.0)
    for same, goes_on, factor in ((True, True, 0.5), (False, False, 1.0)):
        new = clock(schedule="plateau", patience=1)
        assert new.load_state_dict(plateau.state_dict(), same_value=same) == goes_on
        assert new.factor == factor
    assert not clock(schedule="loss").load_state_dict(plateau.state_dict())
    assert not clock(schedule="oscillation").load_state_dict(plateau.state_dict())
    assert not clock(schedule="plateau").load_state_dict(clock().state_dict())


# --- the length of a schedule ---------------------------------------------------------------------


def length(monkeypatch, start=FitStart.FRESH, *, trainer=(), **settings):
    run = {
        "estimated_stepping_batches": 100, "num_training_batches": 20, "accumulate_grad_batches": 2,
        "max_epochs": 10, "global_step": 30, "current_epoch": 3, **dict(trainer),
    }  # fmt: skip
    monkeypatch.setattr(decay_state, "fit_start", lambda trainer: start)
    return total_length(SimpleNamespace(**run), DecayOptions(**settings))


def test_how_long_a_schedule_is(monkeypatch):
    cosine = {"schedule": "cosine"}
    steps = {**cosine, "interval": "step"}
    cases = [
        ({}, {"schedule": "exponential"}, 1),
        ({}, steps, 100),
        ({}, {**steps, "total": 40}, 40),
        ({}, {**steps, "warmup_steps": 30}, 70),
        ({}, {**steps, "warmup_steps": 100}, 1),
        ({}, cosine, 10),  # of ten steps each
        ({}, {**cosine, "total": 4}, 4),
        ({}, {**cosine, "warmup_steps": 25}, 8),  # two whole epochs
        ({"estimated_stepping_batches": 41}, cosine, 5),  # max_steps ends it in the fifth
        ({"max_epochs": -1}, cosine, 10),
        ({"max_epochs": None}, cosine, 10),
        ({"max_epochs": 0}, cosine, 10),
        ({"num_training_batches": 21}, cosine, 10),  # eleven steps in an epoch
        ({"estimated_stepping_batches": -1, "num_training_batches": math.inf}, cosine, 10),
        ({"estimated_stepping_batches": 5, "num_training_batches": 1}, cosine, 5),
    ]
    for trainer, settings, expected in cases:
        assert length(monkeypatch, trainer=trainer, **settings) == expected, (trainer, settings)
    continued = FitStart.CONTINUED
    assert length(monkeypatch, continued, **steps) == 70
    assert length(monkeypatch, continued, **cosine) == 7
    assert length(monkeypatch, continued, **{**steps, "total": 40}) == 40
    for trainer in ({"estimated_stepping_batches": math.inf}, {"estimated_stepping_batches": -1}):
        with pytest.raises(ConflictError, match=r"`total` must be given .* it counts steps\."):
            length(monkeypatch, trainer=trainer, **steps)
    endless = {"estimated_stepping_batches": -1, "num_training_batches": math.inf, "max_epochs": -1}
    with pytest.raises(ConflictError, match="it counts epochs"):
        length(monkeypatch, trainer=endless, **cosine)


# --- what is observed -----------------------------------------------------------------------------


def test_the_smoothed_loss_by_hand_and_over_a_restart():
    found = SmoothedLoss(0.5)
    assert found.value is None
    assert found.state_dict() == {}
    found.add(None)
    assert found.value is None
    found.add({"loss": torch.tensor(math.nan)})
    assert math.isnan(float(found.value))
    for loss in (torch.tensor([3.0, 5.0]), {"loss": torch.tensor(1.0)}):
        found.add(loss)
    # 4/2, then half of that and 1/2, of weights that add up to 3/4
    assert float(found.value) == pytest.approx((1.0 + 0.5) / 0.75)
    assert found.state_dict() == {"mean": 1.5, "weight": 0.75}
    again = SmoothedLoss(0.5)
    again.load_state_dict({})
    assert again.value is None
    again.load_state_dict(found.state_dict())
    for each in (found, again):
        each.add(torch.tensor(8.0))
        assert float(each.value) == pytest.approx((0.75 + 4.0) / 0.875)


def decaying(monkeypatch, *optimizers, metrics=None, **settings):
    monkeypatch.setattr(decay_state, "mean", lambda trainer, value: float(value))
    monkeypatch.setattr(decay_state, "fit_start", lambda trainer: FitStart.FRESH)
    trainer = SimpleNamespace(optimizers=list(optimizers), lr_scheduler_configs=[], global_step=7,
                              callback_metrics=metrics or {}, is_global_zero=False,
                              enable_validation=True)  # fmt: skip
    kept = []
    weights = SimpleNamespace(store=lambda t: kept.append("store"),
                              restore=lambda t: kept.append("restore"))  # fmt: skip
    return DecayState(DecayOptions(**settings), trainer, weights), trainer, kept


def test_the_loss_is_observed_every_so_many_steps_once(monkeypatch):
    state, trainer, _ = decaying(
        monkeypatch, sgd(1.0), schedule="loss", interval="step", check_every_n_steps=2,
        smoothing=0.0,
    )  # fmt: skip
    seen = []
    for loss, steps in ((4.0, 1), (2.0, 2), (1.0, 2), (1.0, 3), (0.5, 4)):
        state.clocks[0].steps = steps
        state.end_batch(trainer, torch.tensor(loss))
        seen.append(state.clocks[0].factor)
    assert seen == [1.0, 1.0, 1.0, 1.0, 0.25]  # from 2 to 0.5
    assert state.state_dict()["looked_at"] == 4
    metric, trainer, _ = decaying(monkeypatch, sgd(1.0), schedule="loss", monitor="val_loss")
    metric.end_batch(trainer, torch.tensor(1.0))
    assert metric.state_dict()["loss"] == {}


def test_a_metric_is_observed_after_the_validation_that_logged_it(monkeypatch):
    metrics = {"val_loss": torch.tensor(4.0)}
    state, trainer, kept = decaying(
        monkeypatch, sgd(1.0), metrics=metrics, schedule="plateau", monitor="val_loss", patience=1,
        reload_best=True, gamma=0.5,
    )  # fmt: skip

    def validated(value):
        state.begin_validation(trainer)
        if value is not None:
            metrics["val_loss"] = torch.tensor(value)
        state.end_validation(trainer)
        state.end_epoch(trainer)
        return state.clocks[0].factor

    assert validated(3.0) == 1.0
    assert kept == ["store"]
    assert validated(None) == 1.0  # nothing was logged
    assert validated(5.0) == 0.5
    assert kept == ["store"]
    state.reload_if_due(trainer)
    state.reload_if_due(trainer)
    assert kept == ["store", "restore"]
    assert state.state_dict()["best"] == 3.0
    assert state.state_dict()["metric_at"] == "validation"
    assert validated(2.0) == 0.5
    assert kept == ["store", "restore", "store"]
    state._is_reload_due = True
    again, trainer, kept = decaying(
        monkeypatch, sgd(1.0), schedule="plateau", monitor="val_loss", reload_best=True
    )
    again.load_state_dict({**state.state_dict(), **state.circumstances()})
    again.reload_if_due(trainer)
    assert kept == ["restore"]
    assert again.state_dict()["best"] == 2.0


def test_a_checkpoint_of_another_number_of_optimizers_is_refused(monkeypatch):
    one, _, _ = decaying(monkeypatch, sgd(1.0))
    two, _, _ = decaying(monkeypatch, sgd(1.0), sgd(2.0))
    with pytest.raises(ConflictError, match="is that of 2 optimizers, and the module has 1"):
        one.load_state_dict(two.state_dict())


def test_the_rates_of_the_coming_step(monkeypatch):
    for combine, now in (("refuse", [1.0, 0.5]), ("multiply", [0.25, 0.125])):
        state, _, _ = decaying(monkeypatch, sgd(1.0, 0.5), combine=combine, warmup_steps=3)
        assert state.next_rates() == now
    state, trainer, _ = decaying(monkeypatch, sgd(1.0), warmup_steps=3)
    state.attach()
    assert state.next_rates() == [0.25]
    trainer.lr_scheduler_configs = [SimpleNamespace(scheduler=None)]
    state.leave_or_take_over(trainer)
    state.clocks[0].step()
    state.write()
    assert state.next_rates() == [0.25]  # left to the scheduler that has come
    assert state.circumstances()["left"] is True
    trainer.lr_scheduler_configs = []
    state.leave_or_take_over(trainer)
    assert state.next_rates() == [0.5]
    state.scale(0.5)
    assert state.next_rates() == [0.25]
    state.detach()
    assert state._handles == []


def test_which_batch_of_a_validation_is_the_first():
    decay, seen = LearningRateDecay("plateau", monitor="val_loss", reload_best=True), []
    decay._weights = SimpleNamespace(
        begin_batch=lambda trainer, monitor, is_first: seen.append((monitor, is_first))
    )
    trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False,
                              validating=True, fast_dev_run=False)  # fmt: skip
    for batch_idx, loader in ((0, 0), (1, 0), (0, 1), (1, 1)):
        decay.on_validation_batch_start(trainer, None, None, batch_idx, loader)
    assert seen == [("val_loss", True)] + [("val_loss", False)] * 3
    for other in (LearningRateDecay("plateau", monitor="val_loss"), LearningRateDecay()):
        other._weights = decay._weights
        other.on_validation_batch_start(trainer, None, None, 0, 0)
    assert len(seen) == 4


def test_rates_are_logged_where_they_are_due_or_an_epoch_has_changed_them(monkeypatch):
    from lightning_stab.callbacks.decay import learning_rate_decay as module

    logged = []
    monkeypatch.setattr(module, "log_scalars", lambda trainer, values: logged.append(values))
    decay = LearningRateDecay(gamma=0.5)
    decay._state, trainer, _ = decaying(monkeypatch, sgd(1.0), gamma=0.5)
    trainer.log_every_n_steps = 4

    def begin(step, batch_idx):
        logged.clear()
        trainer.global_step = step
        decay.on_train_batch_start(trainer, None, None, batch_idx)
        return [value for values in logged for value in values.values()]

    assert begin(0, 0) == [1.0]
    assert begin(0, 1) == []  # the same step: gradients are accumulated
    assert begin(3, 3) == []
    assert begin(4, 4) == [1.0]
    assert begin(5, 0) == []  # an epoch that changed nothing
    decay._state.end_epoch(trainer)
    assert begin(6, 0) == [0.5]
    assert begin(7, 1) == []
    trainer.log_every_n_steps = 0
    assert begin(9, 1) == [0.5]

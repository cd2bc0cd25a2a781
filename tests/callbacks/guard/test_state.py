"""What the guard holds during one fit, step by step, without a fit."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab import StepGuard
from lightning_stab.callbacks._trainer.step import OptimizerStep
from lightning_stab.callbacks.guard import state as guarding
from lightning_stab.callbacks.guard.options import GuardOptions
from lightning_stab.callbacks.guard.state import GuardState


class Own(torch.optim.SGD):
    """Not one of torch's own, so that it may move the weights in between."""


class Trainer(SimpleNamespace):
    __hash__ = object.__hash__


def made(optimizer=Own, automatic=True, optimizers=1, **options):
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.automatic_optimization = automatic
    trainer = Trainer(
        lightning_module=module,
        lr_scheduler_configs=[],
        precision_plugin=Trainer(scaler=None),
        optimizers=[None] * optimizers,
    )
    state = GuardState(trainer, module, GuardOptions(**{"on_nonfinite": "skip", **options}))
    return state, trainer, module, optimizer(module.parameters(), lr=0.1)


def step_of(trainer, module, optimizer, evaluation=0, index=0):
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    return OptimizerStep(trainer, module, optimizer, index, evaluation)


def test_a_rejected_step_whose_end_nobody_sees_says_nothing_of_the_next_one():
    """As where a loss scaler does not call the optimizer."""
    state, trainer, module, optimizer = made()
    state.begin_step(optimizer, 0)
    state.reject(step_of(trainer, module, optimizer))
    assert state.quantities(step_of(trainer, module, optimizer, evaluation=1)) is None
    state.begin_step(optimizer, 0)
    assert state.quantities(step_of(trainer, module, optimizer, evaluation=1)) is not None
    before = [p.clone() for p in module.parameters()]
    optimizer.step()
    assert not state.end_step(trainer, 0)
    moved = zip(before, module.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in moved)


def test_a_rejected_step_is_put_back_where_it_has_moved_the_weights():
    state, trainer, module, optimizer = made()
    state.begin_step(optimizer, 0)
    before = [p.clone() for p in module.parameters()]
    step = step_of(trainer, module, optimizer)
    state.reject(step)
    assert all(p.grad.eq(0).all() for p in module.parameters())  # it may need some
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    assert not state.end_step(trainer, 0)
    assert all(map(torch.equal, before, module.parameters()))
    assert all(p.grad is None for p in module.parameters())


def test_weights_that_a_step_has_ruined_are_put_back_and_that_is_said():
    state, trainer, module, optimizer = made(torch.optim.LBFGS)
    for ruins in (False, True):
        state.begin_step(optimizer, 0)
        with torch.no_grad():
            module[0].weight.fill_(math.nan if ruins else 7.0)
        assert state.end_step(trainer, 0) == ruins
        assert bool(module[0].weight.eq(7.0).all())
    state.begin_step(optimizer, 0)
    module[0].weight.data.fill_(math.inf)
    assert state.end_batch(trainer)  # of a step whose end nobody saw
    assert not state.end_batch(trainer)


@pytest.mark.parametrize(
    ("optimizer", "options", "kept"),
    [
        (Own, {}, [True, True, True, False]),
        (torch.optim.SGD, {}, [False] * 4),
        (torch.optim.LBFGS, {}, [True] * 4),
        (Own, {"on_nonfinite": "raise"}, [False] * 4),
    ],
)
def test_weights_are_kept_for_three_steps_of_an_optimizer_that_evaluates_once(
    optimizer, options, kept
):
    state, trainer, module, used = made(optimizer, **options)
    found = []
    for _ in kept:
        state.begin_step(used, 0)
        found.append(0 in state._backups)
        state.quantities(step_of(trainer, module, used))
        state.end_step(trainer, 0)
    assert found == kept


def test_weights_are_kept_for_ever_where_an_optimizer_evaluates_again_or_elsewhere():
    for evaluation, moves in ((1, False), (0, True)):
        state, trainer, module, optimizer = made()
        for _ in range(6):
            state.begin_step(optimizer, 0)
            assert 0 in state._backups
            if moves:
                module[0].weight.data.add_(0.1)
            state.quantities(step_of(trainer, module, optimizer, evaluation))
            state.end_step(trainer, 0)


def test_what_is_judged_of_a_step():
    state, trainer, module, optimizer = made()
    for loss in (torch.tensor(1.0), torch.tensor([2.0, 4.0])):
        state.add_loss(trainer, loss)
    found = state.quantities(step_of(trainer, module, optimizer))
    assert float(found["loss"]) == 4.0  # the sum of the means
    assert float(found["norm"]) == pytest.approx(math.sqrt(4 + 2 + 2 + 2))
    assert float(found["running"]) == pytest.approx(math.sqrt(2))  # variances of 1
    assert "loss" not in state.quantities(step_of(trainer, module, optimizer))  # they are used
    state.add_loss(trainer, torch.tensor(1.0))
    assert "loss" not in state.quantities(step_of(trainer, module, optimizer, index=1))
    plain, trainer, _, _ = made()
    plain.buffers = guarding.BufferKeeper(nn.Linear(2, 2))
    assert set(plain.quantities(step_of(trainer, module, optimizer))) == {"norm"}
    lbfgs, trainer, module, optimizer = made(torch.optim.LBFGS)
    assert lbfgs.quantities(step_of(trainer, module, optimizer, evaluation=1)) is None
    assert lbfgs.quantities(step_of(trainer, module, optimizer)) is not None


def test_a_step_can_be_rejected_unless_the_weights_were_moved_unkept():
    state, trainer, module, optimizer = made()
    first, again = (step_of(trainer, module, optimizer, evaluation) for evaluation in (0, 1))
    assert state.can_put_back(first)
    assert not state.can_put_back(again)
    state.begin_step(optimizer, 0)
    assert state.can_put_back(again)
    assert made(on_nonfinite="raise")[0].can_put_back(again)


def test_buffers_are_kept_where_a_window_begins_and_come_back_with_a_rejected_step():
    state, trainer, module, optimizer = made()
    mean = module[1].running_mean

    def write(value):
        with torch.no_grad():
            mean.fill_(value)

    write(1.0)
    state.begin_batch(None, 0)
    write(2.0)
    state.begin_batch(None, 1)  # of the same window
    write(3.0)
    state.reject(step_of(trainer, module, optimizer))
    assert mean.tolist() == [1.0, 1.0]
    state.end_window()
    write(4.0)
    state.begin_batch(None, 2)
    write(5.0)
    state.reject(step_of(trainer, module, optimizer))
    assert mean.tolist() == [4.0, 4.0]


def test_under_manual_optimisation_each_step_that_is_taken_keeps_the_buffers():
    for automatic, value in ((True, 1.0), (False, 2.0)):
        state, trainer, module, optimizer = made(torch.optim.SGD, automatic)
        module[1].running_mean.fill_(1.0)
        state.begin_batch(None, 0)
        module[1].running_mean.fill_(2.0)
        state.end_step(trainer, 0)
        module[1].running_mean.fill_(3.0)
        state.reject(step_of(trainer, module, optimizer))
        assert module[1].running_mean.tolist() == [value] * 2


def test_accepted_steps_are_counted_once_and_a_repeated_rejection_takes_one_off():
    state, trainer, module, optimizer = made()
    state.accept()
    state.accept(is_repeated=True)
    assert state.num_accepted_since_snapshot == 1
    state.reject(step_of(trainer, module, optimizer))
    assert state.num_accepted_since_snapshot == 1
    state.reject(step_of(trainer, module, optimizer, evaluation=1))
    assert state.num_accepted_since_snapshot == 0


@pytest.fixture
def snapshots(monkeypatch):
    """Snapshots are numbers; those that are put back are noted."""
    number, back = iter(range(9)), []
    monkeypatch.setattr(guarding, "take_snapshot", lambda *_: {"place": next(number)})
    monkeypatch.setattr(
        guarding, "restore_snapshot", lambda *given: back.append(given[-1]["place"])
    )
    monkeypatch.setattr(guarding, "fits_into_checkpoint", lambda snapshot: snapshot["place"] < 5)
    return back


def test_a_rewind_goes_to_the_newest_snapshot_and_to_the_older_one_where_that_did_not_help(
    snapshots,
):
    state, trainer, module, _ = made(on_nonfinite="rewind")
    guard = SimpleNamespace(num_rewound=4)
    for _ in range(3):
        state.keep_snapshot(trainer, module, guard)
        state.accept()
    assert [s["place"] for s in state.snapshots] == [1, 2]
    for expected in (2, 1, 1):
        state.rewind_due = True
        assert state.rewind(trainer, module, guard) == {"place": expected, "num_rewound": 4}
        assert not state.rewind_due
        assert state.num_accepted_since_snapshot == 0
    state.keep_snapshot(trainer, module, guard)
    state.rewind(trainer, module, guard)
    assert snapshots == [2, 1, 1, 3]


def test_the_newest_snapshot_goes_on_in_a_resumed_run(snapshots):
    one, trainer, module, _ = made(on_nonfinite="rewind")
    other = made(on_nonfinite="rewind")[0]
    guard = SimpleNamespace(num_rewound=0)
    assert one.newest_snapshot() is None
    one.keep_snapshot(trainer, module, guard)
    one.accept()
    one.accept()
    saved = one.newest_snapshot()
    assert saved == {"place": 0, "num_rewound": 0, "age": 2, "fresh": True}
    other.add_saved_snapshot(saved)
    assert other.num_accepted_since_snapshot == 2
    assert other.newest_snapshot() == saved
    one.rewind(trainer, module, guard)
    assert (one.newest_snapshot()["age"], one.newest_snapshot()["fresh"]) == (0, False)
    for _ in range(5):
        one.keep_snapshot(trainer, module, guard)
    assert one.newest_snapshot() is None  # it does not fit


def test_a_deferred_step_is_read_once():
    state, trainer, module, optimizer = made()
    step = step_of(trainer, module, optimizer)
    step.bad = torch.tensor(1.0)
    module[1].running_mean.fill_(1.0)
    state.begin_batch(None, 0)
    module[1].running_mean.fill_(2.0)
    state.defer("a deferred step", step)
    assert module[1].running_mean.tolist() == [1.0, 1.0]
    assert state.take_deferred() == "a deferred step"
    assert state.take_deferred() is None


@pytest.mark.parametrize(
    ("snapshots", "accepted", "settled", "kept"),
    [([], 99, 0, 0), ([1], 48, 0, 0), ([1], 49, 1, 0), ([1], 50, 1, 1)],
)
def test_a_verdict_on_its_way_is_waited_for_only_where_a_snapshot_is_due(
    snapshots, accepted, settled, kept, monkeypatch
):
    guard, calls = StepGuard("skip", snapshot_every_n_steps=50), []
    schedules = SimpleNamespace(note_advanced=lambda: calls.append("advanced"))
    guard._state = SimpleNamespace(
        deferred=SimpleNamespace(schedules=schedules), snapshots=snapshots, rewind_due=False,
        num_accepted_since_snapshot=accepted, end_batch=lambda trainer: False,
        keep_snapshot=lambda *_: calls.append("kept"),
    )  # fmt: skip
    monkeypatch.setattr(guard, "_settle", lambda trainer: calls.append("settled"))
    monkeypatch.setattr(guard, "_rewind", lambda *_: calls.append("rewound"))
    trainer = Trainer(callbacks=[guard])
    guard.on_train_batch_end(trainer, None, None, None, 0)
    assert calls == ["advanced", *["settled"] * settled, *["kept"] * kept]
    calls.clear()
    guard._state.deferred, guard._state.rewind_due = None, True
    guard.on_train_batch_end(trainer, None, None, None, 1)
    assert calls == ["rewound"]

"""Verdicts that stay on the device: nothing bad is ever taken, and nothing but time is lost."""

import copy
from functools import partial

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import same_optimizers, same_state
from helpers.lightning_twins import Classifier, RecordingLogger, batches, built, fit
from torch.optim import lr_scheduler

from lightning_stab import GradientClipping, StepGuard
from lightning_stab.callbacks._trainer import device_values
from lightning_stab.callbacks.guard.state import GuardState
from lightning_stab.errors import UnstableStepError

FUSED = {
    "adam": partial(torch.optim.Adam, lr=1e-2, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, fused=True),
    "amsgrad": partial(torch.optim.AdamW, lr=1e-2, amsgrad=True, fused=True),
    "sgd": partial(torch.optim.SGD, lr=0.1, fused=True),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3, fused=True),
}
SPIKES = {"min_window": 4, "window": 8}


class Fused(Classifier):
    def __init__(self, optimizer="adamw", **arguments):
        super().__init__(**arguments)
        self.name = optimizer

    def configure_optimizers(self):
        optimizer = FUSED[self.name](self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Watch(lightning.Callback):
    """Sees after each step that the weights are finite."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        assert all(p.isfinite().all() for p in pl_module.state_dict().values())


@pytest.fixture(autouse=True)
def deferred(monkeypatch):
    """Let the CPU count as a device; return the steps whose verdict stayed there."""
    monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", True)
    steps, defer = [], GuardState.defer

    def noting(self, *arguments):
        steps.append(arguments)
        return defer(self, *arguments)

    monkeypatch.setattr(GuardState, "defer", noting)
    return steps


@pytest.mark.parametrize("optimizer", FUSED)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_skipped_batch_leaves_no_trace(optimizer, value, deferred):
    places = [2, 7, 8, 9, 17]
    guard = StepGuard("skip")
    poisoned, clean = built(Fused, optimizer), built(Fused, optimizer)
    first = fit(poisoned, [Watch(), guard], batches(20, poison=places, kind=value))
    second = fit(clean, [], batches(20, drop=places))
    assert guard.num_skipped == len(places)
    assert len(deferred) > 8
    assert same_state(poisoned, clean)
    assert optimizer == "sgd" or same_optimizers(first, second)  # plain SGD has no state


def test_a_bad_batch_after_a_bad_batch_is_judged_at_once(deferred):
    fit(built(Fused), [StepGuard("skip")], batches(8, poison=[3, 4]))
    assert len(deferred) == 6  # the first bad one is deferred, the two after it are not


@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_healthy_run_is_the_run_without_the_guard(policy, deferred):
    watched, bare = built(Fused), built(Fused)
    guard = StepGuard(policy, policy, **SPIKES)
    first, second = fit(watched, [guard]), fit(bare, [])
    assert len(deferred) == 8  # of 12 steps, the first four of which fill the window
    assert guard.num_skipped == 0
    assert same_state(watched, bare)
    assert same_optimizers(first, second)


def test_spikes_are_passed_over_as_where_the_host_decides(monkeypatch, deferred):
    loader = batches(24)
    for place in (9, 15, 16):
        loader.dataset.tensors[0][place] *= 1e4
    guards, modules = [], []
    for as_device in (True, False):
        monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", as_device)
        guards.append(StepGuard("skip", "skip", **SPIKES))
        modules.append(built(Fused, batch_norm=False))
        fit(modules[-1], [guards[-1]], copy.deepcopy(loader))
    assert guards[0].num_skipped == guards[1].num_skipped == 3
    assert len(deferred) > 5
    assert same_state(*modules)
    assert guards[0].state_dict() == guards[1].state_dict()


@pytest.mark.parametrize(
    "schedule",
    [
        partial(lr_scheduler.ExponentialLR, gamma=0.9),
        partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=40),
        partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
def test_a_step_wise_schedule_waits_for_the_step(schedule, optimizer, deferred):
    places = [2, 7, 8, 13, 19]
    make = partial(built, Fused, optimizer, scheduler=schedule)
    poisoned, clean = make(), make()
    first = fit(poisoned, [StepGuard("skip")], batches(20, poison=places))
    second = fit(clean, [], batches(20, drop=places))
    assert deferred
    assert same_state(poisoned, clean)
    rates = [trainer.optimizers[0].param_groups[0] for trainer in (first, second)]
    assert rates[0]["lr"] == rates[1]["lr"]
    states = [trainer.lr_scheduler_configs[0].scheduler.last_epoch for trainer in (first, second)]
    assert states[0] == states[1]


@pytest.mark.parametrize("place", [3, 7])
def test_raise_stops_one_step_later_with_the_weights_from_before_the_bad_batch(place, deferred):
    poisoned, clean = built(Fused, batch_norm=False), built(Fused, batch_norm=False)
    with pytest.raises(
        UnstableStepError, match=rf"non-finite loss at step {place} .*'net\.0\.weight' of shape"
    ):
        fit(poisoned, [StepGuard()], batches(8, poison=[place]))
    fit(clean, [], batches(8, drop=range(place, 8)))
    assert same_state(poisoned, clean)


def test_what_is_logged_stands_at_the_bad_step():
    logger = RecordingLogger()
    fit(built(Fused), [StepGuard("skip")], batches(8, poison=[5]), logger=logger)
    assert {s for s, values in logger.steps.items() if "guard/skipped" in values} == {5}


def test_a_checkpoint_of_a_bad_step_holds_no_trace_of_it(tmp_path):
    class Save(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 5:
                trainer.save_checkpoint(tmp_path / "bad.ckpt")

    schedule = partial(lr_scheduler.ExponentialLR, gamma=0.9)
    fit(built(Fused, scheduler=schedule), [StepGuard("skip"), Save()], batches(8, poison=[5]))
    clean = fit(built(Fused, scheduler=schedule), [], batches(5))
    saved = torch.load(tmp_path / "bad.ckpt", weights_only=False)
    guard = next(v for k, v in saved["callbacks"].items() if "StepGuard" in k)
    assert guard["num_skipped"] == 1
    rate = clean.optimizers[0].param_groups[0]["lr"]
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == rate
    assert saved["lr_schedulers"][0]["last_epoch"] == 5


def test_a_rewind_comes_when_it_would_come_on_the_host(monkeypatch, deferred):
    results = []
    for as_device in (True, False):
        monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", as_device)
        guard, module = StepGuard("rewind", snapshot_every_n_steps=4), built(Fused)
        fit(module, [guard], batches(24, poison=[9, 10, 11, 17]))
        results.append((guard, module))
    (one, first), (other, second) = results
    assert deferred
    assert (one.num_rewound, one.num_skipped) == (other.num_rewound, other.num_skipped) == (1, 4)
    assert same_state(first, second)


def test_clipped_steps_that_are_passed_over_do_not_count(monkeypatch, deferred):
    fractions = []
    for as_device in (True, False):
        monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", as_device)
        logger = RecordingLogger()
        clipping = GradientClipping("norm", 0.5, every_n_steps=12)
        fit(built(Fused), [StepGuard("skip"), clipping], batches(12, poison=[4, 8]), logger=logger)
        fractions.append(logger.latest["clip/fraction"])
    assert deferred
    assert fractions[0] == pytest.approx(fractions[1])


def test_no_verdict_is_left_on_the_optimizer():
    trainer = fit(built(Fused), [StepGuard("skip")], batches(6, poison=[5]))
    assert not {"found_inf", "grad_scale"} & vars(trainer.optimizers[0]).keys()

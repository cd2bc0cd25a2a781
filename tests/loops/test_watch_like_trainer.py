"""The same program under a Trainer and under `watch` gives the same, bit for bit."""

import contextlib
from functools import partial

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import hooks_of, same_optimizers, same_state
from helpers.contract import same
from helpers.lightning_twins import (
    OPTIMIZERS,
    Classifier,
    RecordingLogger,
    SmallGAN,
    batches,
    built,
    fit,
)
from helpers.quiet import QUIET
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision as FabricMixedPrecision
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

import lightning_stab
from lightning_stab import (
    ActivationMonitor,
    GradientClipping,
    GradientMonitor,
    StepGuard,
    TrainingDoctor,
)
from lightning_stab.callbacks._trainer import device_values

GUARDED = partial(StepGuard, "skip", "skip", min_window=4, window=8)
POISONED = partial(batches, 14, poison=(3, 11))


def suite(guard=GUARDED):
    """Return all five, which log often."""
    return [
        GradientMonitor(every_n_steps=5, dense_steps=3),
        ActivationMonitor(every_n_steps=4),
        GradientClipping("norm", 0.5, every_n_steps=4),
        guard(),
        TrainingDoctor(every_n_steps=5, print_findings=False, log_facts=True),
    ]


class Record:
    """What a run has logged, by step, without what the module logs itself."""

    def __init__(self, steps=()):
        self.steps = {
            s: {k: v for k, v in found.items() if "/" in k} for s, found in dict(steps).items()
        }
        self.steps = {s: found for s, found in self.steps.items() if found}

    def __call__(self, values, step):
        self.steps.setdefault(step, {}).update(values)


class Run:
    """What there is to be compared at the end of a run."""

    def __init__(self, module, callbacks, record, optimizers):
        self.module, self.callbacks, self.record, self.optimizers = (
            module,
            callbacks,
            record,
            optimizers,
        )

    def assert_equal(self, other):
        assert self.record.steps
        assert different(self.record.steps, other.record.steps) == []
        assert same_state(self.module, other.module)
        assert same_optimizers(self, other)
        for own, theirs in zip(self.callbacks, other.callbacks, strict=True):
            assert own.state_key == theirs.state_key
            assert same(own.state_dict(), theirs.state_dict()), own
        assert self.callbacks[-1].findings == other.callbacks[-1].findings
        assert hooks_of(other.module) == []


def different(first, second):
    """Return each value that was logged otherwise, with its step and name."""
    places = {(s, name) for steps in (first, second) for s, v in steps.items() for name in v}
    pairs = (
        (place, *(r.get(place[0], {}).get(place[1]) for r in (first, second)))
        for place in sorted(places)
    )
    return [(place, a, b) for place, a, b in pairs if not same(a, b)]


def under_trainer(module, data, epochs=2, guard=GUARDED, **settings):
    """Fit under a Trainer."""
    callbacks = suite(guard)
    trainer = fit(module, callbacks, data(), epochs=epochs, **settings)
    return Run(module, callbacks, Record(trainer.logger.steps), trainer.optimizers)


def loss_of(module, batch):
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


def watched(
    module, data, optimizer, epochs=2, guard=GUARDED, forward=contextlib.nullcontext, **settings
):
    """Train the same in a plain loop."""
    callbacks, record = suite(guard), Record()
    steps = -(-len(data()) // settings.get("accumulate_grad_batches", 1)) * epochs
    torch.manual_seed(1)
    with lightning_stab.watch(
        module, optimizer, callbacks, log=record, total_steps=steps, **settings
    ) as w:
        for _ in range(epochs):
            for batch in w.batches(data()):
                with forward():
                    loss = loss_of(module, batch)
                w.step(loss)
    return Run(module, callbacks, record, [optimizer])


@pytest.fixture
def plain():
    """Return a module as the Trainer's, which logs nothing, and its optimizer."""

    def make(name="sgd", **arguments):
        module = built(optimizer=name, logs=False, **arguments)
        return module, OPTIMIZERS[name](module.parameters())

    return make


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_plain_loop(plain, name):
    one = under_trainer(built(optimizer=name, dropout=0.2), POISONED)
    other = watched(*reversed_data(plain(name, dropout=0.2), POISONED))
    assert one.callbacks[3].num_skipped >= 4
    one.assert_equal(other)


def reversed_data(pair, data):
    """Return module, data, optimizer."""
    return pair[0], data, pair[1]


def test_accumulation_with_a_last_short_window(plain):
    data = partial(batches, 10, poison=(5,))
    one = under_trainer(built(), data, accumulate_grad_batches=4)
    module, optimizer = plain()
    one.assert_equal(watched(module, data, optimizer, accumulate_grad_batches=4))


def test_a_schedule_waits_where_a_step_is_not_taken(plain):
    decay = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
    one = under_trainer(built(scheduler=decay), POISONED)
    module, optimizer = plain()
    other = watched(module, POISONED, optimizer, scheduler=decay(optimizer))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**24)
    one.assert_equal(other)


def test_a_rewind(plain):
    guard = partial(StepGuard, "rewind", rewind_after=2, snapshot_every_n_steps=3)
    data = partial(batches, 12, poison=(5, 6))
    one = under_trainer(built(), data, guard=guard)
    assert one.callbacks[3].num_rewound == 2
    module, optimizer = plain()
    one.assert_equal(watched(module, data, optimizer, guard=guard))


def test_verdicts_that_stay_on_the_device(plain, monkeypatch):
    monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", True)
    one = under_trainer(built(optimizer="adamw_fused"), POISONED)
    module, optimizer = plain("adamw_fused")
    one.assert_equal(watched(module, POISONED, optimizer))


def scaler():
    return torch.amp.GradScaler("cpu", init_scale=2.0**10)


@pytest.mark.filterwarnings("ignore:.*will only be used when device_type")
def test_a_loss_scaler(plain):
    one = under_trainer(built(), POISONED, plugins=[MixedPrecision("16-mixed", "cpu", scaler())])
    half = partial(torch.autocast, "cpu", dtype=torch.float16)
    module, optimizer = plain()
    one.assert_equal(watched(module, POISONED, optimizer, forward=half, scaler=scaler()))


@pytest.mark.nightly
def test_an_optimizer_that_evaluates_several_times(plain):
    guard = partial(StepGuard, "skip")
    one = under_trainer(built(optimizer="lbfgs"), POISONED, guard=guard)
    module, optimizer = plain("lbfgs")
    callbacks, record = suite(guard), Record()
    torch.manual_seed(1)
    with lightning_stab.watch(module, optimizer, callbacks, log=record, total_steps=28) as w:
        for _ in range(2):
            for batch in w.batches(POISONED()):
                w.step(partial(loss_of, module, batch))
    one.assert_equal(Run(module, callbacks, record, [optimizer]))


class WatchedGAN(SmallGAN):
    """Steps by `watch` where the twin steps by the Trainer."""

    def step(self, optimizer, loss, part):
        self.w.step(loss, optimizer=optimizer)

    def optimizers(self):
        return self.own


def test_two_optimizers():
    one = under_trainer(built(SmallGAN), partial(POISONED))
    module = built(WatchedGAN)
    module.own = module.configure_optimizers()
    callbacks, record = suite(), Record()
    torch.manual_seed(1)
    with lightning_stab.watch(module, module.own, callbacks, log=record, total_steps=28) as w:
        module.w = w
        for _ in range(2):
            for number, batch in enumerate(w.batches(POISONED())):
                module.training_step(batch, number)
    del module.w
    one.assert_equal(Run(module, callbacks, record, module.own))


class Validated(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", loss_of(self, batch))


@pytest.mark.nightly
def test_validation(plain):
    module = built(Validated)
    callbacks, data = suite(), partial(batches, 6)
    held = DataLoader(
        [tuple(10.0 * t if t.is_floating_point() else t for t in b) for b in batches(2)],
        batch_size=None,
    )
    run = fit_with_validation(module, callbacks, data(), held)
    other, optimizer = plain()
    theirs, record = suite(), Record()
    torch.manual_seed(1)
    with lightning_stab.watch(other, optimizer, theirs, log=record, total_steps=36) as w:
        for _ in range(6):
            for batch in w.batches(data()):
                w.step(loss_of(other, batch))
            other.eval()
            with torch.no_grad():
                losses = [loss_of(other, batch) for batch in held]
            other.train()
            w.validated({"val_loss": torch.stack(losses).mean()}, held)
    assert callbacks[-1].state_dict()["patient"]["validation"]["loss"]
    run.assert_equal(Run(other, theirs, record, [optimizer]))


def fit_with_validation(module, callbacks, data, held):
    own = {**QUIET, "max_epochs": 6, "num_sanity_val_steps": 0, "logger": RecordingLogger()}
    trainer = lightning.Trainer(callbacks=callbacks, **own)
    torch.manual_seed(1)
    trainer.fit(module, data, held)
    return Run(module, callbacks, Record(trainer.logger.steps), trainer.optimizers)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.filterwarnings("ignore:.*will only be used when device_type")
def test_fabric(plain, precision):
    def plugins(kind):
        own = scaler() if precision == "16-mixed" else None
        return [] if precision == "32-true" else [kind(precision, "cpu", own)]

    one = under_trainer(built(), POISONED, plugins=plugins(MixedPrecision))
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugins(FabricMixedPrecision))
    module, optimizer = plain()
    model, wrapped = fabric.setup(module, optimizer)
    callbacks, record = suite(), Record()
    loader = fabric.setup_dataloaders(POISONED())
    torch.manual_seed(1)
    with lightning_stab.watch(
        model, wrapped, callbacks, log=record, fabric=fabric, total_steps=28
    ) as w:
        for _ in range(2):
            for batch in w.batches(loader):
                with fabric.autocast():  # the loss too, as in a `training_step`
                    loss = loss_of(model, batch)
                w.step(loss)
    other = Run(module, callbacks, record, [optimizer])
    if precision != "32-true":  # Fabric rounds what enters the module, and the Trainer does not
        for steps in (one.record.steps, record.steps):
            for name in ("diagnosis_facts/input_size", "diagnosis_facts/input_spread"):
                assert [found.pop(name, None) for found in steps.values()]
        for doctor in (one.callbacks[-1], callbacks[-1]):
            for name in ("input_size", "input_spread"):
                doctor._state._batches._known.pop(name)
                for finding in doctor._engine.findings:
                    finding.evidence.pop(name, None)
    one.assert_equal(other)


def test_resuming(plain, tmp_path):
    """Two epochs and a saved state, then two more, are four epochs."""
    guard = partial(StepGuard, "rewind", "skip", min_window=4, window=8, snapshot_every_n_steps=4)
    whole = watched(*reversed_data(plain(), POISONED), epochs=4, guard=guard)
    module, optimizer = plain()
    record, path = Record(), tmp_path / "state.pt"
    for part in range(2):
        callbacks = suite(guard)
        w = lightning_stab.watch(module, optimizer, callbacks, log=record, total_steps=56)
        if part:
            w.load_state_dict(torch.load(path, weights_only=True))
        else:
            torch.manual_seed(1)
        with w:
            for _ in range(2):
                for batch in w.batches(POISONED()):
                    w.step(loss_of(module, batch))
            if not part:
                torch.save(w.state_dict(), path)
    assert w.num_steps == 56
    other = Run(module, callbacks, record, [optimizer])
    assert whole.callbacks[3].num_skipped == other.callbacks[3].num_skipped
    assert same_state(whole.module, module)
    guards = [run.callbacks[3].state_dict() for run in (whole, other)]
    assert same(guards[0]["judges"], guards[1]["judges"])
    assert same(guards[0]["snapshot"]["module"], guards[1]["snapshot"]["module"])
    steps = {s: v for s, v in whole.record.steps.items() if "diagnosis" not in str(v)}
    assert all(same(record.steps[s], v) for s, v in steps.items())

"""`watch` in a loop without a Trainer: what it does, what it refuses, what it leaves behind."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.comparing import hooks_of, same_state
from helpers.contract import process_state, same
from helpers.doctor_programs import learnable, modes_left
from helpers.events import events
from helpers.lightning_twins import Classifier, batches, built
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.utils.tensorboard import SummaryWriter

import lightning_stab
from lightning_stab import (
    ActivationMonitor,
    BestWeightsEarlyStopping,
    GradientCheck,
    GradientClipping,
    GradientMonitor,
    StepGuard,
    TrainingDoctor,
    WeightInitialization,
)
from lightning_stab.callbacks._trainer.loop_trainer import LoopTrainer
from lightning_stab.callbacks.doctor.state import NO_BASELINE
from lightning_stab.errors import ConflictError, InvalidArgumentError, UnstableStepError
from lightning_stab.loops.given import scaler, with_end
from lightning_stab.loops.watch import UNKNOWN_BATCHES

CALLBACKS = Path(lightning_stab.__file__).parent / "callbacks"


def net_and_sgd(rate=0.1, **arguments):
    net = built(logs=False, **arguments).net
    return net, torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)


def loss_of(net, batch):
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def train(net, w, data, *, epochs=1, follow=True):
    with w:
        for _ in range(epochs):
            for batch in w.batches(data) if follow else data:
                w.step(loss_of(net, batch))


def quiet_doctor(**arguments):
    return TrainingDoctor(print_findings=False, **arguments)


def test_every_question_to_a_trainer_has_an_answer():
    net, sgd = net_and_sgd()
    trainer = LoopTrainer(net, [sgd], [])
    rooms = ("_trainer", "_hooks", "gradients", "activations", "clipping", "guard", "doctor")
    text = "\n".join(
        p.read_text() for room in rooms for p in sorted((CALLBACKS / room).glob("*.py"))
    )
    asked = set(re.findall(r"\btrainer\.((?:[a-z_]+\.)*[a-z_]+)", text))
    assert len(asked) > 30
    for chain in asked:
        thing = trainer
        for name in chain.split("."):
            assert hasattr(thing, name), f"`trainer.{chain}` has no answer in a plain loop"
            thing = getattr(thing, name)


def test_a_loop_that_does_not_name_its_batches():
    runs = []
    for follow in (True, False):
        net, sgd = net_and_sgd()
        logged = {}
        callbacks = [
            GradientMonitor(every_n_steps=4, dense_steps=2),
            StepGuard("skip"),
            quiet_doctor(),
        ]
        w = lightning_stab.watch(
            net,
            sgd,
            callbacks,
            log=lambda values, step, logged=logged: logged.update({step: values}),
        )
        train(net, w, batches(9, poison=(5,)), follow=follow)
        runs.append((net, logged, w))
    (one, logged, w), (other, theirs, unnamed) = runs
    assert same_state(one, other)
    assert w.num_skipped == unnamed.num_skipped == 1
    assert "depth/first_last_log10" in logged[7]
    assert same(logged, theirs)
    assert w.unseen == ()
    assert unnamed.unseen == (UNKNOWN_BATCHES,)


def test_a_loss_of_no_known_function_is_said_to_be_unknown():
    net, sgd = net_and_sgd()
    with lightning_stab.watch(net, sgd, [quiet_doctor(every_n_steps=2)]) as w:
        for x, _ in w.batches(batches(6)):
            w.step((net(x) - 1).abs().exp().mean())
    assert w.unseen == (NO_BASELINE,)


def test_the_default_callbacks_are_those_that_only_watch():
    net, sgd = net_and_sgd()
    w = lightning_stab.watch(net, sgd)
    assert repr(w) == "watch(Sequential, SGD, [GradientMonitor(), StepGuard(), TrainingDoctor()])"


def test_own_accumulation_by_backward():
    nets = []
    for own in (True, False):
        net, sgd = net_and_sgd(batch_norm=False)
        if own:
            with lightning_stab.watch(net, sgd, [GradientMonitor(), StepGuard("skip")]) as w:
                for number, batch in enumerate(w.batches(batches(8)), start=1):
                    w.backward(loss_of(net, batch) / 2)
                    if number % 2 == 0:
                        w.step()
        else:
            w = lightning_stab.watch(net, sgd, [StepGuard("skip")], accumulate_grad_batches=2)
            train(net, w, batches(8), follow=False)
        assert w.num_steps == 4
        nets.append(net)
    assert same_state(*nets)


def test_the_doctor_finds_what_is_wrong_and_tells_the_writer(tmp_path):
    net = nn.Sequential(
        *[x for _ in range(20) for x in (nn.Linear(8, 8), nn.Sigmoid())], nn.Linear(8, 3)
    )
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    with SummaryWriter(tmp_path) as writer:
        w = lightning_stab.watch(net, adam, [quiet_doctor(every_n_steps=10)], log=writer)
        train(net, w, learnable(), epochs=3)
    assert "vanishing-gradient" in {finding.id for finding in w.findings}
    assert (tmp_path / "findings.json").is_file()
    assert "diagnosis/vanishing-gradient" in events(tmp_path)[0]


def test_a_run_that_the_guard_ends_leaves_nothing_behind():
    net, sgd = net_and_sgd()
    data = list(batches(5, poison=(2,)))
    before = process_state()
    w = lightning_stab.watch(
        net, sgd, [GradientMonitor(), ActivationMonitor(1), StepGuard(), quiet_doctor()]
    )
    with pytest.raises(UnstableStepError, match="non-finite loss at step 2"):
        train(net, w, data)
    after = process_state()
    assert same(before, after)
    assert hooks_of(net) == []
    assert modes_left() == 0
    assert not _global_optimizer_pre_hooks
    assert not _global_optimizer_post_hooks
    assert w.num_steps == 2
    assert "non-finite" in {finding.id for finding in w.findings}


def test_a_failure_at_the_end_of_the_run_ends_it_too():
    class Failing(GradientMonitor):
        log = ()

        def setup(self, trainer, pl_module, stage):
            super().setup(trainer, pl_module, stage)
            self.log = (*self.log, "setup")

        def on_train_end(self, trainer, pl_module):
            if "failed" not in self.log:
                self.log = (*self.log, "failed")
                raise OSError("no room")

        def teardown(self, trainer, pl_module, stage):
            super().teardown(trainer, pl_module, stage)
            self.log = (*self.log, "teardown")

    net, sgd = net_and_sgd()
    monitor = Failing()
    w = lightning_stab.watch(net, sgd, [monitor])
    with pytest.raises(OSError, match="no room"):
        train(net, w, batches(2))
    with pytest.raises(ConflictError, match="must be called within"):
        w.step(loss_of(net, next(iter(batches(1)))))
    train(net, w, batches(2))
    assert [e for e in monitor.log if e != "teardown"] == ["setup", "failed", "setup"]
    assert monitor.log.count("teardown") >= 2
    assert (w.num_steps, hooks_of(net)) == (4, [])


def test_a_loop_that_is_left_early_and_entered_again_goes_on():
    net, sgd = net_and_sgd()
    guard = StepGuard("skip")
    w = lightning_stab.watch(net, sgd, [guard])
    for _ in range(2):
        with w:
            for batch in w.batches(batches(8, poison=(1,))):
                w.step(loss_of(net, batch))
                if w.num_steps % 3 == 0:
                    break
    assert (w.num_steps, w.num_skipped, guard.num_skipped) == (6, 2, 2)
    assert hooks_of(net) == []


def test_watching_changes_nothing():
    nets = []
    for watched in (True, False):
        net, sgd = net_and_sgd(dropout=0.3)
        torch.manual_seed(3)
        if watched:
            callbacks = [
                GradientMonitor(2),
                ActivationMonitor(2),
                StepGuard(),
                quiet_doctor(every_n_steps=2),
            ]
            w = lightning_stab.watch(net, sgd, callbacks)
            train(net, w, batches(8), follow=False)
        else:
            for batch in batches(8):
                sgd.zero_grad()
                loss_of(net, batch).backward()
                sgd.step()
        nets.append((net, torch.get_rng_state()))
    assert same_state(nets[0][0], nets[1][0])
    assert torch.equal(nets[0][1], nets[1][1])


def test_the_optimizer_may_be_stepped_by_hand():
    net, sgd = net_and_sgd()
    guard = StepGuard("skip")
    with lightning_stab.watch(net, sgd, [guard]) as w:
        for batch in w.batches(batches(4, poison=(2,))):
            sgd.zero_grad()
            loss_of(net, batch).backward()
            sgd.step()
    assert guard.num_skipped == 1
    assert all(p.isfinite().all() for p in net.parameters())


class Stepping(Classifier):
    """A LightningModule, in a loop of its own."""


def test_a_lightning_module_is_a_module():
    module = built(Stepping, logs=False)
    adam = torch.optim.Adam(module.parameters())
    with lightning_stab.watch(
        module, adam, [StepGuard("skip", forensics=True), quiet_doctor()]
    ) as w:
        for number, batch in enumerate(w.batches(batches(4, poison=(1,)))):
            w.step(module.training_step(batch, number))
    assert w.num_skipped == 1


REFUSED = {
    "init": ({"callbacks": [WeightInitialization()]}, "Call `lightning_stab.initialize"),
    "check": ({"callbacks": [GradientCheck()]}, "Call `lightning_stab.check_gradients"),
    "stop": ({"callbacks": [BestWeightsEarlyStopping("val_loss")]}, "Keep the best weights"),
    "forensics": ({"callbacks": [StepGuard(forensics=True)]}, "`training_step`"),
    "twice": ({"callbacks": [StepGuard(), StepGuard()]}, "overwrite each other's state"),
    "log": ({"log": 3}, "`log` must be a function"),
    "accumulate": ({"accumulate_grad_batches": 0}, "`accumulate_grad_batches` must be"),
    "total": ({"total_steps": 0}, "`total_steps` must be"),
    "schedule": ({"scheduler": "cosine"}, "`scheduler` must be made of a plain optimizer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_the_first_step(name):
    arguments, words = REFUSED[name]
    net, sgd = net_and_sgd()
    with pytest.raises((ConflictError, InvalidArgumentError), match=words):
        lightning_stab.watch(net, sgd, **arguments)


def test_wrong_calls_say_what_to_do():
    net, sgd = net_and_sgd()
    other = torch.optim.SGD(net.parameters(), 0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd)
    with pytest.raises(ConflictError, match="follows a metric"):
        lightning_stab.watch(net, sgd, scheduler=plateau)
    with pytest.raises(InvalidArgumentError, match="`optimizer` must be an optimizer"):
        lightning_stab.watch(net, net.parameters())
    with pytest.raises(InvalidArgumentError, match="`module` must be a torch module"):
        lightning_stab.watch(lambda x: x, sgd)
    with pytest.raises(ConflictError, match="one optimizer only"):
        lightning_stab.watch(net, [sgd, other], accumulate_grad_batches=2)
    w = lightning_stab.watch(net, sgd, [StepGuard()], accumulate_grad_batches=2)
    with pytest.raises(ConflictError, match="`step` must be called within"):
        w.step(torch.ones((), requires_grad=True))
    with pytest.raises(InvalidArgumentError, match="`loss` must be one number"), w:
        w.step(torch.ones(()))
    with pytest.raises(InvalidArgumentError, match="those that `watch` was given"), w:
        w.step(None, optimizer=other)
    with pytest.raises(ConflictError, match="`accumulate_grad_batches=1` only"), w:
        w.step(partial(torch.ones, ()))
    with pytest.raises(ConflictError, match="called before `with`"), w:
        w.load_state_dict(w.state_dict())
    with pytest.raises(ConflictError, match="is on already"), w, w:
        pass


def test_clipping_bounds_what_the_optimizer_gets():
    net, sgd = net_and_sgd()
    with lightning_stab.watch(net, sgd, [GradientClipping("norm", 0.01)]) as w:
        for batch in w.batches(batches(3)):
            w.step(100 * loss_of(net, batch))
            norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
            assert float(norm) == pytest.approx(0.01, rel=1e-4)


def test_an_unsized_loader_steps_with_its_last_short_window():
    net, sgd = net_and_sgd()
    w = lightning_stab.watch(net, sgd, [StepGuard()], accumulate_grad_batches=4)
    train(net, w, iter(batches(6)))
    assert w.num_steps == 2


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("is_sized", [False, True])
def test_the_last_batch_is_known_where_it_can_be(ahead, number, is_sized):
    loader = list(range(number))
    read = list(with_end(loader if is_sized else iter(loader), ahead=ahead))
    last = number - 1 if is_sized or ahead else None
    assert read == [(place, place == last) for place in range(number)]


def test_whether_a_batch_ends_without_a_step_is_known_before_and_within_it():
    net, sgd = net_and_sgd(batch_norm=False)
    w = lightning_stab.watch(net, sgd, [StepGuard()], accumulate_grad_batches=3)
    seen = []
    with w:
        for batch in batches(6):
            before = w.is_accumulating
            loss = loss_of(net, batch)
            seen.append((before, w.is_accumulating))
            w.step(loss)
    assert seen == [(each, each) for each in (True, True, False)] * 2


def test_a_loss_scaler_that_is_off_is_none():
    net, sgd = net_and_sgd()
    on, off = (torch.amp.GradScaler("cpu", enabled=enabled) for enabled in (True, False))
    assert [scaler(each, None) for each in (None, off, on)] == [None, None, on]
    with pytest.raises(InvalidArgumentError, match="`scaler` must be a GradScaler"):
        lightning_stab.watch(net, sgd, scaler=2.0)
    with pytest.raises(InvalidArgumentError, match="`fabric` must be a Fabric"):
        lightning_stab.watch(net, sgd, fabric=3)
    with pytest.raises(InvalidArgumentError, match="`callbacks` must be a list"):
        lightning_stab.watch(net, sgd, StepGuard())
    with pytest.raises(InvalidArgumentError, match="`optimizer` must be an optimizer"):
        lightning_stab.watch(net, [])

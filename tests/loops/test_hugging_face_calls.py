"""`WatchCallback` driven as Hugging Face's Trainer calls it, where that package is missing."""

from types import SimpleNamespace

import pytest
import torch
from helpers.comparing import hooks_of, same_state
from helpers.contract import same
from helpers.lightning_twins import batches, built
from torch import nn

import lightning_stab
from lightning_stab import GradientClipping, GradientMonitor, StepGuard, TrainingDoctor
from lightning_stab.errors import ConflictError, UnstableStepError
from lightning_stab.loops.hugging_face import FILE_NAME, WatchCallback


class Net(nn.Module):
    """A classifier as Hugging Face writes it; its loss is in an object or in a dictionary."""

    as_object = False

    def __init__(self):
        super().__init__()
        self.net = built(logs=False, batch_norm=False).net

    def forward(self, x, labels=None, num_items_in_batch=None):
        loss = nn.functional.cross_entropy(self.net(x), labels)
        loss = loss if num_items_in_batch is None else loss * len(x) / num_items_in_batch
        return SimpleNamespace(loss=loss) if self.as_object else {"loss": loss}


class Wrapped:
    """As accelerate wraps an optimizer."""

    scaler = None

    def __init__(self, optimizer):
        self.optimizer = optimizer


def data(num=8, poison=()):
    return [{"x": x, "labels": y} for x, y in batches(num, poison=poison)]


def adamw(net):
    return torch.optim.AdamW(net.parameters(), lr=1e-2)


def arguments(folder="", accumulate=1, **given):
    own = {"gradient_accumulation_steps": accumulate, "output_dir": str(folder)}
    return SimpleNamespace(**{"max_grad_norm": 0.0, "n_gpu": 1, **own, **given})


def train(watching, net, loader, args, *, epochs=2, start=0, counts=False, metrics=None):
    """Make the calls of the Trainer, in its order."""
    every = args.gradient_accumulation_steps
    total = epochs * len(loader) // every
    state = SimpleNamespace(max_steps=total, global_step=start, is_world_process_zero=True)
    optimizer = adamw(net)
    optimizer.zero_grad()
    given = {"model": net, "optimizer": Wrapped(optimizer), "train_dataloader": loader}
    watching.on_train_begin(args, state, None, **given)
    for _ in range(epochs - start * every // len(loader)):
        watching.on_epoch_begin(args, state, None, **given)
        for number, batch in enumerate(loader, 1):
            items = {"num_items_in_batch": every * len(batch["x"])} if counts else {}
            output = net(**batch, **items)
            loss = output.loss if net.as_object else output["loss"]
            (loss if counts else loss / every).backward()
            if number % every:
                watching.on_substep_end(args, state, None, **given)
                continue
            watching.on_pre_optimizer_step(args, state, None, **given)
            optimizer.step()
            optimizer.zero_grad()
            state.global_step += 1
            watching.on_step_end(args, state, None, **given)
        if metrics:
            watching.on_evaluate(args, state, None, metrics=metrics, **given)
        watching.on_save(args, state, None, **given)
    watching.on_train_end(args, state, None, **given)
    return watching.watch


def callbacks():
    doctor = TrainingDoctor(print_findings=False, every_n_steps=2)
    return [GradientMonitor(2, 1), GradientClipping("norm", 0.5), StepGuard("skip"), doctor]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("counts", [False, True])
def test_it_is_the_plain_loop(accumulate, counts):
    runs = []
    for theirs in (True, False):
        net, logged, loader = Net(), {}, data(poison=[3])
        net.as_object = theirs

        def log(values, step, logged=logged):
            logged.setdefault(step, {}).update(values)

        if theirs:
            args = arguments(accumulate=accumulate)
            w = train(WatchCallback(callbacks(), log=log), net, loader, args, counts=counts)
        else:
            total = 2 * len(loader) // accumulate
            given = {"accumulate_grad_batches": accumulate, "total_steps": total, "log": log}
            w = lightning_stab.watch(net, adamw(net), callbacks(), **given)
            with w:
                for _ in range(2):
                    for batch in w.batches(loader):
                        w.step(net(**batch)["loss"])
        assert (w.num_steps, w.num_skipped) == (16 // accumulate, 2)
        assert w.unseen == ()
        assert hooks_of(net) == []
        runs.append((net, logged, w.findings))
    (net, logged, findings), (other, theirs, found) = runs
    assert same_state(net, other)
    assert same(logged, theirs)
    assert findings == found


def test_the_state_lies_beside_the_checkpoint_and_comes_back(tmp_path):
    for step in (8, 16):
        (tmp_path / f"checkpoint-{step}").mkdir()
    first, loader = callbacks(), data(poison=[3])
    metrics = {"eval_loss": 0.5, "epoch": 1.0}
    train(WatchCallback(first), Net(), loader, arguments(tmp_path), metrics=metrics)
    assert len(first[3].state_dict()["patient"]["validation"]["loss"]) == 2
    assert torch.load(tmp_path / "checkpoint-8" / FILE_NAME, weights_only=True)["callbacks"]
    again = callbacks()
    w = train(WatchCallback(again), Net(), loader, arguments(tmp_path), start=8)
    assert (w.num_steps, w.num_skipped) == (16, 2)
    with pytest.warns(RuntimeWarning, match=r"found no .*checkpoint-4.*as in a fresh run"):
        w = train(WatchCallback(callbacks()), Net(), data(4), arguments(tmp_path), start=4)
    assert w.num_skipped == 0


def test_a_run_that_the_guard_ends_leaves_no_hook():
    net = Net()
    watching = WatchCallback([StepGuard()])
    with pytest.raises(UnstableStepError, match="non-finite loss at step 3"):
        train(watching, net, data(poison=[3]), arguments())
    assert hooks_of(net) == []
    assert not watching.watch._trainer.training
    w = train(watching, net, data(), arguments(), epochs=1)  # and the next run begins as new
    assert w.num_steps == 8


def test_an_evaluation_before_and_after_a_run_is_left_alone():
    watching, net, args = WatchCallback([StepGuard()]), Net(), arguments()
    watching.on_evaluate(args, None, None, metrics={"eval_loss": 1.0})
    train(watching, net, data(2), args)
    watching.on_evaluate(args, None, None, metrics={"eval_loss": 1.0})
    assert repr(watching) == "WatchCallback([StepGuard()])"
    assert repr(WatchCallback()) == "WatchCallback(None)"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_grad_norm": 1.0}, r"got `max_grad_norm=1\.0`\. Set `max_grad_norm=0`"),
        ({"deepspeed": "config.json"}, "cannot work under DeepSpeed"),
        ({"n_gpu": 2}, "got 2 GPUs in one process"),
    ],
)
def test_what_cannot_work_is_refused_when_training_begins(given, sentence):
    with pytest.raises(ConflictError, match=sentence):
        train(WatchCallback([GradientClipping()]), Net(), data(2), arguments(**given))
    if "max_grad_norm" in given:  # the Trainer alone may clip
        train(WatchCallback([StepGuard()]), Net(), data(2), arguments(**given))

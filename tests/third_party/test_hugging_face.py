"""Hugging Face's Trainer with `WatchCallback`: the same as a plain loop under `watch`."""

import importlib.util

import pytest
import torch
from helpers.comparing import hooks_of, same_state
from helpers.contract import same
from helpers.lightning_twins import batches, built
from torch import nn

import lightning_stab
from lightning_stab import GradientClipping, GradientMonitor, StepGuard, TrainingDoctor
from lightning_stab.callbacks.doctor.state import NO_BASELINE
from lightning_stab.errors import ConflictError, UnstableStepError
from lightning_stab.loops.hugging_face import FILE_NAME, WatchCallback

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.usefixtures("folder"),
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.skipif(
        importlib.util.find_spec("transformers") is None
        or importlib.util.find_spec("accelerate") is None,
        reason="needs the extra third-party",
    ),
]
STEPS = 12


class Net(nn.Module):
    """A classifier as Hugging Face writes it."""

    def __init__(self):
        super().__init__()
        self.net = built(logs=False).net

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Items(Net):
    """One that takes the number of items of a whole step."""

    def forward(self, x, labels=None, num_items_in_batch=None, **kwargs):
        logits = self.net(x)
        kind = "mean" if num_items_in_batch is None else "sum"
        loss = nn.functional.cross_entropy(logits, labels, reduction=kind)
        return {"loss": loss / (num_items_in_batch or 1), "logits": logits}


def samples(poison=()):
    xs, ys = batches(STEPS, poison=poison).dataset.tensors
    return [{"x": x, "labels": y} for x, y in zip(xs.flatten(0, 1), ys.flatten(), strict=True)]


def callbacks(**arguments):
    return [
        GradientMonitor(3, dense_steps=2),
        GradientClipping("norm", 0.5, every_n_steps=2),
        StepGuard("skip", **arguments),
        TrainingDoctor(print_findings=False, every_n_steps=3),
    ]


def adamw(net):
    return torch.optim.AdamW(net.parameters(), lr=1e-2)


def train(net, callbacks, data, log=None, *, resume=None, **settings):
    transformers = pytest.importorskip("transformers")

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return None

    usual = {
        "output_dir": "out",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 16,
        "num_train_epochs": 2,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 1,
    }
    watching = WatchCallback(callbacks, log=log)
    trainer = InOrder(
        net,
        transformers.TrainingArguments(**{**usual, **settings}),
        train_dataset=data,
        eval_dataset=data,
        callbacks=[watching],
        optimizers=(adamw(net), None),
    )
    trainer.train(resume_from_checkpoint=resume)
    return watching.watch


def plain(net, callbacks, data, log, *, accumulate=1):
    w = lightning_stab.watch(
        net,
        adamw(net),
        callbacks,
        log=log,
        accumulate_grad_batches=accumulate,
        total_steps=2 * STEPS // accumulate,
    )
    parts = [data[i : i + 16] for i in range(0, len(data), 16)]
    loader = [{k: torch.stack([s[k] for s in part]) for k in part[0]} for part in parts]
    with w:
        for _ in range(2):
            for batch in w.batches(loader):
                w.step(net(**batch)["loss"])
    return w


@pytest.mark.parametrize("kind", [Net, Items])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_it_is_the_plain_loop(kind, accumulate):
    runs, logs = [], []
    for trains in (train, plain):
        torch.manual_seed(0)
        net, logged = kind(), {}
        chosen = callbacks()

        def log(values, step, logged=logged):
            logged.setdefault(step, {}).update(values)

        if trains is train:
            own = {"gradient_accumulation_steps": accumulate}
            w = train(net, chosen, samples(poison=(5,)), log, **own)
        else:
            w = plain(
                Net.__call__ and net, chosen, samples(poison=(5,)), log, accumulate=accumulate
            )
        assert w.num_skipped == 2
        assert hooks_of(net) == []
        runs.append((net, w))
        logs.append(logged)
    (net, w), (other, alone) = runs
    assert logs[0].keys() == logs[1].keys()
    assert [f.id for f in w.findings] == [f.id for f in alone.findings]
    if kind is Items and accumulate > 1:  # a sum over all items is rounded in another order
        total = "grad_norm/total"
        assert logs[0][0][total] == pytest.approx(logs[1][0][total], rel=1e-5)
        return
    assert same(logs[0], logs[1])
    assert same_state(net, other)
    assert w.unseen == ((NO_BASELINE,) if kind is Items else ())  # a sum, divided afterwards
    assert alone.unseen == ()


def test_a_run_that_the_guard_ends_leaves_no_hook():
    net = Net()
    with pytest.raises(UnstableStepError, match="non-finite loss at step 3"):
        train(net, [StepGuard(), TrainingDoctor(print_findings=False)], samples(poison=(3,)))
    assert hooks_of(net) == []


def test_the_state_comes_back_with_the_checkpoint(folder):
    chosen = callbacks()
    train(Net(), chosen, samples(poison=(5,)), save_strategy="epoch", eval_strategy="epoch")
    path = folder / "out" / f"checkpoint-{STEPS}"
    assert (path / FILE_NAME).is_file()
    assert len(chosen[3].state_dict()["patient"]["validation"]["loss"]) == 2
    again = callbacks()
    w = train(Net(), again, samples(poison=(5,)), resume=str(path), eval_strategy="epoch")
    assert w.num_steps == 2 * STEPS
    assert again[2].num_skipped == 2
    assert same(chosen[2].state_dict(), again[2].state_dict())


def test_clipping_twice_is_refused():
    with pytest.raises(ConflictError, match="`max_grad_norm=0`"):
        train(Net(), callbacks(), samples(), max_grad_norm=1.0)

"""Which hooks `watch` calls, in which order, with which numbers: written out for one loop each."""

import math

import pytest
import torch
from torch import nn

import lightning_stab
from lightning_stab import GradientMonitor, StepGuard
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.loops import given


class Recorder(GradientMonitor):
    """Notes each hook that is called, and where the run is then."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if not name.startswith("on_") and name not in ("setup", "teardown"):
            return found

        def noting(trainer, module, *arguments, **keywords):
            short = name.removeprefix("on_").removeprefix("train_")
            own = [a for a in arguments if not isinstance(a, torch.optim.Optimizer)]
            own = [round(float(a.detach()), 4) if isinstance(a, torch.Tensor) else a for a in own]
            now = (trainer.current_epoch, trainer.global_step, trainer.is_last_batch)
            self.calls.append((short, *own, *keywords.values(), now))

        return noting


def net_and_sgd(rate=0.0):
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    return net, torch.optim.SGD(net.parameters(), lr=rate)


def numbers(*values):
    return [torch.tensor([float(value)]) for value in values]


def short(calls, *kept):
    """Return the calls by their first letters, without where the run is."""
    return [call[:-1] for call in calls if call[0] in kept]


def test_the_hooks_of_two_epochs_with_a_window_of_two_batches():
    net, sgd = net_and_sgd()
    recorder = Recorder()
    w = lightning_stab.watch(net, sgd, [recorder], accumulate_grad_batches=2)
    with w:
        for _ in range(2):
            for x in w.batches(numbers(1, 2, 3)):
                w.step(net(x).sum())
            w.validated({"val_loss": 1.0}, ["a", "b"])
    whole = (
        ("setup", "fit", (0, 0, False)), ("fit_start", (0, 0, False)), ("start", (0, 0, False)),
    )  # fmt: skip
    for epoch, step in ((0, 0), (1, 2)):
        first, second = (epoch, step, False), (epoch, step + 1, False)
        last = (epoch, step + 2, True)
        begin = (epoch, step, epoch > 0)  # what was the last batch's is there until the next one
        whole += (
            ("epoch_start", begin),
            ("batch_start", 1.0, 0, first), ("before_backward", 0.5, first),
            ("after_backward", first), ("batch_end", None, 1.0, 0, first),
            ("batch_start", 2.0, 1, first), ("before_backward", 1.0, first),
            ("after_backward", first), ("before_optimizer_step", first),
            ("batch_end", None, 2.0, 1, second),
            ("batch_start", 3.0, 2, (*second[:2], True)),
            ("before_backward", 1.5, (*second[:2], True)),
            ("after_backward", (*second[:2], True)),
            ("before_optimizer_step", (*second[:2], True)), ("batch_end", None, 3.0, 2, last),
            ("validation_start", last), ("validation_batch_start", "a", 0, last),
            ("validation_batch_start", "b", 1, last), ("validation_end", last),
            ("epoch_end", last),
        )  # fmt: skip
    end = (2, 4, True)
    assert recorder.calls == [*whole, ("end", end), ("teardown", "fit", end)]
    assert w._trainer.callback_metrics == {"val_loss": 1.0}
    loop = w.state_dict()["loop"]
    assert loop == {"global_step": 4, "epoch": 2, "batches": 6, "batches_that_stepped": 4}


def test_a_loop_that_names_no_batches_has_one_epoch_and_sees_what_enters_the_module():
    net, sgd = net_and_sgd()
    recorder = Recorder()
    with lightning_stab.watch(net, sgd, [recorder]) as w:
        for x in numbers(1, 2):
            w.step(net(x).sum())
            with torch.no_grad():
                net(x)
        net.eval()
        net(x)  # no batch of the training
        net.train()
        w.step(net.weight.sum())  # nothing has entered it
    kept = short(recorder.calls, "batch_start", "batch_end", "epoch_start", "epoch_end")
    assert kept == [
        ("batch_start", tuple(numbers(1)), 0), ("batch_end", None, tuple(numbers(1)), 0),
        ("batch_start", tuple(numbers(2)), 1), ("batch_end", None, tuple(numbers(2)), 1),
        ("batch_start", None, 2), ("batch_end", None, None, 2), ("epoch_end",),
    ]  # fmt: skip
    assert (w.num_steps, w._trainer.current_epoch) == (3, 1)


def test_an_epoch_that_is_left_early_ends_its_batch_and_the_next_one_begins_at_nought():
    net, sgd = net_and_sgd()
    recorder = Recorder()
    with lightning_stab.watch(net, sgd, [recorder]) as w:
        for x in w.batches(numbers(1, 2, 3)):
            w.step(net(x).sum())
            break
        for x in w.batches(iter(numbers(4))):
            w.step(net(x).sum())
        assert w._trainer.num_training_batches == math.inf
    kept = short(recorder.calls, "batch_start", "batch_end", "epoch_start", "epoch_end", "end")
    assert kept == [
        ("epoch_start",), ("batch_start", 1.0, 0), ("batch_end", None, 1.0, 0), ("epoch_end",),
        ("epoch_start",), ("batch_start", 4.0, 0), ("batch_end", None, 4.0, 0), ("epoch_end",),
        ("end",),
    ]  # fmt: skip


def test_after_a_failure_the_next_run_begins_a_batch_of_its_own():
    net, sgd = net_and_sgd()
    recorder = Recorder()
    w = lightning_stab.watch(net, sgd, [recorder])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), w:
        net(torch.ones(1, 2))
    names = [call[0] for call in recorder.calls]
    assert names == ["setup", "fit_start", "start", "batch_start", "exception", "teardown"]
    recorder.calls.clear()
    with w:
        w.step(net(numbers(5)[0]).sum())
    assert [call[0] for call in recorder.calls[:4]] == [
        "setup", "fit_start", "start", "batch_start",
    ]  # fmt: skip
    assert recorder.calls[3][1] == tuple(numbers(5))


def test_gradients_are_cleared_before_the_first_loss_of_a_step_and_kept_after_it():
    net, sgd = net_and_sgd()
    with lightning_stab.watch(net, sgd, [StepGuard()]) as w:
        net.weight.grad = torch.full((1, 1), 50.0)
        for factor in (1, 2):  # two losses of one step
            w.backward(factor * net(numbers(3)[0]).sum())
        assert float(net.weight.grad) == 9.0
        w.step()
        assert float(net.weight.grad) == 9.0
        w.step(net(numbers(4)[0]).sum())
        assert float(net.weight.grad) == 4.0
    other = torch.optim.SGD(net.parameters(), lr=0.0)
    with lightning_stab.watch(net, [sgd, other], [StepGuard()]) as w:
        w.backward(net(numbers(3)[0]).sum())  # with several, clearing is left to the caller
        assert float(net.weight.grad) == 7.0
        w.step(net(numbers(2)[0]).sum(), optimizer=other)
        assert float(net.weight.grad) == 2.0


def test_schedules_advance_with_each_step_and_not_with_each_batch():
    net, sgd = net_and_sgd(rate=1.0)
    both = [torch.optim.lr_scheduler.ExponentialLR(sgd, 0.5) for _ in range(2)]
    for scheduler, steps in ((both[0], 0.25), (both, 0.25 * 0.0625)):
        w = lightning_stab.watch(
            net, sgd, [StepGuard()], scheduler=scheduler, accumulate_grad_batches=2
        )
        with w:
            for _ in w.batches(range(4)):
                w.step(net(torch.zeros(1)).sum())
        assert sgd.param_groups[0]["lr"] == steps
        assert w.num_steps == 2


def test_where_scalars_go():
    def function(values, step):
        return

    class Logger:
        def log_metrics(self, metrics, step):
            return

    class SummaryWriter:  # of somebody else: it can be called, or it is none
        pass

    logger = Logger()
    assert given.loggers(None, None) == []
    assert given.loggers([logger, logger], None) == [logger, logger]
    assert given.loggers((logger,), None) == [logger]
    (made,) = given.loggers(function, None)
    taken = []
    made._log = lambda values, step: taken.append((values, step))
    made.log_metrics({"a": 1.0}, 3)
    assert taken == [({"a": 1.0}, 3)]
    with pytest.raises(InvalidArgumentError, match="`log` must be a function"):
        given.loggers(SummaryWriter(), None)
    fabric = type("Fabric", (), {"loggers": [logger, object()]})()
    assert given.loggers(None, fabric) == [logger]


def test_which_optimizer_steps():
    net, sgd = net_and_sgd()
    other = torch.optim.SGD(net.parameters(), lr=0.1)
    assert given.one_of_optimizers(None, [sgd]) is sgd
    assert given.one_of_optimizers(sgd, [other, sgd]) is sgd
    for wanted, known in ((None, [sgd, other]), (other, [sgd]), (None, [])):
        with pytest.raises(InvalidArgumentError, match="those that `watch` was given"):
            given.one_of_optimizers(wanted, known)
    assert given.optimizers((sgd, other), 1) == [sgd, other]
    for wrong in ([], [sgd, None], None):
        with pytest.raises(InvalidArgumentError, match="`optimizer` must be an optimizer"):
            given.optimizers(wrong, 1)
    with pytest.raises(ConflictError, match="one optimizer only"):
        given.optimizers([sgd, other], 2)


def test_what_a_loss_is():
    weight = nn.Parameter(torch.ones(2))
    given.check_loss(weight.sum())
    given.check_loss(weight[:1])
    for wrong, words in (
        (weight, r"a tensor of shape \(2,\)"), (torch.ones(()), r"a tensor of shape \(\)"),
        (1.0, "got 1.0"), (None, "got None"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError, match=words):
            given.check_loss(wrong)

"""The small functions that every callback stands on, with values by hand and no fit."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab.callbacks._trainer import device_values, losses, media
from lightning_stab.callbacks._trainer import logging as log
from lightning_stab.callbacks._trainer.batches import first_samples
from lightning_stab.callbacks._trainer.fit_state import (
    FitStart,
    begin_fit,
    fit_start,
    forgets_earlier_run,
    is_restored_midway,
    is_validating_fit,
    note_restore,
)
from lightning_stab.callbacks._trainer.loop_trainer import LoopTrainer
from lightning_stab.callbacks._trainer.step import (
    OptimizerStep,
    hold_scale,
    scaler_will_cure,
    will_step,
)
from lightning_stab.callbacks._trainer.trainer_stub import (
    LoneStrategyStub,
    NoOpOptimizer,
    TrainerStub,
    lightning_parts,
)


class Trainer(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def looping(ready, accumulate=1, batches=math.inf, *, is_last=False, handles=False):
    """Return a Trainer in its ``ready``-th batch."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=ready))
    return Trainer(
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
        is_last_batch=is_last, num_training_batches=batches, accumulate_grad_batches=accumulate,
        strategy=SimpleNamespace(handles_gradient_accumulation=handles),
    )  # fmt: skip


def test_which_batches_end_an_accumulation():
    assert [n for n in range(1, 11) if will_step(looping(n, 4, 10))] == [4, 8, 10]
    assert [n for n in range(1, 11) if will_step(looping(n, 4))] == [4, 8]
    assert [n for n in range(1, 11) if will_step(looping(n, 4, is_last=n == 6))] == [4, 6, 8]
    # a strategy that accumulates by itself steps when its own window is over, and not before
    assert [n for n in range(1, 11) if will_step(looping(n, 4, 10, handles=True))] == [4, 8]
    assert all(will_step(looping(n)) for n in range(1, 5))


class Scaler:
    """The parts of a ``GradScaler`` that are asked for."""

    def __init__(self, scale=4.0, found=(0.0,), *, enabled=True, stage="UNSCALED"):
        self._scale = None if scale is None else torch.tensor(scale)
        self.enabled, self._growth_tracker = enabled, torch.tensor(7)
        self.found = {f"cuda:{i}": torch.tensor(value) for i, value in enumerate(found)}
        self._per_optimizer_states = _Always(
            {"found_inf_per_device": self.found, "stage": SimpleNamespace(name=stage)}
        )

    def is_enabled(self):
        return self.enabled

    def get_scale(self):
        return float(self._scale)


class _Always(dict):
    def __init__(self, value):
        self.value = value

    def __missing__(self, key):
        return self.value


def scaled(scaler, accumulate=1):
    plugin = SimpleNamespace() if scaler is None else SimpleNamespace(scaler=scaler)
    return Trainer(precision_plugin=plugin, accumulate_grad_batches=accumulate)


def test_a_loss_loses_its_scale_and_a_true_loss_its_share_of_the_window_too():
    loss = torch.tensor(8.0, requires_grad=True)
    automatic = SimpleNamespace(automatic_optimization=True)
    manual = SimpleNamespace(automatic_optimization=False)
    for scaler, value in (
        (None, 8.0), (Scaler(), 2.0), (Scaler(enabled=False), 8.0), (Scaler(None), 8.0),
    ):  # fmt: skip
        found = losses.unscaled_loss(scaled(scaler), loss)
        assert float(found) == value
        assert not found.requires_grad
        assert float(losses.true_loss(scaled(scaler, 3), automatic, loss)) == 3 * value
        assert float(losses.true_loss(scaled(scaler), automatic, loss)) == value
        assert float(losses.true_loss(scaled(scaler, 3), manual, loss)) == value


def test_the_loss_of_an_output():
    loss = torch.tensor(1.0)
    for output in (loss, {"loss": loss}):
        assert losses.loss_of_output(output) is loss
    for output in (None, {}, {"loss": None}, {"loss": 1.0}, 1.0, [loss]):
        assert losses.loss_of_output(output) is None


def test_a_scaler_cures_an_overflow_while_it_can_go_lower():
    step = SimpleNamespace(optimizer=object())
    for scaler, cures in (
        (None, False), (Scaler(4.0, [0.0]), False), (Scaler(4.0, [1.0]), True),
        (Scaler(4.0, [0.0, 1.0]), True), (Scaler(1.0, [1.0]), False), (Scaler(1.5, [1.0]), True),
        (Scaler(4.0, [1.0], enabled=False), False),
    ):  # fmt: skip
        step.trainer = scaled(scaler)
        assert scaler_will_cure(step) == cures


def test_a_held_scaler_counts_neither_a_good_step_nor_an_overflow():
    for scaler, counted, found in (
        (Scaler(found=[1.0, 1.0]), 6, [0.0, 0.0]),
        (Scaler(found=[1.0], stage="READY"), 7, [1.0]),
        (Scaler(found=[1.0], enabled=False), 7, [1.0]),
    ):
        hold_scale(SimpleNamespace(optimizer=object(), trainer=scaled(scaler)))
        assert int(scaler._growth_tracker) == counted
        assert [float(value) for value in scaler.found.values()] == found
    hold_scale(SimpleNamespace(optimizer=object(), trainer=scaled(None)))


def step_of(module, groups, optimizers=1, index=0, evaluation=0):
    trainer = Trainer(optimizers=[None] * optimizers)
    optimizer = torch.optim.SGD([{"params": list(group)} for group in groups], lr=0.1)
    return OptimizerStep(trainer, module, optimizer, index, evaluation)


def given(values):
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter


def test_what_a_step_knows_of_its_gradients():
    a, b, c, without = given([3.0, 4.0]), given([12.0]), given([0.0]), nn.Parameter(torch.ones(1))
    module = nn.ParameterList([a, b, without])
    step = step_of(module, [[a, without], [b, c]])
    assert [list(map(id, group)) for group in step.groups] == [[id(a)], [id(b), id(c)]]
    assert list(map(id, step.params)) == [id(a), id(b), id(c)]
    assert step.norms.tolist() == [5.0, 12.0, 0.0]
    assert float(step.total) == step.total_value == 13.0
    assert float(step.total_of([a, c], step.norms)) == 5.0
    assert step.total_of([a, b, c], step.norms) is step.total
    halved = step.norms / 2
    assert float(step.total_of([a, b, c], halved)) == 6.5
    assert step.names() == ("0", "1", "parameter_2")  # which the module does not have
    assert step.decides_now
    assert (step.rejected, step.clipped, step.bad) == (False, False, None)


def test_a_total_beyond_single_precision_is_exact():
    step = step_of(nn.Module(), [[given([3e30, 4e30])]])
    assert float(step.total) == math.inf
    assert step.total_value == pytest.approx(5e30)


def test_parameters_of_one_memory_count_once_with_the_sum_of_their_gradients():
    first, other = given([1.0, 2.0]), given([5.0])
    second, third = (nn.Parameter(first.data) for _ in range(2))
    second.grad, third.grad = torch.tensor([3.0, 0.0]), torch.tensor([-1.0, 2.0])
    half = nn.Parameter(first.data[:1])  # of another shape: a part of its memory
    half.grad = torch.tensor([7.0])
    step = step_of(nn.Module(), [[first, other, second, third, half]])
    assert step.norms.tolist() == [5.0, 5.0, 0.0, 0.0, 7.0]
    assert first.grad.tolist() == [1.0, 2.0]


def test_the_suffix_and_the_count_of_evaluations():
    assert step_of(nn.Module(), [[given([1.0])]]).suffix == ""
    assert step_of(nn.Module(), [[given([1.0])]], optimizers=2).suffix == "_opt0"
    assert step_of(nn.Module(), [[given([1.0])]], index=1).suffix == "_opt1"
    for evaluation, repeated in ((0, False), (1, True)):
        step = step_of(nn.Module(), [[given([1.0])]], evaluation=evaluation)
        assert step.is_repeated == repeated


def test_a_rejected_step_has_no_gradients_or_zeros_where_it_must_have_some():
    for as_zero in (False, True):
        a = given([1.0, 2.0])
        step = step_of(nn.Module(), [[a]])
        step.reject(as_zero=as_zero)
        assert step.rejected
        assert (a.grad.tolist() == [0.0, 0.0]) if as_zero else (a.grad is None)
        step.reject(as_zero=as_zero)
        assert step.gradients == ([a.grad] if as_zero else [])


def test_the_first_samples_of_what_has_one_entry_for_each():
    batch = {
        "x": torch.arange(8).reshape(4, 2), "names": list("abcd"), "word": "abcd",
        "others": [1, 2, 3], "scalar": torch.tensor(5), "weights": torch.ones(3),
    }  # fmt: skip
    found = first_samples(batch, 2)
    assert found["x"].tolist() == [[0, 1], [2, 3]]
    assert found["word"] == "ab"  # of a list the leaves are its entries
    assert (found["names"], found["others"]) == (list("abcd"), [1, 2, 3])
    assert (found["scalar"], found["weights"].shape) == (torch.tensor(5), (3,))
    assert first_samples([torch.tensor(1), "abc", 7], 2) == [torch.tensor(1), "abc", 7]


def counted(global_step, stepped=None):
    own = {} if stepped is None else {"_batches_that_stepped": stepped}
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(**own))
    return Trainer(global_step=global_step, fit_loop=loop, is_global_zero=True, loggers=[])


def test_steps_are_counted_as_lightnings_loggers_count_them():
    assert log.log_step(counted(8, 4)) == 4
    assert log.log_step(counted(8)) == 8
    assert log.num_steps(counted(8, 4)) == 8
    assert log.num_steps(counted(0, 4)) == 4  # steps that are not announced
    assert [s for s in range(9) if log.is_due(s, 3)] == [2, 5, 8]
    assert [s for s in range(3) if log.is_due(s, 1)] == [0, 1, 2]


class FileWriter:
    def __init__(self):
        self.written = []

    def add_summary(self, summary, step):
        self.written.append((summary, step))


class TensorBoardLogger:
    """Its class's name is what is asked for."""

    def __init__(self, prefix=""):
        self._prefix, self.texts, self.files = prefix, [], FileWriter()
        self.experiment = SimpleNamespace(
            _get_file_writer=lambda: self.files, add_text=lambda *args: self.texts.append(args)
        )


def test_what_tensorboard_gets_has_its_step_and_the_loggers_prefix():
    trainer, plain, named = counted(8, 4), TensorBoardLogger(), TensorBoardLogger("run")
    silent, metrics = TensorBoardLogger(), []
    silent.experiment = SimpleNamespace()  # one that does not write
    silent.log_metrics = lambda values, step: metrics.append((values, step))
    trainer.loggers = [plain, named, silent]
    log.log_scalars(trainer, {"a": 1.0, "b": 2.0})
    log.log_text(trainer, "words", "text")
    log.log_text(trainer, "words", "text", 0)
    log.log_json(trainer, "json", {"x": [1]})
    log.log_json(trainer, "json", {"x": [2]}, 0)
    media.log_record(trainer, "record", "{}")
    media.log_record(trainer, "record", "{}", 0)
    assert metrics == [({"a": 1.0, "b": 2.0}, 4)]
    for logger, start in ((plain, ""), (named, "run-")):
        assert logger.texts == [("words", "text", 4), ("words", "text", 0)]
        (scalars, at), *jsons, first, second = logger.files.written
        assert at == 4
        assert [(v.tag, v.simple_value) for v in scalars.value] == [
            (f"{start}a", 1.0), (f"{start}b", 2.0),
        ]  # fmt: skip
        contents = [(s.value[0].tag, s.value[0].tensor.string_val[0], at) for s, at in jsons]
        assert contents == [(f"{start}json", b'{"x": [1]}', 4), (f"{start}json", b'{"x": [2]}', 0)]
        plugins = {s.value[0].metadata.plugin_data.plugin_name for s, _ in (*jsons, first, second)}
        assert plugins == {"lightning_stab"}
        assert [at for _, at in (first, second)] == [4, 0]
        assert first[0].value[0].tensor.string_val[0] == b"{}"


def test_an_event_that_a_logger_refuses_loses_no_other():
    taken = []

    def log_metrics(values, step):
        if step == 2:
            raise ConnectionError("for a moment")
        taken.append((step, values))

    trainer = counted(8, 4)
    trainer.loggers = [SimpleNamespace(log_metrics=log_metrics)]
    with pytest.warns(UserWarning, match="for a moment"):
        log.log_events(trainer, [(step, {"a": 1.0}) for step in range(5)])
    assert [step for step, _ in taken] == [0, 1, 3, 4]


@pytest.mark.parametrize("events", [[], [(3, {"a": 1.0})]])
def test_no_event_asks_no_logger_for_its_file(events):
    asked = []

    class Logger(TensorBoardLogger):
        experiment = property(lambda self: asked.append(self), lambda self, value: None)

        def log_metrics(self, values, step):
            """Takes what no file was there for."""

    trainer = counted(8, 4)
    trainer.loggers = [logger := Logger()]
    log.log_events(trainer, events)
    assert asked == [logger] * len(events)


def test_only_the_first_process_writes():
    logger, metrics = TensorBoardLogger(), []
    trainer = counted(1, 1)
    trainer.loggers = [logger, SimpleNamespace(log_metrics=lambda *_, **__: metrics.append(1))]
    trainer.is_global_zero = False
    log.log_scalars(trainer, {"a": 1.0})
    log.log_text(trainer, "words", "text")
    log.log_json(trainer, "json", 1)
    media.log_record(trainer, "record", "{}")
    assert logger.files.written == logger.texts == metrics == []


def test_values_cross_to_the_host_in_order_and_each_goes_to_its_own():
    taken = []
    waiting = [
        device_values.named("first", torch.tensor([1.0])),
        device_values.DeviceScalars(torch.tensor([2.0, 3.0]), taken.append),
        device_values.named("last", torch.tensor(4, dtype=torch.int32)),
    ]
    found = device_values.to_host(waiting)
    assert found == {"first": 1.0, "last": 4.0}
    assert {type(value) for value in found.values()} == {float}
    assert taken == [[2.0, 3.0]]
    assert device_values.to_host([]) == {}
    leaving = device_values.Leaving(waiting, 9)
    assert leaving.step == 9
    assert leaving.scalars() == leaving.scalars() == {"first": 1.0, "last": 4.0}
    assert taken == [[2.0, 3.0]] * 2  # once by each way
    assert not device_values.is_remote(torch.ones(1))
    assert device_values.is_remote(torch.ones(1, device="meta"))


def test_a_loop_without_a_trainer_answers_what_a_fit_before_its_first_batch_would():
    module = nn.Linear(1, 1)
    trainer = LoopTrainer(module, [1], [2])
    assert (trainer.global_step, trainer.current_epoch, trainer.ckpt_path) == (0, 0, None)
    assert (trainer.is_last_batch, trainer.training, trainer.takes_one_step) == (False, False, True)
    assert (trainer.num_training_batches, trainer.estimated_stepping_batches) == (math.inf,) * 2
    assert (trainer.accumulate_grad_batches, trainer.loggers, trainer.log_dir) == (1, [], None)
    assert (trainer.num_nodes, trainer.num_devices, trainer.state.fn) == (1, 1, "fit")
    assert not trainer.sanity_checking
    assert not trainer.barebones
    assert trainer.strategy.root_device == torch.device("cpu")
    assert not trainer.strategy.handles_gradient_accumulation
    assert not trainer.strategy.restore_checkpoint_after_setup
    assert not LoopTrainer(module, [1, 2], []).takes_one_step
    assert LoopTrainer(module, [1], [], total_steps=0).estimated_stepping_batches == 0
    assert log.log_step(trainer) == log.num_steps(trainer) == 0
    assert LoopTrainer(nn.Identity(), [], []).strategy.root_device == torch.device("cpu")
    first = SimpleNamespace(save_dir="a")
    assert LoopTrainer(module, [1], [], loggers=[first]).log_dir == "a"
    first.log_dir = "b"
    assert LoopTrainer(module, [1], [], loggers=[first]).log_dir == "b"


def test_how_far_a_loop_is_survives_a_restart():
    one, other = (LoopTrainer(nn.Linear(1, 1), [1], []) for _ in range(2))
    one.global_step, one.current_epoch = 5, 2
    one.progress.total.completed, one.progress.total.ready = 11, 12
    one.fit_loop.epoch_loop._batches_that_stepped = 6
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
    assert (other.global_step, other.current_epoch, log.log_step(other)) == (5, 2, 6)
    assert (other.progress.total.ready, other.progress.total.completed) == (11, 11)
    assert other.ckpt_path
    assert (other.progress.current.ready, other.progress.current.completed) == (0, 0)


def test_optimizers_of_a_copy_hold_its_parameters_and_step_nowhere():
    old, new, other = (nn.Parameter(torch.ones(2)) for _ in range(3))
    real = torch.optim.SGD([{"params": [old], "lr": 0.5}, {"params": [other], "lr": 0.1}])
    stub = NoOpOptimizer(real, {id(old): new})
    assert [id(group["params"][0]) for group in stub.param_groups] == [id(new), id(other)]
    assert [group["lr"] for group in stub.param_groups] == [0.5, 0.1]
    assert stub.optimizer is stub
    assert stub.step() is None
    assert stub.step(lambda: 7) == 7
    new.grad = torch.ones(2)
    stub.step()
    stub.zero_grad()
    assert new.tolist() == new.grad.tolist() == [1.0, 1.0]


def test_a_stub_keeps_what_is_written_and_reads_the_rest():
    trainer = Trainer(max_epochs=9, callback_metrics={"a": 1}, strategy=Trainer(root_device="x"),
                      world_size=1)  # fmt: skip
    stub = TrainerStub(trainer, LoneStrategyStub(trainer))
    stub.max_steps = 4
    stub.callback_metrics["b"] = 2
    assert (stub.max_epochs, stub.max_steps, trainer.callback_metrics) == (9, 4, {"a": 1})
    assert not hasattr(trainer, "max_steps")
    assert stub.strategy.root_device == "x"
    one, two = object(), object()
    stub.optimizers = [one]
    assert stub.one_or_all_optimizers() is one
    stub.optimizers = [one, two]
    assert stub.one_or_all_optimizers() == [one, two]
    tensor = torch.ones(3)
    assert stub.strategy.all_gather(tensor) is tensor
    assert stub.strategy.barrier("x") is None


def test_a_lightning_module_is_known_by_what_it_can_do():
    class Part(nn.Module):
        def training_step(self):
            return

    class Whole(Part):
        def manual_backward(self):
            return

    whole = Whole()
    assert lightning_parts(nn.Sequential(Part(), whole, nn.Linear(1, 1))) == [whole]


def beginning(module, *, ckpt_path=None, steps=0, epoch=0, late=False):
    strategy = SimpleNamespace(optimizers=[], restore_checkpoint_after_setup=late)
    return Trainer(strategy=strategy, lightning_module=module, ckpt_path=ckpt_path,
                   global_step=steps, current_epoch=epoch)  # fmt: skip


def test_how_a_fit_began_is_told_by_when_a_checkpoint_was_loaded():
    module = nn.Linear(1, 1)
    fresh, continued, resumed = FitStart.FRESH, FitStart.CONTINUED, FitStart.RESUMED
    trainer = beginning(module)
    assert fit_start(trainer) is fresh  # which has never called `setup`
    assert fit_start(beginning(module, ckpt_path="x")) is resumed
    assert not is_restored_midway(trainer)
    note_restore(trainer, {})
    begin_fit(trainer, "fit")
    assert fit_start(trainer) is fresh
    for steps, epoch, start in ((1, 0, continued), (0, 1, continued), (0, 0, fresh)):
        trainer.global_step, trainer.current_epoch = steps, epoch
        assert fit_start(trainer) is start
    note_restore(trainer, {"global_step": 3})  # with the optimizers of before: by the Trainer
    assert fit_start(trainer) is resumed
    assert not is_restored_midway(trainer)
    begin_fit(trainer, "fit")
    trainer.strategy.optimizers = [1]
    note_restore(trainer, {"global_step": 3})  # later, by somebody else
    assert is_restored_midway(trainer)
    trainer.ckpt_path = "tried.ckpt"
    assert fit_start(trainer) is fresh
    for checkpoint, start in (({"global_step": 1}, resumed), ({"global_step": 0}, fresh),
                              ({}, fresh)):  # fmt: skip
        sharded = beginning(module, late=True)
        begin_fit(sharded, "fit")
        sharded.strategy.optimizers = [1]
        note_restore(sharded, checkpoint)
        assert fit_start(sharded) is start


def test_a_fit_of_another_module_or_after_something_else_begins_as_new():
    one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    trainer = beginning(one, steps=5)
    begin_fit(trainer, "fit")
    assert fit_start(trainer) is FitStart.CONTINUED
    trainer.lightning_module, trainer.strategy.optimizers = two, []
    for _ in range(2):  # each callback notes it
        begin_fit(trainer, "fit")
    assert fit_start(trainer) is FitStart.FRESH
    trainer.strategy.optimizers = []
    begin_fit(trainer, "fit")  # the same one again
    assert fit_start(trainer) is FitStart.CONTINUED
    note_restore(trainer, {})
    begin_fit(trainer, "validate")
    assert fit_start(trainer) is FitStart.CONTINUED  # what was loaded was of the fit before
    assert not is_restored_midway(trainer)
    other = beginning(one)
    begin_fit(other, "test")
    assert fit_start(other) is FitStart.FRESH


def test_who_forgets_an_earlier_run():
    for steps, ckpt_path, loaded, forgets in (
        (0, None, False, True), (0, None, True, True), (5, None, False, False),
        (5, None, True, False), (5, "x", False, True), (5, "x", True, False),
    ):  # fmt: skip
        trainer = beginning(nn.Linear(1, 1), ckpt_path=ckpt_path, steps=steps)
        assert forgets_earlier_run(trainer, loaded=loaded) == forgets


def test_which_validations_are_of_a_fit():
    for fn, checking, known in (("fit", False, True), ("fit", True, False),
                                ("validate", False, False)):  # fmt: skip
        trainer = SimpleNamespace(state=SimpleNamespace(fn=fn), sanity_checking=checking)
        assert is_validating_fit(trainer) == known

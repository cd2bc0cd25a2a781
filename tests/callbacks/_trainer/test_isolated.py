"""A training step that runs alone, on a copy that shares nothing."""

import threading
from contextlib import suppress
from types import MethodType, SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.aggregation import MeanMetric

from lightning_stab import WeightInitialization, check_gradients, initialize
from lightning_stab.callbacks._trainer.isolated import (
    _replacements,
    isolated_copy,
    run_training_step,
    silence,
)
from lightning_stab.callbacks._trainer.losses import training_step_arguments
from lightning_stab.errors import ConflictError

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 2


def loader():
    return DataLoader(TensorDataset(X, Y), 8)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        self.mean, self.steps = MeanMetric(), 0

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.mean.update(loss.detach())
        self.steps += 1
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, module, *callbacks, **options):
    trainer = lightning.Trainer(
        max_epochs=1,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=options.pop("logger", False),
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(module, loader())
    return trainer


def storages(module):
    return {t.data_ptr() for t in (*module.parameters(), *module.buffers())}


class DuringTheFit(lightning.Callback):
    """Calls a function with the module at the first batch."""

    def __init__(self, function):
        self.function = function

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.result = self.function(pl_module, batch)


@pytest.mark.parametrize("double", [False, True])
def test_a_copy_shares_nothing_and_its_step_changes_nothing(double):
    module = Module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module_copy = isolated_copy(module, double=double)
    assert not storages(module) & storages(module_copy)
    x = X.double() if double else X
    (loss,) = run_training_step(module_copy, (x, Y))
    loss.backward()
    assert loss.dtype == (torch.float64 if double else torch.float32)
    assert (module.steps, module_copy.steps) == (0, 1)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert int(module.mean.update_count) == 0


class Busy(Module):
    """Logs, steps and changes all that a training step can reach."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        with optimizer.toggle_model():
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss)
        self.clip_gradients(optimizer, 1.0, "norm")
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        self.trainer.lr_scheduler_configs[0].scheduler.step()
        self.log("loss", loss)
        self.logger.log_metrics({"direct": 1.0})
        self.trainer.should_stop = True
        self.trainer.strategy.barrier()
        print("a step")  # noqa: T201
        self.print("again")

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def test_a_step_during_a_fit_leaves_no_trace(tmp_path, capsys):
    def run(module, batch):
        trainer = module.trainer
        states = (
            [p.detach().clone() for p in module.parameters()],
            trainer.lr_scheduler_configs[0].scheduler.last_epoch,
        )
        losses = run_training_step(isolated_copy(module), batch)
        assert len(losses) == 1
        assert all(map(torch.equal, states[0], module.parameters()))
        assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == states[1]
        assert not trainer.should_stop
        assert trainer.callback_metrics == {}
        assert capsys.readouterr().out == ""
        module.trainer.should_stop = True  # the fit itself is no concern of this test
        return True

    during = DuringTheFit(run)
    fit(tmp_path, Busy(), during, logger=CSVLogger(tmp_path))
    assert during.result


CONFIGURATIONS = {
    "optimizer": (lambda o, s: o[0], 1, 0),
    "list": (lambda o, s: o, 2, 0),
    "tuple": (lambda o, s: tuple(o), 2, 0),
    "two lists": (lambda o, s: (o, s), 2, 2),
    "list and scheduler": (lambda o, s: (o[:1], s[0]), 1, 1),
    "list and settings": (lambda o, s: (o, [{"scheduler": s[0], "interval": "step"}]), 2, 1),
    "dictionary": (lambda o, s: {"optimizer": o[0], "lr_scheduler": s[0]}, 1, 1),
    "dictionary without": (lambda o, s: {"optimizer": o[0]}, 1, 0),
    "nested": (lambda o, s: {"optimizer": o[0], "lr_scheduler": {"scheduler": s[0]}}, 1, 1),
    "dictionaries": (lambda o, s: [{"optimizer": o[0]}, {"optimizer": o[1]}], 2, 0),
    "nothing": (lambda o, s: None, 0, 0),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_form_of_configured_optimizers_is_read_without_a_trainer(name):
    form, num_optimizers, num_schedulers = CONFIGURATIONS[name]

    class Configured(Module):
        def configure_optimizers(self):
            made = [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]
            return form(made, [torch.optim.lr_scheduler.ConstantLR(each) for each in made])

    module_copy = isolated_copy(Configured())
    weight = module_copy.net[0].weight.detach().clone()
    optimizers, schedulers = module_copy.optimizers(), module_copy.lr_schedulers()
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    assert len(optimizers) == num_optimizers
    assert len([each for each in schedulers if each is not None]) == num_schedulers
    assert {len(o.param_groups[0]["params"]) for o in optimizers} <= {6}
    for optimizer in optimizers:
        module_copy.net(X).sum().backward()
        optimizer.step()
    assert torch.equal(module_copy.net[0].weight, weight)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda self, batch: 0, 1),
        (lambda self, batch, batch_idx: 0, 2),
        (lambda self, batch, batch_idx, more=None: 0, 2),
        (lambda self, *args: 0, 2),
        (lambda self, batch, **options: 0, 1),
    ],
)
def test_a_step_gets_the_arguments_that_lightning_gives(step, expected):
    module = type("Stepping", (Module,), {"training_step": step})()
    assert len(training_step_arguments(module, (X, Y), 0)) == expected


class Prepared(Module):
    """Needs what its own hook makes, and differentiates without ``manual_backward``."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def on_train_batch_start(self, batch, batch_idx):
        self.factor = torch.rand(())

    def training_step(self, *arguments):
        (self.factor * super().training_step(*arguments)).backward()


class Plain(Module):
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


@pytest.mark.parametrize("make", [Prepared, lambda: torch.compile(Plain(), backend="eager")])
def test_the_same_step_serves_initialisation_and_gradient_check(tmp_path, make):
    def check(module, batch):
        return check_gradients(module, batch)

    initialised, during = WeightInitialization(verbose=False), DuringTheFit(check)
    module = make()
    fit(tmp_path, module, initialised, during)
    assert all(record.gradient_rms_after > 0 for record in initialised.records)
    assert during.result.passed
    assert {r.verdict for r in during.result.parameters} <= {"ok", "zero"}
    assert module.net[1].num_batches_tracked == 2


def test_a_fault_of_a_step_is_the_same_for_initialisation_and_gradient_check():
    class Iterates(Module):
        def training_step(self, dataloader_iter):
            return None

    for run in (initialize, check_gradients):
        with pytest.raises(ConflictError, match="takes its batches itself"):
            run(Iterates(), (X, Y))


def test_a_module_around_a_lightning_module_is_isolated_too(tmp_path):
    def check(module, batch):
        outer = nn.Sequential(module.net, nn.Linear(2, 1))
        outer.inner = module
        report = check_gradients(outer, batch, lambda m, b: m.inner.training_step(b, 0))
        assert isolated_copy(outer).inner.trainer is not module.trainer
        return report

    during = DuringTheFit(check)
    fit(tmp_path, Module(), during)
    assert during.result.passed


def test_what_cannot_be_copied_is_shared_and_a_module_with_it_is_initialised():
    module = Module()
    module.lock, module.cached = threading.Lock(), module.net(X)
    (first, *_) = initialize(module, (X, Y))
    assert first.gradient_rms_after > 0
    assert isolated_copy(module).lock is module.lock


def test_several_processes_are_not_waited_for():
    module = Module()
    strategy = SimpleNamespace(root_device="cpu")  # has no method that another process could hear
    names = ("loggers", "callbacks", "optimizers", "lr_scheduler_configs")
    module.trainer = SimpleNamespace(
        strategy=strategy, world_size=2, datamodule=None, **{name: [] for name in names}
    )
    module_copy = isolated_copy(module)
    assert module_copy.all_gather(torch.ones(3)).shape == (2, 3)
    assert module_copy.trainer.strategy.root_device == "cpu"
    assert module_copy.trainer.strategy.broadcast("a") == "a"
    assert float(module_copy.trainer.strategy.reduce(torch.ones(()))) == 1
    assert not module_copy.mean.sync_on_compute


def test_the_backward_pass_of_another_thread_is_its_own():
    class Waits(Prepared):
        def training_step(self, batch, batch_idx):
            thread = threading.Thread(target=lambda: (2 * other).backward())
            thread.start()
            thread.join()
            super().training_step(batch, batch_idx)

    other = torch.ones((), requires_grad=True)
    assert len(run_training_step(isolated_copy(Waits()), (X, Y))) == 1
    assert float(other.grad) == 2


def test_silence_ends_when_the_body_raises(tmp_path):
    def run(module, batch):
        trainer, own = module.trainer, dict(vars(module))
        with suppress(KeyError), silence(module):
            module.logger.log_metrics({"direct": 1.0})
            module.log("loss", 1.0)
            raise KeyError
        assert module.trainer is trainer
        assert vars(module).keys() == own.keys()
        return True

    during = DuringTheFit(run)
    fit(tmp_path, Module(), during, logger=CSVLogger(tmp_path))
    assert during.result
    assert not list(tmp_path.rglob("metrics.csv"))


# --- what the copy reads of its Trainer -----------------------------------------------------------

READ = (
    "current_epoch", "global_step", "global_rank", "local_rank", "world_size", "max_epochs",
    "max_steps", "accumulate_grad_batches", "estimated_stepping_batches", "training",
    "is_global_zero", "sanity_checking", "barebones",
)  # fmt: skip


def read(module):
    return {name: getattr(module.trainer, name) for name in READ}


def test_without_a_trainer_a_step_reads_what_a_fit_of_one_batch_would_say(tmp_path):
    during = DuringTheFit(lambda module, batch: read(module))
    fit(tmp_path, Module(), during, limit_train_batches=1)
    assert read(isolated_copy(Module())) == during.result


def test_nothing_else_is_made_up_of_a_trainer_that_is_not_there():
    with pytest.raises(AttributeError, match="no Trainer here to ask for `datamodule`"):
        _ = isolated_copy(Module()).trainer.datamodule


@pytest.mark.parametrize("double", [False, True])
def test_a_copy_computes_in_the_precision_of_the_fit_and_in_full_without_one(tmp_path, double):
    def precision(module):
        return isolated_copy(module, double=double).trainer.precision_plugin.precision

    during = DuringTheFit(lambda module, batch: precision(module))
    fit(tmp_path, Module(), during, precision="bf16-mixed")
    assert during.result == ("32-true" if double else "bf16-mixed")
    assert precision(Module()) == "32-true"


def test_a_trainer_is_not_copied_and_its_loggers_and_their_writers_are_silent_ones():
    stub = SimpleNamespace(logger=SimpleNamespace(experiment=object()))
    writer, callback, strategy = object(), object(), object()
    begun, idle, none = (SimpleNamespace(**own) for own in ({"_experiment": writer},
                                                            {"_experiment": None}, {}))  # fmt: skip
    trainer = SimpleNamespace(callbacks=[callback], datamodule=None, strategy=strategy,
                              loggers=[begun, idle, none])  # fmt: skip
    assert _replacements(nn.Linear(1, 1), trainer, stub) == {
        id(callback): callback, id(strategy): strategy, id(trainer): stub,
        id(begun): stub.logger, id(idle): stub.logger, id(none): stub.logger,
        id(writer): stub.logger.experiment,
    }  # fmt: skip
    data = TensorDataset(torch.zeros(1))
    module = nn.Linear(1, 1)
    module.data = data
    assert _replacements(module, None, stub) == {id(data): data}


def test_a_step_that_is_put_on_the_object_is_the_one_that_a_copy_runs():
    module = Module()
    module.training_step = MethodType(lambda self, batch, batch_idx: 7 * self.net(X).sum(), module)
    copied = isolated_copy(module)
    assert copied.training_step.__self__ is copied
    (loss,) = run_training_step(copied, (X, Y))
    torch.testing.assert_close(loss, 7 * copied.net(X).sum())

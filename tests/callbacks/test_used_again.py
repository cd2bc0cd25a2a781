"""Used again: after a fit, an exception, an interrupt, a start that failed."""

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import hooks_of
from helpers.quiet import QUIET
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab import ActivationMonitor, TrainingDoctor, WeightInitialization
from lightning_stab.errors import ConflictError

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
LOADER = DataLoader(TensorDataset(X, torch.arange(24) % 2), 4)


class Net(lightning.LightningModule):
    def __init__(self, error=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.error = error

    def training_step(self, batch, batch_idx):
        if self.error is not None and batch_idx == 3:
            raise self.error
        return nn.functional.cross_entropy(self.net(100 * batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Taken(Logger):
    name = version = "taken"

    def __init__(self):
        super().__init__()
        self.values = []

    def log_metrics(self, metrics, step=None):
        self.values.append((step, {k: v for k, v in metrics.items() if v == v}))

    def log_hyperparams(self, params, *args):
        pass


def fitted(callback, module, tmp_path, **arguments):
    taken = Taken()
    settings = {**QUIET, "max_epochs": 1, "logger": taken, "log_every_n_steps": 1, **arguments}
    trainer = lightning.Trainer(default_root_dir=tmp_path, callbacks=[callback], **settings)
    trainer.fit(module, LOADER)
    return taken.values


def seeded(error=None):
    torch.manual_seed(1)
    return Net(error)


WAITS = ("early", "early_steps", "early_samples", "one_epoch", "tens_of_steps", "some_epochs")
AT_ONCE = dict.fromkeys((*WAITS, "many_steps", "hundreds_of_samples"), 0.0)
CALLBACKS = {
    "initialization": lambda: WeightInitialization(verbose=False),
    "activations": lambda: ActivationMonitor(every_n_steps=1, window=2),
    "doctor": lambda: TrainingDoctor(
        every_n_steps=1, print_findings=False, log_facts=True, thresholds=AT_ONCE
    ),
}
ENDS = {"exception": ValueError("broken"), "interrupt": KeyboardInterrupt(), "none": None}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", CALLBACKS)
def test_the_next_trainer_and_module_find_it_as_new(name, end, tmp_path):
    used, new, error = CALLBACKS[name](), CALLBACKS[name](), ENDS[end]
    first = seeded(error)
    if error is None:
        fitted(used, first, tmp_path)
    else:
        with pytest.raises((ValueError, KeyboardInterrupt, SystemExit)):
            fitted(used, first, tmp_path)
    assert not hooks_of(first)
    modules = [seeded(), seeded()]
    taken = [fitted(c, m, tmp_path) for c, m in zip((used, new), modules, strict=True)]
    assert taken[0] == taken[1]
    for a, b in zip(*(m.parameters() for m in modules), strict=True):
        assert torch.equal(a, b)
    if name == "initialization":
        assert used.records == new.records
        assert not torch.equal(modules[0].net[0].weight, seeded().net[0].weight)
    if name == "doctor":
        assert used.findings == new.findings
        assert used.findings
        assert taken[0]
    assert not hooks_of(modules[0])


def test_a_drawing_that_was_refused_is_tried_again(tmp_path):
    module, callback = seeded(), WeightInitialization(verbose=False, exclude=["net.0.*"])
    nn.init.zeros_(module.net[0].weight)
    for _ in range(2):
        with pytest.raises(ConflictError, match="all zero"):
            fitted(callback, module, tmp_path)
    assert callback.state_dict() == {"initialized": False}
    nn.init.ones_(module.net[0].weight)
    fitted(callback, module, tmp_path)
    assert callback.records


def test_a_restored_mark_is_forgotten_when_the_fit_fails_before_it_starts(tmp_path):
    class Late(Net):
        def configure_optimizers(self):
            raise ValueError("no optimizer")

    first = lightning.Trainer(
        default_root_dir=tmp_path, callbacks=WeightInitialization(verbose=False),
        **{**QUIET, "max_epochs": 1},
    )  # fmt: skip
    first.fit(seeded(), LOADER)
    first.save_checkpoint(tmp_path / "a.ckpt")
    callback = WeightInitialization(verbose=False)
    again = lightning.Trainer(
        default_root_dir=tmp_path, callbacks=callback, **{**QUIET, "max_epochs": 2}
    )
    with pytest.raises(ValueError, match="no optimizer"):
        again.fit(Late(), LOADER, ckpt_path=tmp_path / "a.ckpt", weights_only=False)
    fitted(callback, seeded(), tmp_path)
    assert callback.records

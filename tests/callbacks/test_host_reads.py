"""A step that neither logs nor decides asks for no number on the host: on a GPU it never waits."""

import functools

import lightning.pytorch as lightning
import pytest
import torch
from helpers.contract import CALLBACKS
from helpers.host_reads import Steps, counting
from helpers.quiet import QUIET
from helpers.tiers import in_tiers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab import GradientClipping, GradientMonitor, StepGuard, TrainingDoctor
from lightning_stab.callbacks._trainer import device_values
from lightning_stab.callbacks.gradients.gradient_monitor import STATISTICS

QUIET_STEPS = range(24, 44)  # the default intervals end at 49, and the first steps are dense
OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-3, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, fused=True),
    "unfused": lambda p: torch.optim.AdamW(p, 1e-3),
}
SPIKES = {"min_window": 8, "window": 16}
WAYS = {
    **{name: lambda make=make: [make()] for name, make in CALLBACKS.items()},
    "GradientClipping value": lambda: [GradientClipping("value")],
    "GradientClipping adaptive": lambda: [GradientClipping("adaptive")],
    "StepGuard skip": lambda: [StepGuard("skip")],
    "StepGuard spikes": lambda: [StepGuard("skip", "skip", **SPIKES)],
    "StepGuard rewind": lambda: [StepGuard("rewind", "rewind", **SPIKES)],
    "norms, each step": lambda: [GradientMonitor(1, statistics=())],
    "statistics, each step": lambda: [
        GradientMonitor(1, statistics=[s for s in STATISTICS if s != "nonfinite_fraction"])
    ],
    "several": lambda: [
        GradientMonitor(),
        GradientClipping(),
        StepGuard("skip", "skip", **SPIKES),
        TrainingDoctor(print_findings=False),
    ],
}


class Net(lightning.LightningModule):
    def __init__(self, optimizer):
        super().__init__()
        torch.manual_seed(0)
        self.optimizer = optimizer
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)
        )

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return OPTIMIZERS[self.optimizer](self.parameters())


def reads(callbacks, optimizer="adamw"):
    """Return who read what on the quiet steps of a fit."""
    x = torch.randn(48, 8, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x[..., :3].argmax(-1)), batch_size=None)
    with counting() as found:
        trainer = lightning.Trainer(
            callbacks=[Steps(found), *callbacks],
            max_epochs=1,
            num_sanity_val_steps=0,
            **QUIET,
        )
        trainer.fit(Net(optimizer), loader, loader)
    return found.on(QUIET_STEPS)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", True)


@functools.cache
def bare(optimizer="adamw"):
    """Return what a run without callbacks reads."""
    return reads([], optimizer)


@pytest.mark.filterwarnings("ignore:`StabilityReport` writes no page")
@pytest.mark.parametrize("way", WAYS)
def test_a_quiet_step_reads_nothing(way):
    assert reads(WAYS[way]()) - bare() == {}


@pytest.mark.parametrize("policies", in_tiers(["skip skip", "raise ignore"], ["skip skip"]))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_guard_reads_nothing_where_the_optimizer_can_pass_over_a_step(optimizer, policies):
    found = reads([StepGuard(*policies.split(), **SPIKES)], optimizer) - bare(optimizer)
    assert found.total() == (len(QUIET_STEPS) if optimizer == "unfused" else 0), found


def test_what_reads_is_counted():
    class Reads(lightning.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            total = next(pl_module.parameters()).grad.sum()
            float(total), bool(total > 0), total.tolist(), torch.equal(total, total)

    assert reads([Reads()]).total() == 4 * len(QUIET_STEPS)

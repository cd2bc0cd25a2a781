"""Decay beside optimizers and schedulers that change, and in runs with other settings."""

import pytest
import torch
from helpers.stopping_modules import Regression, SaveEpochs, data, fit, trainer
from helpers.tiers import in_tiers
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BackboneFinetuning, StochasticWeightAveraging
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR

from lightning_stab import LearningRateDecay
from lightning_stab.errors import ConflictError


def rates(decay, epochs, path=None, save=None, make=Regression):
    module = make(*range(epochs, 0, -1))
    callbacks = [decay, *([SaveEpochs(save)] if save else [])]
    run = trainer(*callbacks, max_epochs=epochs, enable_checkpointing=bool(save))
    resumed = {"ckpt_path": path, "weights_only": True} if path else {}
    run.fit(module, data(), data(), **resumed)
    return [group[0] for group in module.rates]


TIMED = {
    "exponential": ({"gamma": 0.9}, {"gamma": 0.5}),
    "step": ({"every": 3}, {"every": 2, "gamma": 0.5}),
    "polynomial": ({}, {"power": 2}),
    "inverse_sqrt": ({"time_scale": 2}, {"time_scale": 5}),
    "cosine": ({}, {"floor": 0.2}),
    "cosine_restarts": ({"every": 3}, {"every": 2, "growth": 2}),
}


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("after", [1, 2], ids=["half way", "ended"])
@pytest.mark.parametrize(
    "schedule", in_tiers(TIMED, ["exponential", "inverse_sqrt", "cosine_restarts"])
)
def test_a_resumed_run_has_the_rates_of_one_with_the_new_settings(
    schedule, after, interval, tmp_path
):
    old, new = TIMED[schedule]
    rates(LearningRateDecay(schedule, interval=interval, warmup_steps=2, **old), 2, save=tmp_path)
    for settings in ({**old, "warmup_steps": 2}, {**new, "warmup_steps": 2}):
        whole = rates(LearningRateDecay(schedule, interval=interval, **settings), 4)
        again = LearningRateDecay(schedule, interval=interval, **settings)
        assert rates(again, 4, tmp_path / f"epoch={after - 1}.ckpt") == whole[4 * after :]


@pytest.mark.parametrize("old", ["cosine", "plateau"])
@pytest.mark.parametrize("new", ["exponential", "cosine", "plateau", "loss", "oscillation"])
def test_another_schedule_takes_over_at_the_checkpoints_time(old, new, tmp_path):
    rates(LearningRateDecay(old), 2, save=tmp_path)
    resumed = rates(LearningRateDecay(new), 4, tmp_path / "epoch=1.ckpt")
    by_time = new in ("exponential", "cosine")
    assert resumed[0] == (rates(LearningRateDecay(new), 4)[8] if by_time else 0.05)


def test_another_metric_forgets_what_the_first_one_had(tmp_path):
    old = LearningRateDecay("plateau", monitor="val_loss", patience=1, reload_best=True)
    rates(old, 2, save=tmp_path)
    new = LearningRateDecay("plateau", monitor="train_loss", patience=9, reload_best=True)
    assert set(rates(new, 4, tmp_path / "epoch=1.ckpt")) == {0.05}


@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_fit_called_again_forgets_earlier_run_and_spans_what_is_left(schedule, interval):
    decay = LearningRateDecay(schedule, interval=interval)
    run, module = fit([1.0, 1.0], decay)
    first, module.rates = module.rates, []
    run.fit_loop.max_epochs = 4
    run.fit(module, data(), data())
    assert module.rates == first
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: LambdaLR(o, lambda step: min(1.0, step / 4)),
        lambda o: OneCycleLR(o, max_lr=0.05, total_steps=24),
        lambda o: CyclicLR(o, base_lr=0.001, max_lr=0.05),
    ],
    ids=["warm-up", "one cycle", "cyclic"],
)
def test_a_replaced_scheduler_leaves_neither_its_rate_nor_its_momentum(make):
    class Scheduled(Regression):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [{"scheduler": make(optimizer), "interval": "step"}]

    run, module = fit([1.0] * 2, LearningRateDecay(combine="replace"), module=Scheduled(1.0))
    assert module.rates[0] == [0.05]
    assert run.optimizers[0].param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("schedule", ["exponential", "step", "cosine"])
@pytest.mark.parametrize("decay_first", [True, False])
def test_a_scheduler_that_is_installed_in_mid_run_gets_the_rates(schedule, decay_first):
    averaging = StochasticWeightAveraging(0.02, swa_epoch_start=3, annealing_epochs=2)
    pair = [LearningRateDecay(schedule), averaging]
    _, module = fit(
        [1.0] * 7, *(pair if decay_first else pair[::-1]), module=Plain(1.0), max_epochs=7
    )
    assert module.rates[-1] == pytest.approx([0.02])


class Plain(Regression):
    def __init__(self, *values):
        super().__init__(*values)
        self.net = nn.Linear(4, 1)


@pytest.mark.parametrize("rate", [{"lr": None}, {}], ids=["None", "missing"])
def test_an_optimizer_without_a_rate_is_refused_before_the_first_step(rate):
    class OwnRate(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"scale": 0.1, **rate})

    class Module(Regression):
        def configure_optimizers(self):
            return OwnRate(self.parameters())

    with pytest.raises(ConflictError, match="OwnRate has a group without one"):
        fit([1.0], LearningRateDecay(), module=Module(1.0))


class Backbone(Regression):
    def __init__(self, *values):
        super().__init__(*values)
        self.backbone, self.net = nn.Linear(4, 4), nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self.net(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self):
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, lr=0.05)


@pytest.mark.filterwarnings("ignore:.*recommended to be less")
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_group_added_in_mid_run_decays_on_across_a_resume(epoch, tmp_path):
    def go(*callbacks, path=None):
        unfreeze = BackboneFinetuning(unfreeze_backbone_at_epoch=2, lambda_func=lambda e: 1.0)
        saves = bool(callbacks)
        run = trainer(
            unfreeze,
            LearningRateDecay(gamma=0.5),
            *callbacks,
            max_epochs=5,
            enable_checkpointing=saves,
        )
        module = Backbone(1.0)
        resumed = {"ckpt_path": path, "weights_only": False} if path else {}
        run.fit(module, data(), data(), **resumed)
        return module.rates

    whole = go(SaveEpochs(tmp_path))
    assert go(path=tmp_path / f"epoch={epoch}.ckpt") == whole[4 * (epoch + 1) :]


class Installs(Callback):
    """Installs a scheduler for one epoch, and takes it away."""

    def on_train_epoch_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        from lightning.pytorch.utilities.types import LRSchedulerConfig

        if trainer.current_epoch == 1:
            scheduler = LambdaLR(optimizer, lambda epoch: 0.5)
            trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(scheduler)]
        elif trainer.current_epoch == 2:
            trainer.strategy.lr_scheduler_configs = []


def test_decay_takes_over_again_when_the_scheduler_has_gone():
    _, module = fit([1.0] * 4, LearningRateDecay(gamma=0.5), Installs())
    factors = [a[0] / b[0] for a, b in zip(module.rates[12::4], module.rates[8::4], strict=False)]
    assert factors == pytest.approx([0.5])

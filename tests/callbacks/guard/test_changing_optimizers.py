"""Rewinds where an optimizer has gained groups, and bad batches under scalers and line searches."""

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import same_state
from helpers.lightning_twins import Classifier, SmallGAN, batches, built, fit, half_precision
from lightning.pytorch.callbacks import BackboneFinetuning, ModelCheckpoint
from torch import nn

from lightning_stab import StepGuard


class Tuned(lightning.LightningModule):
    """A backbone that is unfrozen late; the losses of chosen steps are NaN."""

    def __init__(self, bad=()):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.head, self.bad = nn.Linear(8, 3), bad

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])
        return loss * float("nan") if self.trainer.global_step in self.bad else loss

    def configure_optimizers(self):
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=1e-2)


class Watch(lightning.Callback):
    """Keeps weights, learning rates and Adam's counts after each batch."""

    def __init__(self):
        self.weights, self.rates, self.counts = {}, {}, {}

    def on_train_batch_end(self, trainer, module, *rest):
        (optimizer,), step = trainer.optimizers, trainer.global_step
        self.weights[step] = {k: v.clone() for k, v in module.named_parameters()}
        self.rates[step] = [group["lr"] for group in optimizer.param_groups]
        states = [optimizer.state.get(g["params"][0], {}) for g in optimizer.param_groups]
        self.counts[step] = [int(state.get("step", 0)) for state in states]


def tuned(bad, watch, *, epochs=5, save=None, ckpt_path=None, **guard):
    own = StepGuard("rewind", **guard)
    unfreezing = BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_ratio_lr=0.1)
    saving = [ModelCheckpoint(save, save_last=True)] if save else []
    trainer = fit(
        built(Tuned, bad),
        [unfreezing, watch, own, *saving],
        batches(8),
        epochs=epochs,
        ckpt_path=ckpt_path,
        enable_checkpointing=bool(save),
    )
    return own, trainer


def test_a_rewind_to_before_a_group_was_added_keeps_the_group():
    watch = Watch()
    guard, _ = tuned({17, 18}, watch, rewind_after=2, snapshot_every_n_steps=6)
    assert guard.num_rewound == 1
    # the newest snapshot is that of step 12; the group came at 16
    assert watch.counts[17] == [17, 1]
    assert watch.rates[17] == pytest.approx([1e-2, 1e-3])
    assert watch.rates[20] == pytest.approx([5e-3, 5e-4])
    assert watch.counts[20] == [13, 1]


def test_a_second_rewind_to_the_same_snapshot_cuts_a_later_group_once_more():
    watch = Watch()
    guard, _ = tuned({17, 19}, watch, rewind_after=1, snapshot_every_n_steps=50)
    assert guard.num_rewound == 2
    assert watch.rates[22] == pytest.approx([2.5e-3, 2.5e-4])


def test_a_checkpoints_snapshot_of_before_a_group_serves_after_a_resume(tmp_path):
    _, trainer = tuned((), Watch(), epochs=3, save=tmp_path, snapshot_every_n_steps=100)
    assert trainer.global_step == 24
    watch = Watch()
    guard, _ = tuned(
        {27},
        watch,
        save=tmp_path,
        rewind_after=1,
        snapshot_every_n_steps=100,
        ckpt_path=tmp_path / "last.ckpt",
    )
    assert guard.num_rewound == 1
    assert len(watch.rates[28]) == 2
    assert all(torch.isfinite(w).all() for w in watch.weights[40].values())


class Exchange(lightning.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, *rest):
        if trainer.global_step == self.step:
            params = list(module.parameters())
            groups = [{"params": params[:1]}, {"params": params[1:]}]
            trainer.strategy.optimizers = [torch.optim.SGD(groups, lr=0.01)]


def test_an_exchanged_optimizer_keeps_its_state_in_a_rewind_and_a_sentence_says_so():
    module, guard = built(Classifier), StepGuard("rewind", rewind_after=1)
    with pytest.warns(RuntimeWarning, match="`StepGuard` went back to a snapshot whose optimizers"):
        fit(module, [Exchange(4), guard], batches(poison=[6]))
    assert guard.num_rewound == 1
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())


def test_an_exchanged_scheduler_is_left_as_it_is_in_a_rewind():
    class Averaging(lightning.Callback):  # as Lightning's StochasticWeightAveraging does
        def on_train_batch_start(self, trainer, module, *rest):
            if trainer.global_step == 4:
                (config,) = trainer.lr_scheduler_configs
                config.scheduler = torch.optim.swa_utils.SWALR(trainer.optimizers[0], 0.05)
                self.attributes = set(vars(config.scheduler))

    def scheduler(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 2)

    averaging, guard = Averaging(), StepGuard("rewind", rewind_after=1)
    module = built(Classifier, scheduler=scheduler)
    trainer = fit(module, [averaging, guard], batches(poison=[6]))
    assert guard.num_rewound == 1
    assert set(vars(trainer.lr_scheduler_configs[0].scheduler)) == averaging.attributes


@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_bad_batch_of_a_gan_under_a_loss_scaler_ruins_no_running_statistics(policy):
    class Both(SmallGAN):
        """The generator sees the batch, and its step is the last of the batch."""

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            x, _ = batch
            fake = self.generator(x[:, :4])
            self.step(second, self.discriminator(fake.detach()).square().mean(), None)
            self.step(first, self.discriminator(self.generator(x[:, :4])).mean(), None)

    guard, module = StepGuard(policy), built(Both)
    fit(module, [guard], batches(poison=[3, 7]), plugins=[half_precision()])
    assert all(bool(torch.isfinite(t).all()) for t in module.state_dict().values())
    assert guard.num_skipped == 4


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_a_line_search_that_moves_running_statistics_is_no_spike(line_search):
    class Newton(Classifier):
        """The points that the search tries are far from the weights that it keeps."""

        def __init__(self):
            super().__init__()
            self.moved = []

        def training_step(self, batch, batch_idx):
            if batch_idx == 8 and len(self.moved) == 0:
                self.moved.append(batch_idx)
                self.net[1].running_var.mul_(1e6)
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            return torch.optim.LBFGS(
                self.parameters(), lr=0.1, max_iter=4, line_search_fn=line_search
            )

    guard, plain, module = StepGuard("raise", "raise"), built(Newton), built(Newton)
    fit(plain)
    fit(module, [guard])
    assert same_state(plain, module)

"""A callback that serves a second fit starts afresh; one that continues a run does not."""

import pytest
import torch
from helpers import stopping_modules
from helpers.comparing import hooks_of
from helpers.lightning_twins import Classifier, SmallGAN, batches, built, fit
from lightning.pytorch.callbacks import LearningRateFinder
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab import (
    BestWeightsEarlyStopping,
    GradientMonitor,
    LearningRateDecay,
    StepGuard,
)
from lightning_stab.errors import InvalidArgumentError, UnstableStepError


def test_a_guard_forgets_the_bad_steps_of_an_earlier_fit():
    guard = StepGuard("skip", max_consecutive=3)
    with pytest.raises(UnstableStepError, match="after 3 bad steps in a row"):
        fit(built(Classifier), [guard], batches(6, poison=range(6)))
    fit(built(Classifier), [guard], batches(6, poison=[0]))
    assert guard.num_skipped == 1


def test_a_guard_forgets_the_losses_of_an_earlier_fit():
    class Loud(Classifier):
        def training_step(self, batch, batch_idx):
            return 1e4 * super().training_step(batch, batch_idx)

    guard = StepGuard("skip", "skip", max_consecutive=3)
    fit(built(Classifier, "adam"), [guard], batches(12))
    fit(built(Loud, "adam"), [guard], batches(12))
    assert guard.num_skipped == 0


def test_a_monitor_forgets_the_noise_of_an_earlier_fit():
    monitor = GradientMonitor(2, 0)
    for _ in range(2):
        fit(built(Classifier), [monitor], batches(8), accumulate_grad_batches=2)
        assert monitor.state_dict()["noise_scale"]["noise"]["count"] == 2


class KeepsItsRate(LearningRateFinder):
    """Saves, tries rates and restores as Lightning's does, and takes none of them."""

    def lr_find(self, trainer, pl_module):
        self._update_attr, rate = False, pl_module.lr
        super().lr_find(trainer, pl_module)
        assert pl_module.lr == rate


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("with_finder", [False, True], ids=["plain", "finder"])
def test_stopping_and_decay_forget_an_earlier_fit(with_finder, tmp_path):
    stop = BestWeightsEarlyStopping("val_loss", patience=2)
    decay = LearningRateDecay("plateau", monitor="val_loss", patience=1, reload_best=True)
    ends = []
    for values in ([0.1, 0.2, 0.3], [5, 4, 6, 7, 8]):
        finder = [KeepsItsRate(num_training_steps=3)] if with_finder else []
        run, module = stopping_modules.fit(
            values, *finder, stop, decay, default_root_dir=tmp_path, max_epochs=len(values)
        )
        rates = [rate for (rate,) in module.rates[-4 * run.current_epoch :: 4]]
        ends.append((run.current_epoch, rates))
    assert ends[0] == (3, [0.05, 0.05, 0.025])
    assert ends[1] == (4, [0.05, 0.05, 0.05, 0.025])
    assert stop.best_position.check == 2
    assert stopping_modules.same(stopping_modules.tensors(module), module.validated[1])


def test_a_second_fit_of_one_trainer_continues_the_record_with_new_optimizers():
    stop = BestWeightsEarlyStopping("val_loss", patience=9)
    decay = LearningRateDecay(gamma=0.5)
    run, module = stopping_modules.fit([5, 4], stop, decay)
    run.fit_loop.max_epochs = 4
    run.fit(module, stopping_modules.data(), stopping_modules.data())
    assert stop.best_position.check == 2
    assert [rates[0] for rates in module.rates[::4]] == [0.05, 0.025, 0.05, 0.025]


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_hooks_go_although_a_batch_has_no_step():
    class Silent(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 3 else loss

        def on_train_batch_end(self, *args):
            self.left = [*getattr(self, "left", []), len(hooks_of(self))]

    module = built(Silent, logs=False)
    fit(module, [GradientMonitor(4, 0)], batches(8))
    assert module.left == [0] * 8


def test_a_layer_may_be_called_total():
    class Total(Classifier):
        def __init__(self):
            super().__init__(batch_norm=False)
            self.total = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.total(super().forward(x))

    trainer = fit(built(Total), [GradientMonitor(1)], batches(1))
    logged = trainer.logger.latest
    parts = [v**2 for n, v in logged.items() if n.startswith("grad_norm/") and n[10:] != "total"]
    assert logged["grad_norm/total"] == pytest.approx(sum(parts) ** 0.5)
    assert logged["grad_norm/total_"] < logged["grad_norm/total"]


def test_the_profile_over_depth_does_not_shrink_with_accumulation():
    def profile(**arguments):
        x, y = next(iter(batches(1)))
        same = TensorDataset(x.repeat(4, 1, 1), y.repeat(4, 1))  # accumulation changes no gradient
        data = DataLoader(same, batch_size=None)
        module = built(Classifier, batch_norm=False)
        logger = fit(module, [GradientMonitor(1)], data, **arguments).logger
        return {n: v for n, v in logger.steps[0].items() if n.startswith("preactivation_grad/")}

    assert profile(accumulate_grad_batches=2) == pytest.approx(profile(), rel=1e-5)


def test_the_gradient_decides_whose_step_is_bad_where_losses_cannot_tell():
    class BothBackwardFirst(SmallGAN):
        def training_step(self, batch, batch_idx):
            generator, discriminator = self.optimizers()
            noise = torch.randn(len(batch[0]), 4)
            generator.zero_grad()
            self.manual_backward(self.generator(noise).square().mean())
            discriminator.zero_grad()
            loss = self.discriminator(batch[0]).square().mean()
            self.manual_backward(loss * float("nan") if batch_idx == 2 else loss)
            generator.step()
            discriminator.step()

    guard = StepGuard("skip")
    fit(built(BothBackwardFirst), [guard], batches(5))
    assert guard.num_skipped == 1


def test_a_guard_that_would_stop_before_it_rewinds_is_refused():
    with pytest.raises(InvalidArgumentError, match="`rewind_after` must be < `max_consecutive`"):
        StepGuard("rewind", rewind_after=10, max_consecutive=10)
    StepGuard("skip", rewind_after=10, max_consecutive=10)

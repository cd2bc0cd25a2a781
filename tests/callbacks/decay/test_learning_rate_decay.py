import math
from itertools import pairwise

import pytest
import torch
from helpers.lightning_twins import RecordingLogger
from helpers.stopping_modules import (
    Regression,
    Replays,
    SaveSteps,
    data,
    fit,
    same,
    tensors,
    trainer,
)
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, IterableDataset

from lightning_stab import LearningRateDecay, StepGuard
from lightning_stab.callbacks.decay.options import DecayClock
from lightning_stab.errors import ConflictError, InvalidArgumentError

EPOCHS = 6
STEPS = 4  # of an epoch


def epoch_rates(module):
    return [rates[0] for rates in module.rates[::STEPS]]


def step_rates(module, group=0):
    return [rates[group] for rates in module.rates]


def run_with(*args, epochs=EPOCHS, module=None, values=None, before=(), **settings):
    decay = LearningRateDecay(*args, **settings)
    _, module = fit(values or [1.0] * epochs, *before, decay, module=module)
    return module


# By time.


@pytest.mark.parametrize(
    ("schedule", "settings", "formula"),
    [
        ("exponential", {}, lambda e: 0.95**e),
        ("exponential", {"gamma": 0.5, "floor": 0.2}, lambda e: max(0.2, 0.5**e)),
        ("step", {"every": 2}, lambda e: 0.1 ** (e // 2)),
        ("polynomial", {"power": 2.0}, lambda e: (1 - e / EPOCHS) ** 2),
        ("inverse_sqrt", {"time_scale": 3}, lambda e: math.sqrt(3 / (3 + e))),
        ("cosine", {}, lambda e: (1 + math.cos(math.pi * e / EPOCHS)) / 2),
        ("cosine", {"total": 3}, lambda e: (1 + math.cos(math.pi * min(e, 3) / 3)) / 2),
        ("cosine_restarts", {"every": 2}, lambda e: (1 + math.cos(math.pi * (e % 2) / 2)) / 2),
    ],
)
def test_by_epoch(schedule, settings, formula):
    module = run_with(schedule, **settings)
    wanted = [0.05 * formula(epoch) for epoch in range(EPOCHS)]
    assert epoch_rates(module) == pytest.approx(wanted, abs=1e-12)


def test_each_step_is_logged_where_each_step_is_asked_for():
    logger = RecordingLogger()
    fit([1.0] * 2, LearningRateDecay("exponential", interval="step", gamma=0.9), logger=logger,
        log_every_n_steps=1)  # fmt: skip
    rates = {step: values["lr/group0"] for step, values in logger.steps.items()
             if "lr/group0" in values}  # fmt: skip
    assert rates == pytest.approx({t: 0.05 * 0.9**t for t in range(2 * STEPS)})


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ("exponential", lambda t: 0.9**t),
        ("cosine", lambda t: (1 + math.cos(math.pi * t / (EPOCHS * STEPS))) / 2),
        ("polynomial", lambda t: 1 - t / (EPOCHS * STEPS)),
    ],
)
def test_by_step(schedule, formula):
    module = run_with(schedule, interval="step", gamma=0.9)
    wanted = [0.05 * formula(step) for step in range(EPOCHS * STEPS)]
    assert step_rates(module) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "inverse_sqrt", "step"])
def test_a_linear_warm_up_comes_before_any_of_them(schedule):
    module = run_with(schedule, interval="step", warmup_steps=5, gamma=0.9)
    rates = step_rates(module)
    assert rates[:6] == pytest.approx([0.05 * (i + 1) / 6 for i in range(6)])
    assert rates[5] == 0.05
    assert all(later <= earlier for earlier, later in pairwise(rates[5:]))


def test_after_a_warm_up_the_cosine_still_ends_with_the_run():
    module = run_with("cosine", interval="step", warmup_steps=4)
    last = (1 + math.cos(math.pi * 19 / 20)) / 2
    assert step_rates(module)[-1] == pytest.approx(0.05 * last)


def cosine(time, length):
    return (1 + math.cos(math.pi * time / length)) / 2


@pytest.mark.parametrize(
    ("run", "settings", "formula"),
    [
        # the schedule begins when the warm-up is over, and five epochs are left for it
        ({}, {"warmup_steps": STEPS}, {e: cosine(e - 1, 5) for e in range(1, 6)}),
        ({}, {"warmup_steps": STEPS + 1}, {e: cosine(e - 1, 5) for e in range(2, 6)}),
        ({}, {"warmup_steps": STEPS + 1, "total": 4}, {2: 0.75, 3: 0.25, 4: 0, 5: 0}),
        ({"max_steps": 2 * STEPS}, {}, {0: 1, 1: 0.5}),
        ({"max_steps": 2 * STEPS + 1}, {}, {0: 1, 1: 0.75, 2: 0.25}),
        ({"max_steps": 3, "accumulate_grad_batches": 3}, {}, {0: 1, 1: 0.5}),
        ({"max_epochs": 2, "accumulate_grad_batches": 2, "max_steps": 99}, {}, {0: 1, 1: 0.5}),
    ],
)
def test_by_epoch_the_cosine_ends_with_the_run(run, settings, formula):
    _, module = fit([1.0] * EPOCHS, LearningRateDecay("cosine", **settings), **run)
    rates = epoch_rates(module)
    assert max(formula) == len(rates) - 1
    for epoch, factor in formula.items():
        assert rates[epoch] == pytest.approx(0.05 * factor, abs=1e-12), epoch


def test_after_a_warm_up_of_so_many_steps_the_root_falls_with_that_time_scale():
    module = run_with("inverse_sqrt", interval="step", warmup_steps=3, epochs=2)
    after = [math.sqrt(3 / (3 + t)) for t in range(5)]
    assert step_rates(module) == pytest.approx([0.05 * f for f in (0.25, 0.5, 0.75, *after)])
    module = run_with("inverse_sqrt", epochs=3)
    assert epoch_rates(module) == pytest.approx([0.05 / math.sqrt(1 + t) for t in range(3)])


def test_each_period_between_restarts_grows():
    module = run_with("cosine_restarts", interval="step", every=2, growth=2, epochs=2)
    factors = [1, 0.5, *(cosine(t, 4) for t in range(4)), 1, cosine(1, 8)]
    assert step_rates(module) == pytest.approx([0.05 * f for f in factors])


def test_epochs_that_end_within_the_warm_up_do_not_count():
    module = run_with("exponential", gamma=0.5, warmup_steps=STEPS + 1)
    assert epoch_rates(module)[2:] == pytest.approx([0.025, 0.0125, 0.00625, 0.003125])


class Groups(Regression):
    """Two param groups, one with a name."""

    def configure_optimizers(self):
        head = {"params": self.net[2].parameters(), "lr": 0.01, "name": "head"}
        return torch.optim.AdamW([{"params": self.net[:2].parameters()}, head], lr=0.05)


class Two(Regression):
    """Two optimizers under manual optimisation; the second steps every other batch."""

    def __init__(self, *values):
        super().__init__(*values)
        self.automatic_optimization = False

    def configure_optimizers(self):
        first = torch.optim.SGD(self.net[0].parameters(), lr=0.1)
        return first, torch.optim.SGD(self.net[1:].parameters(), lr=0.01)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.net(inputs), targets)
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            second.step()


def test_every_param_group_keeps_its_own_first_rate():
    module = run_with("exponential", gamma=0.5, module=Groups(1.0))
    assert module.rates[-1] == pytest.approx([0.05 * 0.5**5, 0.01 * 0.5**5])


def test_several_optimizers_under_manual_optimisation_each_count_their_own_steps():
    module = run_with("exponential", interval="step", gamma=0.5, module=Two(1.0), epochs=1)
    assert module.rates[-1] == pytest.approx([0.1 * 0.5**3, 0.01 * 0.5])
    module = run_with("exponential", gamma=0.5, module=Two(1.0), epochs=3)
    assert module.rates[-1] == pytest.approx([0.1 * 0.25, 0.01 * 0.25])


def test_a_group_added_during_training_decays_on_from_its_rate():
    class Unfreezes(Regression):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net[2].parameters(), lr=0.1)

        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                rest = {"params": self.net[:2].parameters(), "lr": 0.025}
                self.optimizers().optimizer.add_param_group(rest)

    module = run_with("exponential", gamma=0.5, module=Unfreezes(1.0), epochs=4)
    assert module.rates[2 * STEPS] == pytest.approx([0.025, 0.025])
    assert module.rates[3 * STEPS] == pytest.approx([0.0125, 0.0125])


def test_a_rate_that_somebody_else_changes_is_kept_in_proportion():
    class Halves(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                trainer.optimizers[0].param_groups[0]["lr"] *= 0.5

    module = run_with("exponential", gamma=0.8, before=[Halves()])
    wanted = [0.05 * 0.8**e * (0.5 if e >= 2 else 1) for e in range(EPOCHS)]
    assert epoch_rates(module) == pytest.approx(wanted)


def test_scaling_goes_on_from_the_scaled_rates():
    class Rewinds(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                trainer.optimizers[0].param_groups[0]["lr"] = 0.04  # whatever a snapshot held
                decay.scale_learning_rates(0.5)

    decay = LearningRateDecay(gamma=0.8)
    _, module = fit([1.0] * 4, Rewinds(), decay)
    assert epoch_rates(module) == pytest.approx([0.05, 0.04, 0.016, 0.0128])


def test_the_rate_of_a_capturable_optimizer_is_written_in_place():
    class Capturable(Regression):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=torch.tensor(0.05, dtype=torch.float64))

        def on_train_batch_start(self, batch, batch_idx):
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            assert isinstance(rate, torch.Tensor)
            self.rates.append([float(rate)])

    module = run_with("exponential", gamma=0.5, module=Capturable(1.0), epochs=3)
    assert epoch_rates(module) == pytest.approx([0.05, 0.025, 0.0125])


def test_accumulated_batches_are_one_step():
    decay = LearningRateDecay(interval="step", gamma=0.5)
    run, _ = fit([1.0], decay, accumulate_grad_batches=2)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.25)


# Skipped steps.


class Poisoned(Regression):
    """A NaN loss in the second and third batch."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if batch_idx in (1, 2) else loss


@pytest.mark.parametrize("guard_first", [True, False])
def test_steps_that_the_guard_skips_do_not_count(guard_first):
    guard, decay = StepGuard(on_nonfinite="skip"), LearningRateDecay(interval="step", gamma=0.5)
    order = [guard, decay] if guard_first else [decay, guard]
    run, module = fit([1.0], *order, module=Poisoned(1.0))
    assert guard.num_skipped == 2
    assert step_rates(module) == pytest.approx([0.05, 0.025, 0.025, 0.025])
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0125)


def test_steps_that_the_scaler_skips_do_not_count():
    from lightning.pytorch.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    decay = LearningRateDecay(interval="step", gamma=0.5)
    run, module = fit([1.0], decay, module=Poisoned(1.0), plugins=[plugin])
    assert step_rates(module) == pytest.approx([0.05, 0.025, 0.025, 0.025])
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0125)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_training_step_without_a_loss_does_not_count():
    class Passes(Regression):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    module = run_with("exponential", interval="step", gamma=0.5, module=Passes(1.0), epochs=1)
    assert step_rates(module) == pytest.approx([0.05, 0.025, 0.025, 0.0125])


# By loss.


@pytest.mark.parametrize(
    ("values", "settings", "factors"),
    [
        ([2, 3, 8, 0.0], {"schedule": "loss"}, [1, 1, 1, 1, 0.01]),
        ([2, 3, 8, 0.0], {"schedule": "loss", "ceiling": 2, "floor": 0.2}, [1, 1, 1.5, 2, 0.2]),
        # a higher value is better: only the third and the fourth are no improvement
        ([1, 2, 2, 1, 3], {"schedule": "plateau", "mode": "max", "patience": 2},
         [1] * 4 + [0.5, 0.5]),
        ([1, 2, 3, 4], {"schedule": "plateau", "patience": 3, "gamma": 0.001}, [1] * 4 + [0.01]),
        ([3, 2.5, 2], {"schedule": "plateau", "patience": 1, "min_delta": 0.5}, [1, 1, 0.5, 0.5]),
        # swings of 0.04 and of 0.06 around 1 are on either side of the default amplitude
        ([1.04, 0.96] * 3, {"schedule": "oscillation", "window": 4}, [1] * 7),
        ([1.06, 0.94] * 2, {"schedule": "oscillation", "window": 4}, [1] * 4 + [0.5]),
        ([1.04, 0.96] * 2, {"schedule": "oscillation", "window": 4, "amplitude": 0.03},
         [1] * 4 + [0.5]),
    ],
)  # fmt: skip
def test_the_factor_follows_a_value(values, settings, factors):
    clock = DecayClock(LearningRateDecay(**settings).options, total=1)
    seen = [clock.factor]
    for value in values:
        is_cut = clock.observe(value)
        assert is_cut == (clock.factor < seen[-1])
        seen.append(clock.factor)
    assert seen == pytest.approx(factors)


def test_by_a_monitored_loss():
    values = [8.0, 2.0, 4.0, 16.0]
    module = run_with("loss", monitor="val_loss", values=values, module=Regression(*values))
    assert epoch_rates(module) == pytest.approx([0.05, 0.05, 0.0125, 0.025])


@pytest.mark.parametrize(
    ("function", "factor"),
    [("sqrt", 0.5), ("square", 0.0625), (lambda ratio: ratio / 2, 0.125)],
)
def test_by_a_function_of_the_loss(function, factor):
    values = [8.0, 2.0, 2.0]
    settings = {"monitor": "val_loss", "function": function}
    module = run_with("loss", values=values, module=Regression(*values), **settings)
    assert epoch_rates(module)[2] == pytest.approx(0.05 * factor)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_by_the_smoothed_training_loss(interval):
    class Keeps(Regression):
        losses = ()

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.losses = (*self.losses, float(loss.detach()))
            return loss

    settings = {"interval": interval, "smoothing": 0.5, "check_every_n_steps": 2}
    module = run_with("loss", module=Keeps(1.0), **settings)
    mean = weight = 0.0
    factor, first, at = 1.0, None, []
    for step, loss in enumerate(module.losses):
        at.append(0.05 * factor)
        mean, weight = (0.5 * mean + 0.5 * loss), 0.5 * weight + 0.5
        if (step + 1) % (2 if interval == "step" else STEPS) == 0:
            first = first or mean / weight
            factor = min(1.0, max(0.01, mean / weight / first))
    assert step_rates(module) == pytest.approx(at)
    assert at[-1] < 0.5 * at[0]


def test_a_plateau_is_cut():
    values = [5.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0]
    settings = {"monitor": "val_loss", "patience": 2, "gamma": 0.1}
    module = run_with("plateau", values=values, module=Regression(*values), **settings)
    assert epoch_rates(module) == pytest.approx([0.05] * 4 + [0.005] * 3)


def test_at_a_cut_the_best_weights_come_back_on_request():
    values = [5.0, 4.0, 4.5, 4.6, 3.0]
    settings = {"monitor": "val_loss", "patience": 2, "reload_best": True}

    class Watches(Regression):
        begun = ()

        def on_train_epoch_start(self):
            self.begun = (*self.begun, tensors(self))

    module = run_with("plateau", values=values, module=Watches(*values), **settings)
    assert same(module.begun[4], module.validated[1])
    assert not same(module.begun[3], module.validated[1])
    assert epoch_rates(module)[4] == pytest.approx(0.025)


def test_an_oscillating_metric_is_cut_and_a_falling_one_is_not():
    swinging = [2.0, 1.0] * 4
    settings = {"monitor": "val_loss", "window": 6}
    module = run_with("oscillation", values=swinging, module=Regression(*swinging), **settings)
    assert epoch_rates(module) == pytest.approx([0.05] * 6 + [0.025] * 2)
    falling = [0.8**i for i in range(8)]
    module = run_with("oscillation", values=falling, module=Regression(*falling), **settings)
    assert epoch_rates(module) == pytest.approx([0.05] * 8)


def test_a_metric_of_the_training():
    module = run_with("plateau", monitor="train_loss", patience=1, gamma=0.5, epochs=3)
    assert epoch_rates(module)[0] == 0.05


def test_of_a_score_the_highest_one_has_the_weights_that_come_back():
    class Watches(Regression):
        begun = ()

        def on_train_epoch_start(self):
            self.begun = (*self.begun, tensors(self))

    settings = {"monitor": "val_loss", "patience": 2, "reload_best": True, "mode": "max"}
    module = run_with("plateau", epochs=5, module=Watches(1, 3, 2, 1, 0), **settings)
    assert same(module.begun[4], module.validated[1])


class LogsEpochs(Regression):
    """Logs metrics of the training, one that gets worse and one of the last step."""

    def training_step(self, batch, batch_idx):
        self.log("rising", torch.tensor(float(self.current_epoch)), on_step=False, on_epoch=True)
        self.log("step", torch.tensor(float(self.global_step)), on_step=True, on_epoch=False)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("monitor", ["rising", "step"])
@pytest.mark.parametrize(
    "settings", [{}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 2}], ids=str
)
def test_a_metric_of_the_training_is_observed_once_an_epoch(settings, monitor):
    module = LogsEpochs(1)
    fit([1] * 5, LearningRateDecay("plateau", monitor=monitor, patience=1, gamma=0.5),
        module=module, **settings)  # fmt: skip
    assert epoch_rates(module) == pytest.approx([0.05, 0.05, 0.025, 0.0125, 0.00625])


def test_a_metric_of_each_validation_loader_has_a_name_of_its_own():
    class Two(Regression):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("own", torch.tensor(float(self.current_epoch * (-1) ** dataloader_idx)))

    for place, expected in ((0, [0.05, 0.05, 0.025]), (1, [0.05] * 3)):
        module = Two(1)
        decay = LearningRateDecay(
            "plateau", monitor=f"own/dataloader_idx_{place}", patience=1, gamma=0.5
        )
        trainer(decay, max_epochs=3).fit(module, data(), [data(), data()])
        assert epoch_rates(module) == pytest.approx(expected)


def test_a_metric_without_validation():
    decay = LearningRateDecay("plateau", monitor="train_loss", patience=1)
    run, _ = fit([1] * 3, decay, limit_val_batches=0, module=Regression(1, lr=0.0))
    assert run.current_epoch == 3


# Refusals.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "expnential"}, "Did you mean 'exponential'"),
        ({"interval": "batch"}, "`interval`"),
        ({"gamma": 1.0}, "`gamma` must be > 0 and < 1"),
        ({"gamma": 0.0}, "`gamma`"),
        ({"every": 0}, "`every`"),
        ({"power": 0}, "`power`"),
        ({"total": 0}, "`total`"),
        ({"time_scale": 0}, "`time_scale`"),
        ({"growth": 0}, "`growth`"),
        ({"floor": 2}, "`floor`"),
        ({"floor": 0.5, "ceiling": 0.4}, "`ceiling`"),
        ({"warmup_steps": -1}, "`warmup_steps`"),
        ({"function": "cubic"}, "`function`"),
        ({"mode": "least"}, "`mode`"),
        ({"patience": 0}, "`patience`"),
        ({"min_delta": -1}, "`min_delta`"),
        ({"smoothing": 1.0}, "`smoothing`"),
        ({"window": 3}, "`window`"),
        ({"amplitude": -1}, "`amplitude`"),
        ({"check_every_n_steps": 0}, "`check_every_n_steps`"),
        ({"combine": "both"}, "`combine`"),
        ({"reload_best": True}, "`reload_best` needs a schedule that cuts"),
        ({"monitor": "val_loss"}, "`monitor` needs a schedule that follows a value"),
    ],
)
def test_an_argument_that_breaks_its_rule(settings, words):
    with pytest.raises(InvalidArgumentError, match=words):
        LearningRateDecay(**settings)


class Scheduled(Regression):
    """Has a scheduler of its own, which halves the rate each epoch."""

    interval = "epoch"

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda e: 0.5**e)
        return [optimizer], [{"scheduler": scheduler, "interval": self.interval}]


def test_it_refuses_to_fight_with_the_modules_scheduler_before_the_first_step():
    module = Scheduled(1.0)
    with pytest.raises(ConflictError, match=r"LambdaLR.*combine='multiply'"):
        run_with(module=module)
    assert module.rates == []


def test_it_replaces_the_modules_scheduler_on_request():
    module = run_with(gamma=0.9, combine="replace", module=Scheduled(1.0), epochs=3)
    assert epoch_rates(module) == pytest.approx([0.05, 0.045, 0.0405])


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_both_factors_multiply_on_request(interval):
    used = []

    class Uses(Scheduled):
        def configure_optimizers(self):
            optimizers, schedulers = super().configure_optimizers()
            update = optimizers[0].register_step_pre_hook
            self.watch = lambda: update(lambda o, a, k: used.append(o.param_groups[0]["lr"]))
            return optimizers, schedulers

        def on_train_start(self):
            self.watch()  # registered after ours, so it sees the rate that the step uses

    module = Uses(1.0)
    module.interval = interval
    decay = LearningRateDecay(gamma=0.9, interval=interval, combine="multiply")
    run, _ = fit([1.0] * 2, decay, module=module)
    times = range(2 * STEPS) if interval == "step" else [0] * STEPS + [1] * STEPS
    assert used == pytest.approx([0.05 * 0.5**t * 0.9**t for t in times])
    end = 2 * STEPS if interval == "step" else 2
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.5**end)


def test_it_cannot_replace_what_the_module_steps_itself():
    class Manual(Scheduled):
        automatic_optimization = False

    with pytest.raises(ConflictError, match="manual optimisation"):
        run_with(combine="replace", module=Manual(1.0))


def test_a_cosine_without_an_end_is_refused():
    class Ends(Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = True

    with pytest.raises(ConflictError, match="`total` must be given"):
        fit([1.0], LearningRateDecay("cosine"), Ends(), max_epochs=-1)
    fit([1.0], LearningRateDecay("cosine", total=5), Ends(), max_epochs=-1)
    fit([1.0], LearningRateDecay("cosine", interval="step"), max_epochs=-1, max_steps=3)


@pytest.mark.filterwarnings("ignore:.*IterableDataset.*")
def test_data_without_a_length():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(data().dataset)

    def rates(**settings):
        module, decay = Regression(1.0), LearningRateDecay("cosine", **settings)
        trainer(decay, max_epochs=4).fit(module, DataLoader(Endless(), batch_size=4))
        return epoch_rates(module)

    wanted = [0.05 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]
    assert rates() == pytest.approx(wanted)
    assert rates(interval="step", total=4 * STEPS) == pytest.approx(wanted)
    with pytest.raises(ConflictError, match=r"`total` must be given.*the data has no length"):
        rates(interval="step")


def test_repr_shows_what_was_given_and_makes_the_same_callback():
    decay = LearningRateDecay("cosine", interval="step", warmup_steps=500)
    assert repr(decay) == "LearningRateDecay(schedule='cosine', interval='step', warmup_steps=500)"
    assert eval(repr(decay)).options == decay.options
    assert (decay.schedule, decay.warmup_steps, decay.gamma) == ("cosine", 500, None)


def test_a_missing_metric_is_told():
    with pytest.raises(ConflictError, match=r"got 'val_los'.*Did you mean 'val_loss'"):
        run_with("plateau", monitor="val_los")


def test_manual_optimisation_without_a_returned_loss_is_told():
    with pytest.raises(ConflictError, match="returned none"):
        run_with("loss", module=Two(1.0), epochs=1)


# What it leaves behind.


def test_it_takes_its_hooks_away_even_after_an_exception():
    class Breaks(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError("broken")

    hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    for breaks in (True, False):
        run = trainer(LearningRateDecay(), *([Breaks()] if breaks else []), max_epochs=1)
        module = Regression(1.0)
        if breaks:
            with pytest.raises(RuntimeError, match="broken"):
                run.fit(module, data())
        else:
            run.fit(module, data())
        optimizer = run.optimizers[0]
        assert all(len(getattr(optimizer, name)) == 0 for name in hooks)
        assert "step" not in vars(optimizer)
        assert "initial_lr" not in optimizer.param_groups[0]


def test_the_rates_are_logged_by_group(tmp_path):
    decay = LearningRateDecay(gamma=0.5)
    logger = TensorBoardLogger(tmp_path, name="")
    fit([1.0] * 3, decay, module=Groups(1.0), logger=logger, log_every_n_steps=5)
    events = EventAccumulator(str(next(tmp_path.iterdir()))).Reload()
    logged = {e.step: e.value for e in events.Scalars("lr/head")}
    wanted = {0: 0.01, 4: 0.005, 5: 0.005, 8: 0.0025, 10: 0.0025}
    assert logged == pytest.approx(wanted)
    assert events.Scalars("lr/group0")[0].value == pytest.approx(0.05)


def test_the_rates_of_several_optimizers_are_told_apart(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="")
    fit([1.0], LearningRateDecay(), module=Two(1.0), logger=logger)
    events = EventAccumulator(str(next(tmp_path.iterdir()))).Reload()
    assert {"lr/opt0/group0", "lr/opt1/group0"} <= set(events.Tags()["scalars"])


RESUMED = {
    "exponential": {},
    "cosine": {"interval": "step", "warmup_steps": 3},
    "loss": {"smoothing": 0.9},
    "plateau": {"monitor": "val_loss", "patience": 1, "reload_best": True},
    "oscillation": {"monitor": "val_loss", "window": 4},
}


@pytest.mark.parametrize("schedule", RESUMED)
def test_a_resumed_run_goes_on_bit_for_bit(schedule, tmp_path):
    values = [3.0, 2.0, 3.0, 2.0, 3.0]

    def go(*callbacks, **settings):
        decay = LearningRateDecay(schedule, **RESUMED[schedule])
        module = Regression(*values)
        module.validated = [None] * (settings.pop("validated", 0))
        run = trainer(decay, *callbacks, max_epochs=5, enable_checkpointing=bool(callbacks))
        run.fit(module, Replays(data()), data(), **settings)
        return decay, module, run.optimizers[0].param_groups[0]["lr"]

    whole, module, rate = go(SaveSteps(tmp_path, STEPS))
    for step in (2, 4, 9, 14):
        path = tmp_path / f"{step}.ckpt"
        again, remodule, rerate = go(ckpt_path=path, weights_only=True, validated=step // STEPS)
        assert again.state_dict() == whole.state_dict()
        assert rerate == rate
        assert same(remodule.state_dict(), module.state_dict())
        assert step_rates(remodule) == step_rates(module)[step:]


def test_it_consumes_no_random_numbers():
    def state_after(*callbacks):
        torch.manual_seed(5)
        fit([1.0] * 2, *callbacks)
        return torch.random.get_rng_state()

    ours = state_after(LearningRateDecay("cosine", warmup_steps=2))
    assert torch.equal(ours, state_after())


def test_steps_that_a_fused_optimizer_skips_for_the_scaler_do_not_count():
    from lightning.pytorch.plugins import MixedPrecision

    class Fused(Poisoned):
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.05, fused=True)

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))
    decay = LearningRateDecay(interval="step", gamma=0.5)
    _, module = fit([1.0], decay, module=Fused(1.0), plugins=[plugin])
    assert step_rates(module) == pytest.approx([0.05, 0.025, 0.025, 0.025])


@pytest.mark.parametrize("function", [5, "cubic", ["linear"]])
def test_a_function_that_is_none_is_refused(function):
    with pytest.raises(InvalidArgumentError, match="'square' or a function, got"):
        LearningRateDecay("loss", function=function)

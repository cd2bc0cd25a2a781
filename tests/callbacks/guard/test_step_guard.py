"""`StepGuard`: what is bad is found, what is skipped leaves no trace, what is ruined comes back."""

import json
import math
import random
from contextlib import nullcontext
from functools import partial

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from helpers.comparing import all_finite, hooks_of, same_optimizers, same_state
from helpers.events import events
from helpers.lightning_twins import (
    OPTIMIZERS,
    Classifier,
    SmallGAN,
    batches,
    built,
    fit,
    half_precision,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab import GradientClipping, GradientMonitor, StepGuard
from lightning_stab.errors import InvalidArgumentError, UnstableStepError

NAN, INF = float("nan"), float("inf")


class BadGradient(Classifier):
    """The loss is finite; the gradient of the first layer is not, for some batches."""

    bad = ()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx in self.bad:
            loss = loss + SquareRootAtZero.apply(self.net[0].bias).sum()
        return loss


class SquareRootAtZero(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * INF


def bad_gradient(places, **arguments):
    module = built(BadGradient, **arguments)
    module.bad = places
    return module


# --- raise ----------------------------------------------------------------------------------------


def test_a_nonfinite_loss_stops_the_fit_by_default_and_says_where():
    module = built(Classifier)
    before = {n: t.clone() for n, t in module.state_dict().items() if "net.4" in n}
    with pytest.raises(UnstableStepError, match=r"non-finite loss at step 0 .*'net\.0\.weight'"):
        fit(module, [StepGuard()], batches(3, poison=[0]))
    assert all(torch.equal(module.state_dict()[n], t) for n, t in before.items())


def test_a_nonfinite_gradient_of_a_finite_loss_is_told_apart():
    with pytest.raises(UnstableStepError, match=r"non-finite gradient at step 2 .*'net\.0\.bias'"):
        fit(bad_gradient([2]), [StepGuard()])


def test_spikes_raise_when_asked():
    with pytest.raises(UnstableStepError, match=r"(loss|gradient) spike at step 9 .*allows up to"):
        fit(built(Classifier, batch_norm=False), [StepGuard("raise", "raise")], spiked())


def spiked(places=(9,), size=1e6, num=12, drop=()):
    """Batches of which some are scaled up, so that their losses and gradients are."""
    loader = batches(num)
    x, y = loader.dataset.tensors
    for place in places:
        x[place] *= size
    kept = [i for i in range(num) if i not in drop]
    return DataLoader(TensorDataset(x[kept], y[kept]), batch_size=None)


# --- skip -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", [NAN, INF, -INF])
def test_weights_buffers_moments_and_counts_are_as_if_the_batch_had_not_been(optimizer, kind):
    places = [0, 1, 5, 11]
    guard = StepGuard("skip", "skip")
    poisoned, clean = built(Classifier, optimizer), built(Classifier, optimizer)
    first = fit(poisoned, [guard], batches(poison=places, kind=kind))
    second = fit(clean, [], batches(drop=places))
    assert guard.num_skipped == 4
    assert same_state(poisoned, clean)
    assert same_optimizers(first, second)
    assert first.global_step >= second.global_step + 4


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw_fused"])
def test_huge_batches_are_skipped_as_spikes(optimizer):
    places = [0, 7, 8, 20]
    guard = StepGuard("skip", "skip")
    make = partial(built, Classifier, optimizer, batch_norm=False)
    poisoned, clean = make(), make()
    fit(poisoned, [guard], spiked(places, 1e20, 24))
    fit(clean, [StepGuard("skip", "skip")], batches(24, drop=places))
    assert guard.num_skipped == 4
    assert same_state(poisoned, clean)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw_fused", "lbfgs"])
def test_a_nonfinite_gradient_of_a_finite_loss_is_skipped(optimizer):
    module = bad_gradient([1, 4], optimizer=optimizer)
    guard = StepGuard("skip")
    trainer = fit(module, [guard])
    assert guard.num_skipped == 2
    assert all_finite(module, trainer)


def test_norms_beyond_float32_with_finite_entries_are_judged_by_their_true_size():
    """Entries of 1e25 overflow the float32 sum of squares: finite, so a spike and not a NaN."""
    guard = StepGuard("raise", "skip")
    fit(built(Classifier, batch_norm=False), [guard], spiked([8], 1e25))
    assert guard.num_skipped == 1


SCHEDULERS = {
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=20),
    "one_cycle": partial(lr_scheduler.OneCycleLR, max_lr=0.2, total_steps=40),
    "lambda": partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
    "sequential": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4),
            lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
        ],
        [4],
    ),
    "plateau": partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.0),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_step_wise_schedulers_wait_on_a_skipped_step(name, accumulate):
    places = [0, 1, 4, 5, 11] if accumulate == 1 else [0, 1, 4, 5]
    poisoned, clean = (built(Classifier, scheduler=SCHEDULERS[name]) for _ in range(2))
    arguments = {"accumulate_grad_batches": accumulate}
    first = fit(poisoned, [StepGuard("skip")], batches(poison=places), **arguments)
    second = fit(clean, [], batches(drop=places), **arguments)
    rates = [[g["lr"] for o in t.optimizers for g in o.param_groups] for t in (first, second)]
    assert rates[0] == rates[1]
    assert same_state(poisoned, clean)
    assert first.lr_scheduler_configs[0].interval == "step"


def test_epoch_wise_schedulers_go_on():
    class EpochWise(Classifier):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            return [optimizer], [lr_scheduler.StepLR(optimizer, 1, 0.5)]

    guard = StepGuard("skip")
    trainer = fit(built(EpochWise), [guard], batches(3, poison=[2]), epochs=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.025)


def test_running_statistics_of_a_users_own_normalisation_are_put_back():
    """Torch's kernels write past the version counter of the buffers, whoever calls them."""

    class OwnNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(16))
            self.register_buffer("running_var", torch.ones(16))

        def forward(self, x):
            statistics = (self.running_mean, self.running_var)
            return nn.functional.batch_norm(x, *statistics, training=self.training)

    class Own(Classifier):
        def __init__(self):
            super().__init__()
            self.net[1] = OwnNorm()

    poisoned, clean = built(Own), built(Own)
    fit(poisoned, [StepGuard("skip")], batches(poison=[4]))
    fit(clean, [], batches(drop=[4]))
    assert same_state(poisoned, clean)


def test_ignored_kinds_are_taken():
    module = built(Classifier, batch_norm=False)
    guard = StepGuard("ignore", "ignore")
    fit(module, [guard], batches(3, poison=[1]))
    assert module.net[0].weight.isnan().any()
    assert guard.num_skipped == 0


# --- the budget -----------------------------------------------------------------------------------


def test_the_budget_counts_consecutive_bad_steps_only():
    scattered = range(0, 30, 2)
    guard = StepGuard("skip", max_consecutive=2)
    fit(built(Classifier), [guard], batches(30, poison=scattered))
    assert guard.num_skipped == 15
    with pytest.raises(
        UnstableStepError, match=r"after 3 bad steps in a row \(`max_consecutive`\)"
    ):
        fit(
            built(Classifier),
            [StepGuard("skip", max_consecutive=3)],
            batches(poison=[1, 2, 5, 6, 7]),
        )


def test_each_optimizer_has_its_own_budget():
    """The generator's good steps must not hide that the discriminator takes none."""
    with pytest.raises(UnstableStepError, match="after 4 bad steps in a row"):
        fit(built(SmallGAN), [StepGuard("skip", max_consecutive=4)], batches(poison=range(2, 12)))


def test_a_budget_of_one_stops_at_once():
    with pytest.raises(UnstableStepError, match="after 1 bad step"):
        fit(built(Classifier), [StepGuard("skip", max_consecutive=1)], batches(poison=[4]))


# --- spikes ---------------------------------------------------------------------------------------


def windows(guard):
    (judge,) = guard.state_dict()["judges"].values()
    return judge["loss"]["window"]["values"], judge["norm"]["window"]["values"]


def test_rejected_steps_never_enter_the_window():
    places = [0, 6, 7, 15]
    make = partial(built, Classifier, batch_norm=False)
    for data in (batches(20, poison=places), spiked(places, 1e20, 20)):
        poisoned, clean = StepGuard("skip", "skip"), StepGuard("skip", "skip")
        fit(make(), [poisoned], data)
        fit(make(), [clean], batches(20, drop=places))
        assert poisoned.num_skipped == 4
        assert windows(poisoned) == windows(clean)
        assert len(windows(clean)[0]) == 16


def test_the_window_is_filled_to_its_size_and_healthy_steps_are_no_spikes():
    guard = StepGuard("skip", "skip", window=8, min_window=4)
    fit(built(Classifier), [guard], batches(40))
    assert guard.num_skipped <= 1
    assert [len(values) for values in windows(guard)] == [8, 8]


def test_a_loss_spike_after_the_window_is_filled_is_found():
    """A label burst: the loss jumps, nothing is huge."""

    class Burst(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss + 5.0 * (batch_idx == 30)

    guard = StepGuard("raise", "skip", min_window=16)
    trainer = fit(built(Burst), [guard], batches(40))
    assert guard.num_skipped == 1
    assert trainer.logger.steps[30]["guard/skipped"] == 1.0
    assert trainer.logger.steps[30]["guard/loss"] > 5.0


def test_a_gradient_spike_with_an_ordinary_loss_is_found():
    class Kick(Classifier):
        def on_after_backward(self):
            if len(self.losses) == 31:
                self.net[0].weight.grad.mul_(1e3)

    guard = StepGuard("raise", "skip", min_window=16)
    fit(built(Kick), [guard], batches(40))
    assert guard.num_skipped == 1


def test_the_policies_of_the_two_kinds_are_independent():
    with pytest.raises(UnstableStepError, match="non-finite loss"):
        fit(built(Classifier, batch_norm=False), [StepGuard("raise", "skip")], batches(poison=[5]))
    guard = StepGuard("skip", "ignore")
    fit(built(Classifier), [guard], spiked(size=1e3))
    assert guard.num_skipped == 0


# --- rewind ---------------------------------------------------------------------------------------


class Remember(lightning.Callback):
    """Copies everything that a rewind must restore, after the batches that are named."""

    def __init__(self, clipping=None):
        self.clipping = clipping
        self.after = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.after[batch_idx] = {
            "module": {n: t.clone() for n, t in module.state_dict().items()},
            "moments": [v["momentum_buffer"].clone() for v in trainer.optimizers[0].state.values()],
            "clock": [c.scheduler.last_epoch for c in trainer.lr_scheduler_configs],
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "history": json.dumps(self.clipping.state_dict()) if self.clipping else None,
        }


def rewound(poison, *, num=12, scheduler="lambda", **arguments):
    guard = StepGuard("rewind", snapshot_every_n_steps=4, **arguments)
    clipping = GradientClipping("history", method="percentile")
    remember = Remember(clipping)
    module = built(Classifier, scheduler=SCHEDULERS[scheduler])
    trainer = fit(module, [guard, clipping, remember], batches(num, poison=poison))
    return guard, remember.after, trainer, module


def test_rewind_brings_back_model_moments_schedule_and_clipping_history():
    guard, after, _, _ = rewound([6, 7, 8], rewind_after=3, lr_factor=0.5)
    assert (guard.num_rewound, guard.num_skipped) == (1, 3)
    snapshot, now = after[3], after[8]  # the newest snapshot was taken after the fourth good step
    assert all(torch.equal(now["module"][n], t) for n, t in snapshot["module"].items())
    assert not torch.equal(after[7]["module"]["net.0.weight"], now["module"]["net.0.weight"])
    assert len(now["moments"]) == len(snapshot["moments"]) > 0
    assert all(map(torch.equal, now["moments"], snapshot["moments"]))
    assert now["clock"] == snapshot["clock"]
    assert now["history"] == snapshot["history"]
    assert now["lr"] == pytest.approx(0.5 * snapshot["lr"])


def test_a_rewind_to_the_start_forgets_the_clipping_history():
    _, after, _, _ = rewound([2, 3, 4], rewind_after=3)
    assert json.loads(after[1]["history"])["histories"] != {}
    assert json.loads(after[4]["history"])["histories"] == {}


@pytest.mark.parametrize("name", [n for n in SCHEDULERS if n != "plateau"])
def test_the_cut_of_the_learning_rate_outlives_the_scheduler(name):
    _, after, trainer, _ = rewound([6, 7, 8], num=24, scheduler=name, lr_factor=0.1)
    plain = built(Classifier, scheduler=SCHEDULERS[name])
    reference = fit(plain, [], batches(24 - 5))  # three skipped, two taken back
    rate, uncut = (t.optimizers[0].param_groups[0]["lr"] for t in (trainer, reference))
    assert rate == pytest.approx(0.1 * uncut, rel=1e-6)
    assert after[23]["clock"] == [19]


def test_each_rewind_in_a_row_cuts_the_learning_rate_further():
    guard, after, _, _ = rewound(range(6, 11), num=11, rewind_after=2, max_consecutive=9)
    assert guard.num_rewound == 2
    assert after[7]["lr"] == pytest.approx(0.5 * after[3]["lr"])
    start = 0.1  # the second goes back to the older snapshot, of the start
    assert after[9]["lr"] == pytest.approx(0.25 * start)
    assert after[9]["clock"] == [0]


def test_two_snapshots_are_kept_and_no_rewind_goes_back_further():
    class Times(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            clocks.append(trainer.lr_scheduler_configs[0].scheduler.last_epoch)

    clocks = []
    guard = StepGuard("rewind", snapshot_every_n_steps=2, rewind_after=1, max_consecutive=9)
    module = built(Classifier, scheduler=SCHEDULERS["lambda"])
    fit(module, [guard, Times()], batches(12, poison=[7, 8, 9, 11]))
    assert guard.num_rewound == 4
    # snapshots at 0, 2, 4 and 6: back to the newest, then to the one before, and never before it
    assert clocks == [1, 2, 3, 4, 5, 6, 7, 6, 4, 4, 5, 4]


def test_a_single_bad_step_is_only_passed_over():
    guard, _, _, module = rewound([3, 6, 9])
    clean = built(Classifier, scheduler=SCHEDULERS["lambda"])
    fit(clean, [GradientClipping("history", method="percentile")], batches(drop=[3, 6, 9]))
    assert (guard.num_rewound, guard.num_skipped) == (0, 3)
    assert same_state(module, clean)


def test_the_budget_ends_rewinding_too():
    with pytest.raises(UnstableStepError, match="after 6 bad steps in a row"):
        rewound(range(4, 12), max_consecutive=6, rewind_after=2)


def test_a_snapshot_is_not_changed_by_training_on():
    guard = StepGuard("rewind", snapshot_every_n_steps=4, rewind_after=1, max_consecutive=99)
    module = built(Classifier, "adam")
    remember = {}

    class After(lightning.Callback):
        def on_train_start(self, trainer, module):
            remember["start"] = [p.detach().clone() for p in module.parameters()]

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            remember[batch_idx] = [p.detach().clone() for p in module.parameters()]

    fit(module, [guard, After()], batches(poison=[5, 7]))
    assert guard.num_rewound == 2
    assert all(map(torch.equal, remember[5], remember[3]))
    assert not all(map(torch.equal, remember[6], remember[3]))
    assert all(map(torch.equal, remember[7], remember["start"]))  # the newest had not helped


def test_a_scalers_state_comes_back():
    plugin = half_precision()
    plugin.scaler._growth_interval = 3
    guard = StepGuard("rewind", snapshot_every_n_steps=2, rewind_after=1, max_consecutive=99)
    trainer = fit(built(Classifier), [guard], batches(8, poison=[7]), plugins=[plugin])
    assert guard.num_rewound == 1
    assert trainer.precision_plugin.scaler.get_scale() == 2.0**12  # as after the sixth step


# --- resume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_resumed_run_ends_bit_identical(tmp_path, policy):
    def suite():
        options = {"rewind_after": 2, "snapshot_every_n_steps": 5, "min_window": 6, "window": 10}
        return [
            GradientClipping("history"),
            StepGuard(policy, "skip", max_consecutive=20, **options),
            GradientMonitor(4),
        ]

    class SecondEpochIsBad(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * (NAN if self.current_epoch == 1 and batch_idx in (3, 4, 8) else 1.0)

    make = partial(built, SecondEpochIsBad, "adam", scheduler=SCHEDULERS["cosine"])
    whole, first, resumed = make(), make(), make()
    reference = suite()
    expected = fit(whole, reference, epochs=3)
    fit(first, suite(), epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    again = suite()
    got = fit(resumed, again, epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert reference[1].num_rewound == (policy == "rewind")
    assert same_state(resumed, whole)
    assert same_optimizers(got, expected)
    for one, other in zip(again[:2], reference[:2], strict=True):
        left, right = one.state_dict(), other.state_dict()
        left.pop("snapshot", None), right.pop("snapshot", None)
        assert left == right


def test_a_checkpoint_saved_after_the_fit_has_the_newest_snapshot(tmp_path):
    guard = StepGuard("rewind", snapshot_every_n_steps=5)
    module = built(Classifier)
    trainer = fit(module, [guard], batches(11))
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    saved = torch.load(tmp_path / "after.ckpt", weights_only=True)["callbacks"]["StepGuard"]
    assert (saved["snapshot"]["age"], saved["snapshot"]["fresh"]) == (1, True)
    assert saved["snapshot"]["module"].keys() == module.state_dict().keys()


@pytest.mark.parametrize("poison", [(), (3,)])
def test_a_guard_has_no_state_outside_a_fit(poison):
    guard = StepGuard("raise", "skip")
    with pytest.raises(UnstableStepError) if poison else nullcontext():
        fit(built(Classifier), [guard], batches(poison=poison))
    assert guard._state is None


def test_the_state_round_trips():
    guard = StepGuard("rewind", "skip", snapshot_every_n_steps=3)
    fit(built(Classifier), [guard], batches(poison=[4]))
    state, fresh = guard.state_dict(), StepGuard("rewind", "skip")
    fresh.load_state_dict(state)
    assert fresh.num_skipped == 1
    assert windows(fresh) == windows(guard)


# --- forensics ------------------------------------------------------------------------------------


def test_forensics_names_the_first_nonfinite_output():
    class Overflowing(Classifier):
        def __init__(self):
            super().__init__(batch_norm=False)
            self.net[2] = Exploding()

    with pytest.raises(
        UnstableStepError, match=r"first non-finite output .*'net\.2' \(Exploding\)"
    ):
        fit(built(Overflowing), [StepGuard(forensics=True)])


class Exploding(nn.Module):
    def forward(self, x):
        return x / 0.0


class BadBackward(nn.Module):
    def forward(self, x):
        return x + SquareRootAtZero.apply(x)


def test_forensics_names_the_first_nonfinite_gradient():
    """The gradient of the output before the bad backward is the first that is not finite."""

    class Broken(Classifier):
        def __init__(self):
            super().__init__()
            self.net[2] = BadBackward()

    with pytest.raises(
        UnstableStepError, match=r"[Ee]very output is finite.*'net\.1' \(BatchNorm1d\)"
    ):
        fit(built(Broken), [StepGuard(forensics=True)])


def test_forensics_of_a_loss_that_no_module_spoiled():
    class OnlyTheLoss(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * NAN

    with pytest.raises(UnstableStepError, match="the loss made of them is not"):
        fit(built(OnlyTheLoss), [StepGuard(forensics=True)])


def test_forensics_finds_the_bad_micro_batch_of_a_window(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    guard = StepGuard("skip", forensics=True)
    data = batches(6, poison=[4])
    fit(built(Classifier), [guard], data, logger=logger, accumulate_grad_batches=3)
    (path,) = tmp_path.rglob("nonfinite_batch_*.pt")
    saved = torch.load(path, weights_only=True)
    assert saved["batch_idx"] == 4
    assert torch.equal(saved["batch"][1], data.dataset.tensors[1][4])
    assert saved["batch"][0].isnan().sum() == 1


def test_forensics_leaves_no_trace(tmp_path):
    """Random state, gradients, logs and metrics are as without it."""

    def run(forensics):
        module = built(Classifier, dropout=0.3)
        guard = StepGuard("skip", forensics=forensics)
        logger = TensorBoardLogger(tmp_path, str(forensics))
        trainer = fit(module, [guard], batches(poison=[2, 5]), logger=logger, log_every_n_steps=1)
        assert hooks_of(module) == []
        return module, trainer, torch.get_rng_state(), events(logger.log_dir)[0]

    (first, a, state_a, log_a), (second, b, state_b, log_b) = run(True), run(False)
    assert same_state(first, second)
    assert same_optimizers(a, b)
    assert torch.equal(state_a, state_b)
    assert {n: str(v) for n, v in log_a.items()} == {n: str(v) for n, v in log_b.items()}


def test_forensics_uses_no_other_random_state():
    class Noisy(Classifier):
        def training_step(self, batch, batch_idx):
            self.drawn = (random.random(), float(np.random.rand()))  # noqa: NPY002
            return super().training_step(batch, batch_idx)

    def run(forensics):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        module = built(Noisy)
        fit(module, [StepGuard("skip", forensics=forensics)], batches(4, poison=[1]))
        return module.drawn

    assert run(True) == run(False)


def test_forensics_sees_the_random_state_of_the_bad_batch():
    """A draw decides: the second look must make the same one."""

    class Unlucky(Classifier):
        def training_step(self, batch, batch_idx):
            draw = torch.rand(())
            batch[0].data.div_(torch.where(draw < 0.2, 0.0, 1.0))
            return super().training_step(
                [batch[0] / torch.where(draw < 0.2, 0.0, 1.0), batch[1]], 0
            )

    guard = StepGuard(forensics=True)
    with pytest.raises(UnstableStepError, match=r"first non-finite output is that of 'net\.0'"):
        fit(built(Unlucky), [guard], batches(60))


def test_forensics_runs_once_and_saves_batches_of_every_form(tmp_path):
    from typing import NamedTuple

    class Pair(NamedTuple):
        x: torch.Tensor
        y: torch.Tensor

    class Nested(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["pair"], batch_idx)

    data = [
        {"pair": Pair(x, y), "name": "a", "ids": (1, 2.5, None, True), "odd": {3: object}}
        for x, y in batches(4, poison=[1, 2])
    ]
    loader = DataLoader(data, batch_size=None)
    guard = StepGuard("skip", forensics=True)
    fit(built(Nested, logs=False), [guard], loader, logger=TensorBoardLogger(tmp_path))
    (path,) = tmp_path.rglob("nonfinite_batch_*.pt")
    saved = torch.load(path, weights_only=True)
    assert saved["batch_idx"] == 1
    assert set(saved["batch"]) == {"pair", "name", "ids", "odd"}
    assert saved["batch"]["ids"] == [1, 2.5, None, True]
    assert set(saved["batch"]["pair"]) == {"x", "y"}


def test_forensics_says_what_it_cannot_do():
    with pytest.raises(UnstableStepError, match="cannot be run again under manual optimisation"):
        fit(built(SmallGAN), [StepGuard(forensics=True)], batches(2, poison=[1]))
    module = torch.compile(built(Classifier, logs=False), backend="eager")
    with pytest.raises(UnstableStepError, match=r"non-finite output .*'net\.0'"):
        fit(module, [StepGuard(forensics=True)], batches(2, poison=[1]))
    torch._dynamo.reset()


def test_a_failure_of_the_second_look_does_not_hide_the_first():
    class Once(Classifier):
        def training_step(self, batch, batch_idx):
            if len(self.losses) > 2:
                raise RuntimeError("not again")
            return super().training_step(batch, batch_idx)

    with pytest.raises(UnstableStepError, match=r"non-finite loss .*RuntimeError: not again"):
        fit(built(Once), [StepGuard(forensics=True)], batches(4, poison=[2]))


# --- logging --------------------------------------------------------------------------------------


def test_skips_are_logged_when_they_happen(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(built(Classifier), [StepGuard("skip")], batches(poison=[3, 7]), logger=logger)
    scalars, _ = events(logger.log_dir)
    assert scalars["guard/skipped"] == [(3, 1.0), (7, 2.0)]
    assert all(math.isnan(value) for _, value in scalars["guard/loss"])
    assert [step for step, _ in scalars["guard/grad_norm"]] == [3, 7]


def test_the_loss_of_a_bad_step_is_the_mean_of_its_batches():
    class Kick(Classifier):
        def on_after_backward(self):
            if len(self.losses) == 6:
                self.net[0].weight.grad[0, 0] = INF

    module = built(Kick)
    trainer = fit(module, [StepGuard("skip")], batches(6), accumulate_grad_batches=3)
    expected = float(torch.stack(module.losses[3:]).mean())
    assert trainer.logger.latest["guard/loss"] == pytest.approx(expected)
    assert trainer.logger.latest["guard/skipped"] == 1


def test_the_loss_of_several_optimizers_is_not_named():
    """Of two it is not known whose it is, and the gradient alone is judged."""
    with pytest.raises(UnstableStepError, match=r"non-finite gradient at step \d+ .*\(gradient no"):
        fit(built(SmallGAN), [StepGuard()], batches(3, poison=[1]))


def test_a_healthy_run_logs_nothing():
    trainer = fit(built(Classifier), [StepGuard("skip", "skip")])
    assert not any(name.startswith("guard/") for name in trainer.logger.latest)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"on_nonfinite": "stop"}, "`on_nonfinite` must be one of 'ignore', 'raise'.*got 'stop'"),
        ({"on_spike": "skipp"}, r"`on_spike` .* got 'skipp'\. Did you mean 'skip'\?"),
        ({"max_consecutive": 0}, "`max_consecutive` must be an integer >= 1, got 0"),
        ({"window": 1}, "`window` must be an integer >= 2, got 1"),
        ({"min_window": 0}, "`min_window` must be an integer >= 2, got 0"),
        ({"window": 32, "min_window": 64}, "`min_window` must be .*32, got 64"),
        ({"deviations": 0.0}, r"`deviations` must be > 0, got 0\.0"),
        ({"loss_jump": -1.0}, r"`loss_jump` must be >= 0, got -1\.0"),
        ({"gradient_factor": 0.5}, r"`gradient_factor` must be >= 1, got 0\.5"),
        ({"early_factor": 1.0}, r"`early_factor` must be > 1, got 1\.0"),
        ({"rewind_after": 0}, "`rewind_after` must be an integer >= 1, got 0"),
        ({"snapshot_every_n_steps": 0}, "`snapshot_every_n_steps` must be an integer >= 1"),
        ({"lr_factor": 0.0}, r"`lr_factor` must be > 0 and <= 1, got 0\.0"),
        ({"lr_factor": 1.5}, r"`lr_factor` must be > 0 and <= 1, got 1\.5"),
        ({"lr_factor": NAN}, "`lr_factor` must be > 0 and <= 1, got nan"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence) as caught:
        StepGuard(**arguments)
    assert len(str(caught.value)) < 200

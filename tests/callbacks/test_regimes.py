"""The gradient callbacks in every regime: they see true gradients and leave the rest alone."""

import math
from functools import partial

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import all_finite, hooks_of, same_optimizers, same_state
from helpers.lightning_twins import Classifier, SmallGAN, batches, built, fit, half_precision
from helpers.tiers import in_tiers
from torch import nn

from lightning_stab import GradientClipping, GradientMonitor, StepGuard
from lightning_stab.callbacks.gradients.gradient_monitor import STATISTICS


def whole_compiled():
    return torch.compile(built(Classifier, logs=False), backend="eager")


def partly_compiled():
    module = built(Classifier)
    module.net = torch.compile(module.net, backend="eager")
    return module


def half():
    return {"plugins": [half_precision()]}


MAKE = {
    "fp32": partial(built, Classifier, "sgd"),
    "fp32-adam": partial(built, Classifier, "adam"),
    "fp64": partial(built, Classifier, "sgd"),
    "bf16-mixed": partial(built, Classifier, "adam"),
    "fp16-scaler": partial(built, Classifier, "adam"),
    "fp16-fused": partial(built, Classifier, "adamw_fused"),
    "fused-adamw": partial(built, Classifier, "adamw_fused"),
    "accumulation": partial(built, Classifier, "sgd"),
    "gan": partial(built, SmallGAN),
    "lbfgs": partial(built, Classifier, "lbfgs"),
    "compiled": whole_compiled,
    "partly-compiled": partly_compiled,
}
TRAINER = {
    "fp64": lambda: {"precision": "64-true"},
    "bf16-mixed": lambda: {"precision": "bf16-mixed"},
    "fp16-scaler": half,
    "fp16-fused": half,
    "accumulation": lambda: {"accumulate_grad_batches": 5},  # 12 batches: a last window of two
}


def regimes(*without):
    """Return the cases but some; compiling takes seconds."""
    return in_tiers([r for r in MAKE if r not in without], MAKE.keys() - {"compiled", *without})


HALF = ("fp16-scaler", "fp16-fused")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch._dynamo.reset()


def run(regime, callbacks=(), data=None, make=None, **arguments):
    module = (make or MAKE[regime])()
    options = {**TRAINER.get(regime, dict)(), **arguments}
    trainer = fit(module, callbacks, data, **options)
    return trainer.lightning_module, trainer


def logged(result):
    return result[1].logger.latest


def assert_twins(first, second):
    (a, trainer_a), (b, trainer_b) = first, second
    assert same_state(a, b)
    assert same_optimizers(trainer_a, trainer_b)
    assert len(a.losses) == len(b.losses)
    assert all(torch.equal(x, y) for x, y in zip(a.losses, b.losses, strict=True))
    logged = trainer_b.callback_metrics
    assert all(torch.equal(trainer_a.callback_metrics[name], logged[name]) for name in logged)


@pytest.mark.parametrize("regime", regimes())
def test_a_monitored_run_is_the_unmonitored_run(regime):
    monitor = GradientMonitor(2, 1, statistics=STATISTICS, per_parameter=["*"])
    plain = run(regime, epochs=2)
    random_state = torch.get_rng_state()
    watched = run(regime, [monitor], epochs=2)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_twins(watched, plain)
    metrics = watched[1].logger.latest
    assert any(name.startswith("grad_norm/") for name in metrics)
    assert all(math.isfinite(v) for name, v in metrics.items() if "grad_norm" in name)
    assert hooks_of(watched[0]) == []


@pytest.mark.parametrize("regime", [r for r in MAKE if r != "compiled"])
def test_a_guard_leaves_a_healthy_run_alone(regime):
    guard = StepGuard("skip", "skip")
    assert_twins(run(regime, [guard, GradientMonitor(3)]), run(regime))
    assert guard.num_skipped == 0


@pytest.mark.parametrize("regime", regimes("gan"))
def test_a_skipped_batch_leaves_no_trace(regime):
    bad = [0, 3, 4, 9]
    left_out = range(10) if regime == "accumulation" else bad  # a bad one spoils its window of 5
    guard = StepGuard("skip")
    poisoned = run(regime, [guard], batches(poison=bad))
    clean = run(regime, [], batches(drop=left_out))
    assert guard.num_skipped == (2 if regime == "accumulation" else 4)
    assert same_state(poisoned[0], clean[0])
    assert same_optimizers(poisoned[1], clean[1])
    assert all_finite(*poisoned)
    if regime in HALF:
        scalers = [result[1].precision_plugin.scaler.state_dict() for result in (poisoned, clean)]
        assert scalers[0] == scalers[1]


class GeneratorOnly(SmallGAN):
    """Leaves the discriminator's step out for some batches."""

    def training_step(self, batch, batch_idx):
        self.passed_over = self.discriminator if batch_idx in (0, 3, 4) else None
        super().training_step(batch, batch_idx)

    def step(self, optimizer, loss, part):
        if part is not self.passed_over:
            super().step(optimizer, loss, part)


def test_a_bad_step_of_one_optimizer_leaves_no_trace_in_the_other():
    """Poisoned truth spoils the discriminator's step; the generator's is taken."""
    guard = StepGuard("skip", max_consecutive=3)
    poisoned = run("gan", [guard], batches(poison=[0, 3, 4]))
    clean = run("gan", make=partial(built, GeneratorOnly))
    assert guard.num_skipped == 3
    for name, weight in poisoned[0].named_parameters():
        assert torch.equal(weight, dict(clean[0].named_parameters())[name]), name
    assert same_optimizers(poisoned[1], clean[1])
    assert all_finite(*poisoned)


@pytest.mark.parametrize("regime", regimes("gan", "fp16-fused"))
def test_norm_clipping_is_lightnings_bit_for_bit(regime):
    for threshold in (0.2, 1e3) if regime == "fp32" else (0.2,):
        ours = run(regime, [GradientClipping("norm", threshold)])
        assert_twins(ours, run(regime, gradient_clip_val=threshold))


@pytest.mark.parametrize("regime", ["fp32", "fp16-scaler", "accumulation", "fused-adamw"])
def test_value_clipping_is_lightnings_bit_for_bit(regime):
    theirs = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    assert_twins(run(regime, [GradientClipping("value", 0.01)]), run(regime, **theirs))


def test_clipping_under_manual_optimisation_is_torchs_per_optimizer():
    ours = run("gan", [GradientClipping("norm", 0.1)])
    theirs = run("gan", make=partial(built, SmallGAN, gradient_clip=0.1))
    assert_twins(ours, theirs)


def test_a_fused_optimizer_under_a_scaler_is_clipped_by_its_true_gradients():
    """Lightning refuses this; the unfused twin is the reference."""
    fused = run("fp16-fused", [GradientClipping("norm", 0.1, every_n_steps=1)])
    slow = run(
        "fp16-fused",
        [GradientClipping("norm", 0.1, every_n_steps=1)],
        make=partial(built, UnfusedAdamW),
    )
    for name, value in fused[0].state_dict().items():
        torch.testing.assert_close(value, slow[0].state_dict()[name], rtol=1e-3, atol=1e-3)
    first, second = (logged(r)["clip/norm_before"] for r in (fused, slow))
    assert first == pytest.approx(second, rel=0.1)


class UnfusedAdamW(Classifier):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.mark.parametrize("regime", ["fp16-scaler", "fp16-fused"])
def test_logged_norms_are_unscaled(regime):
    half_norms = logged(run(regime, [GradientMonitor(1)], batches(1)))
    full = logged(run("fp32", [GradientMonitor(1)], batches(1)))
    for name in ("grad_norm/total", "grad_norm/net.0", "preactivation_grad/net.4"):
        assert half_norms[name] == pytest.approx(full[name], rel=0.02)


@pytest.mark.parametrize("regime", HALF)
def test_the_scalers_own_overflows_are_no_bad_steps(regime):
    """A first scale of 2^40 overflows until it has come down; the guard stays silent."""
    plugin, twin = half_precision(), half_precision()
    plugin.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    twin.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    guard = StepGuard("raise", max_consecutive=2)
    guarded = run(regime, [guard], batches(40), plugins=[plugin])
    assert_twins(guarded, run(regime, data=batches(40), plugins=[twin]))
    assert plugin.scaler.get_scale() < 2.0**40
    assert guard.num_skipped == 0


@pytest.mark.parametrize("regime", HALF)
def test_a_batch_that_is_bad_right_after_an_overflow_leaves_no_trace(regime):
    def overflowing():
        plugin = half_precision()
        plugin.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
        return plugin

    reference = run(regime, data=batches(drop=[2]), plugins=[overflowing()])
    guarded = run(regime, [StepGuard("skip")], batches(poison=[2]), plugins=[overflowing()])
    buffers = dict(reference[0].named_buffers())
    for name, buffer in guarded[0].named_buffers():
        assert torch.equal(buffer, buffers[name]), name


class SometimesNothing(Classifier):
    """Returns no loss for some batches, which Lightning passes over."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx in (0, 3) else loss


@pytest.mark.parametrize("regime", ["fp32", "fp16-scaler", "fp16-fused"])
@pytest.mark.filterwarnings("ignore:.*returned `None`.*")
def test_batches_without_a_loss_are_passed_over(regime):
    name = "adamw_fused" if regime == "fp16-fused" else "adam"
    make = partial(built, SometimesNothing, name)
    suite = [GradientMonitor(1), GradientClipping("norm", 1e3), StepGuard("skip", "skip")]
    assert_twins(run(regime, suite, make=make), run(regime, make=make))


@pytest.mark.filterwarnings("ignore:.*returned `None`.*")
def test_a_bad_batch_after_one_without_a_loss_leaves_no_trace():
    class Positional(SometimesNothing):
        """Knows the batches without a loss by their content, so that others can be left out."""

        def training_step(self, batch, batch_idx):
            loss = Classifier.training_step(self, batch, batch_idx)
            return None if batch[0][0, 1] == 7.0 else loss

    def data(**options):
        loader = batches(**options)
        loader.dataset.tensors[0][3, 0, 1] = 7.0
        return loader

    guarded = run("fp32", [StepGuard("skip")], data(poison=[4]), make=partial(built, Positional))
    clean = run("fp32", data=data(drop=[4]), make=partial(built, Positional))
    assert same_state(guarded[0], clean[0])


def test_names_of_compiled_parts_are_plain():
    for regime in ("compiled", "partly-compiled"):
        monitor = GradientMonitor(1, per_parameter=["net.0.weight"])
        metrics = logged(run(regime, [monitor], batches(2)))
        assert "grad_norm/net.0" in metrics
        assert "grad_norm/net.0.weight" in metrics
        assert not any("_orig_mod" in name for name in metrics)


def test_patterns_meet_the_plain_names_of_compiled_parts():
    def clipped(regime):
        clipping = GradientClipping("norm", 0.01, exclude=["net.0.*"])
        return run(regime, [clipping], batches(3))

    plain, compiled = clipped("fp32"), clipped("partly-compiled")
    pairs = zip(plain[0].parameters(), compiled[0].parameters(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_several_optimizers_are_told_apart():
    monitor = GradientMonitor(1)
    clipping = GradientClipping("norm", 0.1, every_n_steps=1)
    metrics = logged(run("gan", [monitor, clipping], batches(3)))
    for name in ("grad_norm/total", "clip/norm_before", "grad_cosine/previous"):
        assert {f"{name}_opt0", f"{name}_opt1"} <= set(metrics)
        assert name not in metrics
    layers = [f"grad_norm/generator.{i}" for i in (0, 1, 2)]
    total = math.hypot(*(metrics[name] for name in layers))
    assert metrics["grad_norm/total_opt0"] == pytest.approx(total, rel=1e-5)
    assert metrics["clip/norm_before_opt0"] == pytest.approx(total, rel=1e-5)


def test_the_update_ratio_of_lbfgs_is_that_of_its_whole_step():
    class Sizes(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.before = [p.detach().clone() for p in module.net[0].parameters()]

        def on_train_batch_end(self, trainer, module, *rest):
            now = [p.detach() for p in module.net[0].parameters()]
            change = torch.cat([(a - b).flatten() for a, b in zip(now, self.before, strict=True)])
            self.ratio = change.norm() / torch.cat([b.flatten() for b in self.before]).norm()

    sizes = Sizes()
    metrics = logged(run("lbfgs", [sizes, GradientMonitor(1)], batches(3)))
    assert metrics["update_ratio/net.0"] == pytest.approx(sizes.ratio.item(), rel=1e-4)


def test_the_loss_of_an_accumulated_step_is_its_mean():
    """One bad micro-batch of a window is judged once, with the loss of the whole window."""
    guard = StepGuard("skip", "skip", min_window=2, window=4)
    run("accumulation", [guard])
    (loss_window,) = (j["loss"]["window"]["values"] for j in guard.state_dict()["judges"].values())
    reference = run("accumulation")[0].losses
    first = torch.stack(reference[:5]).mean()
    assert loss_window[0] == pytest.approx(first.item(), rel=1e-5)
    assert len(loss_window) == 3


def test_the_noise_scale_is_learned_from_accumulation():
    monitor = GradientMonitor(1)
    _, trainer = run("accumulation", [monitor], batches(20))
    state = monitor.state_dict()["noise_scale"]
    assert state["noise"]["count"] == 4
    assert "grad_noise/scale" in trainer.logger.latest


def test_the_noise_scale_is_right_for_a_linear_loss():
    """The gradient of mean(x . w) is mean(x): noise and signal are those of the data."""

    class Linear(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(8))

        def training_step(self, batch, batch_idx):
            return (batch[0] @ self.w).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    monitor = GradientMonitor(1, statistics=["noise_scale"])
    data = batches(400, size=4)
    data.dataset.tensors[0].add_(1.0)
    fit(Linear(), [monitor], data, accumulate_grad_batches=4)
    state = monitor.state_dict()["noise_scale"]
    assert state["noise"]["count"] == 100
    assert state["signal"]["mean"] == pytest.approx(8.0, rel=0.2)
    assert state["noise"]["mean"] == pytest.approx(8.0, rel=0.9)


@pytest.mark.parametrize("batch", ["object", "ragged"])
def test_the_noise_scale_is_left_out_where_a_batch_has_no_size(batch):
    class Wrapped:
        def __init__(self, pair):
            self.pair = pair

    class Unwrapping(Classifier):
        def training_step(self, batch, batch_idx):
            pair = batch.pair if isinstance(batch, Wrapped) else (batch["x"], batch["y"])
            x, y = pair
            return nn.functional.cross_entropy(self(x), y)

    pairs = list(batches(4))
    if batch == "object":
        data = [Wrapped(pair) for pair in pairs]
    else:
        data = [{"x": x, "y": y, "weights": torch.ones(3, 2)} for x, y in pairs]
    monitor = GradientMonitor(1)
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    trainer = fit(built(Unwrapping), [monitor], loader, accumulate_grad_batches=2)
    assert "grad_norm/total" in trainer.logger.latest

"""What `GradientMonitor` logs is right, comes as one event, and leaves nothing behind."""

import math
import pickle
from types import SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import hooks_of, same_state
from helpers.events import events, packed_events
from helpers.lightning_twins import Classifier, batches, built, fit
from helpers.processes import run_code
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from lightning_stab import GradientClipping, GradientMonitor, StepGuard
from lightning_stab.callbacks.gradients.gradient_monitor import STATISTICS
from lightning_stab.callbacks.gradients.statistics import NoiseScale
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.functional import sampling


class Witness(lightning.Callback):
    """Keeps every step's weights and true gradients."""

    def __init__(self):
        self.gradients, self.weights = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        named = module.named_parameters()
        self.gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.weights.append({n: p.detach().clone() for n, p in module.named_parameters()})


def watched(monitor, module=None, data=None, **arguments):
    witness = Witness()
    module = built(Classifier) if module is None else module
    trainer = fit(module, [monitor, witness], data or batches(6), **arguments)
    witness.metrics = [values for _, values in sorted(trainer.logger.steps.items())]
    return witness, trainer, module


def norm(tensors):
    return torch.cat([t.flatten() for t in tensors]).double().norm().item()


# --- the numbers ----------------------------------------------------------------------------------


def test_norms_by_total_layer_and_parameter():
    witness, _, _ = watched(GradientMonitor(1, per_parameter=["net.0.*", "*.bias"]))
    for gradients, metrics in zip(witness.gradients, witness.metrics, strict=True):
        assert metrics["grad_norm/total"] == pytest.approx(norm(gradients.values()), rel=1e-5)
        for layer in ("net.0", "net.1", "net.4"):
            own = [g for n, g in gradients.items() if n.startswith(layer)]
            assert metrics[f"grad_norm/{layer}"] == pytest.approx(norm(own), rel=1e-5)
        for name in ("net.0.weight", "net.0.bias", "net.4.bias"):
            expected = norm([gradients[name]])
            assert metrics[f"grad_norm/{name}"] == pytest.approx(expected, rel=1e-5)
        assert "grad_norm/net.4.weight" not in metrics


def test_statistics_of_entries():
    witness, _, _ = watched(GradientMonitor(1, statistics=STATISTICS))
    for gradients, metrics in zip(witness.gradients, witness.metrics, strict=True):
        entries = torch.cat([g.flatten() for n, g in gradients.items() if n.startswith("net.0")])
        assert metrics["grad_rms/net.0"] == pytest.approx(
            entries.square().mean().sqrt().item(), rel=1e-5
        )
        assert metrics["grad_max_abs/net.0"] == pytest.approx(entries.abs().max().item())
        zeros = (entries == 0).float().mean().item()
        assert metrics["grad_zero_fraction/net.0"] == pytest.approx(zeros)
        assert not any(t.startswith("grad_nonfinite_fraction/") for t in metrics)


def test_zero_and_nonfinite_fractions_see_what_is_there():
    class Holed(Classifier):
        def on_after_backward(self):
            self.net[0].weight.grad[:4] = 0.0
            self.net[4].weight.grad[0] = math.nan

    monitor = GradientMonitor(1, statistics=["zero_fraction", "nonfinite_fraction", "max_abs"])
    _, trainer, _ = watched(monitor, built(Holed, batch_norm=False), batches(1))
    metrics = trainer.logger.latest
    assert metrics["grad_zero_fraction/net.0"] >= 4 * 8 / (16 * 8 + 16)
    assert metrics["grad_nonfinite_fraction/net.4"] == pytest.approx(16 / (3 * 16 + 3))
    assert metrics["grad_nonfinite_fraction/net.0"] == 0.0
    assert math.isnan(metrics["grad_max_abs/net.4"])
    assert math.isnan(metrics["grad_norm/total"])
    assert math.isfinite(metrics["grad_norm/net.0"])


@pytest.mark.parametrize("whole", [sampling.WHOLE, 0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw_fused"])
def test_the_update_ratio_is_the_real_change_of_the_weights(optimizer, whole, monkeypatch):
    monkeypatch.setattr(sampling, "WHOLE", whole)
    witness, _, module = watched(GradientMonitor(1), built(Classifier, optimizer))
    weights = [*witness.weights, dict(module.named_parameters())]
    for before, after, metrics in zip(weights, weights[1:], witness.metrics, strict=False):
        names = [n for n in before if n.startswith("net.0")]
        change = norm([after[n].detach() - before[n] for n in names])
        expected = change / norm([before[n] for n in names])
        assert metrics["update_ratio/net.0"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("whole", [sampling.WHOLE, 0])
@pytest.mark.parametrize("every", [1, 3])
def test_the_cosine_is_that_with_the_step_before(every, whole, monkeypatch):
    """So is the one of a sample, which is all of so small a net."""
    monkeypatch.setattr(sampling, "WHOLE", whole)
    witness, trainer, _ = watched(GradientMonitor(every, 0))
    for step in range(every - 1, 6, every):
        if step == 0:
            assert "grad_cosine/previous" not in trainer.logger.steps[0]
            continue
        now, before = (
            torch.cat([g.flatten() for g in witness.gradients[s].values()])
            for s in (step, step - 1)
        )
        expected = torch.cosine_similarity(now, before, dim=0).item()
        assert trainer.logger.steps[step]["grad_cosine/previous"] == pytest.approx(
            expected, abs=1e-5
        )


class Backwards(lightning.LightningModule):
    """Four layers, declared in the opposite order of their execution."""

    def __init__(self, scale=1.0, inplace=False):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.third, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.first = nn.Linear(8, 6)
        self.relu = nn.ReLU(inplace=inplace)
        with torch.no_grad():
            for layer in (self.first, self.second, self.third):
                layer.weight.mul_(scale)
        self.outputs = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.outputs.clear()
        for layer in (self.first, self.second, self.third):
            z = layer(x)
            if not self.relu.inplace:
                z.retain_grad()
                self.outputs.append(z)
            x = self.relu(z)
        return nn.functional.cross_entropy(self.head(x), y)

    def on_train_batch_end(self, *_):
        self.rms = [z.grad.square().mean().sqrt().item() for z in self.outputs]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def test_the_depth_profile_follows_execution_and_is_the_preactivations_gradient():
    module = built(Backwards, 0.1)
    _, trainer, _ = watched(GradientMonitor(1), module, batches(1))
    metrics = trainer.logger.latest
    names = [n.removeprefix("preactivation_grad/") for n in metrics if "preactivation" in n]
    assert names == ["first", "second", "third", "head"]
    got = [metrics[f"preactivation_grad/{n}"] for n in names[:3]]
    assert got == pytest.approx(module.rms, rel=1e-5)
    expected = math.log10(module.rms[0] / module.rms[2])
    assert metrics["depth/first_last_log10"] == pytest.approx(expected, rel=1e-4)
    assert expected < -1


def test_the_profile_sees_an_explosion_by_initialisation_and_works_with_inplace_activations():
    plain, inplace = (
        watched(GradientMonitor(1), built(Backwards, 20.0, flag), batches(1))[1].logger.latest
        for flag in (False, True)
    )
    assert plain["depth/first_last_log10"] > 1
    assert plain["depth/first_last_log10"] == inplace["depth/first_last_log10"]


def test_norms_before_and_after_clipping():
    clipping = GradientClipping("norm", 0.05, every_n_steps=1)
    trainer = fit(built(Classifier), [GradientMonitor(1), clipping], batches(3))
    metrics = trainer.logger.latest
    assert metrics["grad_norm/total"] > 0.05
    assert metrics["grad_norm_clipped/total"] == pytest.approx(0.05, rel=1e-4)
    assert metrics["grad_norm/total"] == pytest.approx(metrics["clip/norm_before"], rel=1e-6)
    assert metrics["grad_norm_clipped/total"] == pytest.approx(metrics["clip/norm_after"], rel=1e-6)
    ratio = metrics["grad_norm_clipped/net.0"] / metrics["grad_norm/net.0"]
    assert ratio == pytest.approx(metrics["clip/coefficient"], rel=1e-5)


def test_what_is_logged_can_be_monitored_by_checkpoints_and_stopping():
    _, trainer, _ = watched(GradientMonitor(1))
    for name in ("grad_norm/total", "grad_norm/net.0", "update_ratio/net.4"):
        monitored = float(trainer.callback_metrics[name])
        assert monitored == pytest.approx(trainer.logger.latest[name], rel=1e-6)


def test_without_a_clipper_and_on_rejected_steps_there_is_no_clipped_norm():
    _, trainer, _ = watched(GradientMonitor(1))
    assert not any("clipped" in name for name in trainer.logger.latest)
    suite = [GradientMonitor(1), GradientClipping(), StepGuard("skip")]
    trainer = fit(built(Classifier), suite, batches(2, poison=[0, 1]))
    assert not any("clipped" in name for name in trainer.logger.latest)


# --- gradients of every kind ----------------------------------------------------------------------


class Kinds(lightning.LightningModule):
    """Sparse, complex, empty, unused, tied and memory-sharing parameters in one module."""

    def __init__(self, adaptive_safe=False):
        super().__init__()
        self.embedding = nn.Embedding(10, 4, sparse=True)
        self.turn = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.unused = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.same = self.tied
        self.shared = nn.Linear(4, 4, bias=False)
        self.shared.weight = nn.Parameter(self.tied.weight.data)  # one memory, two parameters
        self.scale = nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        x = self.embedding(batch[1])
        x = (x * self.turn).abs() + 0 * self.empty.sum()
        x = self.shared(self.same(self.tied(self.frozen(x))))
        return (self.scale * x).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize("rule", [None, "value", "norm", "adaptive", "history"])
def test_gradients_of_every_kind_are_measured_clipped_and_guarded(rule):
    monitor = GradientMonitor(1, statistics=STATISTICS, per_parameter=["*"])
    suite = [monitor, StepGuard("skip", "skip")]
    if rule is not None:
        suite.append(GradientClipping(rule, every_n_steps=1))
    trainer = fit(built(Kinds), suite, batches(3))
    metrics = trainer.logger.latest
    assert all(math.isfinite(v) for n, v in metrics.items() if "log10" not in n), metrics
    assert metrics["grad_norm/embedding"] > 0
    assert metrics["grad_norm/turn"] > 0
    assert metrics["grad_norm/empty"] == 0
    assert "grad_norm/unused" not in metrics
    assert "grad_norm/frozen" not in metrics


def test_tied_and_memory_sharing_parameters_count_once():
    class Plain(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))
            self.v = nn.Parameter(self.w.data)
            self.tied = self.w

        def training_step(self, batch, batch_idx):
            return 3.0 * self.w.sum() + 4.0 * self.v.sum() + 0.0 * self.tied.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    monitor = GradientMonitor(1, statistics=["rms", "max_abs"])
    trainer = fit(Plain(), [monitor, StepGuard()], batches(1))
    expected = 7.0 * math.sqrt(3)  # the gradient of the one memory is the sum
    assert trainer.logger.latest["grad_norm/total"] == pytest.approx(expected)
    assert trainer.logger.latest["grad_norm/w"] == pytest.approx(expected)


# --- when and where it logs -----------------------------------------------------------------------


def test_intervals_and_dense_first_steps(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(built(Classifier), [GradientMonitor(5, 3)], batches(12), logger=logger, epochs=2)
    scalars, _ = events(logger.log_dir)
    steps = [step for step, _ in scalars["grad_norm/total"]]
    assert steps == [0, 1, 2, 4, 9, 14, 19]
    for dear in ("update_ratio/net.0", "depth/first_last_log10"):
        assert [step for step, _ in scalars[dear]] == [4, 9, 14, 19]


def test_each_logging_step_is_one_event(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    monitor = GradientMonitor(2, 4, statistics=STATISTICS, per_parameter=["*"])
    fit(built(Classifier), [monitor], batches(8), logger=logger)
    found = packed_events(tmp_path, "grad_norm/")
    assert [step for step, _ in found] == [0, 1, 2, 3, 5, 7]
    full = dict(found)[5]
    assert {"grad_norm/total", "update_ratio/net.0", "depth/first_last_log10"} <= set(full)
    assert len(full) == len(set(full))
    for prefix in ("update_ratio/", "preactivation_grad/", "grad_cosine/"):
        assert [step for step, _ in packed_events(tmp_path, prefix)] == [1, 3, 5, 7]


def test_the_interval_counts_optimizer_steps_under_accumulation(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    monitor = GradientMonitor(2, 0)
    fit(built(Classifier), [monitor], batches(12), logger=logger, accumulate_grad_batches=3)
    scalars, _ = events(logger.log_dir)
    assert [step for step, _ in scalars["grad_norm/total"]] == [1, 3]
    assert [step for step, _ in scalars["grad_noise/scale"]] == [1, 3]


def same_batch(num, size=16):
    x, y = next(iter(batches(1, size=size)))
    return torch.utils.data.DataLoader([(x, y)] * num, batch_size=None)


@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_the_profile_of_depth_is_that_of_the_loss_however_many_batches_make_a_step(accumulated):
    module = built(Classifier, batch_norm=False)
    monitor, data = GradientMonitor(1, 0), same_batch(accumulated)
    logged = fit(module, [monitor], data, accumulate_grad_batches=accumulated).logger.latest
    output = built(Classifier, batch_norm=False)(next(iter(data))[0]).requires_grad_()
    loss = nn.functional.cross_entropy(output, next(iter(data))[1])
    (gradient,) = torch.autograd.grad(loss, output)
    expected = gradient.double().square().mean().sqrt().item()
    assert logged["preactivation_grad/net.4"] == pytest.approx(expected, rel=1e-5)


def test_the_noise_scale_of_a_window_of_two_is_its_formula():
    data = batches(2)
    module = built(Classifier, batch_norm=False)
    gradients = []
    for x, y in data:
        loss = nn.functional.cross_entropy(module(x), y)
        grads = torch.autograd.grad(loss, list(module.parameters()))
        gradients.append(torch.cat([g.flatten() for g in grads]).double())
    small = float(gradients[0].square().sum())  # over 16 samples
    large = float(((gradients[0] + gradients[1]) / 2).square().sum())  # over 32
    noise, signal = (small - large) / (1 / 16 - 1 / 32), (32 * large - 16 * small) / 16
    trainer = fit(module, [GradientMonitor(1, 0)], data, accumulate_grad_batches=2)
    expected = noise / signal if signal > 0 else math.nan
    logged = trainer.logger.latest["grad_noise/scale"]
    assert logged == pytest.approx(expected, rel=1e-3, nan_ok=True)
    alone = fit(module, [GradientMonitor(1, 0)], data)
    assert "grad_noise/scale" not in alone.logger.latest


def test_noise_and_signal_are_averaged_over_ten_windows_and_then_forget_a_tenth(tmp_path):
    class Still(Classifier):
        """Its weights stay, so that each window's gradients are known beforehand."""

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    data, pairs = batches(26), []
    module = built(Still, batch_norm=False)
    for x, y in data:
        grads = torch.autograd.grad(
            nn.functional.cross_entropy(module(x), y), list(module.parameters())
        )
        pairs.append(torch.cat([g.flatten() for g in grads]).double())
    means = [0.0, 0.0]
    for number in range(13):
        first, second = pairs[2 * number : 2 * number + 2]
        small, large = float(first.square().sum()), float(((first + second) / 2).square().sum())
        now = (small - large) / (1 / 16 - 1 / 32), (32 * large - 16 * small) / 16
        rate = max(1 / (number + 1), 0.1)
        means = [m + rate * (v - m) for m, v in zip(means, now, strict=True)]
    assert means[1] > 0
    monitor = GradientMonitor(1, 0)
    trainer = fit(module, [monitor], data, accumulate_grad_batches=2)
    expected = pytest.approx(means[0] / means[1], rel=1e-3)
    assert trainer.logger.latest["grad_noise/scale"] == expected
    saved = monitor.state_dict()["noise_scale"]
    assert (saved["noise"]["mean"], saved["signal"]["mean"]) == pytest.approx(means, rel=1e-3)


def test_a_layer_called_total_is_not_the_norm_of_everything():
    class Named(Classifier):
        def __init__(self):
            super().__init__()
            self.total = nn.Linear(8, 8)

        def forward(self, x):
            return super().forward(self.total(x))

    witness, trainer, _ = watched(GradientMonitor(1), built(Named), batches(1))
    gradients, logged = witness.gradients[0], trainer.logger.latest
    assert logged["grad_norm/total"] == pytest.approx(norm(gradients.values()), rel=1e-5)
    own = [g for n, g in gradients.items() if n.startswith("total")]
    assert logged["grad_norm/total_"] == pytest.approx(norm(own), rel=1e-5)


def test_histograms_at_their_interval(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    monitor = GradientMonitor(histogram_every_n_steps=4)
    fit(built(Classifier), [monitor], batches(8, poison=[7]), logger=logger)
    _, tags = events(logger.log_dir)
    names = {f"grad_histogram/{n}" for n, _ in built(Classifier).named_parameters()}
    assert set(tags["histograms"]) == names


def test_any_logger_and_no_logger(tmp_path):
    logger = CSVLogger(tmp_path)
    fit(
        built(Classifier),
        [GradientMonitor(2, 1, histogram_every_n_steps=1)],
        batches(4),
        logger=logger,
    )
    rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert "grad_norm/total" in rows[0]
    assert len(rows) > 2
    fit(built(Classifier), [GradientMonitor(1)], batches(2), fast_dev_run=1, logger=True)


def test_two_loggers_get_the_same(tmp_path):
    loggers = [TensorBoardLogger(tmp_path / "a"), TensorBoardLogger(tmp_path / "b")]
    fit(built(Classifier), [GradientMonitor(1)], batches(3), logger=loggers)
    first, second = (events(logger.log_dir)[0] for logger in loggers)
    assert first["grad_norm/total"] == second["grad_norm/total"]


def test_the_progress_bar_is_left_alone_unless_asked():
    quiet = fit(built(Classifier), [GradientMonitor(1)], batches(2))
    assert not any("grad" in name for name in quiet.progress_bar_metrics)
    asked = fit(built(Classifier), [GradientMonitor(1, progress_bar=True)], batches(2))
    assert set(asked.progress_bar_metrics) == {"grad_norm/total"}


# --- nothing is left behind -----------------------------------------------------------------------


class BrokenModuleError(Exception):
    pass


class Breaking(Classifier):
    where = "training_step"

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self._break("training_step", batch_idx)
        return loss

    def on_after_backward(self):
        self._break("backward", 2)

    def _break(self, where, batch_idx):
        if self.where == where and batch_idx == 2 and len(self.losses) == 3:
            assert hooks_of(self)  # the probe is there when it fails
            raise self.error

    error = BrokenModuleError("a fault of the module")


@pytest.mark.parametrize("where", ["training_step", "backward"])
def test_hooks_are_gone_after_an_exception(where):
    module = built(Breaking)
    module.where = where
    with pytest.raises(BrokenModuleError):
        fit(module, [GradientMonitor(1), GradientClipping("adaptive"), StepGuard("skip")])
    assert hooks_of(module) == []


def test_hooks_are_gone_after_a_keyboard_interrupt():
    module = built(Breaking)
    module.error = KeyboardInterrupt()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(module, [GradientMonitor(1)])
    assert hooks_of(module) == []


def test_an_exception_does_not_lose_what_was_read_and_the_monitor_serves_again(tmp_path):
    monitor, module = GradientMonitor(1), built(Breaking)
    with pytest.raises(BrokenModuleError):
        fit(module, [monitor], logger=TensorBoardLogger(tmp_path / "first"))
    logger = TensorBoardLogger(tmp_path / "second")
    fit(built(Classifier), [monitor], batches(3), logger=logger)
    scalars, _ = events(logger.log_dir)
    assert [step for step, _ in scalars["grad_norm/total"]] == [0, 1, 2]
    assert hooks_of(module) == []


def test_the_callbacks_pickle_before_and_after_a_fit():
    for callback in (GradientMonitor(1), GradientClipping("history"), StepGuard("rewind")):
        pickle.loads(pickle.dumps(callback))
        fit(built(Classifier), [callback], batches(3))
        state = pickle.loads(pickle.dumps(callback)).state_dict()
        assert state.keys() == callback.state_dict().keys()


# --- resume ---------------------------------------------------------------------------------------


def test_a_resumed_run_logs_what_the_whole_one_logs(tmp_path):
    def arguments(name):
        return {"accumulate_grad_batches": 4, "logger": TensorBoardLogger(tmp_path, name)}

    monitor = GradientMonitor(2, 0)
    whole = built(Classifier)
    trainer = fit(whole, [monitor], epochs=2, **arguments("whole"))
    first = fit(built(Classifier), [GradientMonitor(2, 0)], epochs=1, **arguments("first"))
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    resumed, again = built(Classifier), GradientMonitor(2, 0)
    logged = arguments("resumed")
    fit(resumed, [again], epochs=2, ckpt_path=tmp_path / "half.ckpt", **logged)
    assert same_state(resumed, whole)
    assert again.state_dict() == monitor.state_dict()
    reference, _ = events(trainer.logger.log_dir)
    scalars, _ = events(logged["logger"].log_dir)
    for name in ("grad_norm/total", "grad_noise/scale", "update_ratio/net.0"):
        assert scalars[name] == [e for e in reference[name] if e[0] >= 3], name


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"every_n_steps": 0}, r"`every_n_steps` must be an integer >= 1, got 0\."),
        ({"every_n_steps": 2.5}, r"`every_n_steps` must be an integer >= 1, got 2\.5\."),
        ({"dense_steps": -1}, r"`dense_steps` must be an integer >= 0, got -1\."),
        ({"statistics": ["norms"]}, r"`statistics` must be one of 'rms', .*, got 'norms'\."),
        ({"statistics": ["cosin"]}, r"got 'cosin'\. Did you mean 'cosine'\?"),
        ({"histogram_every_n_steps": 0}, r"`histogram_every_n_steps` must be an integer >= 1"),
        ({"per_parameter": "net.*"}, r"`per_parameter` must be a list of .*, got 'net\.\*'"),
        ({"statistics": "rms"}, r"`statistics` must be a list of .*, got 'rms'"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        GradientMonitor(**arguments)


class DeepSpeedStrategy(lightning.strategies.SingleDeviceStrategy):
    """Bears the name of the strategy that cannot work."""


class FSDPStrategy(lightning.strategies.SingleDeviceStrategy):
    """Bears the name of the strategy with flat shards."""


@pytest.mark.parametrize("strategy", [DeepSpeedStrategy, FSDPStrategy])
@pytest.mark.parametrize(
    "make", [GradientMonitor, StepGuard, GradientClipping, lambda: GradientClipping("adaptive")]
)
def test_strategies_that_hide_gradients_are_refused_before_the_first_step(strategy, make):
    module, callback = built(Classifier), make()
    with pytest.raises(ConflictError, match=rf"`{type(callback).__name__}`.*{strategy.__name__}"):
        fit(module, [callback], strategy=strategy())
    assert module.losses == []


def test_value_clipping_is_fine_with_flat_shards():
    fit(built(Classifier), [GradientClipping("value")], batches(1), strategy=FSDPStrategy())
    with pytest.raises(ConflictError, match="DeepSpeed"):
        fit(built(Classifier), [GradientClipping("value")], strategy=DeepSpeedStrategy())


# --- the other Lightning --------------------------------------------------------------------------

SCRIPT = """
import pytorch_lightning, torch
from lightning_stab import GradientClipping, GradientMonitor, StepGuard

class Net(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)

x, y = torch.randn(6, 8, 4), torch.randint(2, (6, 8))
x[2] = float("nan")
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=None)
guard = StepGuard("skip", forensics=True)
monitor, clipping = GradientMonitor(1), GradientClipping("history", every_n_steps=1)
trainer = pytorch_lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    callbacks=[monitor, clipping, guard])
trainer.fit(Net(), data)
assert guard.num_skipped == 1
assert {"grad_norm/total", "clip/norm_before", "guard/skipped"} <= set(trainer.callback_metrics)
print("trained")
"""


@pytest.mark.nightly
def test_pytorch_lightnings_trainer_takes_them_too(tmp_path):
    assert run_code(SCRIPT, tmp_path).strip().endswith("trained")


@pytest.mark.parametrize("ranks", [1, 4])
def test_the_noise_scale_counts_the_samples_of_all_ranks(ranks):
    """Two micro-batches of 3 and 5 samples; the window's gradient is divided by their number."""
    scale = NoiseScale()
    scale._first, scale._sizes = torch.tensor(3.0), [3, 5]
    trainer = SimpleNamespace(accumulate_grad_batches=2, world_size=ranks)
    (values,) = scale.scalars(SimpleNamespace(trainer=trainer, total=torch.tensor(4.0)))
    small, large = 6.0, 4.0  # the norms of the gradients of a mean
    found = values.update(values.values.tolist())["grad_noise/scale"]
    samples = 8 * ranks
    signal = (samples * large**2 - 3 * small**2) / (samples - 3)
    noise = (small**2 - large**2) / (1 / 3 - 1 / samples)
    assert found == pytest.approx(noise / signal)
    assert (scale._first, scale._sizes) == (None, [])
    for first, sizes in ((None, [3, 5]), (torch.tensor(1.0), [3]), (torch.tensor(1.0), [3, 0])):
        scale._first, scale._sizes = first, list(sizes)
        assert scale.scalars(SimpleNamespace(trainer=trainer, total=torch.tensor(4.0))) == []

"""Each rule of `benchmarks/diagnosis/baselines` fires where it should and is quiet elsewhere.

The sick runs are real fits, each with one fault; the healthy ones learn.
"""

import importlib.util
import logging
import math

import lightning.pytorch as pl
import pytest
import torch
from helpers.quiet import QUIET
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.baselines import BASELINES, AutoTrainerRules, SageMakerRules
from benchmarks.diagnosis.baselines import sagemaker_tensors as tensors
from benchmarks.diagnosis.baselines.autotrainer import gradient_problems, swings

pytestmark = pytest.mark.nightly
HAS_TRAINTOOLS = importlib.util.find_spec("traintools") is not None
HAS_HYPERASSIST = importlib.util.find_spec("hyperassist") is not None


def blobs(count=320, classes=4, spread=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(99)) * 2
    inputs = centres[labels] + spread * torch.randn(count, 8, generator=generator)
    return TensorDataset(inputs, labels)


class Learner(pl.LightningModule):
    def __init__(self, net, optimizer=torch.optim.Adam, rate=1e-2, accuracy=True):
        super().__init__()
        self.net, self.optimizer, self.rate, self.accuracy = net, optimizer, rate, accuracy

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        outputs = self.net(batch[0])
        self.log("val_loss", functional.cross_entropy(outputs, batch[1]))
        if self.accuracy:
            self.log("val_acc", (outputs.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return self.optimizer([p for p in self.parameters() if p.requires_grad], lr=self.rate)


def mlp(activation, depth=2, width=16, init=None):
    layers = []
    for index in range(depth):
        layers += [nn.Linear(width if index else 8, width), activation()]
    net = nn.Sequential(*layers, nn.Linear(width, 4))
    for layer in net:
        if init and isinstance(layer, nn.Linear):
            init(layer)
    return net


def run(module, *callbacks, epochs=6, data=None, **options):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = data or blobs()
    trainer = pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), **QUIET, **options)
    loader = DataLoader(data, batch_size=32, generator=torch.Generator().manual_seed(0))
    validation = DataLoader(blobs(seed=1), batch_size=320)
    trainer.fit(module, loader, validation if isinstance(module, Learner) else None)


def found(baseline, module, **options):
    run(module, baseline, **options)
    return {(finding.rule, finding.id) for finding in baseline.findings}


def normal(std):
    def init(layer):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)

    return init


def he(layer):
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)


def dead(layer):
    """Leave no unit that any input could wake."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, -5.0)


# AUTOTRAINER


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (lambda: mlp(nn.Sigmoid, depth=8), "vanishing-gradient"),
        (lambda: mlp(nn.Tanh, depth=12, width=64, init=normal(0.5)), "exploding-gradient"),
        (lambda: mlp(nn.ReLU, init=dead), "dead-units"),
    ],
)
def test_autotrainer_names_a_gradient_fault(net, expected):
    sgd = torch.optim.SGD  # a rate so small that the start is what is judged
    assert (expected, expected) in found(AutoTrainerRules(), Learner(net(), sgd, 1e-6))


def test_autotrainer_calls_a_nan_exploding():
    baseline = AutoTrainerRules()
    run(Learner(mlp(nn.ReLU, init=normal(5.0)), torch.optim.SGD, 1e20), baseline)
    assert "exploding-gradient" in {finding.id for finding in baseline.findings}


def test_autotrainer_is_quiet_on_a_run_that_learns():
    assert found(AutoTrainerRules(), Learner(mlp(nn.ReLU, init=he))) == set()


def test_autotrainer_leaves_a_net_that_is_good_already_in_peace():
    module = Learner(mlp(nn.ReLU, init=he))
    run(module, epochs=4)
    module.rate = 1e-7
    baseline = AutoTrainerRules()
    assert found(baseline, module) == set()
    assert min(baseline.accuracies) > 0.9


def test_autotrainer_calls_an_accuracy_that_stays_low_slow_convergence():
    slow = ("slow convergence", "learning-rate-too-low")
    assert slow in found(AutoTrainerRules(), Learner(mlp(nn.ReLU, init=he), rate=1e-7))


def test_autotrainer_calls_swings_of_the_accuracy_oscillation():
    baseline = AutoTrainerRules()
    run(Learner(mlp(nn.ReLU, init=he), rate=1.0), baseline, epochs=12)
    assert swings(baseline.accuracies[:9]) >= 0.2 * 9
    assert [f.step for f in baseline.findings if f.id == "oscillating-loss"] == [90]


def test_autotrainer_looks_at_the_loss_where_no_accuracy_is_logged():
    baseline = AutoTrainerRules()
    module = Learner(mlp(nn.ReLU, init=he), torch.optim.SGD, 1.5, accuracy=False)
    run(module, baseline, epochs=9)
    assert baseline.accuracies == []
    assert len(baseline.losses) == 9


def test_autotrainer_checks_every_third_epoch_and_a_short_run_at_its_end():
    for epochs, step in ((3, 30), (5, 30), (2, 20)):
        baseline = AutoTrainerRules()
        run(Learner(mlp(nn.ReLU, init=dead), torch.optim.SGD, 1e-6), baseline, epochs=epochs)
        assert {f.step for f in baseline.findings if f.id == "dead-units"} == {step}


def test_the_formulas_of_table_1():
    assert gradient_problems([1e-5, 1.0], []) == ["vanishing-gradient"]
    assert gradient_problems([1e-5, 1e-5], []) == []  # converged, not vanishing
    assert gradient_problems([1e-3, 10.0], []) == []  # small against the last, yet not small
    assert gradient_problems([70.0, 1.0], []) == ["exploding-gradient"]
    assert gradient_problems([69.0, 1.0], []) == []
    assert gradient_problems([math.nan, 1.0], []) == ["exploding-gradient"]
    assert gradient_problems([0.0, 0.0], [10, 10]) == ["dead-units"]
    assert gradient_problems([1.0, 1.0], [6, 10]) == []
    assert gradient_problems([], []) == []
    assert swings([0.5, 0.9, 0.5, 0.9, 0.5]) == 1  # two maxima, one inner minimum
    assert swings([0.1, 0.5, 0.49, 0.8, 0.9]) == 0
    assert swings([]) == 0


# SageMaker Debugger


def rule(name, module, **options):
    return {id for _, id in found(SageMakerRules(rules=[name]), module, **options)}


def frozen_first(net):
    net[0].requires_grad_(False)
    return net


def zeroed(layer):
    nn.init.zeros_(layer.weight)


SICK = [
    ("VanishingGradient", "vanishing-gradient", lambda: Learner(mlp(nn.Sigmoid, depth=14))),
    ("ExplodingTensor", "non-finite", lambda: Learner(mlp(nn.ReLU), torch.optim.SGD, 1e20)),
    ("DeadRelu", "dead-units", lambda: Learner(mlp(nn.ReLU, init=dead), rate=1e-6)),
    ("SaturatedActivation", "saturated-units", lambda: Learner(mlp(nn.Tanh, init=normal(300.0)))),
    (
        "PoorWeightInitialization",
        "bad-initialization",
        lambda: Learner(mlp(nn.ReLU, init=normal(2.0))),
    ),
    ("WeightUpdateRatio", "learning-rate-too-high", lambda: Learner(mlp(nn.ReLU), rate=50.0)),
    ("WeightUpdateRatio", "learning-rate-too-low", lambda: Learner(mlp(nn.ReLU), rate=1e-12)),
    ("AllZero", "bad-initialization", lambda: Learner(mlp(nn.ReLU, init=zeroed))),
    ("UnchangedTensor", "unused-parameters", lambda: Learner(frozen_first(mlp(nn.ReLU)))),
    ("UnchangedTensor", "learning-rate-too-low", lambda: Learner(mlp(nn.ReLU), rate=1e-12)),
    ("LossNotDecreasing", "plateau", lambda: Learner(mlp(nn.ReLU), rate=10.0)),
]


@pytest.mark.parametrize(("name", "expected", "module"), SICK)
def test_a_sagemaker_rule_fires(name, expected, module):
    assert rule(name, module()) == {expected}


QUIET_RULES = sorted(
    {name for name, *_ in SICK} - {"PoorWeightInitialization", "LossNotDecreasing"}
)


@pytest.mark.parametrize("name", [*QUIET_RULES, "Overfit", "Overtraining"])
def test_a_sagemaker_rule_is_quiet_on_a_run_that_learns(name):
    assert rule(name, Learner(mlp(nn.ReLU, init=he), rate=3e-3), epochs=4) == set()


class Scripted(Learner):
    """Its losses are given, and so is the size of its gradients."""

    def __init__(self, change=0.0, scale=1.0):
        super().__init__(nn.Sequential(nn.Linear(8, 4)), torch.optim.SGD, 1e-3)
        self.change, self.scale = change, scale

    def training_step(self, batch, batch_idx):
        loss = self.scale * super().training_step(batch, batch_idx)
        return loss - loss.detach() + 1.0 + (self.change if self.global_step == 10 else 0.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [(-0.01, set()), (-0.0005, {"plateau"}), (0.03, set()), (0.06, {"plateau"})],
)
def test_a_loss_may_rise_by_5_percent_or_must_fall_by_a_thousandth(change, expected):
    assert rule("LossNotDecreasing", Scripted(change=change), epochs=2) == expected


@pytest.mark.parametrize(("scale", "expected"), [(1e-4, set()), (1e-7, {"vanishing-gradient"})])
def test_a_gradient_vanishes_below_1e_7(scale, expected):
    assert rule("VanishingGradient", Scripted(scale=scale), epochs=2) == expected


def test_losses_that_fall_at_every_comparison_are_enough():
    module = Learner(mlp(nn.ReLU, init=he), torch.optim.SGD, 0.02)
    data = blobs(spread=0.0)  # every batch is the same
    assert rule("LossNotDecreasing", module, data=data) == set()


def test_an_even_start_with_wide_gradients_is_a_good_initialization():
    module = Learner(mlp(nn.ReLU, width=8, init=he), torch.optim.SGD, 0.01)
    data = TensorDataset(blobs(spread=0.0)[:][0], blobs()[:][1])
    assert rule("PoorWeightInitialization", module, data=data) == set()


@pytest.mark.parametrize(("name", "epochs"), [("Overfit", 10), ("Overtraining", 40)])
def test_a_validation_loss_that_stays_behind_is_overfitting(name, epochs):
    labels = torch.randint(4, (64,), generator=torch.Generator().manual_seed(5))
    noise = TensorDataset(blobs(64, spread=3.0)[:][0], labels)
    module = Learner(mlp(nn.ReLU, width=128, init=he), rate=2e-2)
    baseline = SageMakerRules(save_interval=2, rules=[name])
    assert found(baseline, module, data=noise, epochs=epochs) == {(name, "overfitting")}


def test_statistics_of_activations():
    watched = tensors.Activations()
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1), nn.Sigmoid())
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.copy_(torch.tensor([0.0, -9.0, -9.0, -9.0]))
        net[2].bias.copy_(torch.tensor([0.0, 40.0]))
    watched.watch(net)
    net(torch.rand(8, 1, 5, 5))
    watched.stop()
    net(torch.rand(8, 1, 5, 5))  # is not seen
    assert watched.dead() == [0.75]
    assert watched.saturated() == [0.5]
    assert len(watched.variances()) == 1


def test_stale_counts_from_the_last_material_improvement():
    assert tensors.stale([3.0, 2.0, 1.995, 1.99]) == 2
    assert tensors.stale([3.0, 2.0, 1.98]) == 0
    assert tensors.stale([]) == 0


# the package


@pytest.mark.skipif(not HAS_TRAINTOOLS, reason="needs the package traintools")
class TestTraintools:
    @pytest.mark.parametrize(
        ("expected", "module"),
        [
            ("vanishing-gradient", lambda: Learner(mlp(nn.Sigmoid, depth=20))),
            ("exploding-gradient", lambda: Learner(mlp(nn.ReLU, depth=8, init=normal(3.0)))),
            ("non-finite", lambda: Learner(mlp(nn.ReLU), torch.optim.SGD, 1e20)),
            ("learning-rate-too-high", lambda: Learner(mlp(nn.ReLU, init=he), rate=3.0)),
            ("learning-rate-too-low", lambda: Learner(mlp(nn.ReLU, init=he), rate=1e-12)),
            ("dead-units", lambda: Learner(mlp(nn.ReLU, init=dead), rate=1e-6)),
        ],
    )
    def test_its_warnings_are_translated(self, expected, module):
        assert expected in self.ids(module())

    def test_it_names_inputs_far_out_of_scale(self):
        inputs, labels = blobs()[:]
        assert "input-scale" in self.ids(Learner(mlp(nn.Tanh)), TensorDataset(inputs * 1e7, labels))

    def test_it_is_quiet_on_a_run_that_learns(self):
        assert self.ids(Learner(mlp(nn.Tanh, width=32), rate=1e-3)) == set()

    def ids(self, module, data=None):
        return {id for _, id in found(BASELINES["traintools"](), module, data=data, epochs=12)}


@pytest.mark.skipif(not HAS_HYPERASSIST, reason="needs the package hyperassist")
class TestHyperassist:
    @pytest.mark.parametrize(
        ("expected", "module"),
        [
            ("non-finite", lambda: Learner(mlp(nn.ReLU), torch.optim.SGD, 1e20)),
            ("plateau", lambda: Learner(mlp(nn.ReLU, init=dead), rate=1e-6)),
            ("underfitting", lambda: Learner(mlp(nn.Tanh), rate=1e-6, accuracy=False)),
            ("exploding-gradient", lambda: Learner(mlp(nn.Tanh, width=32), rate=3e-3)),
        ],
    )
    def test_what_it_says_is_translated(self, expected, module):
        assert expected in self.ids(module())

    def test_it_is_quiet_on_a_run_that_learns_evenly(self):
        assert self.ids(Learner(mlp(nn.Tanh, width=32), torch.optim.SGD, 0.05)) == set()

    def test_its_log_is_written_as_it_reads_it(self):
        callback = BASELINES["hyperassist"]()
        found(callback, Learner(mlp(nn.Tanh)), epochs=2)
        (first, _) = callback.lines
        words = [word for word in first.split() if word.endswith(":")]
        assert words == ["Epoch:", "train_loss:", "val_loss:", "accuracy:", "lr:", "grad_norm:"]

    def ids(self, module):
        return {id for _, id in found(BASELINES["hyperassist"](), module, epochs=12)}


# what holds for all


class Gan(pl.LightningModule):
    """Two nets, two optimizers, stepped by hand; the training step returns nothing."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
        self.critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Linear(16, 1))

    def training_step(self, batch, batch_idx):
        fake = self.generator(torch.randn(len(batch[0]), 4))
        for optimizer, loss in zip(
            self.optimizers(),
            (
                functional.softplus(-self.critic(fake)).mean(),
                functional.softplus(self.critic(fake.detach())).mean()
                + functional.softplus(-self.critic(batch[0])).mean(),
            ),
            strict=True,
        ):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters()) for net in (self.generator, self.critic)]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, inputs):
        return self.head(self.cell(inputs.unflatten(1, (4, 2)))[0][:, -1])


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(16, 8, sparse=True)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs):
        tokens = inputs.round().long().clamp(-8, 7) + 8
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


class SharedActivation(nn.Module):
    """One ReLU for two widths, a transposed convolution, and a net that is never called."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.up = nn.ConvTranspose1d(1, 3, 3)
        self.head, self.unused = nn.Linear(30, 4), nn.Linear(3, 3)

    def forward(self, inputs):
        return self.head(self.relu(self.relu(self.up(inputs.unsqueeze(1))).flatten(1)))


KINDS = {
    "mlp": lambda: Learner(mlp(nn.ReLU)),
    "gan": Gan,
    "recurrent": lambda: Learner(Recurrent()),
    "attention, sparse": lambda: Learner(Attentive(), torch.optim.SGD),
    "shared activation": lambda: Learner(SharedActivation()),
}


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_bit_for_bit_and_no_hook_stays(name, kind):
    states = []
    for callbacks in ([], [BASELINES[name]()]):
        torch.manual_seed(3)
        module = KINDS[kind]()
        run(module, *callbacks, epochs=11 if name == "traintools" else 4)  # it probes at step 100
        states.append([*module.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in module.modules()]
    assert not any(part for pair in hooks for part in pair)


@pytest.mark.parametrize("name", BASELINES)
def test_hooks_go_when_the_training_breaks_off(name):
    class Broken(Learner):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.trainer.global_step == 90:
                raise ZeroDivisionError
            return loss

    module = Broken(mlp(nn.ReLU))
    with pytest.raises(ZeroDivisionError):
        run(module, BASELINES[name](), epochs=12)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


@pytest.mark.parametrize("name", BASELINES)
def test_a_finding_has_an_id_a_step_and_the_tools_own_word(name):
    baseline = BASELINES[name]()
    run(Learner(mlp(nn.ReLU), torch.optim.SGD, 1e20), baseline)
    assert baseline.findings
    for finding in baseline.findings:
        assert isinstance(finding.id, str)
        assert finding.rule
        assert 0 <= finding.step <= 60
    pairs = [(finding.rule, finding.id) for finding in baseline.findings]
    assert len(pairs) == len(set(pairs))

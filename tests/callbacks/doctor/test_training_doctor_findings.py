"""In real tiny fits: each fault is found under its name, and its healthy twin is left alone."""

import math
from functools import partial

import pytest
import torch
from helpers.doctor_programs import (
    CLASSES,
    FEATURES,
    Program,
    alarms,
    doctor,
    examined,
    hopeless,
    ids,
    initialized,
    learnable,
    loader,
    mlp,
    numbers,
    samples,
)
from helpers.lightning_twins import built, fit
from torch import nn
from torch.nn import functional

from lightning_stab import StepGuard
from lightning_stab.diagnosis import IDS, THRESHOLDS

ALARMS = [id_ for id_ in IDS if id_ not in ("oscillating-loss", "plateau", "overfitting")]
SGD = torch.optim.SGD
BINARY = functional.binary_cross_entropy_with_logits


def found(id_, *arguments, **options):
    """Fit with a doctor; return the finding of this id, which has to be there."""
    findings = examined(*arguments, **options)
    assert id_ in ids(findings), ids(findings)
    finding = next(f for f in findings if f.id == id_)
    for evidence in finding.evidence.values():
        assert evidence.threshold == THRESHOLDS[evidence.name]
    assert "nan" not in finding.message.split()
    assert finding.advice
    return finding


def two_classes(size=16):
    x, y = samples()
    return loader(x, (y == 0).float()[:, None], size)


# what is a fault by its form, found before the first step


def zero(layer):
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def constant(layer):
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 0.1)


def identical_rows(layer):
    layer.weight.copy_(layer.weight[:1].expand_as(layer.weight).clone())
    layer.bias.zero_()


@pytest.mark.parametrize("change", [zero, constant, identical_rows])
@pytest.mark.parametrize("regime", ["plain", "accumulated"])
def test_units_that_no_step_can_tell_apart_are_found_before_the_first_step(change, regime):
    accumulated = {"accumulate_grad_batches": 3} if regime == "accumulated" else {}
    program = Program(initialized(mlp(3), change))
    finding = found("bad-initialization", program, learnable(64), **accumulated)
    assert (finding.step, finding.severity) == (0, "error")
    assert "net.2" in finding.layers


@pytest.mark.filterwarnings("ignore:.*returned `None`.*")
def test_a_batch_without_a_loss_at_the_start_does_not_hide_the_start():
    class Late(Program):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx > 0 else None

    finding = found("bad-initialization", Late(initialized(mlp(3), zero)), learnable(64))
    assert "net.2" in finding.layers


def test_a_zero_head_is_a_good_start():
    """Its weights change by all that they are, at a learning rate that is right."""
    for net in (mlp(), mlp(4), nn.Sequential(nn.Linear(FEATURES, CLASSES))):
        zero(net[-1])
        assert alarms(examined(Program(net), epochs=2)) == set()


@pytest.mark.nightly
def test_a_head_that_is_far_too_large_is_found():
    def make(factor):
        net = mlp()
        initialized(net[-1:], lambda layer: layer.weight.mul_(factor))
        return Program(net, optimizer=partial(torch.optim.Adam, lr=1e-4))

    finding = found("bad-initialization", make(1e3), epochs=5)
    assert finding.evidence["start_scale"].value > 50 * THRESHOLDS["large_start"]
    assert "bad-initialization" not in ids(examined(make(1.0), epochs=5))


def doubled(activation, loss):
    return Program(nn.Sequential(mlp(outputs=1 if loss is BINARY else CLASSES), activation), loss)


def as_function(net, function):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return function(self.net(x))

    return Program(Net())


@pytest.mark.parametrize(
    "program",
    [
        lambda: doubled(nn.Softmax(1), functional.cross_entropy),
        lambda: doubled(nn.Softmax(1), nn.CrossEntropyLoss()),
        lambda: as_function(mlp(), lambda z: z.softmax(1)),
        lambda: as_function(mlp(), lambda z: functional.softmax(z, dim=1)),
    ],
)
def test_a_doubled_softmax_is_found_before_the_first_step(program):
    finding = found("output-activation", program())
    assert (finding.step, finding.severity) == (0, "error")
    assert "doubled_softmax" in finding.evidence


@pytest.mark.parametrize("loss", [BINARY, nn.BCEWithLogitsLoss()])
@pytest.mark.parametrize("activation", [nn.Sigmoid(), "method", "function"])
def test_a_doubled_sigmoid_is_found_before_the_first_step(loss, activation):
    functions = {"method": lambda z: z.sigmoid(), "function": torch.sigmoid}
    if activation in functions:
        program = as_function(mlp(outputs=1), functions[activation])
    else:
        program = Program(nn.Sequential(mlp(outputs=1), activation))
    program.loss = loss
    finding = found("output-activation", program, two_classes())
    assert finding.step == 0
    assert "doubled_sigmoid" in finding.evidence


def test_what_the_losses_expect_is_no_doubled_activation():
    healthy = [
        examined(Program(nn.Sequential(mlp(outputs=1), nn.Sigmoid()), nn.BCELoss()), two_classes()),
        examined(Program(mlp(outputs=1), BINARY), two_classes()),
        examined(Program(nn.Sequential(mlp(), nn.LogSoftmax(1)), nn.NLLLoss())),
        examined(Program(nn.Sequential(mlp(), nn.LogSoftmax(1)))),  # idle, and harmless
    ]
    assert [alarms(findings) for findings in healthy] == [set()] * 4


@pytest.mark.parametrize(
    ("activation", "data"),
    [
        (nn.ReLU(), partial(numbers, offset=-2.0)),
        (nn.Tanh(), partial(numbers, scale=5.0)),
        (nn.Sigmoid(), partial(numbers, offset=3.0)),
    ],
)
@pytest.mark.parametrize("loss", [functional.mse_loss, nn.L1Loss(), functional.smooth_l1_loss])
def test_targets_that_the_last_activation_cannot_reach_are_found(activation, data, loss):
    program = Program(nn.Sequential(mlp(outputs=1), activation), loss)
    finding = found("output-activation", program, data())
    assert finding.step == 0
    assert "unreachable_targets" in finding.evidence


@pytest.mark.parametrize(
    ("activation", "data"),
    [
        (nn.ReLU(), partial(numbers, offset=4.0)),
        (nn.Tanh(), partial(numbers, scale=0.2)),
        (nn.Sigmoid(), partial(numbers, scale=0.05, offset=0.5)),
        (nn.Identity(), partial(numbers, offset=-2.0)),
    ],
)
def test_targets_within_the_range_are_no_fault(activation, data):
    findings = examined(Program(nn.Sequential(mlp(outputs=1), activation), nn.MSELoss()), data())
    assert "output-activation" not in ids(findings)


class Forgetful(Program):
    """Gives the optimizer the last layer only."""

    def configure_optimizers(self):
        return self.optimizer(self.net[-1].parameters())


@pytest.mark.parametrize("accumulated", [1, 3])
def test_parameters_outside_the_optimizer_are_found_before_the_first_step(accumulated):
    finding = found("unused-parameters", Forgetful(mlp()), accumulate_grad_batches=accumulated)
    assert finding.step == 0
    assert finding.layers == ("net.0.weight", "net.0.bias")


def test_parameters_that_are_frozen_on_purpose_are_not_unused():
    program = Forgetful(mlp())
    program.net[0].requires_grad_(False)
    assert "unused-parameters" not in ids(examined(program, epochs=2))


class Detached(Program):
    """Cuts the gradient in front of the last layer."""

    def forward(self, x):
        return self.net[-1](self.net[:-1](x).detach())


def test_parameters_that_never_receive_a_gradient_are_found():
    finding = found("unused-parameters", Detached(mlp()), epochs=2)
    assert finding.layers == ("net.0.weight", "net.0.bias")
    assert finding.step > THRESHOLDS["enough_steps"]


def test_a_branch_that_is_used_at_times_is_not_unused():
    class Sometimes(Program):
        def forward(self, x):
            self.count = getattr(self, "count", 0) + 1
            hidden = self.net[:-1](x)
            return self.net[-1](hidden if self.count % 3 == 0 else hidden.detach())

    assert "unused-parameters" not in ids(examined(Sometimes(mlp()), epochs=2))


def test_a_parameter_without_gradient_is_found_beside_other_optimizers():
    class Two(Detached):
        def __init__(self, net):
            super().__init__(net)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            layers = [self.net[0], self.net[2], nn.Linear(2, 2)]
            self.idle = layers[2]
            half = [[self.net[0].weight, self.net[2].weight], [self.net[0].bias, self.net[2].bias]]
            return [SGD(params, 0.01) for params in half]

    finding = found("unused-parameters", Two(mlp()), epochs=2, watcher=doctor(1))
    assert {"net.0.weight", "net.0.bias"} >= set(finding.layers) or "idle.weight" in finding.layers


# data


def test_large_inputs_are_found_where_they_do_harm_and_not_where_they_do_none():
    x, y = samples()
    slow = partial(torch.optim.Adam, lr=1e-5)
    finding = found("input-scale", Program(mlp(), optimizer=slow), loader(1e4 * x, y), epochs=5)
    assert finding.evidence["input_size"].value == pytest.approx(1e4, rel=0.5)
    normalised = Program(nn.Sequential(nn.BatchNorm1d(FEATURES), mlp()))
    assert "input-scale" not in ids(examined(normalised, loader(1e4 * x, y), epochs=2))
    assert "input-scale" not in ids(examined(Program(mlp()), loader(x, y), epochs=2))


def test_large_targets_are_found_and_standard_ones_are_not():
    def regress(**scale):
        return Program(mlp(outputs=1), nn.MSELoss()), numbers(**scale)

    finding = found("target-scale", *regress(offset=1e4), epochs=3)
    assert finding.evidence["target_size"].value == pytest.approx(1e4, rel=0.1)
    assert alarms(examined(*regress(), epochs=3)) == set()


# depth and units


def deep(activation, change=None, depth=20):
    net = mlp(depth, activation=activation)
    return Program(initialized(net, change) if change else net)


def standard_normal(layer):
    layer.weight.normal_()


def fitting(layer):
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    layer.bias.zero_()


def test_a_deep_sigmoid_net_vanishes_within_an_epoch():
    finding = found("vanishing-gradient", deep(nn.Sigmoid))
    assert finding.severity == "error"
    assert "Weight" in finding.advice[0]


def test_a_deep_net_of_large_weights_explodes_within_an_epoch():
    # a small head, so that the first loss is no larger than that of a constant prediction
    program = deep(nn.ReLU, standard_normal)
    with torch.no_grad():
        program.net[-1].weight.mul_(1e-13)
    finding = found("exploding-gradient", program)
    assert finding.severity == "error"


def test_a_deep_net_that_is_well_initialised_has_neither():
    findings = examined(deep(nn.ReLU, fitting, depth=10), epochs=2)
    assert not ids(findings) & {"vanishing-gradient", "exploding-gradient", "dead-units"}


def test_a_layer_of_dead_units_is_found_and_a_sparse_one_is_not():
    net = mlp(3, width=32)
    with torch.no_grad():
        net[2].bias.fill_(-50.0)
    finding = found("dead-units", Program(net))
    assert finding.layers == ("net.3",)
    assert finding.evidence["dead_fraction"].value == 1
    net = mlp(3, width=32)
    with torch.no_grad():
        net[2].bias.fill_(-0.3)  # many zeros, on other samples for each unit
    assert "dead-units" not in ids(examined(Program(net), epochs=2))


def test_saturated_units_are_found_and_working_ones_are_not():
    net = mlp(3, activation=nn.Tanh)
    with torch.no_grad():
        net[0].weight.mul_(300.0)
        net[2].weight.mul_(300.0)
    findings = examined(Program(net, optimizer=partial(SGD, lr=1e-3)), hopeless(), epochs=3)
    assert "saturated-units" in ids(findings), ids(findings)
    assert "saturated-units" not in ids(examined(Program(mlp(3, activation=nn.Tanh)), epochs=3))


class Attentive(nn.Module):
    """Attention over the features as positions; ``factor`` scales queries and keys."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)
        with torch.no_grad():
            self.attention.in_proj_weight[:16].mul_(factor)

    def forward(self, x):
        x = self.embed(x[..., None])
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_attention_logits_that_have_grown_are_found():
    slow = partial(SGD, lr=1e-4)
    faulty = examined(Program(Attentive(60.0), optimizer=slow), hopeless(), epochs=2)
    (finding,) = [f for f in faulty if "attention_logits" in f.evidence]
    assert finding.id == "saturated-units"
    assert finding.layers == ("net.attention",)
    healthy = examined(Program(Attentive(), optimizer=slow), hopeless(), epochs=2)
    assert not [f for f in healthy if "attention_logits" in f.evidence]


# learning rate, loss and validation


def test_a_learning_rate_that_is_far_too_high_is_found():
    program = Program(mlp(3), optimizer=partial(torch.optim.Adam, lr=3.0))
    found("learning-rate-too-high", program, epochs=3)


def test_a_learning_rate_that_is_far_too_low_is_found():
    program = Program(mlp(), optimizer=partial(SGD, lr=1e-7))
    # large batches, for the loss of another batch differs less than the improvement looked for
    finding = found("learning-rate-too-low", program, learnable(1280, size=64), epochs=4)
    assert finding.evidence["update_ratio"].value < 1e-5
    assert "1e-07" in finding.advice[0]


def test_a_healthy_run_ends_without_an_alarm():
    for optimizer in (partial(torch.optim.Adam, lr=3e-3), partial(SGD, lr=0.1)):
        assert alarms(examined(Program(mlp(3), optimizer=optimizer), epochs=8)) == set()


def test_poison_without_a_guard_is_found_and_named_by_its_weights():
    x, y = samples()
    x[100, 0] = math.nan
    finding = found("non-finite", Program(mlp()), loader(x, y))
    assert finding.severity == "error"
    assert finding.step <= 15
    findings = examined(Program(mlp()), loader(x, y), epochs=2)
    assert ids(findings) == {"non-finite"}, "the deepest cause is reported alone"


def test_a_guard_keeps_the_weights_finite_and_the_doctor_sees_it():
    x, y = samples()
    x[100, 0] = math.nan
    findings = examined(Program(mlp()), loader(x, y), callbacks=[StepGuard("skip")], epochs=2)
    assert not [f for f in findings if "nonfinite_weights" in f.evidence]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_that_are_not_finite_poison_no_statistic(value):
    x, y = samples()
    x[100, 0] = value
    watcher = doctor()
    callbacks = [StepGuard("skip")]
    examined(Program(mlp()), loader(x, y), 2, callbacks=callbacks, watcher=watcher)
    recent = watcher.state_dict()["patient"]["losses"]["recent"]
    assert len(recent) == 38
    assert all(map(math.isfinite, recent))


def test_a_spike_is_information_and_found_where_it_was():
    x, y = samples(640)
    x[400:416] *= 300.0
    program = Program(mlp(), optimizer=partial(SGD, lr=1e-4))
    finding = found("loss-spike", program, loader(x, y))
    assert finding.severity == "info"
    assert 25 <= finding.step <= 31
    findings = examined(Program(mlp(), optimizer=partial(SGD, lr=1e-4)))
    assert "loss-spike" not in ids(findings)


@pytest.mark.nightly
def test_a_loss_that_swings_from_batch_to_batch_is_found():
    x, _ = samples()
    y = torch.randn(len(x), 1, generator=torch.Generator().manual_seed(3))
    # the losses have two levels, of which other rules may think what they like
    y[(torch.arange(len(x)) // 16) % 2 == 1] *= 0.01
    program, watcher = Program(mlp(outputs=1), nn.MSELoss()), doctor(ignore=ALARMS)
    findings = examined(program, loader(x, y), epochs=6, watcher=watcher)
    assert "oscillating-loss" in ids(findings), ids(findings)
    findings = examined(Program(mlp(outputs=1), nn.MSELoss()), numbers(), epochs=6)
    assert "oscillating-loss" not in ids(findings)


@pytest.mark.nightly
def test_a_loss_that_stands_still_is_found():
    findings = examined(Program(nn.Linear(FEATURES, CLASSES)), hopeless(), epochs=15)
    assert "plateau" in ids(findings), ids(findings)


class Validated(Program):
    """Logs its validation loss and accuracy, under any name."""

    names = ("val_loss", "val_acc")

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss_name, metric_name = self.names
        self.log(loss_name, functional.cross_entropy(logits, y))
        self.log(metric_name, (logits.argmax(1) == y).float().mean())


def validated(program, data, held_out, epochs, watcher=None):
    watcher = watcher or doctor()
    fit_with_validation(program, [watcher], data, held_out, epochs)
    return watcher.findings


def fit_with_validation(program, callbacks, data, held_out, epochs):
    import lightning.pytorch as lightning

    class Data(lightning.LightningDataModule):
        def train_dataloader(self):
            return data

        def val_dataloader(self):
            return held_out

    return fit(program, callbacks, Data(), epochs=epochs)


@pytest.mark.nightly
def test_learning_by_heart_is_found_and_learning_is_not():
    quick = partial(torch.optim.Adam, lr=1e-2)
    by_heart = Validated(mlp(3, width=64), optimizer=quick)
    findings = validated(by_heart, hopeless(64), hopeless(64, seed=5), epochs=60)
    assert "overfitting" in ids(findings), ids(findings)
    program = Validated(mlp(3), optimizer=quick)
    findings = validated(program, learnable(), learnable(64, seed=5), epochs=6)
    assert alarms(findings) == set()


@pytest.mark.nightly
def test_an_error_that_falls_is_no_fault():
    """By any name: a percentage error gets better when it falls."""

    class Errors(Program):
        def validation_step(self, batch, batch_idx):
            for name in ("val_mape", "Val/MSE", "val-mae", "validation_error"):
                self.log(name, 1.0 / (1 + self.current_epoch))

    findings = validated(Errors(mlp()), learnable(), learnable(64), epochs=8)
    assert "overfitting" not in ids(findings)


@pytest.mark.parametrize("name", ["value_loss", "interval/accuracy", "train/val_acc", "epoch_time"])
def test_what_is_no_validation_metric_is_not_judged_as_one(name):
    class Named(Program):
        def validation_step(self, batch, batch_idx):
            rises = "loss" in name
            self.log(name, float(2.0**self.current_epoch if rises else 0.5**self.current_epoch))

    watcher = doctor()
    validated(Named(mlp()), learnable(64), learnable(64), 6, watcher)
    assert watcher._state.validation.state_dict() == {"loss": [], "metric": []}


def test_nothing_is_reported_of_the_losses_of_a_gan():
    from helpers.lightning_twins import SmallGAN

    watcher = doctor()
    fit(built(SmallGAN), [watcher], epochs=4)
    loss_ids = {"loss-spike", "plateau", "oscillating-loss", "learning-rate-too-low"}
    assert not ids(watcher.findings) & loss_ids


def one_class_at_a_time():
    x, y = samples(960)
    order = y.sort(stable=True).indices
    return loader(x[order], y[order])


def test_batches_of_one_class_are_found():
    slow = partial(SGD, lr=1e-3)
    finding = found(
        "oscillating-loss", Program(mlp(), optimizer=slow), one_class_at_a_time(), epochs=2
    )
    assert "batch_variety" in finding.evidence


def many_classes(size):
    x, _ = samples(160)
    y = torch.randint(40, (len(x),), generator=torch.Generator().manual_seed(0))
    return loader(x, y, size)


def alarm_ids(findings):
    return {finding.id for finding in findings if finding.is_alarm}


@pytest.mark.nightly
@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_small_batches_have_little_variety_and_are_not_blamed(size):
    program = Program(mlp(outputs=40), optimizer=partial(SGD, lr=1e-4))
    assert "oscillating-loss" not in alarm_ids(examined(program, many_classes(size)))
    regression = Program(mlp(outputs=1), nn.MSELoss(), partial(SGD, lr=1e-4))
    assert "oscillating-loss" not in alarm_ids(examined(regression, numbers(160, size=size)))


@pytest.mark.parametrize("loss", ["classes", "binary"])
def test_rare_classes_are_missing_from_batches_by_chance(loss):
    x, y = samples(960)
    y = (torch.arange(len(y)) % 97 == 0).long()
    slow = partial(SGD, lr=1e-5)
    if loss == "classes":
        findings = examined(Program(mlp(), optimizer=slow), loader(x, y, 32), epochs=2)
    else:
        program = Program(mlp(outputs=1), BINARY, slow)
        findings = examined(program, loader(x, y[:, None].float(), 32), epochs=2)
    assert "batch_variety" not in evidence_of(findings)


def evidence_of(findings):
    return {name for finding in findings for name in finding.evidence}


def test_positive_and_negative_samples_make_up_a_batch_together():
    """As in contrastive losses: one call has ones alone, the other zeros alone."""

    class Contrastive(Program):
        def training_step(self, batch, batch_idx):
            score = self(batch[0])
            half = len(score) // 2
            ones, zeros = torch.ones(half, 1), torch.zeros(half, 1)
            return BINARY(score[:half], ones) + BINARY(score[half:], zeros)

    findings = examined(Contrastive(mlp(outputs=1), optimizer=partial(SGD, lr=1e-4)), epochs=2)
    assert "batch_variety" not in evidence_of(findings)

"""The doctor changes nothing: a watched run is the unwatched one, bit for bit; no hook stays."""

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import hooks_of, same_optimizers, same_state
from helpers.doctor_programs import (
    CLASSES,
    FEATURES,
    Program,
    doctor,
    hopeless,
    initialized,
    learnable,
    loader,
    mlp,
    modes_left,
    samples,
)
from helpers.lightning_twins import Classifier, SmallGAN, batches, built, fit, half_precision
from helpers.tiers import in_tiers
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_stab.callbacks.doctor.report import FACTS
from lightning_stab.diagnosis import IDS


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch._dynamo.reset()


class Images(nn.Module):
    """Convolution, BatchNorm and a ReLU in place, as functions and as modules."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 8, CLASSES))

    def forward(self, x):
        x = torch.relu_(self.first(x.reshape(-1, 1, 2, 4)))
        return self.head(self.second(x))


class Recurrent(nn.Module):
    """A recurrent layer over a sequence that is long enough to be measured over time."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.recurrent = kind(1, 6, batch_first=True, **options)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.recurrent(x[..., None].repeat(1, 2, 1))[0][:, -1])


class Cells(nn.Module):
    """A cell that is called step by step."""

    def __init__(self, kind=nn.GRUCell):
        super().__init__()
        self.cell = kind(1, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        state = None
        for value in x.repeat(1, 2).unbind(1):
            state = self.cell(value[:, None], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Transformer(nn.Module):
    """Torch's encoder layer and its attention, with dropout."""

    def __init__(self, need_weights=False):
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.need_weights = need_weights
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.layer(self.embed(x[..., None]))
        x = x + self.attention(x, x, x, need_weights=self.need_weights)[0]
        return self.head(x.mean(1))


class Checkpointed(nn.Module):
    """Runs its body again in the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.first = nn.Linear(FEATURES, 16)
        self.body = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16))
        self.recurrent = nn.RNN(1, 4, batch_first=True)
        self.head = nn.Linear(20, CLASSES)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        body = checkpoint(self.body, x, use_reentrant=self.reentrant)
        over_time = checkpoint(self.over_time, x, use_reentrant=self.reentrant)
        return self.head(torch.cat([body, over_time], 1))

    def over_time(self, x):
        return self.recurrent(x[..., None])[0][:, -1]


def partly_compiled():
    net = mlp(3)
    return nn.Sequential(torch.compile(net[:2], backend="eager"), net[2:])


def whole_compiled():
    return torch.compile(built(lambda: Program(mlp(3))), backend="eager")


def zero(layer):
    nn.init.zeros_(layer.weight)


MAKE = {
    "mlp": lambda: Program(mlp(3)),
    "faulty": lambda: Program(initialized(mlp(20, activation=nn.Sigmoid), zero)),
    "convolutions": lambda: Program(Images()),
    "lstm": lambda: Program(Recurrent()),
    "two-layer-gru": lambda: Program(Recurrent(nn.GRU, num_layers=2, dropout=0.1)),
    "plain-rnn": lambda: Program(Recurrent(nn.RNN)),
    "gru-cells": lambda: Program(Cells()),
    "lstm-cells": lambda: Program(Cells(nn.LSTMCell)),
    "transformer": lambda: Program(Transformer()),
    "transformer-weights": lambda: Program(Transformer(need_weights=True)),
    "gan": SmallGAN,
    "accumulation": lambda: Program(mlp(3)),
    "bf16-mixed": lambda: Program(Transformer()),
    "fp64": lambda: Program(Recurrent()),
    "fp16-scaler": lambda: Program(mlp(3)),
    "checkpointed": lambda: Program(Checkpointed(reentrant=False)),
    "checkpointed-reentrant": lambda: Program(Checkpointed(reentrant=True)),
    "lbfgs": lambda: Classifier("lbfgs"),
    "fused-adamw": lambda: Classifier("adamw_fused"),
    "partly-compiled": lambda: Program(partly_compiled()),
    "compiled": whole_compiled,
}
TRAINER = {
    "accumulation": lambda: {"accumulate_grad_batches": 3},
    "bf16-mixed": lambda: {"precision": "bf16-mixed"},
    "fp64": lambda: {"precision": "64-true"},
    "fp16-scaler": lambda: {"plugins": [half_precision()]},
}


class Record(lightning.Callback):
    """Keeps a fingerprint of each batch, of the random state at it, and the hooks left after it."""

    def __init__(self):
        self.batches, self.random, self.left, self.at_step = [], [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(batch[0].double().sum().item())
        self.random.append(torch.get_rng_state())

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.at_step.append((len(hooks_of(module)), modes_left()))

    def on_train_batch_end(self, trainer, module, *rest):
        self.left.append((len(hooks_of(module)), modes_left()))


def run(regime, callbacks=(), epochs=2):
    record = Record()
    module = built(MAKE[regime])
    options = TRAINER.get(regime, dict)()
    data = loader(*samples(160), shuffle=True)
    # the record stands behind the doctor, so that it sees what the doctor leaves
    trainer = fit(module, [*callbacks, record], data, epochs=epochs, **options)
    return trainer.lightning_module, trainer, record


IN_THE_GATE = [
    *("mlp", "faulty", "convolutions", "two-layer-gru", "lstm-cells", "transformer", "gan"),
    *("accumulation", "fp16-scaler", "checkpointed", "lbfgs", "partly-compiled"),
]


@pytest.mark.parametrize("regime", in_tiers(MAKE, IN_THE_GATE))
def test_a_watched_run_is_the_unwatched_run(regime):
    watcher = doctor(3)
    (plain, plain_trainer, first), (seen, trainer, second) = run(regime), run(regime, [watcher])
    assert same_state(plain, seen)
    assert same_optimizers(plain_trainer, trainer)
    assert first.batches == second.batches
    pairs = zip(first.random, second.random, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert set(second.left) == {(0, 0)}
    if seen.automatic_optimization:  # else there may be another backward pass in the batch
        assert set(second.at_step) == {(0, 0)}
    assert hooks_of(seen) == []
    assert modes_left() == 0
    assert not any(f.id == "output-activation" for f in watcher.findings)
    assert {f.id for f in watcher.findings} <= set(IDS)


def test_the_faulty_twin_really_is_diagnosed():
    """Else the law above would hold because nothing is measured."""
    watcher = doctor(3)
    run("faulty", [watcher])
    assert "bad-initialization" in {f.id for f in watcher.findings}

    def logged(name):
        return run(name, [doctor(3, log_facts=True)])[1].logger.latest

    assert f"{FACTS}/gradient_depth_log10" in logged("transformer")
    assert f"{FACTS}/gradient_time_log10" in logged("lstm")
    assert f"{FACTS}/gradient_time_log10" in logged("gru-cells")


def test_the_random_state_is_left_alone():
    module = built(lambda: Program(mlp(3)))
    fit(module, [], learnable(), seed=3)
    state = torch.get_rng_state()
    fit(built(lambda: Program(mlp(3))), [doctor(1)], learnable(), seed=3)
    assert torch.equal(torch.get_rng_state(), state)


# hooks are gone, however the run ends


class Fails(Program):
    """Fails at one batch, in the forward pass or behind it."""

    def __init__(self, net, at, inside):
        super().__init__(net)
        self.at, self.inside = at, inside
        if inside:
            self.net[1].register_forward_pre_hook(self.fail)
        self.count = -1

    def fail(self, *_):
        if self.count == self.at:
            raise KeyError("mine")

    def training_step(self, batch, batch_idx):
        self.count += 1
        loss = super().training_step(batch, batch_idx)
        self.fail()
        return loss


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("at", [0, 4, 7])
def test_no_hook_is_left_after_an_error_and_the_error_is_the_users(at, inside):
    module, watcher = built(Fails, mlp(3), at, inside), doctor(2)
    with pytest.raises(KeyError, match="mine"):
        fit(module, [watcher], learnable())
    assert len(hooks_of(module)) == int(inside)
    assert modes_left() == 0
    fit(built(lambda: Program(mlp(3))), [watcher], learnable(64))
    assert modes_left() == 0


def test_no_hook_is_left_after_an_interruption():
    class Interrupted(Program):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 4:
                raise KeyboardInterrupt
            return loss

    module = built(Interrupted, mlp(3))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(module, [doctor(1)], learnable())
    assert hooks_of(module) == []
    assert modes_left() == 0


def test_no_hook_is_left_where_the_run_stops_early_or_an_epoch_is_cut_short():
    class Stop(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            trainer.should_stop = batch_idx == 4

    class Short(Program):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 4 else None

    for module, callbacks in (
        (built(lambda: Program(mlp(3))), [Stop()]),
        (built(Short, mlp(3)), []),
    ):
        fit(module, [doctor(1), *callbacks], learnable(), epochs=2)
        assert hooks_of(module) == []
        assert modes_left() == 0


def test_validation_runs_without_hooks():
    class Validated(Program):
        left = ()

        def validation_step(self, batch, batch_idx):
            self.left = [*self.left, (len(hooks_of(self)), modes_left())]
            self.log("val_loss", self.loss(self(batch[0]), batch[1]))

    class Data(lightning.LightningDataModule):
        def train_dataloader(self):
            return learnable()

        def val_dataloader(self):
            return hopeless(32)

    module = built(Validated, mlp(3))
    fit(module, [doctor(1)], Data(), val_check_interval=4, num_sanity_val_steps=1)
    assert set(module.left) == {(0, 0)}
    assert len(module.left) > 5


def test_hooks_of_the_user_stay():
    module = built(lambda: Program(mlp(3)))
    calls = []
    module.net[0].register_forward_hook(lambda *_: calls.append(1))
    fit(module, [doctor(1)], learnable())
    assert len(hooks_of(module)) == 1
    assert len(calls) == 20


def test_a_mode_of_the_user_stays_in_its_place():
    class Counting(torch.overrides.TorchFunctionMode):
        count = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.count += func is nn.functional.cross_entropy
            return func(*args, **(kwargs or {}))

    with Counting() as mode:
        fit(built(lambda: Program(mlp(3))), [doctor(1)], learnable())
        assert modes_left() == 1
    assert modes_left() == 0
    assert mode.count == 20


def test_the_doctor_works_beside_the_whole_suite():
    from lightning_stab import GradientClipping, GradientMonitor, StepGuard

    def suite():
        return [GradientMonitor(2), GradientClipping("norm", 1.0), StepGuard("skip", "skip")]

    alone = built(lambda: Program(mlp(3)))
    fit(alone, suite(), batches(24))
    for order in (lambda c: [doctor(2), *c], lambda c: [*c, doctor(2)]):
        module = built(lambda: Program(mlp(3)))
        fit(module, order(suite()), batches(24))
        assert same_state(alone, module)
        assert hooks_of(module) == []

"""What `ActivationMonitor` logs is right, comes as one event, and changes nothing."""

import math

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import hooks_of, same_optimizers, same_state
from helpers.events import events, packed_events
from helpers.lightning_twins import Classifier, SmallGAN, batches, built, fit, half_precision
from helpers.quiet import QUIET
from helpers.small_modules import counting_backend
from helpers.tiers import in_tiers
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch._C import _len_torch_function_stack

from lightning_stab import ActivationMonitor, GradientCheck, GradientMonitor
from lightning_stab.errors import InvalidArgumentError

OWN = ("activation_", "dead_fraction", "saturated_fraction", "depth/activation")


class Net(lightning.LightningModule):
    """Linear, ReLU, linear, a functional sigmoid, linear; keeps what it computes in training."""

    def __init__(self, dead=0):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(8, 10), nn.Linear(10, 10), nn.Linear(10, 3)
        self.relu = nn.ReLU(inplace=True)
        self.kept = []
        with torch.no_grad():
            self.one.bias += 5.0
            self.one.bias[:dead] = -1e3

    def forward(self, x):
        first = self.relu(self.one(x))
        z = self.two(first)
        second = torch.sigmoid(z)
        if self.training:
            self.kept.append((first.detach(), z.detach(), second.detach()))
        return self.head(second)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Witness(lightning.Callback):
    """Notes on which batches hooks or a function mode are there, and where they must not be."""

    def __init__(self):
        self.watched, self.forbidden = [], []

    def look(self, trainer, module, *_):
        self.watched.append(bool(hooks_of(module)))

    def forbid(self, trainer, module, *_):
        self.forbidden.append(_len_torch_function_stack())

    on_after_backward = look
    on_before_zero_grad = on_before_backward = lambda *_: None
    on_before_optimizer_step = on_validation_start = on_train_batch_end = forbid


def own(trainer):
    """Return the monitor's values by step."""
    kept = {
        step: {name: v for name, v in values.items() if name.startswith(OWN)}
        for step, values in trainer.logger.steps.items()
    }
    return {step: values for step, values in kept.items() if values}


# --- the numbers ----------------------------------------------------------------------------------


def test_the_values_are_those_of_the_step():
    module = built(Net, dead=2)
    trainer = fit(module, [ActivationMonitor(3)], batches(6))
    for step in (2, 5):
        first, _, second = module.kept[step]
        values = own(trainer)[step]
        for name, outputs in (("relu", first), ("sigmoid", second)):
            mean, std = values[f"activation_mean/{name}"], values[f"activation_std/{name}"]
            assert mean == pytest.approx(outputs.mean().item(), rel=1e-5)
            assert std == pytest.approx(outputs.std().item(), rel=1e-4)
        slope = second * (1 - second)
        flat = (slope < 0.02 / 4).float().mean().item()
        assert values["saturated_fraction/sigmoid"] == pytest.approx(flat)
        assert "saturated_fraction/relu" not in values
        assert "dead_fraction/sigmoid" not in values
    assert list(own(trainer)) == [2, 5]
    assert own(trainer)[5]["dead_fraction/relu"] == pytest.approx(0.2)


def test_the_growth_over_depth_is_that_of_the_most_frequent_kind():
    layers = [part for _ in range(4) for part in (nn.Linear(8, 8), nn.Tanh())]
    net = nn.Sequential(*layers, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    module = built(Classifier, batch_norm=False)
    module.net = net
    values = own(fit(module, [ActivationMonitor(1)], batches(1)))[0]
    expected = math.log10(values["activation_std/net.7"] / values["activation_std/net.1"])
    assert values["depth/activation_std_log10"] == pytest.approx(expected)
    assert expected < 0
    assert (
        "depth/activation_std_log10"
        not in own(fit(built(Classifier), [ActivationMonitor(1)], batches(1)))[0]
    )


def test_two_layers_of_a_kind_are_enough_for_the_growth_over_depth():
    module = built(Classifier, batch_norm=False)
    layers = [part for _ in range(2) for part in (nn.Linear(8, 8), nn.Tanh())]
    module.net = nn.Sequential(*layers, nn.Linear(8, 3))
    values = own(fit(module, [ActivationMonitor(1)], batches(1)))[0]
    ratio = values["activation_std/net.3"] / values["activation_std/net.1"]
    assert values["depth/activation_std_log10"] == pytest.approx(math.log10(ratio))


def test_patterns_choose_layers():
    trainer = fit(built(Net), [ActivationMonitor(1, include=["r*", "s*"], exclude=["*oid"])])
    names = {name.partition("/")[2] for values in own(trainer).values() for name in values}
    assert names == {"relu"}


# --- the window -----------------------------------------------------------------------------------


def dead_points(trainer):
    return [
        (s, v["dead_fraction/relu"]) for s, v in own(trainer).items() if "dead_fraction/relu" in v
    ]


def test_a_healthy_layer_is_decided_by_one_batch():
    witness = Witness()
    trainer = fit(built(Net), [ActivationMonitor(4), witness], batches(12))
    assert dead_points(trainer) == [(3, 0), (7, 0), (11, 0)]
    assert [i for i, watched in enumerate(witness.watched) if watched] == [3, 7, 11]


def test_a_dead_layer_is_decided_when_it_has_seen_enough():
    witness = Witness()
    trainer = fit(built(Net, dead=3), [ActivationMonitor(8, window=80), witness], batches(40))
    assert [s for s, _ in dead_points(trainer)] == [11, 19, 27, 35]
    assert all(v == pytest.approx(0.3) for _, v in dead_points(trainer))
    # from the logging step on until 80 samples were seen, in batches of 16
    watched = [i for i, there in enumerate(witness.watched) if there]
    assert watched == [i for i in range(40) if i >= 7 and (i - 7) % 8 < 5]


def rare(num=20, size=4):
    """Batches of which one in five makes the first unit fire."""
    x = torch.full((num, size, 8), -1.0)
    x[2::5, 0] = 1.0
    y = torch.zeros(num, size, dtype=torch.long)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=None)


class Rare(Net):
    """Has a unit that fires for few batches, and one that never does."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.one.bias[:2] = 0.0
            self.one.weight[:2] = torch.tensor([[1.0], [0.0]])
            self.one.bias[1] = -10.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def test_a_unit_that_is_only_rare_is_not_dead():
    trainer = fit(built(Rare), [ActivationMonitor(20, window=20)], rare(), epochs=2)
    assert dead_points(trainer) == [(23, pytest.approx(0.1))]
    short = fit(built(Rare), [ActivationMonitor(20, window=1)], rare())
    assert dead_points(short) == [(19, pytest.approx(0.2))]


def test_a_window_is_read_again_after_four_batches_and_sixteen():
    class Fires(Rare):
        """The first unit fires in one batch, the second from the start."""

        def __init__(self):
            super().__init__()
            with torch.no_grad():
                self.one.bias[1] = 10.0

    for firing, at in ((27, 27), (28, 39)):  # the logged step is 24, the first of the window
        x, y = torch.full((45, 4, 8), -1.0), torch.zeros(45, 4, dtype=torch.long)
        x[firing, 0] = 1.0
        data = torch.utils.data.TensorDataset(x, y)
        loader = torch.utils.data.DataLoader(data, batch_size=None)
        trainer = fit(built(Fires), [ActivationMonitor(25, window=999)], loader)
        assert dead_points(trainer) == [(at, 0.0)]


def test_an_epoch_is_enough_and_so_is_the_first_window_of_a_short_run():
    trainer = fit(built(Net, dead=3), [ActivationMonitor(6)], batches(6), epochs=2)
    assert dead_points(trainer) == [(10, pytest.approx(0.3))]
    trainer = fit(built(Net, dead=3), [ActivationMonitor(5)], batches(6))
    assert dead_points(trainer) == [(5, pytest.approx(0.3))]


def test_intervals_shorter_than_the_window_log_their_own_statistics():
    module = built(Net, dead=3)
    trainer = fit(module, [ActivationMonitor(1, window=64)], batches(12))
    for step, (first, _, _) in enumerate(module.kept):
        values = own(trainer)[step]
        assert values["activation_mean/relu"] == pytest.approx(first.mean().item(), rel=1e-5)
    assert [s for s, _ in dead_points(trainer)] == [3, 7, 11]


# --- regimes --------------------------------------------------------------------------------------

REGIMES = {
    "fp32": (Classifier, {}),
    "fp64": (Classifier, {"precision": "64-true"}),
    "bf16": (Classifier, {"precision": "bf16-mixed"}),
    "fp16": (Classifier, {"plugins": True}),
    "accumulation": (Classifier, {"accumulate_grad_batches": 5}),
    "gan": (SmallGAN, {}),
    "lbfgs": (lambda: Classifier("lbfgs"), {}),
    "dropout": (lambda: Classifier("adam", dropout=0.3), {}),
}


@pytest.mark.parametrize("regime", in_tiers(REGIMES, ["fp32", "fp16", "accumulation", "lbfgs"]))
def test_a_watched_run_is_the_unwatched_run(regime):
    make, options = REGIMES[regime]

    def run(*callbacks):
        arguments = {"plugins": [half_precision()]} if "plugins" in options else options
        module = built(make)
        return module, fit(module, callbacks, epochs=2, **arguments)

    plain, trainer = run()
    random_state = torch.get_rng_state()
    watched, watching = run(ActivationMonitor(2))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert same_state(watched, plain)
    assert same_optimizers(watching, trainer)
    assert all(torch.equal(a, b) for a, b in zip(watched.losses, plain.losses, strict=True))
    assert own(watching)
    assert hooks_of(watched) == []
    assert _len_torch_function_stack() == 0


def test_accumulation_logs_once_for_all_batches_of_the_step():
    module = built(Net)
    trainer = fit(module, [ActivationMonitor(2)], batches(12), accumulate_grad_batches=3)
    assert list(own(trainer)) == [1, 3]
    first = torch.cat([first for first, _, _ in module.kept[3:6]])
    values = own(trainer)[1]
    assert values["activation_mean/relu"] == pytest.approx(first.mean().item(), rel=1e-5)
    assert values["activation_std/relu"] == pytest.approx(first.std().item(), rel=1e-5)


def test_both_nets_of_a_gan_are_seen():
    module = built(SmallGAN)
    module.generator.append(nn.Tanh())
    trainer = fit(module, [ActivationMonitor(1)], batches(2))
    names = {n for n in own(trainer)[0] if n.startswith("activation_std")}
    # the discriminator runs three times; the generator's last activation is an output of a net
    assert names == {"activation_std/discriminator.1"}


def test_under_manual_optimisation_what_runs_after_a_backward_is_seen_too():
    class Later(SmallGAN):
        def __init__(self):
            super().__init__()
            self.generator.insert(1, nn.Tanh())

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            self.step(second, self.discriminator(batch[0]).mean(), None)
            self.step(first, self.generator(batch[0][:, :4]).square().mean(), None)

    names = own(fit(built(Later), [ActivationMonitor(1)], batches(2)))[1]
    assert {"activation_std/discriminator.1", "activation_std/generator.1"} <= set(names)


def test_hooks_and_mode_are_never_there_for_optimizer_and_validation():
    witness = Witness()
    data = batches(6)
    trainer = lightning.Trainer(
        callbacks=[ActivationMonitor(2), witness],
        max_epochs=2,
        val_check_interval=2,
        **QUIET,
    )
    module = built(Net, dead=2)
    trainer.fit(module, data, batches(3))
    assert witness.forbidden
    assert not any(witness.forbidden)
    assert any(witness.watched)
    assert hooks_of(module) == []


def test_validation_batches_are_not_counted():
    module = built(Net, dead=2)
    data = batches(8)

    def run(**arguments):
        torch.manual_seed(0)
        trainer = fit(built(Net, dead=2), [ActivationMonitor(2, window=64)], data, **arguments)
        return own(trainer)

    class Validated(lightning.LightningDataModule):
        def train_dataloader(self):
            return data

        def val_dataloader(self):
            x = torch.full((1, 16, 8), 1e3)
            return torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(x, torch.zeros(1, 16)), batch_size=None
            )

    trainer = fit(
        module,
        [ActivationMonitor(2, window=64)],
        Validated(),
        val_check_interval=1,
        num_sanity_val_steps=1,
    )
    assert own(trainer) == run()


def test_a_checkpointed_run_goes_on_at_the_same_steps(tmp_path):
    save = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1)
    whole = fit(
        built(Net), [ActivationMonitor(4), save], batches(6), epochs=2, enable_checkpointing=True
    )
    path = next(tmp_path.glob("*step=6.ckpt"))
    again = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1)
    rest = fit(
        built(Net, seed=5),
        [ActivationMonitor(4), again],
        batches(6),
        epochs=2,
        ckpt_path=path,
        enable_checkpointing=True,
    )
    assert list(own(whole)) == [3, 7, 11]
    assert list(own(rest)) == [7, 11]
    assert own(rest)[11] == own(whole)[11]


def test_a_second_fit_starts_anew():
    monitor = ActivationMonitor(4)
    first, second = (fit(built(Net, dead=2), [monitor], batches(6)) for _ in range(2))
    assert own(first) == own(second)


def test_other_callbacks_that_run_the_module_are_not_watched():
    for order in (1, -1):
        suite = [ActivationMonitor(1), GradientCheck(), GradientMonitor(1)][::order]
        trainer = fit(built(Net), suite, batches(2))
        names = {n for n in own(trainer)[0] if n.startswith("activation_std")}
        assert names == {"activation_std/relu", "activation_std/sigmoid"}


@pytest.mark.parametrize("place", ["training_step", "on_after_backward", "on_train_batch_end"])
def test_an_exception_leaves_nothing_behind(place):
    class Failing(Net):
        pass

    def fail(*_):
        raise ValueError("on purpose")

    setattr(Failing, place, fail)
    module = built(Failing)
    with pytest.raises(ValueError, match="on purpose"):
        fit(module, [ActivationMonitor(1)])
    assert hooks_of(module) == []
    assert _len_torch_function_stack() == 0


def test_a_skipped_epoch_leaves_no_mode_behind():
    class Skipping(Net):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 1 else None

        def on_train_epoch_end(self):
            self.modes = _len_torch_function_stack()

    module = built(Skipping)
    fit(module, [ActivationMonitor(1)])
    assert module.modes == 0


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:.*compile.*")
def test_a_compiled_module_is_told_and_not_compiled_again():
    backend, compilations = counting_backend()

    module = torch.compile(built(Classifier, logs=False), backend=backend)
    monitor = ActivationMonitor(3)
    with pytest.warns(UserWarning, match="`ActivationMonitor`: .*the module is compiled"):
        trainer = fit(module, [monitor], batches(7))
    assert "compiled" in monitor.unseen
    assert own(trainer) == {}
    watched = len(compilations)
    compilations.clear()
    torch._dynamo.reset()
    fit(torch.compile(built(Classifier, logs=False), backend=backend), [], batches(7))
    assert watched == len(compilations)


# --- logging and arguments ------------------------------------------------------------------------


def test_all_values_of_a_step_are_one_event(tmp_path):
    module = built(Net)
    fit(module, [ActivationMonitor(2)], batches(4), logger=TensorBoardLogger(tmp_path))
    packed = packed_events(tmp_path, "activation_")
    assert [step for step, _ in packed] == [1, 3]
    assert len(packed[0][1]) == 6  # two means, two deviations, dead, saturated
    scalars, _ = events(next(tmp_path.rglob("version_0")))
    assert [step for step, _ in scalars["dead_fraction/relu"]] == [1, 3]
    assert scalars["activation_std/relu"][1][1] == pytest.approx(
        module.kept[3][0].std().item(), rel=1e-5
    )


def test_nothing_is_logged_between_and_without_activations():
    assert own(fit(built(Net), [ActivationMonitor()], batches(6))) == {}
    linear = built(Classifier, batch_norm=False)
    linear.net = nn.Linear(8, 3)
    with pytest.warns(UserWarning, match="no activation function ran"):
        assert own(fit(linear, [ActivationMonitor(2)], batches(6))) == {}


def said(caplog):
    return [r.getMessage() for r in caplog.records if "`ActivationMonitor`" in r.getMessage()]


def test_a_fit_without_a_step_that_is_logged_says_so(caplog):
    with caplog.at_level("INFO"):
        fit(built(Net), [ActivationMonitor(7)], batches(6))
    (message,) = said(caplog)
    assert "no step of this fit ended an interval of 7" in message
    caplog.clear()
    with caplog.at_level("INFO"):
        fit(built(Net), [ActivationMonitor(6)], batches(6))
    assert said(caplog) == []


def test_where_patterns_choose_no_layer_the_names_are_said_once(caplog):
    monitor = ActivationMonitor(2, include=["net.*"])
    with caplog.at_level("INFO"):
        trainer = fit(built(Net), [monitor], batches(6))
    assert own(trainer) == {}
    (message,) = said(caplog)
    assert "no layer is chosen by `include` and `exclude`, of `relu`, `sigmoid`." in message
    assert monitor.unseen in message


@pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor.*")  # torch's own, in compiling
def test_beside_a_compiled_part_the_rest_is_logged(caplog):
    module = built(Net)
    module.two = torch.compile(nn.Sequential(nn.Linear(10, 10), nn.ReLU()), backend="eager")
    with caplog.at_level("INFO"):
        trainer = fit(module, [ActivationMonitor(2)], batches(4))
    torch._dynamo.reset()
    assert {n for n in own(trainer)[1] if "std" in n} == {"activation_std/relu"}
    (message,) = said(caplog)
    assert "`two` is compiled" in message


def test_the_arguments_are_shown_and_cannot_be_changed():
    monitor = ActivationMonitor(10, exclude=["head.*"])
    assert repr(monitor) == "ActivationMonitor(every_n_steps=10, exclude=('head.*',))"
    assert eval(repr(monitor)).state_key == monitor.state_key
    assert (monitor.every_n_steps, monitor.window, monitor.include) == (10, 1000, ("*",))
    with pytest.raises(AttributeError):
        monitor.window = 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"every_n_steps": 0}, "every_n_steps"),
        ({"window": 0}, "window"),
        ({"include": "net.*"}, "include"),
        ({"exclude": "net.*"}, "exclude"),
    ],
)
def test_wrong_arguments_are_refused(arguments, name):
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be"):
        ActivationMonitor(**arguments)


def test_two_monitors_have_a_state_each(tmp_path):
    pair = [ActivationMonitor(2, include=["a*"]), ActivationMonitor(2, exclude=["a*"])]
    trainer = fit(built(Net), pair, batches(4))
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    assert pair[0].state_key != pair[1].state_key
    assert own(trainer)

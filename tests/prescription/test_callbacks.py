"""The callbacks by which cures reach a module: names survive, and what cannot be is refused."""

import copy

import pytest
import torch
from helpers.quiet import QUIET
from helpers.sick_programs import Classifier, make_loaders
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.prescription import (
    DropoutSettings,
    GroupNormForBatchNorm,
    NormBeforeActivations,
    OptimizerSettings,
    ReplaceModules,
    ResetNorms,
    SkipConnections,
    StandardizeInputs,
    StandardizeTargets,
)
from lightning_stab.prescription.norms import (
    NormedActivation,
    extreme_gain,
    extreme_shift,
    norm_for,
)
from lightning_stab.prescription.standardize import mean_and_std
from lightning_stab.prescription.surgery import SkipSequential, long_sequences

pytestmark = pytest.mark.filterwarnings("ignore")
nan, inf = float("nan"), float("inf")


class Net(LightningModule):
    """A module around a sequence, with an optimizer that is given."""

    def __init__(self, *layers, optimizer=torch.optim.SGD, lr=0.1, schedule=None, **settings):
        super().__init__()
        self.net, self.optimizer, self.schedule = nn.Sequential(*layers), optimizer, schedule
        self.settings = {"lr": lr, **settings}

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return functional.mse_loss(self(batch[0]).squeeze(-1), batch[1].float())

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters(), **self.settings)
        return [optimizer], [self.schedule(optimizer)] if self.schedule else []


def layers(*, width=8, depth=4):
    made = [nn.Linear(4, width), nn.ReLU()]
    for _ in range(depth - 1):
        made += [nn.Linear(width, width), nn.ReLU()]
    return [*made, nn.Linear(width, 1)]


def fitted(module, callback, data=None, **arguments):
    trainer = Trainer(**{**QUIET, "max_steps": 2, **arguments}, callbacks=callback)
    trainer.fit(module, make_loaders()[0] if data is None else data)
    return trainer


def test_norms_stand_before_the_hidden_activations_and_names_survive():
    module = Net(*layers())
    names = dict(module.named_parameters())
    fitted(module, NormBeforeActivations())
    now = dict(module.named_parameters())
    assert names.keys() < now.keys()
    assert all(now[name] is p for name, p in names.items())
    assert [type(layer).__name__ for layer in module.net] == [
        *["Linear", "NormedActivation"] * 4,
        "Linear",
    ]
    assert [type(part).__name__ for part in module.net[3]] == ["BatchNorm1d", "ReLU"]
    assert module.net[3][0].num_features == 8
    assert module.net[3][0].num_batches_tracked == 2  # trained with the rest
    fitted(module, NormBeforeActivations())
    assert len(module.net[3]) == 2  # once


@pytest.mark.parametrize(
    ("layer", "norm", "kind"),
    [
        (nn.Conv2d(4, 6, 1), "batch", nn.BatchNorm2d),
        (nn.Conv1d(4, 6, 1), "layer", nn.GroupNorm),
        (nn.Linear(4, 6), "layer", nn.LayerNorm),
    ],
)
def test_the_norm_fits_the_layer(layer, norm, kind):
    module = Net(layer, nn.ReLU(), copy.deepcopy(layer))
    NormBeforeActivations(norm).setup(Trainer(**QUIET), module, "test")
    assert isinstance(module.net[1], NormedActivation)
    assert isinstance(module.net[1][0], kind)


def test_what_has_a_norm_is_shared_or_ends_the_net_has_none_put_before_it():
    module = Net(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())
    with pytest.raises(ConflictError, match=r"needs activation modules .* Net has none"):
        NormBeforeActivations().setup(Trainer(**QUIET), module, "test")
    with pytest.raises(InvalidArgumentError, match="`norm` must be one of 'batch', 'layer'"):
        NormBeforeActivations("group")


def test_a_group_norm_takes_the_place_the_name_and_the_weights_of_a_batch_norm():
    module = Net(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.BatchNorm2d(7, affine=False))
    nn.init.constant_(module.net[1].weight, 2.0)
    weight = module.net[1].weight
    for _ in range(2):  # once
        GroupNormForBatchNorm().setup(Trainer(**QUIET), module, "test")
        assert [type(part) for part in module.net[1:]] == [nn.GroupNorm, nn.GroupNorm]
        assert [part.num_groups for part in module.net[1:]] == [6, 7]  # at most 8, evenly
    assert module.net[1].weight is weight
    x = torch.randn(3, 4)
    alone = module.net[:2](x[:1])
    assert torch.allclose(module.net[:2](x)[:1], alone, atol=1e-6)  # no other row is seen
    with pytest.raises(ConflictError, match=r"needs batch normalisation modules, and Net has none"):
        GroupNormForBatchNorm().setup(Trainer(**QUIET), Net(nn.Linear(1, 1)), "test")


def test_norms_start_as_usual_and_what_is_switched_off_stays_off(tmp_path):
    def program():
        module = Net(nn.Linear(4, 4), nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 1), lr=0.0)
        nn.init.constant_(module.net[1].weight, 300.0)
        nn.init.constant_(module.net[1].bias, 5.0)
        nn.init.zeros_(module.net[2].weight)
        return module

    module = program()
    assert extreme_gain(module) == 300.0
    assert extreme_gain(Net(nn.Linear(1, 1))) == 1.0
    assert extreme_shift(module) == 5.0
    assert extreme_shift(Net(nn.Linear(1, 1))) == 0.0
    fitted(module, ResetNorms())
    assert module.net[1].weight.tolist() == [1.0] * 4
    assert module.net[1].bias.tolist() == [0.0] * 4
    assert not module.net[2].weight.any()
    with pytest.raises(ConflictError, match="needs normalisation layers with a gain"):
        fitted(Net(nn.Linear(4, 1)), ResetNorms())
    trainer = fitted(program(), [])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed = program()
    Trainer(**QUIET, max_steps=3, callbacks=ResetNorms()).fit(
        resumed, make_loaders()[0], ckpt_path=tmp_path / "a.ckpt"
    )
    assert resumed.net[1].weight.tolist() == [300.0] * 4  # it goes on with its checkpoint


def test_skip_connections_add_what_entered_each_pair_of_layers():
    module = Net(*layers(depth=5))
    names, x = list(module.state_dict()), torch.randn(3, 4)
    parts = list(module.net)
    SkipConnections().setup(Trainer(**QUIET), module, "test")
    assert isinstance(module.net, SkipSequential)
    assert list(module.state_dict()) == names
    z = x
    for layer in parts[:4]:
        z = layer(z)
    first = z  # no skip: the width has changed
    for layer in parts[4:8]:
        z = layer(z)
    second = z + first
    z = second
    for layer in parts[8:]:
        z = layer(z)
    assert torch.equal(module(x), z)
    short = Net(*layers(depth=2))
    with pytest.raises(ConflictError, match="at least 4 weight layers"):
        SkipConnections().setup(Trainer(**QUIET), short, "test")


def test_modules_are_replaced_by_class_and_by_name():
    module = Net(*layers(), nn.Sigmoid())
    callback = ReplaceModules({"ReLU": "LeakyReLU", "net.9": "Identity"})
    fitted(module, callback)
    assert sum(isinstance(m, nn.LeakyReLU) for m in module.modules()) == 4
    assert isinstance(module.net[9], nn.Identity)
    fitted(module, callback)  # what has been replaced stays
    with pytest.raises(ConflictError, match="must name modules or classes of Net, got 'GELU'"):
        fitted(module, ReplaceModules({"GELU": "SiLU"}))
    with pytest.raises(InvalidArgumentError, match=r"must be a class of torch.nn .* got 'Leaky'"):
        ReplaceModules({"ReLU": "Leaky"})


def test_dropout_is_lowered_wherever_it_is():
    module = Net(nn.Dropout(0.9), nn.Dropout2d(0.05), nn.AlphaDropout(0.6))
    module.rnn = nn.LSTM(2, 2, 2, dropout=0.7)
    module.attention = nn.MultiheadAttention(2, 1, dropout=0.8)
    for _ in range(2):  # what has been lowered stays
        DropoutSettings(0.1).setup(Trainer(**QUIET), module, "test")
        assert [part.p for part in module.net] == [0.1, 0.05, 0.1]
        assert (module.rnn.dropout, module.attention.dropout) == (0.1, 0.1)
    with pytest.raises(ConflictError, match="needs dropout layers, and Net has none"):
        DropoutSettings(0.1).setup(Trainer(**QUIET), Net(nn.Linear(1, 1)), "test")
    with pytest.raises(InvalidArgumentError, match="`p` must be"):
        DropoutSettings(1.0)


def halve(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def test_the_numbers_of_the_optimizer_are_set_and_schedules_follow():
    module = Net(*layers(), momentum=0.99, weight_decay=10.0, schedule=halve)
    settings = OptimizerSettings(learning_rate=0.01, momentum=0.9, weight_decay=0.0)
    trainer = fitted(module, settings, max_steps=-1, max_epochs=2)
    group = trainer.optimizers[0].param_groups[0]
    assert group["lr"] == pytest.approx(0.01 * 0.25)
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.0)
    module = Net(*layers(), momentum=0.8, weight_decay=0.5)
    group = fitted(module, OptimizerSettings(learning_rate=0.01)).optimizers[0].param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.8, 0.5)  # what is not named stays
    module = Net(*layers(), optimizer=torch.optim.Adam, betas=(0.99, 0.999))
    group = fitted(module, OptimizerSettings(momentum=0.5)).optimizers[0].param_groups[0]
    assert (group["betas"], group["lr"]) == ((0.5, 0.999), 0.1)
    with pytest.raises(InvalidArgumentError, match="`learning_rate` must be > 0"):
        OptimizerSettings(0.0)


def raw_data(rows=64, **scale):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, generator=generator) * torch.tensor([1.0, 100.0, 0.01, 0.0]) + 5
    return DataLoader(TensorDataset(x, x[:, 0] * 1000 + 300), batch_size=16)


def test_inputs_are_standardised_inside_the_first_layer():
    module, data = Net(*layers(), lr=1e-9), raw_data()
    names = [name for name, _ in module.named_parameters()]
    fitted(module, StandardizeInputs(), data)
    x = data.dataset.tensors[0]
    layer = module.net[0]
    seen = (x - layer.input_mean) / layer.input_std
    assert torch.allclose(seen.mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(seen.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-4)
    assert torch.allclose(layer(x), functional.linear(seen, layer.weight, layer.bias), atol=1e-6)
    assert [name for name, _ in module.named_parameters()] == names
    assert {"net.0.input_mean", "net.0.input_std"} <= module.state_dict().keys()


def test_targets_are_learnt_standardised_and_predicted_in_their_units():
    module, data = Net(nn.Linear(4, 1), lr=0.1), raw_data()
    x, y = data.dataset.tensors
    callbacks = [StandardizeInputs(), StandardizeTargets("net.0")]
    with pytest.raises(ConflictError, match="needs a linear output layer"):
        fitted(Net(nn.Linear(4, 1)), callbacks, data)
    module = Net(nn.Linear(4, 8), nn.Linear(8, 1), lr=0.05)
    fitted(module, [StandardizeInputs(), StandardizeTargets()], data, max_steps=200)
    error = (module(x).squeeze() - y).std() / y.std()
    assert error < 0.1  # with plain SGD, and targets of thousands
    assert module.net[1].target_mean.item() == pytest.approx(y.mean().item(), rel=1e-5)


def test_mean_and_deviation_by_hand():
    rows = torch.tensor([[1.0, 5.0, nan, 0.0], [3.0, 5.0, 4.0, 0.0], [inf, 5.0, 4.0, 0.0]])
    mean, std = mean_and_std(rows, [0])
    assert mean.tolist() == [[2.0, 5.0, 4.0, 0.0]]
    assert std.tolist() == [[1.0, 1.0, 1.0, 1.0]]  # what is constant has 1
    rare = torch.zeros(1000, 1)
    rare[0] = 1000.0  # 999 from the mean of 1, and a deviation of 31.6
    assert mean_and_std(rare, [0])[1].item() == pytest.approx(99.9)
    assert mean_and_std(torch.full((3, 1), nan), [0])[0].item() == 0.0


@pytest.mark.parametrize(
    ("layer", "x", "dims", "shape"),
    [
        (nn.Linear(4, 1), torch.randn(32, 4), (0,), (4,)),
        (nn.Linear(4, 1), torch.randn(32, 3, 4), (0, 1), (4,)),  # a sequence: each feature once
        (nn.Linear(12, 1), torch.randn(32, 3, 4), (0,), (12,)),  # flattened by the module
        (nn.Linear(8, 1), torch.randn(32, 2, 2, 2), (0,), (8,)),
        (nn.Conv1d(3, 1, 2), torch.randn(32, 3, 4), (0, 2), (3, 1)),
        (nn.Conv2d(3, 1, 2), torch.randn(32, 3, 4, 4), (0, 2, 3), (3, 1, 1)),
        (nn.Conv3d(3, 1, 2), torch.randn(32, 3, 4, 4, 4), (0, 2, 3, 4), (3, 1, 1, 1)),
    ],
)
def test_each_feature_or_channel_is_measured_over_all_the_rest(layer, x, dims, shape):
    x = x * 3 + 2
    flat = isinstance(layer, nn.Linear) and x.shape[-1] != layer.in_features
    net = Net(*[nn.Flatten()] * flat, layer, nn.Flatten(), nn.LazyLinear(1))
    data = DataLoader(TensorDataset(x, torch.zeros(32)), batch_size=8)
    net(x)  # makes the lazy layer
    fitted(net, StandardizeInputs(), data)
    seen = x.flatten(1) if flat else x
    assert layer.input_mean.shape == layer.input_std.shape == shape
    assert torch.allclose(layer.input_mean.flatten(), seen.mean(dims), atol=1e-5)
    assert torch.allclose(layer.input_std.flatten(), seen.std(dims, correction=0), atol=1e-5)
    plain = copy.deepcopy(layer)
    plain.__class__ = type(layer).__bases__[-1]  # the class of torch
    expected = plain((seen - layer.input_mean) / layer.input_std)
    assert torch.allclose(layer(seen), expected, atol=1e-5)


class Recurrent(LightningModule):
    """A recurrent layer and a reading of its last state; packed sequences, if wanted."""

    def __init__(self, kind, *, packed=False):
        super().__init__()
        self.over_time, self.read, self.packed = (
            kind(3, 5, batch_first=True),
            nn.Linear(5, 1),
            packed,
        )

    def forward(self, x):
        if self.packed:
            lengths = [x.shape[1]] * len(x)
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        _, last = self.over_time(x)
        return self.read((last[0] if isinstance(last, tuple) else last)[-1])

    def training_step(self, batch, batch_idx):
        return functional.mse_loss(self(batch[0]).squeeze(-1), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_recurrent_layer_standardises_its_inputs_at_every_time_step(kind, packed):
    module = Recurrent(kind, packed=packed)
    x = torch.randn(32, 6, 3) * torch.tensor([1.0, 100.0, 1e4]) + 50
    names = [name for name, _ in module.named_parameters()]
    fitted(module, StandardizeInputs(), DataLoader(TensorDataset(x, torch.zeros(32)), batch_size=8))
    layer = module.over_time
    assert torch.allclose(layer.input_mean, x.mean((0, 1)), rtol=1e-4)
    assert torch.allclose(layer.input_std, x.std((0, 1), correction=0), rtol=1e-4)
    assert [name for name, _ in module.named_parameters()] == names
    plain = copy.deepcopy(module)
    plain.over_time.__class__ = kind
    expected = plain((x - layer.input_mean) / layer.input_std)
    assert torch.allclose(module(x), expected, atol=1e-5)
    assert not torch.allclose(plain(x), expected, atol=1e-2)
    start = torch.zeros(1, 32, 5)
    first = (start, start) if kind is nn.LSTM else start
    assert torch.allclose(layer(x, first)[0], layer(x)[0])  # what else it is given comes through


def test_a_rescaled_layers_gradient_is_that_of_standardised_targets():
    net, y = Net(nn.Linear(4, 8), nn.Linear(8, 1)), torch.randn(64) * 1000 + 300
    x = torch.randn(64, 4)
    fitted(net, StandardizeTargets(), DataLoader(TensorDataset(x, y), batch_size=64), max_steps=1)
    layer = net.net[1]
    mean, std = y.mean(), y.std(correction=0)
    assert layer.target_mean.tolist() == pytest.approx([mean.item()], rel=1e-5)
    assert layer.target_std.tolist() == pytest.approx([std.item()], rel=1e-5)
    hidden = torch.randn(64, 8)
    plain = functional.linear(hidden, layer.weight, layer.bias)
    assert torch.allclose(layer(hidden), plain * std + mean, rtol=1e-4)
    loss = functional.mse_loss(layer(hidden).squeeze(1), y)
    ours = torch.autograd.grad(loss, layer.weight)[0]
    standard = functional.mse_loss(plain.squeeze(1), (y - mean) / std)
    theirs = torch.autograd.grad(standard, layer.weight)[0]
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_targets_of_several_columns_are_standardised_each():
    y = torch.randn(64, 2) * torch.tensor([1.0, 100.0]) + 7
    net = Net(nn.Linear(4, 8), nn.Linear(8, 2))
    data = DataLoader(TensorDataset(torch.randn(64, 4), y), batch_size=8)
    fitted(net, StandardizeTargets(), data)
    assert torch.allclose(net.net[1].target_std, y.std(0, correction=0), rtol=1e-4)


def test_at_most_ten_thousand_rows_are_read_evenly_spread():
    read = []

    class Counted(TensorDataset):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    data = DataLoader(Counted(torch.randn(20_001, 4), torch.zeros(20_001)), batch_size=8)
    net = Net(nn.Linear(4, 1))
    fitted(net, StandardizeInputs(), data, max_steps=1)
    assert read[:10_001] == list(range(0, 20_001, 2))


@pytest.mark.parametrize(("layer", "norm", "kind"), [
    (nn.Conv1d(4, 6, 1), "batch", nn.BatchNorm1d), (nn.Conv3d(4, 6, 1), "batch", nn.BatchNorm3d),
    (nn.ConvTranspose2d(4, 6, 1), "batch", nn.BatchNorm2d),
    (nn.Linear(4, 6), "batch", nn.BatchNorm1d),
])  # fmt: skip
def test_a_norm_has_the_width_and_the_dimensions_of_its_layer(layer, norm, kind):
    made = norm_for(layer, norm)
    assert type(made) is kind
    assert made.num_features == 6
    assert norm_for(nn.Conv2d(4, 6, 1), "layer").num_groups == 1


def test_long_sequences_have_four_weight_layers_and_are_plain():
    nets = nn.ModuleDict({
        "three": nn.Sequential(*[nn.Linear(2, 2)] * 3),
        "four": nn.Sequential(*[nn.Linear(2, 2)] * 4),
        "nested": nn.Sequential(nn.Sequential(*[nn.Linear(2, 2)] * 2), nn.Linear(2, 2)),
        "list": nn.ModuleList([nn.Linear(2, 2)] * 5),
    })  # fmt: skip
    assert long_sequences(nets) == ["four"]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_skip_stands_around_every_so_many_layers(every):
    parts = [nn.Linear(3, 3) for _ in range(7)]
    x = torch.randn(2, 3)
    kept, z = None, x
    for place, part in enumerate(parts):
        if place % every == 0:
            z = z if kept is None else z + kept
            kept = z
        z = part(z)
    assert torch.allclose(SkipSequential(nn.Sequential(*parts), every)(x), z)


def test_settings_are_those_of_the_first_group_and_scale_the_others():
    class Two(Net):
        def configure_optimizers(self):
            first, *rest = self.net.parameters()
            groups = [{"params": [first], "lr": 0.1}, {"params": rest, "lr": 0.3,
                                                       "weight_decay": 0.0}]  # fmt: skip
            return torch.optim.SGD(groups, weight_decay=0.5)

    trainer = fitted(Two(*layers()), OptimizerSettings(0.05, weight_decay=0.25, momentum=0.5))
    groups = trainer.optimizers[0].param_groups
    assert [g["lr"] for g in groups] == pytest.approx([0.05, 0.15])
    assert [g["weight_decay"] for g in groups] == [0.25, 0.0]  # only where there is any
    assert [g["momentum"] for g in groups] == [0.5, 0.5]
    for wrong in ({"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -0.1}):
        with pytest.raises(InvalidArgumentError):
            OptimizerSettings(**wrong)
    OptimizerSettings(momentum=0.0, weight_decay=0.0)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(4), torch.zeros(()))] * 64)


@pytest.mark.parametrize(
    ("module", "callback", "data", "sentence"),
    [
        (Net(*layers()), StandardizeInputs(), DataLoader(Stream(), 8), "dataset with an index"),
        (Net(nn.Embedding(9, 4)), StandardizeInputs(), None, "needs a linear, convolution or"),
        (Net(*layers()), StandardizeTargets(), None, "needs targets that are real numbers"),
        (Net(*layers()), StandardizeInputs("net.2"), None, "needs inputs of 8 features"),
    ],
)
def test_what_cannot_be_standardised_is_refused(module, callback, data, sentence):
    with pytest.raises(ConflictError, match=sentence):
        fitted(module, callback, data)


def test_a_checkpoint_of_a_changed_module_goes_on(tmp_path):
    def callbacks():
        return [NormBeforeActivations(), StandardizeInputs(), OptimizerSettings(0.02)]

    trainer = fitted(Classifier(sick=False), callbacks(), max_steps=4)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    module = Classifier(sick=False)
    again = Trainer(**QUIET, max_steps=8, callbacks=callbacks())
    again.fit(module, make_loaders()[0], ckpt_path=tmp_path / "x.ckpt")
    assert again.global_step == 8
    mean = torch.load(tmp_path / "x.ckpt")["state_dict"]["net.0.input_mean"]
    assert torch.equal(module.net[0].input_mean, mean)

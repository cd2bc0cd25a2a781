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
    NormBeforeActivations,
    OptimizerSettings,
    ReplaceModules,
    SkipConnections,
    StandardizeInputs,
    StandardizeTargets,
)
from lightning_stab.prescription.surgery import NormedActivation, SkipSequential

pytestmark = pytest.mark.filterwarnings("ignore")


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


def halve(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def test_the_numbers_of_the_optimizer_are_set_and_schedules_follow():
    module = Net(*layers(), momentum=0.99, weight_decay=10.0, schedule=halve)
    settings = OptimizerSettings(learning_rate=0.01, momentum=0.9, weight_decay=0.0)
    trainer = fitted(module, settings, max_steps=-1, max_epochs=2)
    group = trainer.optimizers[0].param_groups[0]
    assert group["lr"] == pytest.approx(0.01 * 0.25)
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.0)
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


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(4), torch.zeros(()))] * 64)


@pytest.mark.parametrize(
    ("module", "callback", "data", "sentence"),
    [
        (Net(*layers()), StandardizeInputs(), DataLoader(Stream(), 8), "dataset with an index"),
        (Net(nn.Embedding(9, 4)), StandardizeInputs(), None, "needs a linear layer"),
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

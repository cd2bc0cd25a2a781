"""Small training programs for the tests of the doctor: faulty, healthy and odd ones."""

import itertools
from functools import partial

import lightning.pytorch as lightning
import torch
from helpers.lightning_twins import fit
from torch import nn
from torch.nn import functional
from torch.overrides import _len_torch_function_stack
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab import TrainingDoctor

FEATURES, CLASSES = 8, 3
ADAM = partial(torch.optim.Adam, lr=3e-3)


class Program(lightning.LightningModule):
    """A network, a loss and an optimizer."""

    def __init__(self, net, loss=functional.cross_entropy, optimizer=ADAM):
        super().__init__()
        self.net = net
        self.loss = loss
        self.optimizer = optimizer

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self(x), y)

    def configure_optimizers(self):
        return self.optimizer([p for p in self.parameters() if p.requires_grad])


def mlp(depth=2, width=16, activation=nn.ReLU, outputs=CLASSES):
    """Return a network of ``depth`` weight layers."""
    sizes = [FEATURES, *[width] * (depth - 1)]
    layers = [part for a, b in itertools.pairwise(sizes)
              for part in (nn.Linear(a, b), activation())]  # fmt: skip
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def initialized(net, change):
    """Return the network with ``change`` applied to each of its weight layers."""
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                change(layer)
    return net


def loader(x, y, size=16, shuffle=False):
    """Return batches of samples."""
    return DataLoader(TensorDataset(x, y), batch_size=size, shuffle=shuffle)


def samples(num=320, seed=0):
    """Return standard normal features and the class that a linear map gives them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, FEATURES, generator=generator)
    teacher = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(99))
    return x, (x @ teacher).argmax(1)


def learnable(num=320, size=16, seed=0):
    """Return batches that a small network learns in a few epochs."""
    return loader(*samples(num, seed), size)


def hopeless(num=320, size=16, seed=0):
    """Return batches whose classes have nothing to do with the features."""
    generator = torch.Generator().manual_seed(seed + 1)
    return loader(samples(num, seed)[0], torch.randint(CLASSES, (num,), generator=generator), size)


def numbers(num=320, size=16, scale=1.0, offset=0.0):
    """Return batches of a regression with one target, a linear map of the features."""
    x, _ = samples(num)
    return loader(x, scale * x[:, :2].mean(1, keepdim=True) + offset, size)


def doctor(every_n_steps=5, **arguments):
    """Return a doctor that samples many steps, prints nothing, and lets runs be short."""
    own = {"print_findings": False, "every_n_steps": every_n_steps, "ignore": ["too-short"]}
    return TrainingDoctor(**{**own, **arguments})


def examined(program, data=None, epochs=1, *, callbacks=(), watcher=None, **trainer_arguments):
    """Fit with a doctor; return its findings."""
    watcher = watcher or doctor()
    data = learnable() if data is None else data
    fit(program, [*callbacks, watcher], data, epochs=epochs, **trainer_arguments)
    return watcher.findings


def ids(findings):
    """Return the ids of findings."""
    return {finding.id for finding in findings}


def alarms(findings):
    """Return the ids of warnings and errors."""
    return {finding.id for finding in findings if finding.is_alarm}


def modes_left():
    """Return how many torch function modes are on."""
    return _len_torch_function_stack()

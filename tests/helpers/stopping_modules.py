"""Tiny modules and runs for the tests of stopping and decay."""

import torch
from helpers.quiet import QUIET
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def data(samples=16, batch_size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size)


def trainer(*callbacks, **settings):
    own = {"devices": 1, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    return Trainer(callbacks=list(callbacks), **{**QUIET, **own, **settings})


class Regression(LightningModule):
    """A linear map with BatchNorm, trained by SGD, that remembers its weights at each validation.

    Args:
        values: what validation n logs as ``val_loss``; a mapping logs each of its metrics.
    """

    def __init__(self, *values, lr=0.05):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.values = values
        self.lr = lr
        self.validated = []
        self.rates = []

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        self.seen += 1
        loss = nn.functional.mse_loss(self.net(inputs), targets)
        self.log("train_loss", loss, on_step=True, on_epoch=False)
        return loss

    def on_train_batch_start(self, batch, batch_idx):
        self.rates.append([g["lr"] for o in self.trainer.optimizers for g in o.param_groups])

    def validation_step(self, batch, batch_idx):
        return None

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.validated.append(tensors(self))
            value = self.values[min(len(self.validated), len(self.values)) - 1]
            logged = value if isinstance(value, dict) else {"val_loss": value}
            for name, number in logged.items():
                self.log(name, torch.tensor(float(number)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def tensors(module):
    """Return a copy of every parameter and buffer, those outside the state dict too."""
    both = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in both}


def same(one, other):
    """Say whether two sets of tensors are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def fit(values, *callbacks, ckpt_path=None, module=None, **settings):
    """Fit a module that logs ``values``, one per epoch unless told otherwise; return both."""
    settings = {"max_epochs": len(values), **settings}
    run = trainer(*callbacks, **settings)
    module = Regression(*values) if module is None else module
    run.fit(module, data(), data(), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return run, module


class SaveSteps(Checkpoint):
    """Saves a checkpoint after every step but the last of an epoch, and after every epoch.

    After the last step Lightning would resume behind the validation and the end of the epoch.
    """

    def __init__(self, folder, steps_per_epoch):
        self.folder, self.last = folder, steps_per_epoch - 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx < self.last:
            self.save(trainer)

    def on_train_epoch_end(self, trainer, pl_module):
        self.save(trainer)

    def save(self, trainer):
        path = self.folder / f"{trainer.global_step}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)


class SaveEpochs(Checkpoint):
    """Saves a checkpoint at the end of every epoch; it has no state of its own."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_end(self, trainer, pl_module):
        path = self.folder / f"epoch={trainer.current_epoch}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)


class Replays:
    """A loader that goes on where it was: what a resume in mid-epoch needs."""

    def __init__(self, batches):
        self.batches, self.at = list(batches), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.at %= len(self.batches)
        while self.at < len(self.batches):
            self.at += 1
            yield self.batches[self.at - 1]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]

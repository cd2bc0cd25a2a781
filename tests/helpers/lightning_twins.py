"""Small modules, data and fits for the tests of the gradient callbacks, made to be compared.

A twin is the same module, seed and data, trained once with a callback and once without.
"""

import warnings
from functools import partial

import lightning.pytorch as lightning
import torch
from helpers.quiet import QUIET
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=1e-2),
    "adamw_fused": partial(torch.optim.AdamW, lr=1e-2, fused=True),
    "lbfgs": partial(torch.optim.LBFGS, lr=0.1, max_iter=4),
}


class RecordingLogger(Logger):
    """Keeps everything that it is given, by step."""

    name, version = "recording", 0

    def __init__(self):
        super().__init__()
        self.steps = {}

    def log_metrics(self, metrics, step=None):
        self.steps.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, *_, **__):
        pass

    @property
    def latest(self):
        """The newest value of each name."""
        return {n: v for _, values in sorted(self.steps.items()) for n, v in values.items()}


class Classifier(lightning.LightningModule):
    """Linear, batch norm, ReLU, linear; logs its loss and keeps every loss it has seen."""

    def __init__(self, optimizer="sgd", *, batch_norm=True, scheduler=None, dropout=0.0, logs=True):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 16),
            nn.BatchNorm1d(16) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(16, 3),
        )
        self.optimizer_name = optimizer
        self.scheduler = scheduler
        self.logs = logs
        self.losses = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        if self.logs:  # `self.log` does not compile
            self.log("loss", loss, on_step=True, on_epoch=True)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self):
        optimizer = OPTIMIZERS[self.optimizer_name](self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "monitor": "loss_step"},
        }


class SmallGAN(lightning.LightningModule):
    """Two optimizers under manual optimisation; the generator's output layer is declared first."""

    def __init__(self, gradient_clip=None):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
        self.discriminator = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 1))
        self.gradient_clip = gradient_clip
        self.losses = []

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        x, _ = batch
        noise = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(batch_idx))
        truth = nn.functional.binary_cross_entropy_with_logits
        self.step(
            second,
            truth(self.discriminator(x), torch.ones(len(x), 1))
            + truth(self.discriminator(self.generator(noise).detach()), torch.zeros(len(x), 1)),
            self.discriminator,
        )
        fake = self.discriminator(self.generator(noise))
        self.step(first, truth(fake, torch.ones(len(x), 1)), self.generator)

    def step(self, optimizer, loss, part):
        self.losses.append(loss.detach())
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(part.parameters(), self.gradient_clip)
        optimizer.step()

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.generator.parameters(), 1e-2),
            torch.optim.Adam(self.discriminator.parameters(), 1e-2),
        ]


def batches(num=12, *, poison=(), kind=float("nan"), drop=(), size=16):
    """Random batches; those of ``poison`` hold ``kind``, those of ``drop`` are left out."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, size, 8, generator=generator)
    y = torch.randint(3, (num, size), generator=generator)
    for place in poison:
        x[place, 0, 0] = kind
    kept = [i for i in range(num) if i not in drop]
    return DataLoader(TensorDataset(x[kept], y[kept]), batch_size=None)


def fit(module, callbacks=(), data=None, *, epochs=1, ckpt_path=None, seed=1, **trainer_arguments):
    """Fit from a fixed seed, recorded and without files unless asked; return the Trainer."""
    own = {"max_epochs": epochs, "num_sanity_val_steps": 0, "logger": RecordingLogger()}
    arguments = {**QUIET, **own, **trainer_arguments}
    trainer = lightning.Trainer(callbacks=list(callbacks), **arguments)
    torch.manual_seed(seed)
    trainer.fit(module, batches() if data is None else data, ckpt_path=ckpt_path)
    return trainer


def built(kind=Classifier, *args, seed=0, **arguments):
    """Return a module with the weights of a seed."""
    torch.manual_seed(seed)
    return kind(*args, **arguments)


def half_precision():
    """The plugin for float16 with a loss scaler, which Lightning builds for no CPU by itself."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MixedPrecision("16-mixed", "cpu", scaler)

"""Small modules, data and fits for the tests of the gradient callbacks, made to be compared.

A twin is the same module, seed and data, trained once with a callback and once without.
"""

import warnings
from functools import partial
from itertools import chain

import lightning.pytorch as lightning
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
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
    quiet = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": RecordingLogger(),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    trainer = lightning.Trainer(callbacks=list(callbacks), **{**quiet, **trainer_arguments})
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


def optimizer_tensors(trainer):
    """Yield every tensor in the states of the Trainer's optimizers, in order."""
    for optimizer in trainer.optimizers:
        for state in optimizer.state_dict()["state"].values():
            yield from tensors_in(state)


def tensors_in(value):
    """Yield the tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def same_state(first, second):
    """Say whether two modules hold the same parameters and buffers, bit for bit."""
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def same_optimizers(first, second):
    """Say whether two Trainers' optimizers hold the same states, bit for bit."""
    a, b = list(optimizer_tensors(first)), list(optimizer_tensors(second))
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def all_finite(module, trainer):
    """Say whether no weight, buffer or optimizer state is NaN or infinite."""
    everything = chain(module.state_dict().values(), optimizer_tensors(trainer))
    return all(bool(torch.isfinite(t).all()) for t in everything)


def hooks_of(module):
    """Return every forward, backward and tensor hook that is left on the module."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    left = [hook for m in module.modules() for kind in kinds for hook in getattr(m, kind).values()]
    return left + [hook for p in module.parameters() for hook in (p._backward_hooks or {}).values()]


def events(folder):
    """Return the scalars of a log folder, by tag, as lists of (step, value)."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {t: [(e.step, e.value) for e in accumulator.Scalars(t)] for t in tags["scalars"]}
    return scalars, tags


def packed_events(folder, prefix):
    """Return for each event that holds a tag of this prefix its step and all its tags."""
    found = []
    for path in sorted(folder.rglob("events*")):
        for event in EventFileLoader(str(path)).Load():
            names = [value.tag for value in event.summary.value]
            if any(name.startswith(prefix) for name in names):
                found.append((event.step, names))
    return found

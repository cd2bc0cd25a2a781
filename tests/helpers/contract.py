"""Every callback of the suite, found, and the small fits to which the contract holds it."""

import contextlib
import functools
import inspect
import logging
import math
import random
import signal
import sys
import threading
import warnings
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import torch
from helpers.comparing import hooks_of, optimizer_tensors
from helpers.quiet import QUIET
from torch import nn
from torch.utils._pytree import tree_flatten
from torch.utils.data import DataLoader, TensorDataset

import lightning_stab.callbacks

WITHOUT_DEFAULT = {"monitor": "val_loss"}  # what a constructor asks for


def maker(kind):
    """Return a function that makes a callback with nothing but what it must be given."""
    parameters = inspect.signature(kind).parameters.values()
    needed = {p.name: WITHOUT_DEFAULT[p.name] for p in parameters if p.default is p.empty}
    return functools.partial(kind, **needed)


KINDS = {name: getattr(lightning_stab.callbacks, name) for name in lightning_stab.callbacks.__all__}
CALLBACKS = {name: maker(kind) for name, kind in KINDS.items()}
BUSY = {  # settings under which more is remembered, and agreed upon between ranks, than by default
    "ActivationMonitor": {"every_n_steps": 1},
    "GradientClipping": {"rule": "history"},
    "GradientMonitor": {"every_n_steps": 1},
    "LearningRateDecay": {
        "schedule": "plateau",
        "monitor": "val_loss",
        "patience": 1,
        "reload_best": True,
    },
}
# A healthy run beside them is the run without them.
NEUTRAL = [
    "ActivationMonitor",
    "GradientCheck",
    "GradientMonitor",
    "StepGuard",
    "TrainingDoctor",
]


class Net(lightning.LightningModule):
    """Linear, ReLU, linear; logs losses; its rate is what a finder changes.

    Args:
        event: called at each training step with its number, from 0; it may raise.
    """

    def __init__(self, event=lambda step: None):
        super().__init__()
        torch.manual_seed(0)
        self.lr, self.event, self.num_steps = 0.05, event, 0
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def loss(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        self.event(self.num_steps)
        self.num_steps += 1
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    def train_dataloader(self):
        return loader(4)

    def val_dataloader(self):
        return loader(2, seed=1)


def samples(num, seed=0):
    """Return separable data in batches of eight."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, 8, 4, generator=generator)
    return TensorDataset(x, x.abs()[..., :3].argmax(-1))


def loader(num, seed=0):
    """Return batches in order."""
    return DataLoader(samples(num, seed), batch_size=None)


def fit(callbacks, module=None, data=(), *, ckpt_path=None, trainer=None, **settings):
    """Fit two epochs from fixed seeds; return the Trainer, whose module is trained."""
    module = Net() if module is None else module
    usual = {**QUIET, "max_epochs": 2, "num_sanity_val_steps": 1, "log_every_n_steps": 1}
    trainer = trainer or lightning.Trainer(callbacks=list(callbacks), **{**usual, **settings})
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(1)
    trainer.fit(module, *data, ckpt_path=ckpt_path)
    return trainer


def end_of(trainer):
    """Return all that training has left behind: weights, states of the optimizers, counts."""
    weights = {name: t.clone() for name, t in trainer.lightning_module.state_dict().items()}
    states = [t.clone() for t in optimizer_tensors(trainer)]
    return {"weights": weights, "states": states, "steps": trainer.global_step}


def same(first, second):
    """Say whether two nested values are equal, tensors bit for bit, and NaN to itself."""
    (a, one), (b, other) = tree_flatten(first), tree_flatten(second)
    return one == other and all(_equal(x, y) for x, y in zip(a, b, strict=True))


def _equal(x, y):
    if isinstance(x, torch.Tensor):
        return isinstance(y, torch.Tensor) and torch.equal(x.nan_to_num(7), y.nan_to_num(7))
    both_nan = isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y)
    return type(x) is type(y) and (both_nan or x == y)


class Said(logging.Handler):
    """All that was said while it was open: warnings, Lightning's log, standard output."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    @property
    def text(self):
        return "\n".join(self.lines)


@contextlib.contextmanager
def hearing():
    """Collect what is said; what is said twice by one place is heard twice."""
    said, loggers = Said(), [logging.getLogger(n) for n in ("lightning.pytorch", "lightning_stab")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in loggers:
            each.addHandler(said)
            each.setLevel(logging.INFO)
        try:
            yield said
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.removeHandler(said)
                each.setLevel(level)
            said.lines += [str(each.message) for each in caught]


def process_state():
    """Return what a callback may not leave changed in the process, by name."""
    folder = Path("/proc/self/fd")
    return {
        "random numbers of torch": torch.get_rng_state(),
        "random numbers of Python": repr(random.getstate()),
        "random numbers of numpy": repr(np.random.get_state()),  # noqa: NPY002 - the global one is meant
        "threads": sorted(t.name for t in threading.enumerate()),
        "open files": len(list(folder.iterdir())) if folder.exists() else 0,
        "signal handlers": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "gradients": torch.is_grad_enabled(),
        "default type": str(torch.get_default_dtype()),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "modes": [
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
            torch.is_inference_mode_enabled(),
        ],
        "hooks of all modules": len(torch.nn.modules.module._global_forward_hooks)
        + len(torch.nn.modules.module._global_forward_pre_hooks)
        + len(torch.nn.modules.module._global_backward_hooks),
        "excepthook": repr(sys.excepthook),
    }


def hooks_left(module, optimizers):
    """Return every hook on a module, its tensors and its optimizers."""
    kinds = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    own = [hook for o in optimizers for kind in kinds for hook in getattr(o, kind).values()]
    late = [h for p in module.parameters() for h in p._post_accumulate_grad_hooks or ()]
    return hooks_of(module) + own + late

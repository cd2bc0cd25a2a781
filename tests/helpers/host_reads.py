"""Counting how often the host asks for a tensor's numbers: on a GPU, each time waits for it."""

import contextlib
import traceback
from collections import Counter, defaultdict

import lightning.pytorch as lightning
import torch
from torch.utils._python_dispatch import TorchDispatchMode

READING = {
    "_local_scalar_dense",
    "allclose",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique",
}


class HostReads(TorchDispatchMode):
    """Counts, by training step and by the place in the code, what reads numbers on the host.

    ``numpy()`` is no such read: a tensor of a device refuses it, so it only meets copies that have
    arrived.
    """

    def __init__(self):
        super().__init__()
        self.step = None  # nothing is counted before the first one
        self.places = defaultdict(Counter)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.split("::")[-1] in READING:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self):
        if self.step is not None:
            frames = [f for f in traceback.extract_stack() if "host_reads" not in f.filename]
            ours = [f for f in frames if "lightning_stab" in f.filename] or frames
            self.places[self.step][f"{ours[-1].filename.split('/')[-1]}:{ours[-1].lineno}"] += 1

    def on(self, steps):
        """Return the reads of some steps, summed by place."""
        return sum((self.places[step] for step in steps), Counter())


@contextlib.contextmanager
def counting():
    """Count reads while a fit runs; `Steps` must be its first callback."""
    reads, kept = HostReads(), {}

    def counted(name):
        kept[name] = original = getattr(torch.Tensor, name)

        def call(self, *args, **kwargs):
            reads.note()
            return original(self, *args, **kwargs)

        return call

    for name in ("tolist", "cpu"):
        setattr(torch.Tensor, name, counted(name))
    try:
        with reads:
            yield reads
    finally:
        for name, original in kept.items():
            setattr(torch.Tensor, name, original)


class Steps(lightning.Callback):
    """Tells the count which step runs."""

    def __init__(self, reads):
        self.reads = reads

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.reads.step = trainer.fit_loop.epoch_loop._batches_that_stepped

    def on_train_end(self, trainer, pl_module):
        self.reads.step = None

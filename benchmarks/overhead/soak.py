"""Does a long run with everything attached stay as fast and as small as it begins?

    python -m benchmarks.overhead.soak --steps 100000 --json soak.json

A small net trains under all ten callbacks with a TensorBoard logger, and once more under none. For
each window of the run it prints the CPU time of a step, the memory of the process, the tensors
that are alive and the size of the event file. The first tenth warms up; growth is the change of
medians from the second quarter of the windows to the last one.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_stab as ls
from benchmarks._script import QUIET, parser, print_table, silence, write_json

WINDOWS = 40


class Net(LightningModule):
    """A net of three hidden layers that learns a noisy rule, so that it never quite converges."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [16, 64, 64, 64]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(64, 4))

    def loss(self, batch: list[Tensor]) -> Tensor:
        """Return the cross-entropy of a batch."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Log and return the loss."""
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the loss."""
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train by Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Windows(Callback):
    """Notes time, memory, live tensors and bytes of the event file, window by window."""

    def __init__(self, steps: int, folder: Path) -> None:
        self.length, self.folder = max(1, steps // WINDOWS), folder
        self.rows: list[dict[str, Any]] = []
        self._began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the first window."""
        self._began = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Close a window that is full, and begin the next one after what closing costs."""
        if trainer.global_step % self.length:
            return
        spent = time.process_time() - self._began
        files = self.folder.rglob("events.out.tfevents.*")
        self.rows.append(
            {
                "steps": trainer.global_step,
                "us_a_step": spent / self.length * 1e6,
                "memory_MiB": memory(),
                "tensors": sum(isinstance(o, Tensor) for o in gc.get_objects()),
                "events_MiB": sum(file.stat().st_size for file in files) / 2**20,
            }
        )
        self._began = time.process_time()


def memory() -> float:
    """Return the memory that the process has now, or its peak where that is not known, in MiB."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def everything() -> list[Callback]:
    """Return all callbacks, each as it is used, with a stopper that never stops."""
    return [
        ls.WeightInitialization(verbose=False),
        ls.GradientCheck(),
        ls.GradientMonitor(),
        ls.ActivationMonitor(),
        ls.GradientClipping("norm", 1.0),
        ls.StepGuard("skip"),
        ls.LearningRateDecay("exponential", gamma=0.9999),
        ls.BestWeightsEarlyStopping("val_loss", patience=10**9),
        ls.TrainingDoctor(),
        ls.StabilityReport(),
    ]


def watched(callbacks: list[Callback], steps: int) -> list[dict[str, Any]]:
    """Train for a number of steps, and return what each window noted."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2048, 16, generator=generator)
    noise = torch.randn(2048, generator=generator)
    classes = (inputs[:, 0] * inputs[:, 1] + noise).clamp(-1.9, 1.9).add(2).long()
    training = DataLoader(TensorDataset(inputs, classes), batch_size=16, shuffle=True)
    validation = DataLoader(TensorDataset(inputs[:256], classes[:256]), batch_size=256)
    with silence(), tempfile.TemporaryDirectory() as folder:
        seed_everything(0, verbose=False)
        noted = Windows(steps, Path(folder))
        logger = TensorBoardLogger(folder)
        settings = {**QUIET, "logger": logger, "max_steps": steps, "num_sanity_val_steps": 0}
        trainer = Trainer(**settings, max_epochs=-1, callbacks=[*callbacks, noted])
        trainer.fit(Net(), training, validation)
    return noted.rows


def growth(rows: list[dict[str, Any]], name: str) -> float:
    """Return how much the median of the last quarter is above that of the second one."""
    quarter = max(1, len(rows) // 4)
    early, late = rows[quarter : 2 * quarter] or rows, rows[-quarter:]
    return statistics.median(r[name] for r in late) - statistics.median(r[name] for r in early)


def summary(way: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one line for a run."""
    return {
        "way": way,
        "us_a_step": statistics.median(row["us_a_step"] for row in rows),
        "growth_us": growth(rows, "us_a_step"),
        "memory_MiB": rows[-1]["memory_MiB"],
        "growth_MiB": growth(rows, "memory_MiB"),
        "growth_of_tensors": growth(rows, "tensors"),
        "bytes_a_step": rows[-1]["events_MiB"] * 2**20 / rows[-1]["steps"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run both, print their windows and what has grown."""
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=100_000)
    given = options.parse_args(argv)
    steps = 400 if given.small else given.steps
    runs = {"nothing": watched([], steps), "everything": watched(everything(), steps)}
    for way, rows in runs.items():
        print_table(rows[:: max(1, len(rows) // 10)], way)
    lines = [summary(way, rows) for way, rows in runs.items()]
    print_table(lines, f"{steps} steps", width=110)
    write_json(given.json, {"steps": steps, "summary": lines, "windows": runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())

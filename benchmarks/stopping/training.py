"""The module and the Trainer of the benchmark, the same for every arm."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks._script import QUIET
from benchmarks.stopping.tasks import Split, Task

BATCH = 50


class Learner(LightningModule):
    """The task's net, trained by Adam without a schedule; it logs ``val_loss`` each epoch."""

    def __init__(self, task: Task, split: Split, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        outputs = 1 if task.metric == "R2" else int(split.train[1].max()) + 1
        self.net = task.net(split.train[0].shape[1], outputs)
        self.regression = task.metric == "R2"
        self.rate = task.rate
        self.val_losses: list[float] = []

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error or the cross-entropy."""
        outputs = self.net(inputs)
        if self.regression:
            return nn.functional.mse_loss(outputs.squeeze(1), targets)
        return nn.functional.cross_entropy(outputs, targets)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(*batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the loss of the whole validation part, which is one batch."""
        loss = self.loss(*batch)
        self.val_losses.append(float(loss))
        self.log("val_loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with a constant rate."""
        return torch.optim.Adam(self.parameters(), lr=self.rate)


class Epoch:
    """The number of the epoch, which Lightning tells every loader's sampler."""

    number = 0

    def set_epoch(self, number: int) -> None:
        """Take the number in."""
        self.number = number


class Batches:
    """A loader of shuffled batches that goes on where a checkpoint left it.

    The order of an epoch depends on the seed and on the Trainer's epoch alone: resuming from the
    end of an epoch, Lightning does not load a loader's state, so it must not hold the order.
    """

    def __init__(self, part: tuple[Tensor, Tensor], seed: int) -> None:
        self.part, self.seed = part, seed
        self.sampler = Epoch()
        self.at = 0

    def __len__(self) -> int:
        return max(1, len(self.part[0]) // BATCH)

    def __iter__(self) -> Any:
        self.at %= len(self)
        generator = torch.Generator().manual_seed(1_000 * self.seed + self.sampler.number)
        order = torch.randperm(len(self.part[0]), generator=generator)
        while self.at < len(self):
            chosen = order[self.at * BATCH : (self.at + 1) * BATCH]
            self.at += 1
            yield [tensor[chosen] for tensor in self.part]

    def state_dict(self) -> dict[str, int]:
        """Return the place within the epoch."""
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a place within the epoch."""
        self.at = state["at"]


def whole(part: tuple[Tensor, Tensor]) -> DataLoader[list[Tensor]]:
    """Return a loader of one batch with everything."""
    return DataLoader(TensorDataset(*part), batch_size=len(part[0]))


class CountingIO(TorchCheckpointIO):
    """Counts how often a checkpoint is written."""

    writes = 0

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write, and count."""
        self.writes += 1
        super().save_checkpoint(*args, **kwargs)


def make_trainer(folder: str, epochs: int, callbacks: list[Any], writes: CountingIO) -> Trainer:
    """Return the Trainer that every arm gets."""
    own = {
        "devices": 1,
        "max_epochs": epochs,
        "callbacks": callbacks,
        "plugins": [writes],
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**QUIET, **own})


def test_score(module: Learner, part: tuple[Tensor, Tensor]) -> float:
    """Return the accuracy or the share of explained variance on a part."""
    module.eval()
    with torch.no_grad():
        outputs = module.net(part[0])
    if not module.regression:
        return float((outputs.argmax(1) == part[1]).double().mean())
    rest = (outputs.squeeze(1) - part[1]).square().mean()
    return float(1 - rest / part[1].var(unbiased=False))

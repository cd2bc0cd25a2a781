"""Where the experiments run: one way to train, and to read back what TensorBoard got."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_stab import GradientMonitor
from lightning_stab.data import DigitsDataModule

T = TypeVar("T")


class LossRecorder(Callback):
    """Keep the loss of every training step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Append the loss of the step."""
        self.losses.append(float(outputs["loss"]))


@dataclass
class Run:
    """A finished training run."""

    trainer: Trainer
    folder: Path
    losses: list[float]
    _scalars: dict[str, list[float]] = field(default_factory=dict)

    def scalars(self, tag: str) -> list[float]:
        """Return the values that the event files hold for a tag, in the order of the steps."""
        if not self._scalars:
            events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0}).Reload()
            names = events.Tags()["scalars"]
            self._scalars = {name: [e.value for e in events.Scalars(name)] for name in names}
        return self._scalars[tag]

    def layers(self, section: str) -> dict[str, list[float]]:
        """Return the values of every tag ``section/<layer>``, by layer."""
        self.scalars(f"{section}/total" if section == "grad_norm" else "epoch")
        start = section + "/"
        return {k.removeprefix(start): v for k, v in self._scalars.items() if k.startswith(start)}


@dataclass(frozen=True)
class Lab:
    """The settings of the whole lesson."""

    out: Path
    small: bool

    def size(self, small: T, full: T) -> T:
        """Return the one that the lesson's size asks for."""
        return small if self.small else full

    def fit(
        self,
        claim: int,
        case: str,
        module: LightningModule,
        data: Any,
        callbacks: list[Callback] | None = None,
        **settings: Any,
    ) -> Run:
        """Train, with a TensorBoard run of its own, and return what happened."""
        recorder = LossRecorder()
        trainer = self.trainer(claim, case, [recorder, *(callbacks or [])], **settings)
        trainer.fit(module, data)
        for logger in trainer.loggers:
            logger.finalize("success")
        return Run(trainer, Path(trainer.log_dir or self.out), recorder.losses)

    def trainer(self, claim: int, case: str, callbacks: list[Callback], **settings: Any) -> Trainer:
        """Return a quiet Trainer that logs into ``runs/claim-<claim>/<case>``."""
        logger = TensorBoardLogger(self.out / "runs", name=f"claim-{claim}", version=case)
        return Trainer(
            accelerator="cpu",
            devices=1,
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **settings,
        )


def digits(**settings: Any) -> DigitsDataModule:
    """Return the handwritten digits, ready to use."""
    data = DigitsDataModule(**settings)
    data.setup()
    return data


def monitor(every_n_steps: int = 1) -> GradientMonitor:
    """Return a monitor that also measures the first step."""
    return GradientMonitor(every_n_steps=every_n_steps)


def seeded(make: type[T], seed: int = 0, **arguments: Any) -> T:
    """Return a module whose first weights depend on nothing but the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(**arguments)

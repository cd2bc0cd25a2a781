"""Who is timed: nothing, torch's own clipping, the suite, Lightning's way, and peers."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import grad_norm
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks._script import QUIET
from benchmarks.overhead.rounds import Contender
from lightning_stab import (
    ActivationMonitor,
    GradientClipping,
    GradientMonitor,
    StepGuard,
    TrainingDoctor,
)
from lightning_stab.callbacks.gradients.gradient_monitor import STATISTICS

NEVER = 10**9


class Subject(pl.LightningModule):
    """A net with a cross-entropy loss and Adam, that logs nothing by itself."""

    def __init__(self, net: nn.Module, *, logs_norms: bool = False) -> None:
        super().__init__()
        self.net = net
        self.logs_norms = logs_norms

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Log norms the way Lightning's documentation tells."""
        if self.logs_norms:
            self.log_dict(grad_norm(self.net, norm_type=2))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters())


class AtStep(pl.Callback):
    """Calls a function with the module right before the optimizer step."""

    def __init__(self, act: Callable[[nn.Module], Any]) -> None:
        self.act = act

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Call the function."""
        self.act(pl_module)


def contenders(make_net: Callable[[], nn.Module], batches: list[Tensor]) -> list[Contender]:
    """Return everyone who takes part, the two equal baselines first."""
    ways: list[tuple[str, Callable[[], list[Any]], dict[str, Any], int]] = [
        ("nothing", list, {}, 1),
        ("nothing, again (A/A)", list, {}, 1),
        ("torch clip_grad_norm_", lambda: [AtStep(_torch_clip)], {}, 1),
        ("clip + monitor + guard, not logging", _suite, {}, 1),
        ("GradientMonitor, default interval", lambda: [GradientMonitor()], {}, 50),
        ("ActivationMonitor, default interval", lambda: [ActivationMonitor()], {}, 200),
        ("GradientMonitor, norms every step", _monitor_every_step, {}, 1),
        ("GradientMonitor, all statistics every step", _all_statistics, {}, 1),
        ("TrainingDoctor, default interval", _doctor, {}, 200),
        ("Lightning grad_norm + log_dict", list, {"logs_norms": True}, 1),
        ("plain loop of .norm().item()", lambda: [AtStep(_plain_loop)], {}, 1),
    ]
    if importlib.util.find_spec("smartclip"):
        ways.append(("smartclip AutoClip", lambda: [AtStep(_smartclip())], {}, 1))
    if importlib.util.find_spec("wandb"):
        ways.append(("wandb.watch, every step", lambda: [_WandbWatch()], {}, 1))
    return [
        Contender(name, _fit(make_net, batches, callbacks, options), period)
        for name, callbacks, options, period in ways
    ]


def _fit(
    make_net: Callable[[], nn.Module],
    batches: list[Tensor],
    callbacks: Callable[[], list[Any]],
    options: dict[str, Any],
) -> Callable[[pl.Callback], None]:
    def fit(turn: pl.Callback) -> None:
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                max_epochs=-1,
                log_every_n_steps=1 if options else 50,
                callbacks=[turn, *callbacks()],
                **{**QUIET, "logger": TensorBoardLogger(folder)},
            )
            loader = DataLoader(TensorDataset(*batches), batch_size=None)
            trainer.fit(Subject(make_net(), **options), loader)

    return fit


def _suite() -> list[pl.Callback]:
    return [
        GradientMonitor(every_n_steps=NEVER, dense_steps=0),
        GradientClipping(every_n_steps=NEVER),
        StepGuard(on_nonfinite="skip"),
    ]


def _monitor_every_step() -> list[pl.Callback]:
    return [GradientMonitor(every_n_steps=1, dense_steps=0, statistics=())]


def _all_statistics() -> list[pl.Callback]:
    return [GradientMonitor(every_n_steps=1, statistics=STATISTICS)]


def _doctor() -> list[pl.Callback]:
    return [TrainingDoctor(print_findings=False)]


def _torch_clip(module: nn.Module) -> None:
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)


def _plain_loop(module: nn.Module) -> dict[str, float]:
    return {n: p.grad.norm().item() for n, p in module.named_parameters() if p.grad is not None}


def _smartclip() -> Callable[[nn.Module], None]:
    import smartclip

    clipper = smartclip.AutoClip()
    return lambda module: smartclip.apply(module.net, clipper)


class _WandbWatch(pl.Callback):
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        self.folder = tempfile.TemporaryDirectory()
        self.run = wandb.init(mode="offline", dir=Path(self.folder.name), project="overhead")
        self.run.watch(pl_module.net, log="gradients", log_freq=1)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.run.log({"step": trainer.global_step})

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.run.finish()
        self.folder.cleanup()

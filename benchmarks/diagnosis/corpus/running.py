"""Run one program with a real Lightning Trainer, and say how it ended."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from benchmarks._script import QUIET, silence
from benchmarks.diagnosis.corpus.families import FAMILIES
from benchmarks.diagnosis.corpus.optimization import freeze
from benchmarks.diagnosis.corpus.program import Program


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        metric: 0 to 1, higher is better: accuracy, R2, or a distance turned round.
        loss: the last epoch's mean training loss.
        finite: whether all weights are finite.
        orphans: trainable parameters that no optimizer holds, also of layers in a plain list.
        seconds: CPU seconds of the whole run.
    """

    metric: float
    loss: float
    finite: bool
    orphans: int
    seconds: float


def run(
    program: Program, seed: int, callbacks: Sequence[Callback] = (), **trainer_overrides: Any
) -> Outcome:
    """Train the program once and return its outcome; the callbacks watch the real training only."""
    began = time.process_time()
    settings = program.settings
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what a program's user would seed)
    with silence():
        setup = FAMILIES[program.architecture](settings)
        if epochs := settings.get("pretrained"):
            trainer_for(settings, max_epochs=epochs).fit(setup.module, setup.train, setup.val)
        for name in settings.get("reset", []):
            setup.module.get_submodule(name).reset_parameters()
        freeze(setup.module, settings.get("freeze", ["-"]))
        trainer = trainer_for(settings, callbacks=list(callbacks), **trainer_overrides)
        trainer.fit(setup.module, setup.train, setup.val)
    return outcome(setup.module, trainer, setup.metric, time.process_time() - began)


def trainer_for(settings: dict[str, Any], **overrides: Any) -> Trainer:
    """Return the program's Trainer."""
    arguments: dict[str, Any] = {
        "max_epochs": settings["epochs"],
        "accumulate_grad_batches": settings.get("accumulate", 1),
        "gradient_clip_val": settings.get("clip"),
        "devices": 1,
    }
    return Trainer(**{**QUIET, **arguments, **overrides})


def outcome(module: LightningModule, trainer: Trainer, metric: str, seconds: float) -> Outcome:
    """Read the outcome off a finished run."""
    logged = trainer.callback_metrics
    value = float(logged.get(metric, math.nan))
    held = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    own = [*module.parameters(), *(p for layer in in_lists(module) for p in layer.parameters())]
    return Outcome(
        metric=min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0,
        loss=float(logged.get("train_loss", math.nan)),
        finite=all(bool(torch.isfinite(p).all()) for p in module.parameters()),
        orphans=sum(p.requires_grad and id(p) not in held for p in own),
        seconds=seconds,
    )


def in_lists(module: nn.Module) -> list[nn.Module]:
    """Return the layers that are kept in plain lists, where torch does not find them."""
    kept = [value for m in module.modules() for value in vars(m).values()]
    return [
        x for value in kept if isinstance(value, list) for x in value if isinstance(x, nn.Module)
    ]

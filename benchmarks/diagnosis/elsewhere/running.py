"""Run one program under the doctor's eyes, and say how it ended and what was found."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks._script import QUIET, silence
from benchmarks.diagnosis.elsewhere.data import Rows, rows
from benchmarks.diagnosis.elsewhere.module import ElsewhereModule, Settings
from benchmarks.diagnosis.elsewhere.replay import RecordingDoctor, findings_of
from benchmarks.diagnosis.elsewhere.skill import skill

VARIATIONS: dict[str, dict[str, float]] = {  # of a run, beside another seed
    "batch": {"batch": 2.0},
    "long": {"epochs": 2.0},
}


def run(
    settings: Settings, seed: int, variation: str = ""
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train once; return skill, findings and seconds as plain values, and the facts.

    ``skill`` is 0 for what a constant prediction reaches on the validation rows and 1 for no error:
    of an accuracy (a - m) / (1 - m) with the share m of the commonest class, else R2.
    """
    began = time.process_time()
    varied = dict(settings)
    for name, factor in VARIATIONS.get(variation, {}).items():
        varied[name] = math.ceil(settings[name] * factor)
    torch.manual_seed(seed)
    doctor = RecordingDoctor(print_findings=False)
    with silence():
        data = changed(rows(settings["data"]), varied, seed)
        module = ElsewhereModule(data, varied)
        train, val = loaders(data, varied)
        batches, epochs = len(train), varied["epochs"]
        trainer = Trainer(
            **QUIET,
            max_epochs=epochs,
            gradient_clip_val=varied.get("clip"),
            accumulate_grad_batches=varied.get("accumulate", 1),
            check_val_every_n_epoch=max(1, epochs // 25),
            callbacks=[doctor],
        )
        failed = ""
        try:
            trainer.fit(module, train, val)
        except (RuntimeError, IndexError, ValueError) as error:  # what a broken program raises
            failed = f"{type(error).__name__}: {error}"[:200]
        reached = skill_of(module, data)
    row = {
        "skill": round(reached, 4),
        **findings_of(doctor),
        "failed": failed,
        "steps": batches * epochs,
        "seconds": round(time.process_time() - began, 2),
    }
    return row, doctor.moments


def changed(data: Rows, settings: Settings, seed: int) -> Rows:
    """Standardise the rows, or do what the settings say."""
    generator = torch.Generator().manual_seed(seed + 1000)
    x, y, val_x, val_y = data.x, data.y, data.val_x, data.val_y
    count = min(len(x), settings.get("rows", len(x)))
    x, y = x[:count], y[:count]
    if data.shape in ("table", "series") and settings.get("inputs") != "raw":
        mean = x.flatten(0, -2).mean(0)
        std = x.flatten(0, -2).std(0).clamp_min(1e-6)
        x, raw = (x - mean) / std, val_x
        val_x = raw if settings.get("val_raw") else (val_x - mean) / std
    if data.task == "numbers":
        mean, std = y.mean(0), y.std(0).clamp_min(1e-6)
        y, val_y = ((t - mean) / std * settings.get("targets", 1.0) for t in (y, val_y))
    if data.shape != "tokens":
        scale, offset = settings.get("scale", 1.0), settings.get("offset", 0.0)
        if settings.get("scale_of_each"):
            exponents = torch.linspace(0, 1, x.shape[-1])[
                torch.randperm(x.shape[-1], generator=generator)
            ]
            scale = scale**exponents
        x, val_x = (t * scale + offset for t in (x, val_x))
    y, val_y = changed_targets(y, val_y, data, settings, generator)
    bad = settings.get("bad_rows")
    if bad:
        where = torch.randperm(len(x), generator=generator)[: max(1, len(x) // 50)]
        x = x.clone()
        x[where] = math.nan if bad == "nan" else x[where] * bad
    return replace(data, x=x, y=y, val_x=val_x, val_y=val_y)


def changed_targets(
    y: Tensor, val_y: Tensor, data: Rows, settings: Settings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Shuffle targets, make them constant or noisy, or shift them, as the settings say."""
    if settings.get("shuffled"):
        y = y[torch.randperm(len(y), generator=generator)]
        val_y = val_y[torch.randperm(len(val_y), generator=generator)]
    if settings.get("constant"):
        y = y[:1].expand_as(y).clone()
    noise = settings.get("label_noise", 0.0)
    if noise:
        where = torch.rand(len(y), generator=generator) < noise
        y = torch.where(
            where.view(-1, *[1] * (y.dim() - 1)), y[torch.randperm(len(y), generator=generator)], y
        )
    return (y * 3 - 1, val_y) if settings.get("outside") else (y, val_y)


def loaders(data: Rows, settings: Settings) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the loaders of training and validation."""
    x, y = data.x, data.y
    if settings.get("sorted"):
        order = y.argsort() if y.dim() == 1 else y[:, 0].argsort()
        x, y = x[order], y[order]
    batch = min(settings["batch"], len(x))
    shuffled = not (settings.get("sorted") or settings.get("in_order"))
    # a last batch of one row is what batch normalisation cannot take
    last = len(x) % batch == 1 and len(x) > batch
    train = DataLoader(TensorDataset(x, y), batch, shuffle=shuffled, drop_last=last)
    return train, DataLoader(TensorDataset(data.val_x, data.val_y), 256)


@torch.no_grad()
def skill_of(module: ElsewhereModule, data: Rows) -> float:
    """Return how much better the net is than a constant prediction, in [0, 1]."""
    module.eval()
    z, y = module(data.val_x), data.val_y
    if module.task == "numbers":
        return skill("numbers", z, y)
    if module.task in ("binary", "labels"):
        return skill("labels", module.decided(z), y[:, None] if y.dim() == 1 else y)
    return skill("classes", z.argmax(-1), y)

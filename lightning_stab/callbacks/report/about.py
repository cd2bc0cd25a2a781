"""What a report says of the run beside its curves: callbacks, versions, hardware, the end."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of, inherits
from lightning_stab.callbacks._trainer.logging import num_steps
from lightning_stab.callbacks._trainer.step import first_group

PACKAGES = ("lightning-stab", "lightning", "torch", "torchmetrics", "numpy")
ROOMS = ("lightning_stab.callbacks.", "lightning_stab.prescription.")  # the suite's own callbacks


def own_callbacks(trainer: Trainer) -> list[Any]:
    """Return the suite's callbacks in a Trainer."""
    return [c for c in callbacks_of(trainer) if type(c).__module__.startswith(ROOMS)]


def about_run(trainer: Trainer) -> dict[str, Any]:
    """Return versions, hardware and settings, as plain values."""
    module = trainer.lightning_module
    device = module.device
    name = str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad and not _is_lazy(p))
    return {
        "versions": {"Python": platform.python_version(), **dict(_versions())},
        "hardware": {
            "device": name,
            "devices": trainer.num_devices * trainer.num_nodes,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "trainer": {
            "module": type(module).__name__,
            "trained parameters": f"{trained:,}",
            "precision": str(trainer.precision),
            "accumulated batches": trainer.accumulate_grad_batches,
            "optimizers": ", ".join(type(o).__name__ for o in trainer.optimizers),
        },
        "settings": settings(trainer),
    }


def settings(trainer: Trainer) -> dict[str, str | int | float | bool]:
    """Return what was set, as numbers and texts: rates, optimizer, the suite's options."""
    found: dict[str, str | int | float | bool] = {}
    for place, optimizer in enumerate(trainer.optimizers):
        end = f"_{place}" if len(trainer.optimizers) > 1 else ""
        found[f"optimizer{end}"] = type(optimizer).__name__
        group = first_group([optimizer])
        if group.get("lr") is not None:
            found[f"learning_rate{end}"] = float(group["lr"])
        found[f"weight_decay{end}"] = float(group.get("weight_decay", 0.0))
    found["precision"] = str(trainer.precision)
    for callback in own_callbacks(trainer):
        found[type(callback).__name__] = repr(callback)
    return found


def what_was_done(trainer: Trainer) -> list[list[str]]:
    """Return each of the suite's callbacks with a sentence on what it did in this fit."""
    steps = num_steps(trainer)
    done = [[type(c).__name__, _did(c, steps)] for c in own_callbacks(trainer)]
    return [each for each in done if each[0] != "StabilityReport"]


def _did(callback: Any, steps: int) -> str:
    kind = type(callback).__name__
    known: dict[str, Callable[[Any], str]] = {
        "WeightInitialization": _initialised,
        "GradientCheck": _checked,
        "StepGuard": _guarded,
        "TrainingDoctor": _diagnosed,
        "GradientClipping": lambda c: f"Clipped by {c.options.rule}, threshold {c.threshold}.",
        "LearningRateDecay": lambda c: f"Followed the schedule `{c.schedule}`.",
        "BestWeightsEarlyStopping": lambda c: c.summary or "Did not stop the run.",
    }
    rare = _too_rare(callback, steps)
    every = getattr(getattr(callback, "options", None), "every_n_steps", None)
    logged = f"Logged every {every} steps.".replace(" 1 steps", " step")
    plain = logged if every and not rare else f"`{callback!r}`" * (not rare)
    sentences = [known[kind](callback) if kind in known else plain, rare]
    return " ".join(s.strip() for s in sentences if s)


def _too_rare(callback: Any, steps: int) -> str:
    """Say that an interval is longer than the run, so that little or nothing was logged."""
    every = getattr(getattr(callback, "options", None), "every_n_steps", None)
    if not isinstance(every, int) or every <= steps or inherits(callback, "TrainingDoctor"):
        return ""
    return (
        f"`every_n_steps={every}` is longer than the run of {steps} steps, so no interval was"
        f" logged: set it to {max(1, steps // 10)}."
    )


def _initialised(callback: Any) -> str:
    records = callback.records
    if not records:
        return "Left the weights as they were."
    drawn = sum(not record.reason for record in records)
    return f"Initialised {drawn} of {len(records)} weights."


def _checked(callback: Any) -> str:
    return callback.report.short() if callback.report is not None else "Checked nothing."


def _guarded(callback: Any) -> str:
    skipped, rewound = callback.num_skipped, callback.num_rewound
    if not skipped:
        return "Every step was fine."
    back = f" and went back {rewound} time{'s' * (rewound != 1)}" if rewound else ""
    return f"Passed over {skipped} step{'s' * (skipped != 1)}{back}."


def _diagnosed(callback: Any) -> str:
    found = [f"{f.id} (step {f.step})" for f in callback.findings if f.is_alarm]
    return f"Found {', '.join(found)}." if found else "Found nothing wrong."


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _is_lazy(parameter: torch.Tensor) -> bool:
    return isinstance(parameter, torch.nn.parameter.UninitializedParameter)

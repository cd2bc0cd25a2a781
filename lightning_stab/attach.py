"""The suite in one line, in Python (`recommended`) or without a line of code (``LIGHTNING_STAB``).

    trainer = Trainer(callbacks=lightning_stab.recommended(clip=True))
    LIGHTNING_STAB="monitor,clip(threshold=0.5),guard(on_nonfinite=skip)" python train.py
    LIGHTNING_STAB=stab.yaml python train.py          # clip: {threshold: 0.5}, and so on

Lightning asks the entry points of ``callbacks_factory`` for callbacks for every new Trainer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer

from lightning_stab import callbacks
from lightning_stab.arguments import did_you_mean, mapping
from lightning_stab.callbacks._trainer.lightning_classes import Callback, callbacks_of, inherits
from lightning_stab.errors import InvalidArgumentError

VARIABLE = "LIGHTNING_STAB"
CLASSES = {  # the names that users type, in the order of the list
    "init": "WeightInitialization",
    "check": "GradientCheck",
    "monitor": "GradientMonitor",
    "activations": "ActivationMonitor",
    "clip": "GradientClipping",
    "guard": "StepGuard",
    "decay": "LearningRateDecay",
    "stop": "BestWeightsEarlyStopping",
    "doctor": "TrainingDoctor",
    "report": "StabilityReport",
}
RECOMMENDED = ("monitor", "guard", "doctor", "report")
_PART = re.compile(r"\s*([\w-]+)\s*(?:\(([^()]*)\))?\s*(?:,|$)")


def recommended(
    *,
    init: bool | Mapping[str, Any] = False,
    check: bool | Mapping[str, Any] = False,
    monitor: bool | Mapping[str, Any] = True,
    activations: bool | Mapping[str, Any] = False,
    clip: bool | Mapping[str, Any] = False,
    guard: bool | Mapping[str, Any] = True,
    decay: bool | Mapping[str, Any] = False,
    stop: bool | Mapping[str, Any] = False,
    doctor: bool | Mapping[str, Any] = True,
    report: bool | Mapping[str, Any] = True,
) -> list[Any]:
    """Return callbacks for a Trainer: by default those that leave a healthy run as it is.

    Each argument is ``True``, ``False`` (or None), or the arguments of its callback.

    Args:
        init: `WeightInitialization`. Off, because weights may be pretrained.
        check: `GradientCheck` on the first batch. Off, because it takes about 100 steps' time.
        monitor: `GradientMonitor`.
        activations: `ActivationMonitor`.
        clip: `GradientClipping`. Off, because it changes steps.
        guard: `StepGuard`, which by default ends a run whose loss or gradient is not finite.
        decay: `LearningRateDecay`. Off, because the module may have its own schedule.
        stop: `BestWeightsEarlyStopping`, whose metric must be named: ``{"monitor": "val_loss"}``.
        doctor: `TrainingDoctor`.
        report: `StabilityReport`.

    Raises:
        InvalidArgumentError: for arguments that a callback does not have, and ``stop=True``.

    Example:
        >>> recommended(clip={"threshold": 0.5}, report=False)
        [GradientMonitor(), GradientClipping(threshold=0.5), StepGuard(), TrainingDoctor()]
    """
    given = locals()
    wanted = {
        name: given[name] for name in CLASSES if not (given[name] is False or given[name] is None)
    }
    return [_make(name, {} if value is True else value) for name, value in wanted.items()]


def from_environment(text: str) -> list[Any]:
    """Return what Lightning shall add to a Trainer, for the text of the variable.

    Args:
        text: names with commas between them, each with arguments in parentheses where it needs any;
            or the path of a YAML file that maps names to arguments.

    Raises:
        InvalidArgumentError: for a name that does not exist, with the list of those that do.
    """
    wanted = dict(_from_file(text) if text.endswith((".yaml", ".yml")) else _from_words(text))
    for name in wanted:
        if name not in {*CLASSES, "recommended"}:
            names = ", ".join([*CLASSES, "recommended"])
            hint = did_you_mean(name, [*CLASSES, "recommended"])
            raise InvalidArgumentError(
                f"`{VARIABLE}` must name some of {names}, got {name!r}.{hint}"
            )
    for name in RECOMMENDED if "recommended" in wanted else ():
        wanted.setdefault(name, {})
    made = [_make(name, wanted[name]) for name in CLASSES if name in wanted]
    return [Attachment(made)] if made else []


def _from_words(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    place = 0
    while place < len(text):
        found = _PART.match(text, place)
        if found is None:
            raise InvalidArgumentError(
                f"`{VARIABLE}` must be names with commas between them, such as"
                f" 'monitor,clip(threshold=0.5)', got {text!r}."
            )
        place = found.end()
        arguments = (pair.partition("=") for pair in (found[2] or "").split(",") if pair.strip())
        yield found[1], {key.strip(): yaml.safe_load(value) for key, _, value in arguments}


def _from_file(path: str) -> dict[str, dict[str, Any]]:
    if not Path(path).is_file():
        raise InvalidArgumentError(f"`{VARIABLE}` names the file {path!r}, which does not exist.")
    found = yaml.safe_load(Path(path).read_text()) or {}
    if not isinstance(found, dict):
        found = dict.fromkeys(found) if isinstance(found, list) else {str(found): None}
    return {str(name): arguments or {} for name, arguments in found.items()}


def _make(name: str, arguments: Mapping[str, Any]) -> Any:
    made = getattr(callbacks, CLASSES[name])
    arguments = mapping(name, arguments, "arguments")
    if name == "stop" and "monitor" not in arguments:
        raise InvalidArgumentError(
            "`stop` must name its metric: stop(monitor=val_loss) in the variable,"
            ' stop={"monitor": "val_loss"} in Python.'
        )
    try:
        return made(**arguments)
    except TypeError as error:
        reason = str(error).replace(f"{made.__name__}.__init__() ", "")
        raise InvalidArgumentError(f"`{name}` ({made.__name__}): {reason}.") from error


class Attachment(Callback):
    """Puts callbacks into a Trainer's list, but for those whose class is there already.

    The Trainer's own are known only when it is set up, after those that a module brings.
    """

    def __init__(self, made: list[Any]) -> None:
        self.made = made

    def __repr__(self) -> str:
        return f"Attachment({self.made!r})"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add what is missing behind itself, where the running loop over the list finds it."""
        super().setup(trainer, pl_module, stage)
        there = callbacks_of(trainer)
        missing = [
            new for new in self.made if not any(inherits(old, type(new).__name__) for old in there)
        ]
        attributes: Any = trainer
        place = there.index(self) + 1
        attributes.callbacks[place:place] = missing

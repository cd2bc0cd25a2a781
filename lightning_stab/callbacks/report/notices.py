"""Calls of the user's own functions at findings and events: webhooks, alerts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.lightning_classes import inherits
from lightning_stab.callbacks._trainer.logging import num_steps
from lightning_stab.callbacks._trainer.places import reporting
from lightning_stab.callbacks.report.about import own_callbacks
from lightning_stab.errors import InvalidArgumentError

Notice = Callable[[Any], Any]
BAR_NAME = "stab"  # of the word in the progress bar


def resolve(name: str, given: Notice | str | None) -> Notice | None:
    """Return the function that is meant: itself, or by its dotted path.

    Example:
        >>> resolve("on_event", "math.sqrt")
        <built-in function sqrt>
    """
    if given is None or callable(given):
        return given
    place, _, function = str(given).rpartition(".")
    try:
        found = getattr(import_module(place), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(
            f"`{name}` must be a function or the dotted path of one, got {given!r} ({error}). "
            "Write for example `my_package.alerts.send`."
        ) from error
    if not callable(found):
        raise InvalidArgumentError(f"`{name}` must be a function, got {given!r}, a {type(found)}.")
    return found  # type: ignore[no-any-return]


class Notices:
    """Watches findings and counts of the other callbacks, and calls the user at each new one."""

    def __init__(self, on_finding: Notice | None, on_event: Notice | None) -> None:
        self._on_finding, self._on_event = on_finding, on_event
        self._seen: dict[tuple[str, int], int] = {}
        self._counts: dict[str, float] = {}

    def begin(self, trainer: Trainer) -> None:
        """Take what is there for known: it comes from a checkpoint."""
        self._seen, self._counts = {}, {}
        for finding in _findings(trainer):
            self._seen[_key(finding)] = 1
        for name, callback in _counters(trainer):
            self._counts[name] = getattr(callback, name)

    def look(self, trainer: Trainer) -> list[Any]:
        """Call the user for what is new, and return the new findings."""
        new = [f for f in _findings(trainer) if _key(f) not in self._seen]
        for finding in new:
            self._seen[_key(finding)] = 1
            self._call(trainer, "on_finding", self._on_finding, finding)
            self.tell(trainer, "finding", f"{finding.severity}: {finding.id}. {finding.message}")
        for name, callback in _counters(trainer):
            count = getattr(callback, name)
            if count > self._counts.get(name, 0):
                more = count - self._counts.get(name, 0)
                text = f"`StepGuard`: {more} step{'s' * (more != 1)} {name.removeprefix('num_')}."
                self.tell(trainer, name.removeprefix("num_"), text)
            self._counts[name] = count
        return new

    def show_in_bar(self, trainer: Trainer) -> None:
        """Put what is wrong now into the progress bar, and nothing where all is well."""
        standing = [f.id for f in _findings(trainer) if f.is_alarm and f.state != "withdrawn"]
        skipped = next((g.num_skipped for name, g in _counters(trainer)[:1]), 0)
        words = [*dict.fromkeys(standing), *([f"{skipped} skipped"] if skipped else [])]
        shown: dict[str, Any] = trainer.progress_bar_metrics
        if words:
            shown[BAR_NAME] = ", ".join(words)
        else:
            shown.pop(BAR_NAME, None)

    def tell(self, trainer: Trainer, kind: str, text: str) -> None:
        """Call the user for an event."""
        event: Mapping[str, Any] = {"kind": kind, "step": num_steps(trainer), "text": text}
        self._call(trainer, "on_event", self._on_event, event)

    def _call(self, trainer: Trainer, name: str, function: Notice | None, value: Any) -> None:
        if function is not None:
            with reporting(trainer, f"`{name}` of `StabilityReport` raised"):
                function(value)


def _findings(trainer: Trainer) -> list[Any]:
    doctors = [c for c in own_callbacks(trainer) if inherits(c, "TrainingDoctor")]
    return [finding for doctor in doctors for finding in doctor.findings]


def _counters(trainer: Trainer) -> list[tuple[str, Any]]:
    guards = [c for c in own_callbacks(trainer) if inherits(c, "StepGuard")]
    return [(name, guard) for guard in guards[:1] for name in ("num_skipped", "num_rewound")]


def _key(finding: Any) -> tuple[str, int]:
    return finding.id, finding.step

"""What `BestWeightsEarlyStopping` remembers of its metrics, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

from lightning_stab.arguments import integer, one_of, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.stopping import (
    BEGINNING,
    UNITS,
    Position,
    Track,
    improves,
    margin,
    observe,
    oscillates,
    rising_checks,
    waited,
)

_PATIENCE_HINT = "To stop at the first check that does not improve, use 1."


@dataclass(frozen=True)
class StoppingRules:
    """The validated settings: each metric with its mode, the first of them the leading one."""

    modes: Mapping[str, str]
    patience: int
    unit: str = "checks"
    stall: str = "any"
    min_delta: float = 0.0
    relative: bool = False
    warmup_checks: int = 0
    warmup_steps: int = 0
    rising: int | None = None
    window: int | None = None
    amplitude: float = 0.05
    every_n_steps: int | None = None

    @classmethod
    def make(
        cls, monitor: str | list[str], mode: str | list[str], **settings: Any
    ) -> StoppingRules:
        """Validate the arguments of the callback.

        Raises:
            InvalidArgumentError: with the first argument that breaks its rule.
        """
        modes = metric_modes(monitor, mode)
        integer("patience", settings["patience"], minimum=1, hint=_PATIENCE_HINT)
        one_of("patience_unit", settings["unit"], UNITS)
        one_of("stall", settings["stall"], ("any", "all"))
        real("min_delta", settings["min_delta"], minimum=0)
        integer("warmup_checks", settings["warmup_checks"], minimum=0)
        integer("warmup_steps", settings["warmup_steps"], minimum=0)
        if settings["rising"] is not None:
            integer("rising_checks", settings["rising"], minimum=1)
        if settings["window"] is not None:
            integer("oscillation_window", settings["window"], minimum=4)
        real("oscillation_amplitude", settings["amplitude"], minimum=0)
        if settings["every_n_steps"] is not None:
            integer("check_every_n_steps", settings["every_n_steps"], minimum=1)
        return cls(modes, **settings)

    @property
    def leading(self) -> str:
        """The metric that decides which weights are the best."""
        return next(iter(self.modes))

    def warming(self, now: Position) -> bool:
        """Say whether the burn-in still lasts, in which nothing counts against the metric."""
        return now.check <= self.warmup_checks or now.step < self.warmup_steps

    def checks_at(self, step: int, last: int) -> bool:
        """Say whether a check is due after optimizer step ``step``, the last one at ``last``."""
        every = self.every_n_steps
        return every is not None and step % every == 0 and step > last


@dataclass
class StoppingRecord:
    """One track per metric, the end of the burn-in, and the leading metric's latest values."""

    now: Position = BEGINNING
    start: Position = BEGINNING
    tracks: dict[str, Track] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    improved: bool = False

    def begin(
        self, now: Position, values: Mapping[str, SupportsFloat], rules: StoppingRules
    ) -> None:
        """Begin a check with the metrics' values at this position."""
        self.now, self.improved = now, False
        self.values = {name: float(values[name]) for name in rules.modes}

    def observe(self, rules: StoppingRules) -> bool:
        """Take in the check's values; return whether the leading metric improved."""
        for name, value in self.values.items():
            track, by = self.track(name), self.margin(name, rules)
            improved = improves(value, track.best, mode=rules.modes[name], by=by)
            self.tracks[name] = observe(track, value, self.now, improved=improved)
            if name == rules.leading:
                self.improved = improved
        if rules.warming(self.now):
            self.start = self.now
        elif math.isfinite(self.values[rules.leading]):
            keep = max((rules.rising or 0) + 1, rules.window or 0)
            self.recent = [*self.recent, self.values[rules.leading]][-keep:]
        return self.improved

    def track(self, name: str) -> Track:
        """Return what is remembered of one metric."""
        return self.tracks.get(name, Track())

    def margin(self, name: str, rules: StoppingRules) -> float:
        """Return by how much the metric must beat its best."""
        return margin(self.track(name).best, rules.min_delta, relative=rules.relative)

    def waited(self, name: str, unit: str) -> int:
        """Return how many ``unit`` one metric has gone without improvement, after the burn-in."""
        return waited(self.track(name), self.now, self.start, unit)

    def verdict(self, rules: StoppingRules) -> tuple[str, str] | None:
        """Return the name of the reason to stop and why in words, or None to go on."""
        if self.now.check == 0 or rules.warming(self.now):
            return None
        return self._stalled(rules) or self._rises(rules) or self._swings(rules)

    def _stalled(self, rules: StoppingRules) -> tuple[str, str] | None:
        waits = {name: self.waited(name, rules.unit) for name in rules.modes}
        stalled = [name for name, wait in waits.items() if wait >= rules.patience]
        if not stalled or (rules.stall == "all" and len(stalled) < len(waits)):
            return None
        never = [name for name in stalled if self.tracks[name].finite == 0]
        if never:
            count = self.tracks[never[0]].observed
            return "never_finite", f"{never[0]} was not finite in any of {count} checks"
        names, wait = " and ".join(stalled), min(waits[name] for name in stalled)
        return "patience", f"{names} did not improve for {wait} {_plural(rules.unit, wait)}"

    def _rises(self, rules: StoppingRules) -> tuple[str, str] | None:
        mode = rules.modes[rules.leading]
        if rules.rising is None or rising_checks(self.recent, mode) < rules.rising:
            return None
        direction = "rose" if mode == "min" else "fell"
        checks = _plural("checks", rules.rising)
        return "rising", f"{rules.leading} {direction} for {rules.rising} {checks} in a row"

    def _swings(self, rules: StoppingRules) -> tuple[str, str] | None:
        if rules.window is None or len(self.recent) < rules.window:
            return None
        window = self.recent[-rules.window :]
        mode = rules.modes[rules.leading]
        if not oscillates(window, amplitude=rules.amplitude, mode=mode):
            return None
        level = math.fsum(window) / len(window)
        return (
            "oscillation",
            f"{rules.leading} swung around {level:.4g} for {len(window)} checks without improving",
        )

    def state(self) -> dict[str, Any]:
        """Return everything as plain lists and numbers."""
        tracks = {
            name: [None if math.isnan(t.best) else t.best, list(t.at), t.observed, t.finite]
            for name, t in self.tracks.items()
        }
        recent = list(self.recent)
        return {
            "now": list(self.now),
            "start": list(self.start),
            "tracks": tracks,
            "recent": recent,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> StoppingRecord:
        """Return the record that :meth:`state` described."""
        tracks = {
            name: Track(math.nan if best is None else best, Position(*at), observed, finite)
            for name, (best, at, observed, finite) in state["tracks"].items()
        }
        now, start = Position(*state["now"]), Position(*state["start"])
        return cls(now, start, tracks, list(state["recent"]))

    @classmethod
    def from_lightning(cls, monitor: str, best: float, waited: int) -> StoppingRecord:
        """Return what can be known from the state of Lightning's own class."""
        seen = math.isfinite(best)
        track = Track(best if seen else math.nan, BEGINNING, waited + seen, waited + seen)
        return cls(now=Position(check=waited), tracks={monitor: track})


def metric_modes(monitor: str | list[str], mode: str | list[str]) -> dict[str, str]:
    """Return each metric with its mode; one mode serves all metrics.

    Raises:
        InvalidArgumentError: for no metric, a metric twice, or a number of modes that does not fit.
    """
    names = [monitor] if isinstance(monitor, str) else list(monitor)
    modes = [mode] * len(names) if isinstance(mode, str) else list(mode)
    if not names or len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
        raise InvalidArgumentError(
            f"`monitor` must be a metric's name or a list of different names, got {monitor!r}."
        )
    if len(modes) != len(names):
        raise InvalidArgumentError(
            f"`mode` must be one mode or as many as `monitor` has metrics, got {mode!r} for "
            f"{len(names)} of them."
        )
    return dict(zip(names, modes, strict=True))


def summarize(record: StoppingRecord, rules: StoppingRules, why: str, *, restored: bool) -> str:
    """Return one sentence: why the run ended, which check was best, what was restored."""
    checks = record.now.check
    if why:
        moment = f"check {checks} (epoch {record.now.epoch}, step {record.now.step})"
        ended = f"Stopped after {moment}: {why}"
    else:
        ended = f"The run ended by itself after {checks} {_plural('checks', checks)}"
    best = record.track(rules.leading)
    if math.isnan(best.best):
        return f"{ended}; {rules.leading} was never finite, so there were no weights to restore."
    fate = "whose weights and buffers were restored" if restored else "and nothing was restored"
    at = f"check {best.at.check} (epoch {best.at.epoch}, step {best.at.step})"
    return f"{ended}; the best was {at} with {rules.leading} = {best.best:.6g}, {fate}."


def _plural(unit: str, count: int) -> str:
    return unit if count != 1 else unit.removesuffix("s")

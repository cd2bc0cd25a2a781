"""The options of `BestWeightsEarlyStopping`, and the record of its metrics, judged by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

from lightning_stab.arguments import integer, integers, is_list, one_of, path, real
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
    time_since_best,
)


@dataclass(frozen=True, kw_only=True)
class StoppingOptions:
    """The arguments of `BestWeightsEarlyStopping`, which says what they mean."""

    monitor: str | list[str]
    patience: int = 3
    patience_unit: str = "checks"
    mode: str | list[str] = "min"
    min_delta: float = 0.0
    relative_min_delta: bool = False
    stall: str = "any"
    warmup_checks: int = 0
    warmup_steps: int = 0
    rising_checks: int | None = None
    oscillation_window: int | None = None
    oscillation_amplitude: float = 0.05
    restore_best: bool = True
    folder: str | None = None
    check_every_n_steps: int | None = None
    verbose: bool = False
    strict: bool = True
    check_finite: bool = True
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    check_on_train_epoch_end: bool | None = None
    log_rank_zero_only: bool = False

    def __post_init__(self) -> None:
        # `modes` refuses lists that do not fit, and Lightning's class an unknown first mode
        for mode in list(self.modes.values())[1:]:
            one_of("mode", mode, ("min", "max"))
        integer("patience", self.patience, minimum=0)
        one_of("patience_unit", self.patience_unit, UNITS)
        one_of("stall", self.stall, ("any", "all"))
        real("min_delta", self.min_delta, minimum=0)
        real("oscillation_amplitude", self.oscillation_amplitude, minimum=0)
        integers(self, warmup_checks=0, warmup_steps=0, rising_checks=1, oscillation_window=4)
        integers(self, check_every_n_steps=1)
        if self.folder is not None:
            instead = "to keep the best weights in memory; every checkpoint holds them too."
            path("folder", self.folder, hint=f"Leave it out {instead}")

    @property
    def modes(self) -> dict[str, str]:
        """Each metric with its mode; one mode serves all metrics."""
        names: list[Any] = list(self.monitor) if is_list(self.monitor) else [self.monitor]
        modes: list[Any] = list(self.mode) if is_list(self.mode) else [self.mode] * len(names)
        if not names or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
            raise InvalidArgumentError(
                "`monitor` must be a metric's name or a list of different names, got "
                f"{self.monitor!r}."
            )
        if len(modes) != len(names) or not all(isinstance(m, str) for m in modes):
            raise InvalidArgumentError(
                f"`mode` must be one mode or as many as `monitor` has metrics, got {self.mode!r} "
                f"for {len(names)} of them."
            )
        return dict(zip(names, modes, strict=True))

    @property
    def leading(self) -> str:
        """The metric that decides which weights are the best: the first."""
        return next(iter(self.modes))


@dataclass
class StoppingRecord:
    """What was observed of each metric, up to the last check.

    Attributes:
        options: what the record is judged by.
        now: the position of the last check.
        start: the end of the burn-in, in which nothing counts against a metric.
        tracks: what is kept of each metric.
        recent: the latest finite values of the leading metric, after the burn-in.
        improved: whether the leading metric improved at the last check.
    """

    options: StoppingOptions
    now: Position = BEGINNING
    start: Position = BEGINNING
    tracks: dict[str, Track] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)
    improved: bool = False

    @property
    def in_warmup(self) -> bool:
        """Whether the last check belongs to the burn-in."""
        options = self.options
        return self.now.check <= options.warmup_checks or self.now.step < options.warmup_steps

    def track(self, name: str) -> Track:
        """Return what is kept of one metric."""
        return self.tracks.get(name, Track())

    def margin(self, name: str) -> float:
        """Return by how much the metric must beat its best."""
        options = self.options
        return margin(self.track(name).best, options.min_delta, relative=options.relative_min_delta)

    def waited(self, name: str, unit: str) -> int:
        """Return how many ``unit`` one metric has gone without improvement, after the burn-in."""
        return time_since_best(self.track(name), self.now, self.start, unit)

    def observe(self, now: Position, values: Mapping[str, SupportsFloat]) -> None:
        """Record a check."""
        self.now, options = now, self.options
        for name, mode in options.modes.items():
            track, value = self.track(name), float(values[name])
            improved = improves(value, track.best, mode=mode, by=self.margin(name))
            self.tracks[name] = observe(track, value, now, improved=improved)
            if name == options.leading:
                self.improved = improved
                if math.isfinite(value) and not self.in_warmup:
                    keep = max((options.rising_checks or 0) + 1, options.oscillation_window or 0)
                    self.recent = [*self.recent, value][-keep:]
        if self.in_warmup:
            self.start = now

    def reason_to_stop(self) -> tuple[str, str] | None:
        """Return the name of the reason to stop and why in words, or None to go on."""
        if self.now.check == 0 or self.in_warmup:
            return None
        return self._stall() or self._rise() or self._oscillation()

    def _stall(self) -> tuple[str, str] | None:
        options = self.options
        waits = {name: self.waited(name, options.patience_unit) for name in options.modes}
        waiting = [name for name in waits if self.waited(name, "checks")]  # 0 waits for a check
        stalled = [name for name in waiting if waits[name] >= options.patience]
        if not stalled or (options.stall == "all" and len(stalled) < len(waits)):
            return None
        never = [name for name in stalled if self.tracks[name].finite == 0]
        if never:
            count = self.tracks[never[0]].observed
            return "never_finite", f"{never[0]} was not finite in any of {count} checks"
        names, wait = " and ".join(stalled), min(waits[name] for name in stalled)
        unit = _plural(options.patience_unit, wait)
        return "patience", f"{names} did not improve for {wait} {unit}"

    def _rise(self) -> tuple[str, str] | None:
        count, leading = self.options.rising_checks, self.options.leading
        mode = self.options.modes[leading]
        if count is None or rising_checks(self.recent, mode) < count:
            return None
        direction = "rose" if mode == "min" else "fell"
        return "rising", f"{leading} {direction} for {count} {_plural('checks', count)} in a row"

    def _oscillation(self) -> tuple[str, str] | None:
        length, leading = self.options.oscillation_window, self.options.leading
        if length is None or len(self.recent) < length:
            return None
        window = self.recent[-length:]
        amplitude, mode = self.options.oscillation_amplitude, self.options.modes[leading]
        if not oscillates(window, amplitude=amplitude, mode=mode):
            return None
        level = math.fsum(window) / length
        why = f"{leading} swung around {level:.4g} for {length} checks without improving"
        return "oscillation", why

    def begin_waiting(self) -> None:
        """Count nothing of what was before against the metrics; the best values stay."""
        self.start, self.recent = self.now, []

    def ending(self, why: str) -> str:
        """Return how the run ended, in words; ``why`` it was stopped, or nothing."""
        now = self.now
        if why:
            return f"Stopped after check {now.check} (epoch {now.epoch}, step {now.step}): {why}"
        return f"The run ended by itself after {now.check} {_plural('checks', now.check)}"

    def summarize(self, ended: str, *, restored: bool) -> str:
        """Return one sentence: how the run ended, which check was best, what was restored."""
        leading = self.options.leading
        best, at = self.track(leading).best, self.track(leading).at
        if math.isnan(best):
            return f"{ended}; {leading} was never finite, so there were no weights to restore."
        fate = "whose weights and buffers were restored" if restored else "and nothing was restored"
        return (
            f"{ended}; the best was check {at.check} (epoch {at.epoch}, step {at.step}) with "
            f"{leading} = {best:.6g}, {fate}."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain lists and numbers."""
        tracks = {
            name: [None if math.isnan(t.best) else t.best, list(t.at), t.observed, t.finite]
            for name, t in self.tracks.items()
        }
        now, start = list(self.now), list(self.start)
        return {"now": now, "start": start, "tracks": tracks, "recent": list(self.recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.now, self.start = Position(*state["now"]), Position(*state["start"])
        self.tracks = {
            name: Track(math.nan if best is None else best, Position(*at), observed, finite)
            for name, (best, at, observed, finite) in state["tracks"].items()
        }
        self.recent = list(state["recent"])

    def load_lightning_state(self, best: float, wait_count: int) -> None:
        """Continue from what Lightning's own class keeps of the leading metric."""
        is_known = math.isfinite(best)
        count = wait_count + is_known
        track = Track(best if is_known else math.nan, BEGINNING, count, count)
        self.now, self.start = Position(check=wait_count), BEGINNING
        self.tracks, self.recent = {self.options.leading: track}, []


def _plural(unit: str, count: int) -> str:
    return unit if count != 1 else unit.removesuffix("s")

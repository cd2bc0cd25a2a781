"""What is asked of a `StepGuard`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_stab.arguments import check_choices, integer, real
from lightning_stab.errors import InvalidArgumentError

Policy = Literal["ignore", "raise", "skip", "rewind"]


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """The arguments of `StepGuard`, where each is explained; checked as it says."""

    on_nonfinite: Policy = "raise"
    on_spike: Policy = "ignore"
    max_consecutive: int = 10
    window: int = 128
    min_window: int = 64
    deviations: float = 6.0
    loss_jump: float = 0.2
    gradient_factor: float = 5.0
    early_factor: float = 100.0
    rewind_after: int = 3
    snapshot_every_n_steps: int = 50
    lr_factor: float = 0.5
    forensics: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        integer("max_consecutive", self.max_consecutive, minimum=1)
        integer("window", self.window, minimum=2)
        integer("min_window", self.min_window, minimum=2)
        if self.min_window > self.window:
            raise InvalidArgumentError(
                f"`min_window` must be <= `window`, which is {self.window}, got"
                f" {self.min_window}. The window never holds more steps than its size."
            )
        real("deviations", self.deviations, above=0)
        real("loss_jump", self.loss_jump, minimum=0)
        real("gradient_factor", self.gradient_factor, minimum=1)
        real("early_factor", self.early_factor, above=1)
        integer("rewind_after", self.rewind_after, minimum=1)
        integer("snapshot_every_n_steps", self.snapshot_every_n_steps, minimum=1)
        if self.rewinds and self.rewind_after >= self.max_consecutive:
            raise InvalidArgumentError(
                f"`rewind_after` must be < `max_consecutive`, which is {self.max_consecutive}, got"
                f" {self.rewind_after}: the fit would stop before it rewinds. Raise"
                " `max_consecutive`."
            )
        real("lr_factor", self.lr_factor, above=0, maximum=1)

    @property
    def rewinds(self) -> bool:
        """Whether a policy goes back to snapshots."""
        return "rewind" in (self.on_nonfinite, self.on_spike)

    @property
    def undoes(self) -> bool:
        """Whether a policy puts back what a bad batch changed."""
        return self.rewinds or "skip" in (self.on_nonfinite, self.on_spike)

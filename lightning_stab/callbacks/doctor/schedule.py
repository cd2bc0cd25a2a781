"""At which steps the doctor looks."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.logging import is_due

STARTING = (0, 4, 9, 19)  # steps that are looked at in full whatever the interval
YOUNG, YOUNG_INTERVAL = 500, 50  # a run is looked at more often while it is young
INPUT_INTERVAL = 8  # of a grown run's batches, whose largest values are noted


class Schedule:
    """Full looks at intervals and at the start; short ones at the first steps after a warm-up.

    Args:
        every_n_steps: the interval of full looks.
        early: how many short looks there are.
    """

    def __init__(self, every_n_steps: int, early: int) -> None:
        self.every_n_steps = every_n_steps
        self.early = early
        self.rate = float("nan")
        self.is_rising = True
        self.highest = 0.0

    def begin_step(self, trainer: Trainer) -> None:
        """Note the learning rate of the step that begins."""
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
        if groups:  # Lightning's stand-in for no optimizer has none
            before, self.rate = self.rate, float(groups[0]["lr"])
            # a constant rate has no warm-up; the first step of a ramp cannot be told from it
            self.highest = max(self.highest, self.rate)
            self.is_rising = self.rate > before * (1 + 1e-9) or self.rate == 0

    @property
    def rate_left(self) -> float:
        """The learning rate over its highest so far."""
        return self.rate / self.highest if self.highest > 0 else float("nan")

    def is_full(self, step: int) -> bool:
        """Say whether everything is looked at."""
        every = min(self.every_n_steps, YOUNG_INTERVAL) if step < YOUNG else self.every_n_steps
        return step in STARTING or is_due(step, every)

    def takes_input(self, step: int) -> bool:
        """Say whether the largest values of this step's batch are noted."""
        return step < YOUNG or is_due(step, INPUT_INTERVAL)

    def is_early(self, seen: int) -> bool:
        """Say whether this is one of the first steps after the warm-up.

        Args:
            seen: how many of them were seen already.
        """
        return seen < self.early and not self.is_rising

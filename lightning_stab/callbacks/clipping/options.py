"""What is asked of a `GradientClipping`, checked; thresholds may change with the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_stab.arguments import check_choices, integer, real, strings
from lightning_stab.errors import InvalidArgumentError

Threshold = float | Mapping[int, float] | Callable[[int], float]
Rule = Literal["value", "norm", "adaptive", "history"]
Method = Literal["zscore", "percentile"]
RULES: dict[Rule, float | None] = {"value": 100.0, "norm": 1.0, "adaptive": 0.01, "history": None}
METHODS: dict[Method, float] = {"zscore": 2.5, "percentile": 10.0}
HINT = "To switch clipping off, leave the callback out."


@dataclass(frozen=True, kw_only=True)
class ClippingOptions:
    """The arguments of `GradientClipping`, where each is explained; checked as it says.

    Example:
        >>> options = ClippingOptions(threshold={0: 10.0, 1000: 1.0})
        >>> options.threshold_at(999), options.threshold_at(1000)
        (10.0, 1.0)
    """

    rule: Rule = "norm"
    threshold: Threshold | None = None
    method: Method = "zscore"
    per_parameter_group: bool = False
    exclude: Sequence[str] = ()
    exclude_output: bool = True
    every_n_steps: int = 50

    def __post_init__(self) -> None:
        check_choices(self)
        object.__setattr__(self, "exclude", strings("exclude", self.exclude))
        integer("every_n_steps", self.every_n_steps, minimum=1)
        if isinstance(self.threshold, Mapping):
            object.__setattr__(self, "threshold", _checked_table(self.threshold))
        elif not callable(self.threshold) and self.threshold is not None:
            real("threshold", self.threshold, above=0, hint=HINT)
        if self.rule == "history":
            self._check_history()
        elif self.method != "zscore":
            raise InvalidArgumentError(
                f"`method` is for `rule='history'` only, got {self.method!r} with"
                f" `rule={self.rule!r}`. Leave it out, or set the rule."
            )

    @property
    def threshold_or_default(self) -> Threshold:
        """The threshold, or that of the rule and method where none is given."""
        if self.threshold is not None:
            return self.threshold
        return RULES[self.rule] or METHODS[self.method]

    def threshold_at(self, step: int) -> float:
        """Return the threshold at an optimizer step.

        Raises:
            InvalidArgumentError: if the user's function returns a number that is not > 0.
        """
        threshold = self.threshold_or_default
        if callable(threshold):
            return real("threshold", threshold(step), above=0, hint=HINT)
        if isinstance(threshold, Mapping):
            return threshold[max(start for start in threshold if start <= step)]
        return float(threshold)

    def _check_history(self) -> None:
        threshold = self.threshold_or_default
        if not isinstance(threshold, (int, float)):
            raise InvalidArgumentError(
                f"`threshold` of `rule='history'` must be a number, got {threshold!r}."
                " Schedules are for the other rules."
            )
        if self.method == "percentile":
            real("threshold", threshold, above=0, below=100)


def _checked_table(threshold: Mapping[int, float]) -> dict[int, float]:
    for start in threshold:
        integer("steps of threshold", start, minimum=0)
    if 0 not in threshold:
        raise InvalidArgumentError(
            f"`threshold` as a table needs a value for step 0, got steps {sorted(threshold)}."
            " Add it, for example {0: 10.0, 1000: 1.0}."
        )
    return {s: real("threshold", value, above=0, hint=HINT) for s, value in threshold.items()}

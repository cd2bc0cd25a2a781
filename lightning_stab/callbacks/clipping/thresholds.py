"""Thresholds that may change with the step: a number, a table, or a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from lightning_stab.arguments import integer, real
from lightning_stab.errors import InvalidArgumentError

Threshold = float | Mapping[int, float] | Callable[[int], float]
HINT = "To switch clipping off, leave the callback out."


def checked_threshold(threshold: Threshold) -> Callable[[int], float]:
    """Return the threshold as a function of the optimizer step.

    Args:
        threshold: a number > 0; a table from the step at which a value begins to the value, with
            one for step 0; or a function of the step.

    Raises:
        InvalidArgumentError: for a number or an entry that is not > 0, or a table without step 0.

    Example:
        >>> at = checked_threshold({0: 10.0, 1000: 1.0})
        >>> at(999), at(1000)
        (10.0, 1.0)
    """
    if callable(threshold):
        return partial(_of_function, threshold)
    if isinstance(threshold, Mapping):
        return _table(threshold)
    return _table({0: threshold})


def checked_method(rule: str, method: str, threshold: Threshold) -> None:
    """Check what the history rule needs: a method, and a number; a percentile below 100.

    Raises:
        InvalidArgumentError: for a method with another rule, a schedule, or a percentile outside
            (0, 100).
    """
    if rule != "history":
        if method != "zscore":
            raise InvalidArgumentError(
                f"`method` is for `rule='history'` only, got {method!r} with `rule={rule!r}`."
                " Leave it out, or set the rule."
            )
        return
    if not isinstance(threshold, (int, float)):
        raise InvalidArgumentError(
            f"`threshold` of `rule='history'` must be a number, got {threshold!r}."
            " Schedules are for the other rules."
        )
    if method == "percentile":
        real("threshold", threshold, above=0, below=100)


def _table(threshold: Mapping[int, float]) -> Callable[[int], float]:
    table = {
        integer("steps of threshold", start, minimum=0): real(
            "threshold", value, above=0, hint=HINT
        )
        for start, value in threshold.items()
    }
    if 0 not in table:
        raise InvalidArgumentError(
            f"`threshold` as a table needs a value for step 0, got steps {sorted(table)}."
            " Add it, for example {0: 10.0, 1000: 1.0}."
        )
    return partial(_of_table, table)


# partial functions, unlike closures, can be pickled with the callback
def _of_table(table: Mapping[int, float], step: int) -> float:
    return table[max(start for start in table if start <= step)]


def _of_function(function: Callable[[int], float], step: int) -> float:
    return real("threshold", function(step), above=0, hint=HINT)

"""When to look: pure predicates of the step."""

from __future__ import annotations


def is_due(step: int, every_n_steps: int) -> bool:
    """Say whether the ``step``-th step, counted from 0, ends an interval.

    Lightning's own logging counts the same way, so points stand at the same places of the x axis.

    Example:
        >>> [step for step in range(10) if is_due(step, 4)]
        [3, 7]
    """
    return (step + 1) % every_n_steps == 0

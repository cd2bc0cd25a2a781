"""From differences to a verdict: right, wrong, or not to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_stab.functional.gradcheck.differences import Difference

TOLERANCE = 1e-7
"""The largest relative error of a right gradient in double precision."""

VERDICTS = (
    "wrong",
    "nondeterministic",
    "precision-limited",
    "kink",
    "stop-gradient",
    "unused",
    "zero",
    "ok",
)
"""All verdicts, the worst first."""


@dataclass(frozen=True)
class Judgement:
    """What the differences say about one analytic derivative."""

    verdict: str
    analytic: float
    numeric: float
    error: float
    step: float


def relative_error(numeric: float, analytic: float, scale: float) -> float:
    """Return |numeric - analytic| / max(|numeric|, |analytic|, scale), 0 when all are 0.

    Example:
        >>> relative_error(1.5, 1.0, 3.0)
        0.16666666666666666
    """
    largest = max(abs(numeric), abs(analytic), scale)
    return abs(numeric - analytic) / largest if largest > 0 else 0.0


def judge(
    differences: Sequence[Difference],
    analytic: float,
    scale: float,
    tolerance: float = TOLERANCE,
) -> Judgement:
    """Judge an analytic derivative by the differences along its line.

    ``ok`` when any step agrees within ``tolerance``; ``zero`` when all is below rounding;
    ``wrong`` when two steps agree with each other and not with it; otherwise ``kink``
    or ``precision-limited``.

    Args:
        differences: from the largest step to the smallest.
        analytic: the derivative that autograd gives.
        scale: the size below which an error does not count, such as the tensor's gradient RMS.
        tolerance: the relative error that is allowed.
    """
    errors = [relative_error(d.slope, analytic, scale) for d in differences]
    best = min(range(len(errors)), key=errors.__getitem__)
    if errors[best] <= tolerance:
        return _judgement("ok", differences[best], analytic, errors[best])
    if max(abs(analytic), abs(differences[0].slope), scale) <= differences[0].noise:
        return _judgement("zero", differences[0], analytic, 0.0)
    witness = _two_that_agree(differences, analytic)
    if witness is not None:
        verdict = "kink" if _on_a_kink(differences, analytic) else "wrong"
        error = relative_error(witness.slope, analytic, scale)
        return _judgement(verdict, witness, analytic, error)
    noisy = abs(differences[best].slope - analytic) <= 10 * differences[best].noise
    verdict = "precision-limited" if noisy else "kink"
    return _judgement(verdict, differences[best], analytic, errors[best])


def _judgement(verdict: str, used: Difference, analytic: float, error: float) -> Judgement:
    return Judgement(verdict, analytic, used.slope, error, used.step)


def _two_that_agree(differences: Sequence[Difference], analytic: float) -> Difference | None:
    """Return the better of two clean, quiet steps whose errors agree within 5 %."""
    quiet = [d for d in differences if d.clean and 10 * d.noise < abs(d.slope - analytic)]
    for coarse, fine in pairwise(quiet):
        if abs(coarse.slope - fine.slope) <= 0.05 * abs(fine.slope - analytic):
            return fine
    return None


def _on_a_kink(differences: Sequence[Difference], analytic: float) -> bool:
    """Tell a point on a kink: the one-sided slopes differ, however small the step."""
    clean = [d for d in differences if d.noise * 10 < abs(d.slope - analytic)]
    if len(clean) < 2:
        return False
    first, last = abs(clean[0].kink), abs(clean[-1].kink)
    error = abs(clean[-1].slope - analytic)
    return last > 0.5 * error and last > 0.5 * first

"""From differences to a verdict: right, wrong, or not to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_stab.functional.gradcheck.differences import Difference, extrapolated

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

_AGREEMENT = 0.05  # two estimates that differ by less than this part of the error agree
_QUIET = 10.0  # how many times larger than the noise an error must be to count


@dataclass(frozen=True)
class Judgement:
    """What the differences say about one analytic derivative.

    Args:
        verdict: ``ok``, ``zero``, ``wrong``, ``kink`` or ``precision-limited``.
        analytic: what autograd says.
        numeric: the estimate that decided.
        error: their relative difference; for ``precision-limited`` the bound that was reached.
        step: the step of that estimate.
    """

    verdict: str
    analytic: float
    numeric: float
    error: float
    step: float

    @property
    def badness(self) -> tuple[int, float]:
        """Sorts judgements, the worst last; ``zero`` says least."""
        return -VERDICTS.index(self.verdict) - 9 * (self.verdict == "zero"), self.error


def relative_error(numeric: float, analytic: float, scale: float) -> float:
    """Return |numeric - analytic| / max(|numeric|, |analytic|, scale), 0 when all are 0.

    Example:
        >>> relative_error(1.5, 1.0, 3.0)
        0.16666666666666666
    """
    largest = max(abs(numeric), abs(analytic), scale)
    return abs(numeric - analytic) / largest if largest > 0 else 0.0


def agreeing(
    differences: Sequence[Difference], analytic: float, scale: float, tolerance: float = TOLERANCE
) -> Judgement | None:
    """Return the ``ok`` of the estimate nearest to ``analytic``, or None if none is near enough.

    Args:
        differences: plain ones; their extrapolation is looked at too.
        analytic: the derivative that autograd gives.
        scale: the size below which an error does not count.
        tolerance: the relative error that is allowed.
    """
    largest = max(differences, key=lambda each: each.step)
    if max(abs(analytic), abs(largest.slope), scale) <= largest.noise:
        return _judgement("zero", largest, analytic, 0.0)
    best = _nearest([*differences, *extrapolated(differences)], analytic)
    error = relative_error(best.slope, analytic, scale)
    return _judgement("ok", best, analytic, error) if error <= tolerance else None


def drowned(differences: Sequence[Difference], analytic: float, scale: float) -> Judgement | None:
    """Return ``precision-limited`` if the quietest estimates differ by noise only.

    The bound that was reached is ten times the noise of the best of them.
    """
    estimates = [*differences, *extrapolated(differences)]
    within = [each for each in estimates if not _is_quiet(each, analytic)]
    if not within or min(within, key=_noise).noise > 100 * min(estimates, key=_noise).noise:
        return None
    best = min(within, key=_noise)
    bound = relative_error(analytic + _QUIET * best.noise, analytic, scale)
    return _judgement("precision-limited", best, analytic, bound)


def judge(
    differences: Sequence[Difference], analytic: float, scale: float, tolerance: float = TOLERANCE
) -> Judgement:
    """Judge an analytic derivative by the differences along its line.

    ``ok`` when any estimate agrees within ``tolerance``. ``wrong`` when two clean estimates agree
    with each other within 5 % of their distance to it, with the noise under a tenth of that, and
    the one-sided slopes come together. Otherwise ``precision-limited``, or ``kink``.

    Args:
        differences: plain ones, in any order.
        analytic: the derivative that autograd gives.
        scale: the size below which an error does not count, such as the tensor's gradient RMS.
        tolerance: the relative error that is allowed.
    """
    right = agreeing(differences, analytic, scale, tolerance)
    if right is not None:
        return right
    clean = [each for each in differences if each.clean is not False]
    witness = _witness(clean, analytic)
    if witness is not None:
        verdict = "kink" if _on_a_kink(clean, analytic) else "wrong"
        error = relative_error(witness.slope, analytic, scale)
        return _judgement(verdict, witness, analytic, error)
    best = _nearest([*differences, *extrapolated(differences)], analytic)
    if clean and not any(_is_quiet(each, analytic) for each in clean):
        bound = relative_error(analytic + _QUIET * best.noise, analytic, scale)
        return _judgement("precision-limited", best, analytic, bound)
    error = relative_error(best.slope, analytic, scale)
    return _judgement("kink", best, analytic, error)


def _judgement(verdict: str, used: Difference, analytic: float, error: float) -> Judgement:
    return Judgement(verdict, analytic, used.slope, error, used.step)


def _nearest(estimates: Sequence[Difference], analytic: float) -> Difference:
    return min(estimates, key=lambda each: abs(each.slope - analytic))


def _noise(estimate: Difference) -> float:
    return estimate.noise


def _is_quiet(estimate: Difference, analytic: float) -> bool:
    return _QUIET * estimate.noise < abs(estimate.slope - analytic)


def _witness(clean: Sequence[Difference], analytic: float) -> Difference | None:
    """Return an estimate that another one confirms, from plain or from extrapolated ones."""
    ordered = sorted(clean, key=lambda each: -each.step)
    for estimates in (extrapolated(ordered), ordered):
        for coarse, fine in pairwise(estimates):
            error = abs(fine.slope - analytic)
            quiet = _is_quiet(coarse, analytic) and _is_quiet(fine, analytic)
            if quiet and abs(coarse.slope - fine.slope) <= _AGREEMENT * error:
                return fine
    return None


def _on_a_kink(clean: Sequence[Difference], analytic: float) -> bool:
    """Tell a point on a kink: the gap of the one-sided slopes is large and does not shrink."""
    quiet = sorted((d for d in clean if _is_quiet(d, analytic)), key=lambda each: -each.step)
    if len(quiet) < 2:
        return False
    coarse, fine = quiet[-2], quiet[-1]
    shrinks = abs(fine.gap) < abs(coarse.gap) * (fine.step / coarse.step) ** 0.4
    return abs(fine.gap) > 0.5 * abs(fine.slope - analytic) and not shrinks

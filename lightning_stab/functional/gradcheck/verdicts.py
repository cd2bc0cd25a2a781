"""From differences to a verdict: right, wrong, or not decidable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_stab.functional.gradcheck.differences import Difference, extrapolate

TOLERANCE = 1e-7
"""The largest relative error of a right gradient in double precision."""

VERDICTS = (
    "wrong",
    "unchecked",
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
_NOISE_FACTOR = 10.0  # how many times larger than the noise an error must be to count


@dataclass(frozen=True)
class Comparison:
    """An analytic derivative compared with the differences along its line.

    Args:
        verdict: ``ok``, ``zero``, ``wrong``, ``kink``, ``precision-limited`` or ``unchecked``.
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
    def severity(self) -> tuple[int, float]:
        """Sorts comparisons, the worst last; ``zero`` says least."""
        return -VERDICTS.index(self.verdict) - 9 * (self.verdict == "zero"), self.error


def relative_error(numeric: float, analytic: float, scale: float) -> float:
    """Return |numeric - analytic| / max(|numeric|, |analytic|, scale), 0 when all are 0.

    Example:
        >>> relative_error(1.5, 1.0, 3.0)
        0.16666666666666666
    """
    largest = max(abs(numeric), abs(analytic), scale)
    return abs(numeric - analytic) / largest if largest > 0 else 0.0


def find_agreement(
    differences: Sequence[Difference], analytic: float, scale: float, tolerance: float = TOLERANCE
) -> Comparison | None:
    """Return the ``ok`` of the estimate nearest to ``analytic``, or None if none is near enough.

    Arguments as for `compare`; the extrapolation of the differences counts too.
    """
    largest = max(differences, key=lambda each: each.step)
    if max(abs(analytic), abs(largest.slope), scale) <= largest.noise:
        return Comparison("zero", analytic, largest.slope, 0.0, largest.step)
    best = _nearest(differences, analytic)
    error = relative_error(best.slope, analytic, scale)
    return Comparison("ok", analytic, best.slope, error, best.step) if error <= tolerance else None


def below_noise(
    differences: Sequence[Difference], analytic: float, scale: float
) -> Comparison | None:
    """Return ``precision-limited`` if the estimates with the least noise differ by noise only.

    The bound that was reached is ten times the noise of the best of them.
    """
    estimates = [*differences, *extrapolate(differences)]
    within = [each for each in estimates if not _exceeds_noise(each, analytic)]
    best = min(within, key=lambda each: each.noise, default=None)
    if best is None or best.noise > 100 * min(each.noise for each in estimates):
        return None
    return _limited(best, analytic, scale)


def compare(
    differences: Sequence[Difference], analytic: float, scale: float, tolerance: float = TOLERANCE
) -> Comparison:
    """Compare an analytic derivative with the differences along its line.

    ``ok`` when any estimate agrees within ``tolerance``. ``wrong`` when two clean estimates agree
    with each other within 5 % of their distance to it, with the noise under a tenth of that, and
    the one-sided slopes come together. Otherwise ``precision-limited``, or ``kink``.

    Args:
        differences: plain ones, in any order.
        analytic: the derivative that autograd gives.
        scale: the size below which an error does not count, such as the tensor's gradient RMS.
        tolerance: the relative error that is allowed.
    """
    right = find_agreement(differences, analytic, scale, tolerance)
    if right is not None:
        return right
    clean = [each for each in differences if each.clean is not False]
    confirmed = _confirmed(clean, analytic)
    if confirmed is not None:
        verdict = "kink" if _on_a_kink(clean, analytic) else "wrong"
    elif clean and not any(_exceeds_noise(each, analytic) for each in clean):
        return _limited(_nearest(differences, analytic), analytic, scale)
    else:
        verdict, confirmed = "kink", _nearest(differences, analytic)
    error = relative_error(confirmed.slope, analytic, scale)
    return Comparison(verdict, analytic, confirmed.slope, error, confirmed.step)


def _limited(used: Difference, analytic: float, scale: float) -> Comparison:
    bound = relative_error(analytic + _NOISE_FACTOR * used.noise, analytic, scale)
    return Comparison("precision-limited", analytic, used.slope, bound, used.step)


def _nearest(differences: Sequence[Difference], analytic: float) -> Difference:
    """Return the estimate nearest to ``analytic``, of plain and extrapolated ones."""
    estimates = [*differences, *extrapolate(differences)]
    return min(estimates, key=lambda each: abs(each.slope - analytic))


def _exceeds_noise(estimate: Difference, analytic: float) -> bool:
    return _NOISE_FACTOR * estimate.noise < abs(estimate.slope - analytic)


def _confirmed(clean: Sequence[Difference], analytic: float) -> Difference | None:
    """Return an estimate that another one confirms, from extrapolated or from plain ones."""
    ordered = sorted(clean, key=lambda each: -each.step)
    for estimates in (extrapolate(ordered), ordered):
        for coarse, fine in pairwise(estimates):
            error = abs(fine.slope - analytic)
            clear = _exceeds_noise(coarse, analytic) and _exceeds_noise(fine, analytic)
            if clear and abs(coarse.slope - fine.slope) <= _AGREEMENT * error:
                return fine
    return None


def _on_a_kink(clean: Sequence[Difference], analytic: float) -> bool:
    """Say whether the one-sided slopes have a gap that is large and does not shrink."""
    clear = sorted((d for d in clean if _exceeds_noise(d, analytic)), key=lambda each: -each.step)
    if len(clear) < 2:
        return False
    coarse, fine = clear[-2], clear[-1]
    shrinks = abs(fine.gap) < abs(coarse.gap) * (fine.step / coarse.step) ** 0.4
    return abs(fine.gap) > 0.5 * abs(fine.slope - analytic) and not shrinks

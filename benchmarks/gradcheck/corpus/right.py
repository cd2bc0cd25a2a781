"""All right cases: hand-written backwards, torch's own operators, and regimes that mislead."""

from __future__ import annotations

from functools import partial

from benchmarks.gradcheck.corpus.case import Case
from benchmarks.gradcheck.corpus.operations import OPERATIONS
from benchmarks.gradcheck.corpus.right_modules import module_cases
from benchmarks.gradcheck.corpus.right_operators import operator_cases
from benchmarks.gradcheck.corpus.right_regimes import regime_cases


def right_cases() -> list[Case]:
    """Return every module whose gradients are right."""
    own = [
        Case(f"{operation.name}: hand-written, right", operation.name, partial(operation.build))
        for operation in OPERATIONS
    ]
    return [*own, *operator_cases(), *module_cases(), *regime_cases()]

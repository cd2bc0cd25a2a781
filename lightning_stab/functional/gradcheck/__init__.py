"""Central differences against autograd, in double precision, on a copy.

`copying` makes the copy, `state` and `randomness` make its runs repeatable, `problem` turns them
into losses of parameters, `differences` and `verdicts` measure and judge, `report` tells.
"""

from lightning_stab.functional.gradcheck.check import check_problem
from lightning_stab.functional.gradcheck.double_precision import double_copy
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord, describe
from lightning_stab.functional.gradcheck.settings import MODES, CheckSettings
from lightning_stab.functional.gradcheck.verdicts import TOLERANCE, VERDICTS
from lightning_stab.functional.random_states import preserve_random_states

__all__ = [
    "MODES",
    "TOLERANCE",
    "VERDICTS",
    "CheckSettings",
    "GradientReport",
    "ParameterRecord",
    "Problem",
    "check_problem",
    "describe",
    "double_copy",
    "preserve_random_states",
]

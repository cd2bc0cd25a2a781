"""Central differences against autograd, in double precision, on a copy.

`double_precision` makes the copy; `state`, `class_attributes`, `detached` and `branches` make its
runs repeatable; `rounding` says how far they can be trusted;
`problem` turns them into losses of parameters; `lines`, `differences` and `verdicts` compare;
`examination` goes from one parameter to the next; `check` names the cause; `report` shows it.
"""

from lightning_stab.functional.gradcheck.check import MODES, CheckSettings, Mode, check_problem
from lightning_stab.functional.gradcheck.class_attributes import ClassAttributes
from lightning_stab.functional.gradcheck.custom_functions import TURN
from lightning_stab.functional.gradcheck.double_precision import deep_copy, double_copy
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord, describe
from lightning_stab.functional.gradcheck.verdicts import TOLERANCE, VERDICTS

__all__ = [
    "MODES",
    "TOLERANCE",
    "TURN",
    "VERDICTS",
    "CheckSettings",
    "ClassAttributes",
    "GradientReport",
    "Mode",
    "ParameterRecord",
    "Problem",
    "check_problem",
    "deep_copy",
    "describe",
    "double_copy",
]

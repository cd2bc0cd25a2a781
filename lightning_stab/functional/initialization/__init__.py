"""Weight initialisation: gains, fans, what precedes a layer, schemes, and the policy over them.

The way of a weight: `sites` finds it and the activation before it, by declaration. With a batch,
`passes` runs it through a copy, `tape` records what happens, `flow` and `replay` read that, `auto`
makes a plan, and `batch_analysis` corrects what was drawn. `policy` says what is drawn or why it is
left alone, `schemes` and `structured` draw it, and `apply` writes it and keeps a record.
"""

from lightning_stab.functional.initialization.apply import WeightRecord, initialize_
from lightning_stab.functional.initialization.gains import Preceding, preceding_of
from lightning_stab.functional.initialization.passes import Program
from lightning_stab.functional.initialization.policy import (
    Bias,
    InitializationSettings,
    Keep,
    Scheme,
)
from lightning_stab.functional.initialization.schemes import (
    WeightShape,
    draw,
    scheme_std,
    weight_shape,
)
from lightning_stab.functional.initialization.sites import WeightSite, weight_sites

__all__ = [
    "Bias",
    "InitializationSettings",
    "Keep",
    "Preceding",
    "Program",
    "Scheme",
    "WeightRecord",
    "WeightShape",
    "WeightSite",
    "draw",
    "initialize_",
    "preceding_of",
    "scheme_std",
    "weight_shape",
    "weight_sites",
]

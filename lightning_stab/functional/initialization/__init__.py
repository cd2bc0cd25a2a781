"""Weight initialisation: gains, fans, what precedes a layer, schemes, and the policy over them.

The way of a weight: `data_flow` finds it and the activation before it, `policy` decides what is
drawn or why it is left alone, `fans` and `schemes` draw it, `apply` writes it and keeps a record.
"""

from lightning_stab.functional.initialization.apply import initialize_
from lightning_stab.functional.initialization.fans import WeightShape, weight_shape
from lightning_stab.functional.initialization.gains import Preceding, preceding_of
from lightning_stab.functional.initialization.passes import Program
from lightning_stab.functional.initialization.policy import InitializationSettings
from lightning_stab.functional.initialization.records import WeightRecord
from lightning_stab.functional.initialization.schemes import draw, scheme_std
from lightning_stab.functional.initialization.sites import WeightSite, weight_sites

__all__ = [
    "InitializationSettings",
    "Preceding",
    "Program",
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

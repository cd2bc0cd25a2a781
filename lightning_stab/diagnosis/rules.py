"""Every rule, and which sickness explains which."""

from __future__ import annotations

from types import MappingProxyType

from lightning_stab.diagnosis.rules_learning import LEARNING_RULES
from lightning_stab.diagnosis.rules_network import NETWORK_RULES
from lightning_stab.diagnosis.rules_wiring import WIRING_RULES

RULES = (*WIRING_RULES, *NETWORK_RULES, *LEARNING_RULES)

# the deepest cause first; where several hold at one moment, the first one is told
_ORDER = (
    ("non-finite",),
    ("output-activation", "unused-parameters"),
    ("target-scale",),
    ("input-scale",),
    ("bad-initialization",),
    ("dead-units", "saturated-units"),
    ("vanishing-gradient", "exploding-gradient"),
    ("learning-rate-too-high", "learning-rate-too-low"),
    ("loss-spike", "oscillating-loss"),
    ("plateau",),
    ("overfitting",),
)
CAUSES = MappingProxyType({id_: rank for rank, ids in enumerate(_ORDER) for id_ in ids})
IDS = tuple(CAUSES)

# what stands apart: never explained by anything else
_APART = frozenset({"non-finite", "output-activation", "unused-parameters"})
# what explains little beyond itself
_NARROW = {
    "unused-parameters": frozenset({"plateau", "learning-rate-too-low"}),
    "output-activation": frozenset({"plateau", "learning-rate-too-low", "vanishing-gradient"}),
    "loss-spike": frozenset({"oscillating-loss", "plateau"}),
    # a run that was told so early has units and gradients ruined by its own steps
    "learning-rate-too-high": frozenset(
        {
            "dead-units",
            "saturated-units",
            "vanishing-gradient",
            "exploding-gradient",
            "loss-spike",
            "oscillating-loss",
            "plateau",
            "overfitting",
        }
    ),
}
EXPLAINS = MappingProxyType(
    {
        id_: _NARROW.get(
            id_, frozenset(o for o in CAUSES if CAUSES[o] >= CAUSES[id_] and o != id_) - _APART
        )
        for id_ in CAUSES
    }
)

"""Every rule, and which sickness explains which."""

from __future__ import annotations

from types import MappingProxyType

from lightning_stab.diagnosis.rules.learning import LEARNING_RULES
from lightning_stab.diagnosis.rules.network import NETWORK_RULES
from lightning_stab.diagnosis.rules.wiring import WIRING_RULES

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

# faults by their form: told whatever else was told
_APART = frozenset({"non-finite", "output-activation", "unused-parameters"})
_SCALES = frozenset({"target-scale", "input-scale"})
# what ruins units, gradients and losses once it is there, so that nothing else that shows later is
# a cause of its own
_RUINOUS = frozenset(
    {
        "dead-units",
        "saturated-units",
        "vanishing-gradient",
        "exploding-gradient",
        "learning-rate-too-high",
        "loss-spike",
        "oscillating-loss",
    }
)
_ONLY = {  # these explain little
    "unused-parameters": frozenset({"plateau", "learning-rate-too-low"}),
    "output-activation": frozenset({"plateau", "learning-rate-too-low", "vanishing-gradient"}),
}


def _explained_by(id_: str) -> frozenset[str]:
    if id_ in _RUINOUS:
        return frozenset(CAUSES) - _APART - _SCALES - {id_}
    below = frozenset(other for other in CAUSES if CAUSES[other] >= CAUSES[id_])
    return _ONLY.get(id_, below - _APART - {id_})


EXPLAINS = MappingProxyType({id_: _explained_by(id_) for id_ in CAUSES})

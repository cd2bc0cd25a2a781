"""Every fault with its rules, and which fault explains which."""

from __future__ import annotations

from types import MappingProxyType

from lightning_stab.diagnosis.rules.learning import LEARNING_FAULTS
from lightning_stab.diagnosis.rules.network import NETWORK_FAULTS
from lightning_stab.diagnosis.rules.outcome import OUTCOME_FAULTS
from lightning_stab.diagnosis.rules.scales import SCALE_FAULTS
from lightning_stab.diagnosis.rules.wiring import WIRING_FAULTS

_FAULTS = (*WIRING_FAULTS, *SCALE_FAULTS, *NETWORK_FAULTS, *LEARNING_FAULTS, *OUTCOME_FAULTS)
# in this order a checkpoint holds how long each rule has triggered
RULES = tuple(rule for fault in _FAULTS for rule in fault.rules)

# the deepest cause first; where several hold at one moment, the first one is reported
FAULTS = tuple(sorted(_FAULTS, key=lambda fault: fault.rank))
IDS = tuple(fault.id for fault in FAULTS)
CAUSES = MappingProxyType({fault.id: fault.rank for fault in FAULTS})

# faults by their form: reported no matter what else was reported
_APART = frozenset(
    {"non-finite", "output-activation", "unused-parameters", "labels", "shape-mismatch"}
)
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
    "unused-parameters": frozenset({"plateau", "learning-rate-too-low", "underfitting"}),
    "output-activation": frozenset(
        {"plateau", "learning-rate-too-low", "vanishing-gradient", "underfitting"}
    ),
}


def _explained_by(id_: str) -> frozenset[str]:
    if id_ in _RUINOUS:
        return frozenset(CAUSES) - _APART - _SCALES - {id_}
    below = frozenset(other for other in CAUSES if CAUSES[other] >= CAUSES[id_])
    return _ONLY.get(id_, below - _APART - {id_})


EXPLAINS = MappingProxyType({id_: _explained_by(id_) for id_ in CAUSES})

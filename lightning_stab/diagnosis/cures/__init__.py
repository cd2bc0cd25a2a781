"""The table of cures: `TrainingDoctor` makes its advice of it, `prescribe` tries its rows."""

from lightning_stab.diagnosis.cures.advice import (
    BATCHES,
    HIGH_MOMENTUM,
    LONGER,
    USUAL_DECAY,
    USUAL_DROPOUT,
    USUAL_MOMENTUM,
    advice_for,
    advised,
    estimates,
    filled,
    rounded,
)
from lightning_stab.diagnosis.cures.cure import Cure, names_of
from lightning_stab.diagnosis.cures.table import BY_ID, CURES, cures_for

__all__ = [
    "BATCHES",
    "BY_ID",
    "CURES",
    "HIGH_MOMENTUM",
    "LONGER",
    "USUAL_DECAY",
    "USUAL_DROPOUT",
    "USUAL_MOMENTUM",
    "Cure",
    "advice_for",
    "advised",
    "cures_for",
    "estimates",
    "filled",
    "names_of",
    "rounded",
]

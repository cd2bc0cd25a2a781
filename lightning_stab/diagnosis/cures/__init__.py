"""The table of cures: `TrainingDoctor` makes its advice of it, `prescribe` tries its rows."""

from lightning_stab.diagnosis.cures.advice import (
    USUAL_DECAY,
    USUAL_DROPOUT,
    USUAL_MOMENTUM,
    advice_for,
    estimates,
    filled,
    rounded,
)
from lightning_stab.diagnosis.cures.table import BY_ID, CURES, Cure, cures_for

__all__ = [
    "BY_ID",
    "CURES",
    "USUAL_DECAY",
    "USUAL_DROPOUT",
    "USUAL_MOMENTUM",
    "Cure",
    "advice_for",
    "cures_for",
    "estimates",
    "filled",
    "rounded",
]

"""Facts in, findings out: rules as data and one engine, no tensors."""

from lightning_stab.diagnosis.engine import Engine
from lightning_stab.diagnosis.facts import Facts
from lightning_stab.diagnosis.finding import SEVERITIES, Evidence, Finding
from lightning_stab.diagnosis.rule import Condition, Rule
from lightning_stab.diagnosis.rules import IDS, RULES
from lightning_stab.diagnosis.thresholds import THRESHOLDS

__all__ = [
    "IDS",
    "RULES",
    "SEVERITIES",
    "THRESHOLDS",
    "Condition",
    "Engine",
    "Evidence",
    "Facts",
    "Finding",
    "Rule",
]

"""Cures that are tried before they are prescribed."""

from lightning_stab.prescription.last_activation import LogitsForLoss, WithoutLastActivation
from lightning_stab.prescription.norms import (
    GroupNormForBatchNorm,
    NormBeforeActivations,
    ResetNorms,
)
from lightning_stab.prescription.optimizer_settings import OptimizerSettings
from lightning_stab.prescription.prescribe import prescribe
from lightning_stab.prescription.prescription import CureRecord, Prescription
from lightning_stab.prescription.standardize import StandardizeInputs, StandardizeTargets
from lightning_stab.prescription.surgery import DropoutSettings, ReplaceModules, SkipConnections

__all__ = [
    "CureRecord",
    "DropoutSettings",
    "GroupNormForBatchNorm",
    "LogitsForLoss",
    "NormBeforeActivations",
    "OptimizerSettings",
    "Prescription",
    "ReplaceModules",
    "ResetNorms",
    "SkipConnections",
    "StandardizeInputs",
    "StandardizeTargets",
    "WithoutLastActivation",
    "prescribe",
]

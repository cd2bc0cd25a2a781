"""The callbacks: each usable alone, in any order, in Python and in YAML."""

from lightning_stab.callbacks.activations.activation_monitor import ActivationMonitor
from lightning_stab.callbacks.clipping.gradient_clipping import GradientClipping
from lightning_stab.callbacks.decay.learning_rate_decay import LearningRateDecay
from lightning_stab.callbacks.doctor.training_doctor import TrainingDoctor
from lightning_stab.callbacks.gradcheck.gradient_check import GradientCheck
from lightning_stab.callbacks.gradients.gradient_monitor import GradientMonitor
from lightning_stab.callbacks.guard.step_guard import StepGuard
from lightning_stab.callbacks.initialization.weight_initialization import WeightInitialization
from lightning_stab.callbacks.report.stability_report import StabilityReport
from lightning_stab.callbacks.stopping.best_weights_early_stopping import BestWeightsEarlyStopping

__all__ = [
    "ActivationMonitor",
    "BestWeightsEarlyStopping",
    "GradientCheck",
    "GradientClipping",
    "GradientMonitor",
    "LearningRateDecay",
    "StabilityReport",
    "StepGuard",
    "TrainingDoctor",
    "WeightInitialization",
]

"""The callbacks: each usable alone, in any order, in Python and in YAML."""

from lightning_stab.callbacks.activation_monitor import ActivationMonitor
from lightning_stab.callbacks.best_weights_early_stopping import BestWeightsEarlyStopping
from lightning_stab.callbacks.gradient_check import GradientCheck
from lightning_stab.callbacks.gradient_clipping import GradientClipping
from lightning_stab.callbacks.gradient_monitor import GradientMonitor
from lightning_stab.callbacks.learning_rate_decay import LearningRateDecay
from lightning_stab.callbacks.step_guard import StepGuard
from lightning_stab.callbacks.training_doctor import TrainingDoctor
from lightning_stab.callbacks.weight_initialization import WeightInitialization

__all__ = [
    "ActivationMonitor",
    "BestWeightsEarlyStopping",
    "GradientCheck",
    "GradientClipping",
    "GradientMonitor",
    "LearningRateDecay",
    "StepGuard",
    "TrainingDoctor",
    "WeightInitialization",
]

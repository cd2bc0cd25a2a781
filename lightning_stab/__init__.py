"""lightning-stab: PyTorch Lightning callbacks that keep deep networks trainable.

Importing it makes the callbacks' short names known to LightningCLI.
"""

from lightning_stab._version import __version__
from lightning_stab.callbacks import (
    ActivationMonitor,
    BestWeightsEarlyStopping,
    GradientCheck,
    GradientClipping,
    GradientMonitor,
    LearningRateDecay,
    StepGuard,
    TrainingDoctor,
    WeightInitialization,
)
from lightning_stab.callbacks.gradcheck.check_gradients import check_gradients
from lightning_stab.callbacks.initialization.initialize import initialize

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
    "__version__",
    "check_gradients",
    "initialize",
]

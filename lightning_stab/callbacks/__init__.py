"""The callbacks: each usable alone, in any order, in Python and in YAML."""

from typing import TYPE_CHECKING

from lightning_stab._lazy import lazy

HOMES = {
    "ActivationMonitor": ".activations.activation_monitor",
    "BestWeightsEarlyStopping": ".stopping.best_weights_early_stopping",
    "GradientCheck": ".gradcheck.gradient_check",
    "GradientClipping": ".clipping.gradient_clipping",
    "GradientMonitor": ".gradients.gradient_monitor",
    "LearningRateDecay": ".decay.learning_rate_decay",
    "StabilityReport": ".report.stability_report",
    "StepGuard": ".guard.step_guard",
    "TrainingDoctor": ".doctor.training_doctor",
    "WeightInitialization": ".initialization.weight_initialization",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, HOMES)
else:
    from lightning_stab.callbacks.activations.activation_monitor import ActivationMonitor
    from lightning_stab.callbacks.clipping.gradient_clipping import GradientClipping
    from lightning_stab.callbacks.decay.learning_rate_decay import LearningRateDecay
    from lightning_stab.callbacks.doctor.training_doctor import TrainingDoctor
    from lightning_stab.callbacks.gradcheck.gradient_check import GradientCheck
    from lightning_stab.callbacks.gradients.gradient_monitor import GradientMonitor
    from lightning_stab.callbacks.guard.step_guard import StepGuard
    from lightning_stab.callbacks.initialization.weight_initialization import WeightInitialization
    from lightning_stab.callbacks.report.stability_report import StabilityReport
    from lightning_stab.callbacks.stopping.best_weights_early_stopping import (
        BestWeightsEarlyStopping,
    )

__all__ = ["ActivationMonitor", "BestWeightsEarlyStopping", "GradientCheck", "GradientClipping"]
__all__ += ["GradientMonitor", "LearningRateDecay", "StabilityReport", "StepGuard"]
__all__ += ["TrainingDoctor", "WeightInitialization"]

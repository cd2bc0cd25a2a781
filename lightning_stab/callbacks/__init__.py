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

if TYPE_CHECKING:
    from lightning_stab.callbacks.activations.activation_monitor import (
        ActivationMonitor as ActivationMonitor,
    )
    from lightning_stab.callbacks.clipping.gradient_clipping import (
        GradientClipping as GradientClipping,
    )
    from lightning_stab.callbacks.decay.learning_rate_decay import (
        LearningRateDecay as LearningRateDecay,
    )
    from lightning_stab.callbacks.doctor.training_doctor import TrainingDoctor as TrainingDoctor
    from lightning_stab.callbacks.gradcheck.gradient_check import GradientCheck as GradientCheck
    from lightning_stab.callbacks.gradients.gradient_monitor import (
        GradientMonitor as GradientMonitor,
    )
    from lightning_stab.callbacks.guard.step_guard import StepGuard as StepGuard
    from lightning_stab.callbacks.initialization.weight_initialization import (
        WeightInitialization as WeightInitialization,
    )
    from lightning_stab.callbacks.report.stability_report import StabilityReport as StabilityReport
    from lightning_stab.callbacks.stopping.best_weights_early_stopping import (
        BestWeightsEarlyStopping as BestWeightsEarlyStopping,
    )
else:
    __getattr__, __dir__ = lazy(__name__, HOMES)
    __all__ = list(HOMES)

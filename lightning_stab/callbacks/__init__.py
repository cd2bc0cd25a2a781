"""The callbacks: each usable alone, in any order, in Python and in YAML."""

import importlib as _i
import pathlib as _p

_here = _p.Path(__file__).parent
__all__ = []
for _name, _cls in {
    "best_weights_early_stopping": "BestWeightsEarlyStopping",
    "gradient_check": "GradientCheck",
    "gradient_clipping": "GradientClipping",
    "gradient_monitor": "GradientMonitor",
    "learning_rate_decay": "LearningRateDecay",
    "step_guard": "StepGuard",
    "weight_initialization": "WeightInitialization",
}.items():
    # temporary while the modules are being written; becomes plain imports once all stand
    if (_here / f"{_name}.py").exists():
        globals()[_cls] = getattr(_i.import_module(f"lightning_stab.callbacks.{_name}"), _cls)
        __all__.append(_cls)

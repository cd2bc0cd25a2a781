"""The defaults of the command line, as data.

The suite's own module gets the whole suite. A module of the user's own is monitored and never
changed: its weights may be pretrained, and it may have its own learning rate and its own end.
"""

from __future__ import annotations

from typing import Any

SEED = 42
MODEL = "lightning_stab.models.MLPClassifier"
DATA = "lightning_stab.data.DigitsDataModule"

TRAINER: dict[str, Any] = {
    "trainer.max_epochs": 30,
    "trainer.log_every_n_steps": 10,
    "trainer.logger": {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs", "name": "", "default_hp_metric": False},
    },
}

Callbacks = dict[str, dict[str, Any]]  # their arguments by their names
MONITORING: Callbacks = {"GradientMonitor": {}, "StepGuard": {}, "TrainingDoctor": {}}
ALL: Callbacks = {
    "WeightInitialization": {},
    "GradientCheck": {},
    "GradientMonitor": {},
    "ActivationMonitor": {},
    "GradientClipping": {},
    "StepGuard": {},
    "LearningRateDecay": {},
    "BestWeightsEarlyStopping": {"monitor": "val_loss"},
    "TrainingDoctor": {},
}


def settings(model: str = MODEL, data: str | None = DATA) -> dict[str, Any]:
    """Return the defaults that suit a model and a data module, by parser key.

    A class of the user's choice gets no default arguments: those of another class would become
    its own wherever the names agree.

    Args:
        model: import path of the module's class.
        data: import path of the data module's class.

    Example:
        >>> settings()["model"]
        {'class_path': 'lightning_stab.models.MLPClassifier'}
        >>> settings(model="my_package.MyModule")["data"] is None
        True
    """
    own = model.startswith("lightning_stab.")
    return {
        **TRAINER,
        "trainer.callbacks": [
            {"class_path": f"lightning_stab.{name}", "init_args": dict(arguments)}
            for name, arguments in (ALL if own else MONITORING).items()
        ],
        "model": {"class_path": MODEL} if model == MODEL else None,
        "data": {"class_path": DATA} if own and data == DATA else None,
    }

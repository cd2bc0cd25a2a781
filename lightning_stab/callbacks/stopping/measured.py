"""Which weights a validation measured, where others may stand in the module before and after it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of, inherits

_HOOKS = "on_validation_start", "on_validation_epoch_start"
_MODULE_HOOKS = *_HOOKS, "on_validation_model_eval", "eval", "train"
_HARMLESS = "lightning", "pytorch_lightning", "lightning_stab", "torch"


def may_swap_weights(trainer: Trainer) -> bool:
    """Say whether something may put other weights into the module for the validation.

    An average of any make, or an optimizer with weights of its own for evaluation, does so where a
    validation begins. All that can be seen of it before is that somebody has code there.
    """
    callbacks = callbacks_of(trainer)
    if any(inherits(callback, "WeightAveraging") for callback in callbacks):
        return True
    places: list[tuple[Any, tuple[str, ...]]] = [(callback, _HOOKS) for callback in callbacks]
    places.append((trainer.lightning_module, _MODULE_HOOKS))
    return any(_is_foreign(getattr(thing, name, None)) for thing, names in places for name in names)


def _is_foreign(hook: Any) -> bool:
    """Say whether a hook is neither Lightning's nor the suite's."""
    package = str(getattr(hook, "__module__", "") or "").partition(".")[0]
    return hook is not None and package not in _HARMLESS

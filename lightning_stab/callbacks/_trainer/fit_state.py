"""How this fit began: fresh, continued or resumed. One answer for all callbacks.

``trainer.ckpt_path`` does not tell: a ``LearningRateFinder`` or ``BatchSizeFinder`` saves the state
of a fit that is about to start, tries things, and restores its own file, after which the Trainer
names that file and has called every ``load_state_dict``. What tells is when a restore comes. The
Trainer restores before it makes its optimizers, everybody else after.

A callback calls :func:`begin_fit` in ``setup`` and :func:`note_restore` in ``on_load_checkpoint``,
and asks :func:`fit_start` from ``on_fit_start`` on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from lightning.pytorch import Trainer


class FitStart(Enum):
    """How a fit began."""

    FRESH = "fresh"  # from nothing: no checkpoint, and no earlier fit of this Trainer and module
    CONTINUED = "continued"  # ``fit`` called again on the same Trainer, for more epochs
    RESUMED = "resumed"  # from a checkpoint that the user named


@dataclass
class _Fit:
    optimizers: Any  # the strategy's list when the fit was set up; it makes another one later
    module: ReferenceType[Any]
    is_of_another_module: bool  # than the fit before it
    is_over: bool = False  # something else than a fit came after it
    is_resumed: bool = False
    is_restored_midway: bool = False


_fits: WeakKeyDictionary[Trainer, _Fit] = WeakKeyDictionary()


def begin_fit(trainer: Trainer, stage: str) -> None:
    """Note that a fit is being set up; called in ``setup``, by any number of callbacks."""
    last = _fits.get(trainer)
    if stage != "fit":
        if last is not None:
            last.is_over = True
        return
    module, optimizers = trainer.lightning_module, trainer.strategy.optimizers
    is_other = last is not None and last.module() is not module
    if last is not None and not is_other and last.optimizers is optimizers:
        is_other = last.is_of_another_module  # another callback has noted this fit already
    _fits[trainer] = _Fit(optimizers, ref(module), is_other)


def note_restore(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Note that a checkpoint is being loaded; called in ``on_load_checkpoint``."""
    fit = _present(trainer)
    if fit is None:
        return
    # sharding strategies alone restore late: there a checkpoint of a fit that has begun counts
    late = trainer.strategy.restore_checkpoint_after_setup and checkpoint.get("global_step", 0) > 0
    if trainer.strategy.optimizers is fit.optimizers or late:
        fit.is_resumed = True
    else:
        fit.is_restored_midway = True


def fit_start(trainer: Trainer) -> FitStart:
    """Return how the present fit began; known from ``on_fit_start`` on."""
    fit = _present(trainer)
    if fit is None:  # a Trainer that never called ``setup``
        resumed = bool(trainer.ckpt_path)
    else:  # a checkpoint of weights alone reaches no callback
        resumed = fit.is_resumed or bool(trainer.ckpt_path and not fit.is_restored_midway)
    if resumed:
        return FitStart.RESUMED
    has_trained = trainer.global_step > 0 or trainer.current_epoch > 0
    has_trained = has_trained and not (fit is not None and fit.is_of_another_module)
    return FitStart.CONTINUED if has_trained else FitStart.FRESH


def is_restored_midway(trainer: Trainer) -> bool:
    """Say whether something else than the Trainer has restored a checkpoint in the present fit."""
    fit = _present(trainer)
    return fit is not None and fit.is_restored_midway


def _present(trainer: Trainer) -> _Fit | None:
    fit = _fits.get(trainer)
    return None if fit is None or fit.is_over else fit


def forgets_earlier_run(trainer: Trainer, *, loaded: bool) -> bool:
    """Say whether a callback has to forget an earlier run.

    Args:
        trainer: the Trainer.
        loaded: whether the callback's own state has come from a checkpoint since the last fit.
            A fresh fit forgets it all the same: what restored it midway had saved the state of an
            earlier run.
    """
    start = fit_start(trainer)
    return start is FitStart.FRESH or (start is FitStart.RESUMED and not loaded)


def is_validating_fit(trainer: Trainer) -> bool:
    """Say whether a validation belongs to a fit: no sanity check, no ``validate``."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking

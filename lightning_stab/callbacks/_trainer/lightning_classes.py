"""The one seam to Lightning's two packages, ``lightning.pytorch`` and ``pytorch_lightning``.

They define different classes of the same names, and each Trainer looks for its own. A class that
inherits from both `Callback` classes is accepted by both Trainers. So ``pytorch_lightning`` is
imported where it is installed: whoever imports it after this package has the same classes.
Inheriting from both packages' ``EarlyStopping`` fails on construction, so there of
``pytorch_lightning`` only the plain ``Callback`` is a base.
"""

from __future__ import annotations

import warnings
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback as _LightningCallback
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as _LightningEarlyStopping
from lightning_utilities.core import rank_zero

from lightning_stab.arguments import call_text
from lightning_stab.callbacks._trainer.fit_state import begin_fit, note_restore

if TYPE_CHECKING:
    _Callback = _LightningCallback
    _EarlyStopping = _LightningEarlyStopping
else:
    log = rank_zero.log  # which that package takes over for its own when it is imported
    try:
        with warnings.catch_warnings():  # those of a package that the user may not have asked for
            warnings.simplefilter("ignore")
            from pytorch_lightning import Callback as _OtherCallback
    except Exception:  # not installed, or fails beside this torch: then nobody can use it
        _OtherCallback = object
    finally:
        rank_zero.log = log

    class _Callback(_LightningCallback, _OtherCallback):
        """A callback that the Trainers of both packages accept."""

    class _EarlyStopping(_LightningEarlyStopping, _OtherCallback):
        """An early stopping callback that the Trainers of both packages accept."""


class _Shell:
    """What every callback of the suite does alike.

    A fit that fails has no ``teardown`` of its own, so ``on_exception`` calls it. ``repr`` shows
    the call that makes the same callback.
    """

    options: Any

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note that a fit is being set up; overrides call this first."""
        begin_fit(trainer, stage)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note that a checkpoint is being loaded; overrides call this first."""
        note_restore(trainer, checkpoint)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing behind."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove hooks and copies."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what Lightning binds to a used callback: a copy would hold the module."""
        return {k: v for k, v in vars(self).items() if k not in ("log", "log_dict")}

    def __repr__(self) -> str:
        return call_text(type(self).__name__, self.options)


class Callback(_Shell, _Callback):
    """A callback whose options are one frozen dataclass: ``class X(Callback, options=XOptions)``.

    A subclass keeps an instance of it as ``self.options``; each field can also be read, and not
    written, as an attribute of the callback.
    """

    def __init_subclass__(cls, options: type | None = None, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for field in fields(options) if options is not None else ():
            if not hasattr(cls, field.name):
                setattr(cls, field.name, property(attrgetter(f"options.{field.name}")))


class EarlyStopping(_Shell, _EarlyStopping):
    """Lightning's `EarlyStopping`, with the options of a subclass in one frozen dataclass.

    Its fields are no properties, because Lightning's class writes some of these attributes.
    """


def callbacks_of(trainer: Trainer) -> list[Any]:
    """Return the Trainer's callbacks, in the order of its list."""
    attributes: Any = trainer  # Lightning sets the list where a type checker does not see it
    return list(attributes.callbacks)


def is_automatic(trainer: Any, module: Any) -> bool:
    """Say whether each batch has one loss and one step, which somebody else than the module takes.

    A loop without a Trainer says so itself, because a plain module does not.
    """
    own = getattr(trainer, "takes_one_step", None)
    return bool(module.automatic_optimization if own is None else own)


def inherits(thing: object, *class_names: str) -> str:
    """Return which of the named classes ``thing`` is an instance of, or nothing.

    By name, because the two Lightning packages define different classes of the same names.

    Example:
        >>> inherits(EarlyStopping("loss"), "ModelCheckpoint", "EarlyStopping")
        'EarlyStopping'
    """
    names = [base.__name__ for base in type(thing).__mro__]
    return next((name for name in names if name in class_names), "")

"""Which weights a validation measured, where others may stand in the module before and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lightning_stab.callbacks._hooks.compiled import compiled_functions, compiled_parts
from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of, inherits
from lightning_stab.functional.norms import is_sharded, same_values, tensor_norms

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


class FirstBatch:
    """Sees other weights come into the module within the first batch of a validation.

    They do in a hook of the module on that batch, or in ``validation_step``. Where its layers run
    with one set of weights and then with another, the metric may be of either, and a warning says
    so. Sharded and compiled modules are not watched: the ones gather their weights by themselves,
    the others run no hooks.

    Args:
        module: the module.
        act: called when its layers begin to run with other weights than it has now.
    """

    def __init__(self, module: nn.Module, act: Callable[[], None]) -> None:
        self._module, self._act = module, act
        self._own, self._runs_own, self._runs_others = set(module.modules()), False, False
        hidden = compiled_parts(module) or compiled_functions(self._own)
        is_hidden = hidden or any(is_sharded(p) for p in module.parameters())
        self._before = [] if is_hidden else _norms(module).tolist()
        self._norms_of: dict[nn.Module, list[Tensor]] = {}  # by layer: in its first and last run
        self._handle = None if is_hidden else register_module_forward_pre_hook(self._look)

    def end(self) -> None:
        """Take the hook off, and say so if other weights than those that are kept have run."""
        if self._handle is None:
            return
        self._handle.remove()
        self._handle = None
        if self._runs_others and not self._runs_own:
            rank_zero_warn(
                "The validation runs layers that are no part of the module, and none of its own, "
                "so the best weights that are kept are not those that it measures. Make these "
                "layers an attribute of the module, or put their weights into it for the "
                "validation."
            )
        if any(not same_values(first, last) for first, last in self._norms_of.values()):
            rank_zero_warn(
                "Within one batch of the validation the module's layers run with two sets of "
                "weights; the best weights that are kept are those of the first run. If the metric "
                "is of the other one, put the weights in for the whole validation, from "
                "`on_validation_start` to `on_validation_end`."
            )
        self._norms_of = {}

    def _look(self, layer: nn.Module, inputs: Any) -> None:
        if next(layer.parameters(recurse=False), None) is None:
            return
        if layer not in self._own:
            self._runs_others = True
            return
        if not self._runs_own:
            self._runs_own = True
            if _norms(self._module).tolist() != self._before:
                self._act()
        norms = _norms(layer, recurse=False)  # they stay on the device until the batch has ended
        self._norms_of[layer] = [*self._norms_of.get(layer, [norms])[:1], norms]


def _norms(module: nn.Module, recurse: bool = True) -> Tensor:
    weights = [p.detach() for p in module.parameters(recurse) if p.is_floating_point()]
    return tensor_norms(weights) if weights else torch.zeros(0)

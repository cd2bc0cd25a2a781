"""Which weights a validation measured, where others may stand in the module before and after it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lightning_stab.callbacks._hooks.compiled import (
    before_calls,
    called_modules,
    compiled_functions,
    compiled_parts,
    is_compiled_method,
    is_compiled_part,
)
from lightning_stab.callbacks._trainer.lightning_classes import callbacks_of, inherits
from lightning_stab.functional.norms import is_sharded, local_shard, same_values, tensor_norms

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
    so. Of a sharded module each process compares its own shards. Where parts are compiled, their
    calls are watched, and that of ``validation_step``.

    Args:
        module: the module.
        act: called when its layers begin to run with other weights than it has now.
    """

    def __init__(self, module: nn.Module, act: Callable[[], None]) -> None:
        self._module, self._act = module, act
        self._own, self._runs_own, self._runs_others = set(module.modules()), False, False
        self._runs: dict[nn.Module, list[_Weights]] = {}  # by layer: its first and its last
        self._changes_inside = False
        self._present = _Weights(module)
        if compiled_parts(module) or compiled_functions(self._own):  # compiled code runs no hooks
            self._ends = [before_calls(part, self._look) for part in called_modules(module)]
            self._ends.append(self._watch_step())
        else:
            self._ends = [register_module_forward_pre_hook(lambda m, _: self._look(m)).remove]

    def end(self) -> None:
        """Take the hooks off, and say so if other weights than those that are kept have run."""
        if not self._ends:
            return
        for end in self._ends:
            end()
        self._ends = []
        if self._runs_others and not self._runs_own:
            rank_zero_warn(
                "The validation runs layers that are no part of the module, and none of its own, "
                "so the best weights that are kept are not those that it measures. Make these "
                "layers an attribute of the module, or put their weights into it for the "
                "validation."
            )
        if self._changes_inside or any(first != last for first, last in self._runs.values()):
            rank_zero_warn(
                "Within one batch of the validation the module's layers run with two sets of "
                "weights; the best weights that are kept are those of the first run. If the metric "
                "is of the other one, put the weights in for the whole validation, from "
                "`on_validation_start` to `on_validation_end`."
            )
        self._runs = {}

    def _look(self, layer: nn.Module) -> None:
        is_compiled = is_compiled_part(layer)
        has_weights = next(layer.parameters(recurse=is_compiled), None) is not None
        if layer not in self._own:
            self._runs_others |= has_weights
            return
        if not self._runs_own:  # the shards of a sharded module are there until its root has begun
            self._keep_if_others()
        self._runs_own |= has_weights
        if has_weights:  # the norms stay on the device until the batch has ended
            weights = _Weights(layer, recurse=is_compiled)
            self._runs[layer] = [*self._runs.get(layer, [weights])[:1], weights]

    def _keep_if_others(self) -> None:
        weights = _Weights(self._module)
        if weights != self._present:
            self._act()
            self._present = weights

    def _watch_step(self) -> Callable[[], None]:
        """Look where ``validation_step`` begins, and whether a compiled one writes into weights."""
        module: Any = self._module
        attributes, name, step = vars(module), "validation_step", module.validation_step
        own, is_compiled = attributes.get(name), is_compiled_method(module, name)

        @wraps(step)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._keep_if_others()
            before = [p._version for p in module.parameters()]
            result = step(*args, **kwargs)
            self._changes_inside |= is_compiled and before != [
                p._version for p in module.parameters()
            ]
            return result

        attributes[name] = watched
        return lambda: attributes.pop(name) if own is None else attributes.update({name: own})


class _Weights:
    """The norms of a module's weights, which differ where those that can be compared differ.

    While a sharded layer runs, its weights are whole; they are not compared with shards.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, module: nn.Module, recurse: bool = True) -> None:
        weights = [p.detach() for p in module.parameters(recurse) if p.is_floating_point()]
        self._kinds = [is_sharded(w) for w in weights]
        self._norms = tensor_norms([local_shard(w) for w in weights])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Weights):
            return NotImplemented
        alike = [i for i, kind in enumerate(self._kinds) if kind == other._kinds[i]]
        return same_values(self._norms[alike], other._norms[alike])

"""Values that pass through ``detach``, ``no_grad`` or ``item``: constants to autograd.

Autograd differentiates as if such a value were a constant. So that a straight-through estimator
or a target is not called wrong, the value at the unperturbed point is used again at every other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from lightning_stab.functional.gradcheck.branches import Replay
from lightning_stab.functional.gradcheck.custom_functions import Depth
from lightning_stab.functional.gradcheck.double_precision import call_in_double, is_in_place

_TO_PYTHON = {"item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__"}
_TO_PYTHON |= {"__complex__", "__array__"}
_DETACHING = {"detach", "detach_"} | _TO_PYTHON
_ALIASING = {"detach", "data"}
_CONSTANTS = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}
_CONSTANTS |= {"new_zeros", "new_ones", "new_empty", "new_full", "new_tensor", "_set_grad_enabled"}
_CONSTANTS |= {"requires_grad_", "zero_", "fill_", "backward", "register_hook", "retain_grad"}
_EMBEDDING = {"embedding": (2, 3), "embedding_bag": (8, 3)}
"""Where ``padding_idx``, and ``max_norm``, which writes to the weight, stand among arguments."""
_HERE = str(Path(__file__).parent)
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class DetachedValue:
    """One value that autograd takes for a constant, the function that gave it, and where."""

    function: str
    place: str
    value: Any  # None where the module wrote to its memory later, so that it cannot be replayed
    shape: torch.Size | None


@dataclass
class DetachedValues:
    """The detached values of one run, in order, and what else was seen on the way.

    Args:
        lifted: whether low precision was lifted to double anywhere.
        needs_graph: whether the run differentiates by itself.
        writes: whether the run writes to its own parameters.
        aliases: values, by their number, that share memory with what they were taken from.
        padding: ``id`` of a weight and its ``padding_idx``, a row that gets no gradient.
    """

    values: list[DetachedValue] = field(default_factory=list)
    lifted: bool = False
    needs_graph: bool = False
    writes: bool = False
    aliases: list[tuple[int, Tensor]] = field(default_factory=list)
    padding: set[tuple[int, int]] = field(default_factory=set)

    def finish(self) -> None:
        """Free the values whose memory the module wrote to: there the alias matters."""
        for index, alias in self.aliases:
            if not torch.equal(alias, self.values[index].value):
                self.values[index] = replace(self.values[index], value=None)
        self.aliases.clear()

    @property
    def matters(self) -> bool:
        """Whether later runs need a `DetachReplay`."""
        return bool(self.values) or self.lifted or self.writes

    def places(self) -> list[str]:
        """Return where values were detached, each place once."""
        return list(dict.fromkeys(f"{value.function} at {value.place}" for value in self.values))


class DetachReplay(TorchFunctionMode):
    """Lifts low precision to double, and records detached values or replays them."""

    def __init__(self, recorded: DetachedValues, *, replay: bool, depth: Depth) -> None:
        super().__init__()
        self._recorded = recorded
        self.replay = Replay(recorded.values) if replay else None
        self._depth = depth

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            if getattr(func, "__self__", None) is not Tensor.data:
                return func(*args, **kwargs)
            name = "data"
        if func is torch.autograd.grad:
            self._recorded.needs_graph = True
        if name in _EMBEDDING:
            args, kwargs = self._without_renormalising(name, args, kwargs)
        detaches = self._detaches(name, args, kwargs)
        writes = detaches and is_in_place(name)
        if writes and _is_parameter(args[0]):
            self._recorded.writes = True
            # the reference point is the one that this very call has led to
            return func(*args, **kwargs) if self.replay is None else args[0]
        result, lifted = call_in_double(func, args, kwargs)
        self._recorded.lifted |= lifted
        if not detaches or not _is_constant(name, args[0] if writes else result):
            return result
        target = kwargs.get("out", args[0] if args and is_in_place(name) else None)
        if _is_parameter(target):
            return result
        return self._record_or_replay(name, target, result)

    def _record_or_replay(self, name: str, target: Any, result: Any) -> Any:
        value = result if target is None else target
        shape = getattr(value, "shape", None)
        if self.replay is None:
            if name in _ALIASING and isinstance(value, Tensor):
                self._recorded.aliases.append((len(self._recorded.values), value))
            self._recorded.values.append(DetachedValue(name, _place(), _copied(value), shape))
            return result
        known = self.replay.take(lambda v: (v.function, v.shape) == (name, shape))
        if known is None or known.value is None:
            return result
        if not isinstance(target, Tensor):
            return _copied(known.value)
        with torch.no_grad():
            target.copy_(known.value)
        return result

    def _without_renormalising(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Leave out ``max_norm`` on replay: the reference point has it applied already."""
        padding, position = _EMBEDDING[name]
        row = _argument("padding_idx", padding, args, kwargs)
        weight = _argument("weight", 1, args, kwargs)
        if row is not None and isinstance(weight, Tensor):
            self._recorded.padding.add((id(weight), row % len(weight)))
        if _argument("max_norm", position, args, kwargs) is None:
            return args, kwargs
        self._recorded.writes = True
        if self.replay is None:
            return args, kwargs
        kwargs = {key: value for key, value in kwargs.items() if key != "max_norm"}
        return tuple(None if i == position else a for i, a in enumerate(args)), kwargs

    def _detaches(self, name: str, args: Any, kwargs: Any) -> bool:
        """Say whether a float result of this call may be a constant to autograd."""
        if name in _CONSTANTS or name.startswith(("new_", "is_", "_has_")):
            return False
        inside_checkpoint = self._depth.inside_checkpoint and name not in _DETACHING
        if self._depth.inside_function or inside_checkpoint:
            return False
        values = tree_flatten((args, kwargs))[0]
        return any(isinstance(v, Tensor) and v.requires_grad for v in values)


def _argument(name: str, position: int, args: Any, kwargs: Any) -> Any:
    return kwargs.get(name, args[position] if len(args) > position else None)


def _is_parameter(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_leaf and value.requires_grad


def _is_constant(name: str, result: Any) -> bool:
    """Say whether autograd takes a float result for a constant."""
    if name in _TO_PYTHON:
        return True
    tensors = [value for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
    floats = [t for t in tensors if t.is_floating_point() or t.is_complex()]
    return bool(floats) and not any(t.requires_grad for t in floats)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor) and not value.requires_grad:
        return value.detach().clone()
    if hasattr(value, "copy") and not isinstance(value, Tensor):
        return value.copy()
    return tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), value)


def _place() -> str:
    """Return file and line of the user's code that is running."""
    frame = inspect.currentframe()
    while (
        frame is not None
        and frame.f_back is not None
        and frame.f_code.co_filename.startswith((_HERE, _TORCH))
    ):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"

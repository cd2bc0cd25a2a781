"""Which branch of every piecewise function a run takes; noted, or replayed.

A net of ReLUs has a kink within almost every step that rounding leaves room for. Autograd's
gradient is that of the piece on which the point lies. Replaying every mask, every comparison and
every index of a maximum as it was there turns the loss into that piece, smooth for any step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

Recorded = TypeVar("Recorded")

if TYPE_CHECKING:

    class DispatchMode:  # torch leaves its own untyped
        """Sees every operator of aten that the body of a ``with`` calls."""

        def __enter__(self) -> DispatchMode: ...
        def __exit__(self, *error: object) -> None: ...

else:
    DispatchMode = TorchDispatchMode


class BranchWatch(DispatchMode):
    """Sums up every boolean, every index and the side of every kink in a run.

    Two runs with equal ``sums`` went through the same smooth pieces.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        before = args[0] if args else None
        if not (isinstance(before, Tensor) and before.is_floating_point()):
            before = None
        elif name.endswith("_"):
            before = before.clone()
        result = func(*args, **(kwargs or {}))
        if "empty" in name or name == "set_":
            return result  # memory that holds nothing yet
        found = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
        found = [t for t in found if not (t.is_floating_point() or t.is_complex())]
        if before is not None and name in KINKS:
            found += [side for sides in KINKS[name].sides for side in sides(before, args, result)]
        self.sums.extend(map(check_sum, found))
        return result


@dataclass(frozen=True)
class Branch:
    """The branch that one call of an operator took: a mask, an index or a result."""

    operator: str  # with its overload
    shape: torch.Size  # of its first argument
    taken: Tensor


class Replay(Generic[Recorded]):
    """Gives recorded things back in order, until it is asked for another one than comes next."""

    def __init__(self, recorded: list[Recorded]) -> None:
        self._recorded = recorded
        self._next = 0
        self._lost = False

    def take(self, fits: Callable[[Recorded], bool]) -> Recorded | None:
        """Return the next one if it fits; None, and from then on, if this run is another one."""
        known = self._recorded[self._next] if self._next < len(self._recorded) else None
        self._lost = self._lost or known is None or not fits(known)
        self._next += 1
        return None if self._lost else known

    @property
    def complete(self) -> bool:
        """Whether each was given back, and no other was asked for."""
        return not self._lost and self._next == len(self._recorded)


class BranchReplay(DispatchMode):
    """Records the branches of a run in a list, or replays those of an earlier one."""

    def __init__(self, branches: list[Branch], *, record: bool = False) -> None:
        super().__init__()
        self.replay = None if record else Replay(branches)
        self._branches = branches

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.name().partition("::")[2]
        name, _, overload = operator.partition(".")
        rule = KINKS[name].rule if name in KINKS else None
        if rule is None or not rule.applies(overload, args, kwargs or {}):
            return func(*args, **(kwargs or {}))
        if self.replay is None:
            source = args[0].clone() if name.endswith("_") else args[0]
            result = func(*args, **(kwargs or {}))
            taken = rule.record((source, *args[1:]), result)
            self._branches.append(Branch(operator, source.shape, taken.clone()))
            return result
        known = self.replay.take(lambda b: (b.operator, b.shape) == (operator, args[0].shape))
        return func(*args, **(kwargs or {})) if known is None else rule.replay(known.taken, args)


def check_sum(tensor: Tensor) -> int:
    """Return a check sum of the bytes of a tensor."""
    data = tensor.detach().contiguous().cpu()
    return zlib.crc32(data.reshape(-1).view(torch.uint8).numpy().tobytes()) if data.numel() else 0


# --- the table of kinks ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """How to record a branch from arguments and result, and how to replay it on new arguments.

    A rule whose branch is not the result itself is for real floats: a complex ``abs`` is smooth,
    and integers follow from branches that are replayed before.
    """

    record: Callable[[Any, Any], Tensor]
    replay: Callable[[Tensor, Any], Any]
    overload: str | None = None  # the only one that it is for; None for all

    def applies(self, overload: str, args: Any, kwargs: dict[str, Any]) -> bool:
        """Say whether a call is of the kind that the rule knows; one with ``out=`` never is."""
        if "out" in kwargs or (self.overload is not None and self.overload != overload):
            return False
        tensors = [each for each in args if isinstance(each, Tensor)]
        is_real = all(t.is_floating_point() for t in tensors)
        return isinstance(args[0], Tensor) and (self is _SAME or is_real)


@dataclass(frozen=True)
class Kink:
    """What is known about an operator of aten that is smooth in pieces only.

    Args:
        sides: functions of the first argument, all arguments and the result. They return what
            differs on the two sides, besides a discrete result.
        rule: how its branch is replayed; None where it is not.
    """

    sides: tuple[Callable[[Tensor, Any, Any], list[Tensor]], ...] = ()
    rule: Rule | None = None


def _kept(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    """Return where the result equals an argument: on one side of the kink it does."""
    if not isinstance(result, Tensor):
        return []
    found = []
    for other in (source, *args[1:]):
        if isinstance(other, Tensor):
            try:
                found.append(result == other)
            except RuntimeError:  # of another shape
                found.append(source == source.max())
    if result.dim() < source.dim():
        found.append(torch.stack([source.argmax(), source.argmin()]))
    return found


def _signs(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    return [source > 0, source < 0]


def _steps(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    """Return the result itself, of a function that is piecewise constant."""
    return [result]


def _difference(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    gap = source - args[1]
    width = next((a for a in args[2:] if isinstance(a, float)), 1.0)
    return [gap > 0, gap < 0, gap.abs() < width]


def _pairs(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    other = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else source
    return [source.unsqueeze(-2) - other.unsqueeze(-3) > 0]


def _margins(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    gap = source.unsqueeze(-1) - source.unsqueeze(-2)
    return [gap > 1, gap < 1]


def _gather(index: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    dim, keep = args[1], len(args) > 2 and args[2]
    values = args[0].gather(dim, index if keep else index.unsqueeze(dim))
    return (values if keep else values.squeeze(dim)), index.clone()


def _gather_pooled(index: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    values = args[0].flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)
    return values, index.clone()


_MASKED = Rule(lambda args, result: args[0] > 0, lambda mask, args: args[0] * mask)
_MASKED_IN_PLACE = Rule(_MASKED.record, lambda mask, args: args[0].mul_(mask))
_SLOPED = Rule(
    lambda args, result: args[0] > 0,
    lambda mask, args: torch.where(mask, args[0], (*args, 0.01)[1] * args[0]),
)
_BOUNDED = Rule(  # NaN where the argument passes, and the bound where it is cut off
    lambda args, result: torch.where(result == args[0], torch.full_like(result, torch.nan), result),
    lambda bound, args: torch.where(bound.isnan(), args[0], bound),
)
_SIGNED = Rule(lambda args, result: args[0].sign(), lambda sign, args: args[0] * sign)
_LARGER = Rule(lambda args, result: args[0] > args[1], lambda mask, args: torch.where(mask, *args))
_SMALLER = Rule(lambda args, result: args[0] < args[1], _LARGER.replay)
_GATHERED = Rule(lambda args, result: result[1], _gather, "dim")
_POOLED = Rule(lambda args, result: result[1], _gather_pooled)
_SAME = Rule(lambda args, result: result, lambda result, args: result.clone())

_TABLE = {
    "relu": Kink((_kept,), _MASKED),
    "relu_": Kink((_kept,), _MASKED_IN_PLACE),
    "threshold hardtanh": Kink((_kept,), _BOUNDED),
    "clamp clamp_min clamp_max": Kink((_kept,), replace(_BOUNDED, overload="")),
    "maximum": Kink((_kept,), _LARGER),
    "minimum": Kink((_kept,), _SMALLER),
    "max min": Kink((_kept,), _GATHERED),
    "max_pool2d_with_indices": Kink((), _POOLED),
    "threshold_ hardtanh_ clamp_ clamp_min_ clamp_max_ fmax fmin": Kink((_kept,)),
    "hardshrink nan_to_num amax amin softplus renorm": Kink((_kept,)),
    "abs": Kink((_signs,), _SIGNED),
    "leaky_relu _prelu_kernel": Kink((_signs,), _SLOPED),
    "abs_ sgn leaky_relu_ elu elu_ celu prelu rrelu_with_noise rrelu_with_noise_": Kink((_signs,)),
    "xlogy hardswish_ hardsigmoid_ linalg_vector_norm norm": Kink((_signs,)),
    "hardswish hardsigmoid": Kink((_signs, lambda x, args, result: [x < 3, x > -3])),
    "softshrink": Kink((_signs, lambda x, args, result: [x.abs() > (*args, 0.5)[1]])),
    "sign": Kink((_signs, _steps), _SAME),
    "heaviside": Kink((_signs, _steps)),
    "floor ceil round trunc": Kink((_steps,), _SAME),
    "floor_ ceil_ round_ trunc_ floor_divide": Kink((_steps,)),
    "smooth_l1_loss huber_loss": Kink((_difference,)),
    "multi_margin_loss multilabel_margin_loss_forward": Kink((_margins,)),
    "_cdist_forward": Kink((_pairs,)),
    "dist": Kink((lambda x, args, result: [x > args[1]],)),
    "gt ge lt le eq ne argmax argmin isnan isfinite": Kink((), _SAME),
    "logical_not logical_and logical_or": Kink((), _SAME),
}
KINKS = {name: kink for names, kink in _TABLE.items() for name in names.split()}

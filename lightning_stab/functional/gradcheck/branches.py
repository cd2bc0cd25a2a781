"""Which branch of every piecewise function a run takes; noted, or replayed.

A net of ReLUs has a kink within almost every step that rounding leaves room for. Autograd's
gradient is that of the piece on which the point lies. Replaying every mask, every comparison and
every index of a maximum as it was there turns the loss into that piece, smooth for any step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

if TYPE_CHECKING:

    class DispatchMode:  # torch leaves its own untyped
        """Sees every operator of aten that the body of a ``with`` calls."""

        def __enter__(self) -> DispatchMode: ...
        def __exit__(self, *error: object) -> None: ...

else:
    DispatchMode = TorchDispatchMode

Sides = Callable[[Tensor, Any, Any], list[Tensor]]
"""Of the first argument, all arguments and the result: what differs on the sides of a kink."""


class BranchWatch(DispatchMode):
    """Sums up every boolean, every index and the side of every kink in a run.

    Two runs with equal ``sums`` went through the same smooth pieces.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        before = _is_float(args) and (args[0].clone() if name.endswith("_") else args[0])
        result = func(*args, **(kwargs or {}))
        if "empty" in name or name == "set_":
            return result  # memory that holds nothing yet
        found = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor) and _is_discrete(t)]
        if name in KINKS and isinstance(before, Tensor):
            found += [side for sides in KINKS[name].sides for side in sides(before, args, result)]
        self.sums.extend(map(check_sum, found))
        return result


@dataclass(frozen=True)
class Branch:
    """The branch that one call of an operator took.

    Args:
        operator: its name, with its overload.
        shape: of its first argument.
        taken: a mask, an index or a result, as the operator's rule records it.
    """

    operator: str
    shape: torch.Size
    taken: Tensor


class BranchReplay(DispatchMode):
    """Records the branches of a run, or replays those of an earlier one.

    A replay that meets another operator or shape than was recorded goes on without replaying.

    Args:
        branches: receives the branches, or gives them.
        record: whether to record.
    """

    def __init__(self, branches: list[Branch], *, record: bool = False) -> None:
        super().__init__()
        self._branches = branches
        self._record = record
        self._next = 0
        self._diverged = False

    @property
    def complete(self) -> bool:
        """Whether each recorded branch was replayed, in order, and no other was met."""
        return self._record or (not self._diverged and self._next == len(self._branches))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.name().partition("::")[2]
        name, _, overload = operator.partition(".")
        rule = KINKS[name].rule if name in KINKS else None
        if rule is None or (rule.overload is not None and rule.overload != overload):
            return func(*args, **(kwargs or {}))
        if self._record:
            source = args[0].clone() if name.endswith("_") else args[0]
            result = func(*args, **(kwargs or {}))
            taken = rule.record((source, *args[1:]), result)
            self._branches.append(Branch(operator, source.shape, taken.clone()))
            return result
        known = self._branches[self._next] if self._next < len(self._branches) else None
        if known is None or (known.operator, known.shape) != (operator, args[0].shape):
            self._diverged = True
        if known is None or self._diverged:
            return func(*args, **(kwargs or {}))
        self._next += 1
        return rule.replay(known.taken, args)


def check_sum(tensor: Tensor) -> int:
    """Return a check sum of the bytes of a tensor."""
    data = tensor.detach().contiguous().cpu()
    return zlib.crc32(data.reshape(-1).view(torch.uint8).numpy().tobytes()) if data.numel() else 0


def _is_float(args: Any) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and args[0].is_floating_point()


def _is_discrete(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


# --- the sides of a kink --------------------------------------------------------------------------


def _kept(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    """Tell where the result equals an argument: on one side of the kink it does."""
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
    """Tell the result itself, of a function that is piecewise constant."""
    return [result]


def _difference(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    gap = source - args[1]
    width = next((a for a in args[2:] if isinstance(a, float)), 1.0)
    return [gap > 0, gap < 0, gap.abs() < width]


def _ceiling(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    return [source < 3, source > -3]


def _beyond_lambda(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    return [source.abs() > (args[1] if len(args) > 1 else 0.5)]


def _pairs(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    other = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else source
    return [source.unsqueeze(-2) - other.unsqueeze(-3) > 0]


def _margins(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    gap = source.unsqueeze(-1) - source.unsqueeze(-2)
    return [gap > 1, gap < 1]


def _larger(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    return [source > args[1]]


# --- how a branch is recorded and replayed --------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """How to record a branch from arguments and result, and how to replay it on new arguments.

    Args:
        record: returns the branch that was taken.
        replay: returns the result on that branch.
        overload: the only overload that it is for; None for all.
    """

    record: Callable[[Any, Any], Tensor]
    replay: Callable[[Tensor, Any], Any]
    overload: str | None = None


def _bound(args: Any, result: Tensor) -> Tensor:
    """Return NaN where the argument passes, and the bound where it is cut off."""
    return torch.where(result == args[0], torch.full_like(result, torch.nan), result)


def _bounded(taken: Tensor, args: Any) -> Tensor:
    return torch.where(taken.isnan(), args[0], taken)


def _positive(args: Sequence[Tensor], result: Any) -> Tensor:
    return args[0] > 0


def _sloped(taken: Tensor, args: Any) -> Tensor:
    slope = args[1] if len(args) > 1 else 0.01
    return torch.where(taken, args[0], slope * args[0])


def _masked(taken: Tensor, args: Sequence[Tensor]) -> Tensor:
    return args[0] * taken


def _masked_in_place(taken: Tensor, args: Sequence[Tensor]) -> Tensor:
    return args[0].mul_(taken)


def _chosen(taken: Tensor, args: Any) -> Tensor:
    return torch.where(taken, args[0], args[1])


def _index(args: Any, result: Sequence[Tensor]) -> Tensor:
    return result[1]


def _gathered(taken: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    dim, keep = args[1], len(args) > 2 and args[2]
    values = args[0].gather(dim, taken if keep else taken.unsqueeze(dim))
    return (values if keep else values.squeeze(dim)), taken.clone()


def _pooled(taken: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    values = args[0].flatten(-2).gather(-1, taken.flatten(-2)).view(taken.shape)
    return values, taken.clone()


_RESULT = Rule(lambda args, result: result, lambda taken, args: taken.clone())


@dataclass(frozen=True)
class Kink:
    """What is known about an operator of aten that is smooth in pieces only.

    Args:
        sides: what tells on which piece its arguments lie, besides a discrete result.
        rule: how its branch is replayed; None where it is not.
    """

    sides: tuple[Sides, ...] = ()
    rule: Rule | None = None


_TABLE = {
    "relu": Kink((_kept,), Rule(_positive, _masked)),
    "relu_": Kink((_kept,), Rule(_positive, _masked_in_place)),
    "threshold hardtanh": Kink((_kept,), Rule(_bound, _bounded)),
    "clamp clamp_min clamp_max": Kink((_kept,), Rule(_bound, _bounded, "")),
    "maximum": Kink((_kept,), Rule(lambda args, result: args[0] > args[1], _chosen)),
    "minimum": Kink((_kept,), Rule(lambda args, result: args[0] < args[1], _chosen)),
    "max min": Kink((_kept,), Rule(_index, _gathered, "dim")),
    "max_pool2d_with_indices": Kink((), Rule(_index, _pooled)),
    "threshold_ hardtanh_ clamp_ clamp_min_ clamp_max_ fmax fmin": Kink((_kept,)),
    "hardshrink nan_to_num amax amin softplus renorm": Kink((_kept,)),
    "abs": Kink((_signs,), Rule(lambda args, result: args[0].sign(), _masked)),
    "leaky_relu _prelu_kernel": Kink((_signs,), Rule(_positive, _sloped)),
    "abs_ sgn leaky_relu_ elu elu_ celu prelu rrelu_with_noise rrelu_with_noise_": Kink((_signs,)),
    "xlogy hardswish_ hardsigmoid_ linalg_vector_norm norm": Kink((_signs,)),
    "hardswish hardsigmoid": Kink((_signs, _ceiling)),
    "softshrink": Kink((_signs, _beyond_lambda)),
    "sign": Kink((_signs, _steps), _RESULT),
    "heaviside": Kink((_signs, _steps)),
    "floor ceil round trunc": Kink((_steps,), _RESULT),
    "floor_ ceil_ round_ trunc_ floor_divide": Kink((_steps,)),
    "smooth_l1_loss huber_loss": Kink((_difference,)),
    "multi_margin_loss multilabel_margin_loss_forward": Kink((_margins,)),
    "_cdist_forward": Kink((_pairs,)),
    "dist": Kink((_larger,)),
    "gt ge lt le eq ne argmax argmin isnan isfinite": Kink((), _RESULT),
    "logical_not logical_and logical_or": Kink((), _RESULT),
}
KINKS = {name: kink for names, kink in _TABLE.items() for name in names.split()}
"""The one table of kinks, by the name of the operator."""

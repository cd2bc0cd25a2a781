"""The uses of weights in a forward pass, and the way back from the data of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lightning_stab.functional.initialization.tape import Operation


@dataclass(eq=False)
class Stem:
    """The way from a value back to the nearest place that everything in it comes from.

    Attributes:
        junction: the operation there; None where the value comes from outside.
        operations: those between, the latest first.
        kind: what the junction is: ``input``, ``weight``, ``norm``, ``recurrent``, ``attention``,
            ``sum``, or ``other``.
    """

    junction: Operation | None
    operations: list[Operation]
    kind: str


@dataclass(eq=False)
class Use:
    """One product of a weight with data.

    Attributes:
        operation: the product.
        index: its place among all operations.
        stem: the way back from its data.
        data: the data.
        consumers: the uses whose data come from it alone, each with its own stem.
        ends_branch: whether its result is added to something that it was computed from.
        joins_sum: whether its result is added to other data.
        leaks: whether its result reaches another layer in another way as well.
        reaches_weight: whether its result reaches another layer at all.
    """

    operation: Operation
    stem: Stem
    data: Tensor
    consumers: list[Use] = field(default_factory=list)
    ends_branch: bool = False
    joins_sum: bool = False
    leaks: bool = False
    reaches_weight: bool = False

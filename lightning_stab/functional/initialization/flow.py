"""From a recorded forward pass: what feeds each weight, and what each weight feeds."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from lightning_stab.functional.initialization.tape import Operation, Tape
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import storage_of

_PRODUCTS = {
    *("addmm", "mm", "linear", "convolution", "_convolution", "bmm", "baddbmm", "addbmm", "mv"),
    *("addmv", "embedding", "_embedding_bag", "_embedding_bag_forward_only", "mkldnn_linear"),
}
_CONVOLUTIONS = {"convolution", "_convolution"}
MIXERS = {
    *("bmm", "baddbmm", "mm", "addmm", "mv", "_softmax"),
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
}
_NORMS = ("native_", "_native_", "cudnn_", "miopen_", "_fused_", "_batch_")
# They take a tensor for its shape only.
_SHAPED_LIKE = ("_like", "bernoulli")
_REDUCTIONS = {"mean", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "sum", "norm"}
_SUMS = {"add", "sub"}


@dataclass(eq=False)
class UpstreamPath:
    """The way from a value back to the nearest place that everything in it comes from.

    Attributes:
        source: the operation there; None where the value comes from outside.
        operations: those between, the latest first.
        kind: what the source is: ``input``, ``weight``, ``norm``, ``recurrent``, ``attention``,
            ``sum``, or ``other``.
    """

    source: Operation | None
    operations: list[Operation]
    kind: str


@dataclass(eq=False)
class Use:
    """One product of a weight with data.

    Attributes:
        operation: the product.
        upstream: the way back from its data.
        data: the data.
        consumers: the uses whose data come from it alone, each with its own way back.
        ends_branch: whether its result is added to something that it was computed from.
        joins_sum: whether its result is added to other data.
        has_other_consumers: whether its result reaches another layer in another way as well.
        reaches_weight: whether its result reaches another layer at all.
    """

    operation: Operation
    upstream: UpstreamPath
    data: Tensor
    consumers: list[Use] = field(default_factory=list)
    ends_branch: bool = False
    joins_sum: bool = False
    has_other_consumers: bool = False
    reaches_weight: bool = False


class Flow:
    """The flow of data between the weights of a recorded module.

    Args:
        tape: the record.
        module: the module that was recorded.
    """

    def __init__(self, tape: Tape, module: nn.Module) -> None:
        self._names = {storage_of(p): plain_name(name) for name, p in module.named_parameters()}
        self._known = {*self._names, *(storage_of(buffer) for buffer in module.buffers())}
        self._carries: dict[Operation, bool] = {}
        self._index = {op: place for place, op in enumerate(tape.operations)}
        self._roots: dict[Operation, frozenset[str]] = {}
        self.operations = tape.operations
        self.uses: dict[str, list[Use]] = {}
        self.combined: set[str] = set()
        self._by_operation: dict[Operation, Use] = {}
        for operation in tape.operations:
            self._roots[operation] = self._find_roots(operation)
            self._find_use(operation)
            self._carries[operation] = self._carries_data(operation)
        self._connect()

    def data_sources(self, operation: Operation) -> list[Operation]:
        """Return what feeds an operation with data: no parameter, buffer or random mask."""
        if _only_shaped_like(operation):
            return []
        return [s for s in operation.sources if s is not None and self._carries[s]]

    def trace_upstream(self, source: Operation | None) -> UpstreamPath:
        """Return the way back from the value that ``source`` made."""
        if source is None or not self._carries[source]:
            return UpstreamPath(None, [], "input")
        queue, queued = [(-self._index[source], source)], {source}
        passed: list[Operation] = []
        cut, cut_length = source, 0
        while queue:
            _, operation = heapq.heappop(queue)
            alone, kind = not queue, self._kind(operation)
            if kind:
                if alone:
                    return UpstreamPath(operation, passed, kind)
                merge = "sum" if cut.name in _SUMS else "other"
                return UpstreamPath(cut, passed[:cut_length], merge)
            if alone:
                cut, cut_length = operation, len(passed)
            passed.append(operation)
            for before in self.data_sources(operation):
                if before not in queued:
                    queued.add(before)
                    heapq.heappush(queue, (-self._index[before], before))
        return UpstreamPath(None, passed, "input")

    def normalizes(self, operations: Iterable[Operation]) -> bool:
        """Return whether a path divides its value by a statistic of it, as a hand-written norm."""
        operations = list(operations)
        reduces = any(operation.name in _REDUCTIONS for operation in operations)
        return reduces and any(len(set(self.data_sources(o))) > 1 for o in operations)

    def _kind(self, operation: Operation) -> str:
        if operation.mark:
            return operation.mark
        if operation in self._by_operation:
            return "weight"
        name = operation.name
        if name.startswith(_NORMS) and name.endswith(("_norm", "_norm_legit", "_functional")):
            return "norm"
        if name in _SUMS and self._joins_input(operation):
            return "sum"
        return "attention" if name in MIXERS else ""

    def _joins_input(self, operation: Operation) -> bool:
        """Return whether a raw input is added to what was computed from it."""
        sides = self._origins(operation)
        outside = [side for side in sides if not isinstance(side, Operation)]
        inner = [side for side in sides if isinstance(side, Operation)]
        return any(self._depends(op, raw) for op in inner for raw in outside)

    def _carries_data(self, operation: Operation) -> bool:
        if operation in self._by_operation:
            return True  # also of noise that the module draws itself
        if _only_shaped_like(operation):
            return False
        return any(
            storage_of(tensor) not in self._known if source is None else self._carries[source]
            for tensor, source in zip(operation.tensors, operation.sources, strict=True)
        )

    def _find_roots(self, operation: Operation) -> frozenset[str]:
        """Return the parameters that alone make up an operation's result; empty with data."""
        found: set[str] = set()
        for tensor, source in zip(operation.tensors, operation.sources, strict=True):
            roots = self._roots_of(tensor, source)
            if not roots:
                return frozenset()
            found |= roots
        return frozenset(found)

    def _roots_of(self, tensor: Tensor, source: Operation | None) -> frozenset[str]:
        name = self._names.get(storage_of(tensor))
        if name is not None:  # also one that its layer filled during this very pass
            return frozenset([name])
        return frozenset() if source is None else self._roots[source]

    def _find_use(self, operation: Operation) -> None:
        if operation.name not in _PRODUCTS or self._roots[operation]:
            return
        pairs = list(zip(operation.tensors, operation.sources, strict=True))
        weights = [(t, self._roots_of(t, s)) for t, s in pairs if t.dim() > 1]
        weights = [(t, roots) for t, roots in weights if roots]
        data = [(t, s) for t, s in pairs if not self._roots_of(t, s)]
        if not weights or not data:
            return
        tensor, source = data[0]
        use = Use(operation, self.trace_upstream(source), tensor)
        self._by_operation[operation] = use
        for _, roots in weights:
            if len(roots) > 1:
                self.combined |= roots
            else:
                self.uses.setdefault(next(iter(roots)), []).append(use)

    def _connect(self) -> None:
        reaches = self._reaching()
        for use in self._by_operation.values():
            use.reaches_weight = any(o in reaches for o in use.operation.consumers)
            if use.upstream.kind == "weight" and use.upstream.source is not None:
                feeder = self._by_operation[use.upstream.source]
                feeder.consumers.append(use)
                inside = {use.operation, *use.upstream.operations}
                for operation in (use.upstream.source, *use.upstream.operations):
                    others = [o for o in operation.consumers if o in reaches and o not in inside]
                    feeder.has_other_consumers |= any(
                        operation in self.data_sources(o) for o in others
                    )
        for operation in self.operations:
            if operation.name in _SUMS:
                self._find_branch(operation, operation in reaches)

    def _reaching(self) -> set[Operation]:
        """Return the operations from which a weight is reached."""
        reaching: set[Operation] = set()
        for operation in reversed(self.operations):
            if operation in self._by_operation or any(o in reaching for o in operation.consumers):
                reaching.add(operation)
        return reaching

    def _find_branch(self, operation: Operation, goes_on: bool) -> None:
        """Find out which side of a sum is computed from the other.

        What nothing follows may be an error, such as the one of an autoencoder against its own
        input, so that a difference and a sum with the raw input count only on the way to a layer.
        """
        sides = list(dict.fromkeys(self._origins(operation)))
        if len(sides) != 2:
            return
        for branch, other in (sides, sides[::-1]):
            source = self.trace_upstream(branch).source if isinstance(branch, Operation) else None
            use = self._by_operation.get(source) if source is not None else None
            if use is None:
                continue
            inner = isinstance(other, Operation)
            depends = self._depends(use.operation, other)
            use.joins_sum |= inner or (depends and goes_on)
            use.ends_branch |= depends and (goes_on or (inner and operation.name != "sub"))

    def _origins(self, operation: Operation) -> list[Operation | int]:
        """Return what feeds an operation with data: operations, and the memory of outside data."""
        found: list[Operation | int] = []
        for tensor, source in zip(operation.tensors, operation.sources, strict=True):
            if source is not None and self._carries[source]:
                found.append(source)
            elif source is None and storage_of(tensor) not in self._known:
                found.append(storage_of(tensor))
        return found

    def _depends(self, operation: Operation, ancestor: Operation | int) -> bool:
        first = self._index[ancestor] if isinstance(ancestor, Operation) else -1
        waiting, seen = [operation], {operation}
        while waiting:
            for before in self._origins(waiting.pop()):
                if before == ancestor:
                    return True
                if isinstance(before, Operation) and before not in seen:
                    if self._index[before] > first:
                        waiting.append(before)
                    seen.add(before)
        return False


def _only_shaped_like(operation: Operation) -> bool:
    return operation.name.endswith(_SHAPED_LIKE) or operation.name.startswith("new_")


def channel_dimension(operation: Operation) -> int:
    """Return the dimension that holds the units of a product's data and result."""
    return 1 if operation.name in _CONVOLUTIONS else -1


def is_transposed(operation: Operation) -> bool:
    """Return whether an operation is a transposed convolution."""
    return operation.name in _CONVOLUTIONS and bool(operation.arguments[6])

"""All wrong cases: each operation with faults of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

import torch

from benchmarks.gradcheck.corpus.case import Built, Case
from benchmarks.gradcheck.corpus.custom import custom, mutated
from benchmarks.gradcheck.corpus.faults import FAULTS, Fault
from benchmarks.gradcheck.corpus.gate import gate_cases
from benchmarks.gradcheck.corpus.memory_faults import memory_cases
from benchmarks.gradcheck.corpus.operations import OPERATIONS, Operation
from benchmarks.gradcheck.corpus.special_faults import SPECIAL

_FAULTS_OF_EACH = 3  # of each gradient that an operation returns


def wrong_cases() -> list[Case]:
    """Return every module whose backward is wrong."""
    return [*_mutations(), *_special(), *memory_cases(), *gate_cases()]


def _mutations() -> Iterator[Case]:
    turn = count()
    names = list(FAULTS)
    for operation in OPERATIONS:
        for position, what in enumerate(("input", *operation.weights)):
            for _ in range(_FAULTS_OF_EACH):
                fault = names[next(turn) % len(names)]
                if fault == "shifted by one row" and what == "bias":
                    fault = "sign flipped"
                yield _mutation(operation, position, what, fault, FAULTS[fault])


def _mutation(operation: Operation, position: int, what: str, fault: str, change: Fault) -> Case:
    title = f"Wrong{operation.function.__name__}"
    function = mutated(operation.function, title, position, change)
    return Case(
        f"{operation.name}: gradient of {what} {fault}",
        operation.name,
        partial(built_with, operation, function),
        title,
        operation.build,
    )


def _special() -> Iterator[Case]:
    by_name = {operation.name: operation for operation in OPERATIONS}
    for name, fault, backward in SPECIAL:
        operation = by_name[name]
        title = f"Wrong{operation.function.__name__}"
        function = custom(title, operation.pair[0], backward)
        yield Case(
            f"{name}: {fault}",
            name,
            partial(built_with, operation, function),
            title,
            operation.build,
        )


def built_with(operation: Operation, function: type[torch.autograd.Function], seed: int) -> Built:
    """Return the operation's net with another Function."""
    return operation.build(seed, function)

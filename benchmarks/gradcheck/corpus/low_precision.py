"""Right backwards that compute in less than double precision: neither right nor wrong to 1e-7."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.gradcheck.corpus.case import Case
from benchmarks.gradcheck.corpus.custom import mutated
from benchmarks.gradcheck.corpus.operations import OPERATIONS
from benchmarks.gradcheck.corpus.wrong import built_with

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_AMONG = ("linear", "gelu", "layer_norm", "convolution")


def low_precision_cases() -> list[Case]:
    """Return operations whose gradient goes through a lower precision."""
    found = []
    for operation in OPERATIONS:
        for kind, dtype in _DTYPES.items() if operation.name in _AMONG else ():

            def rounded(g: Tensor, dtype: torch.dtype = dtype) -> Tensor:
                return g.to(dtype).to(g.dtype)

            title = f"{operation.function.__name__}In{kind.capitalize()}"
            function = mutated(operation.function, title, 0, rounded)
            found.append(
                Case(
                    f"{operation.name}: gradient through {kind}",
                    operation.name,
                    partial(built_with, operation, function),
                    title,
                    operation.build,
                    low_precision=True,
                )
            )
    return found

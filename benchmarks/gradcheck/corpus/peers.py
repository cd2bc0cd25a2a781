"""``torch.autograd.gradcheck`` on the same cases: the loss as a function of the parameters."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.gradcheck.corpus.case import Case


def passes_gradcheck(case: Case, seed: int, *, fast: bool) -> bool:
    """Return whether gradcheck, at its default tolerances, finds nothing wrong.

    Random numbers are the same in every run. An error of gradcheck itself counts as a finding, as
    it does for whoever reads its output.
    """
    module, batch, loss = case.build(seed)
    module = module.double()
    batch = batch.double() if batch.is_floating_point() else batch
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    values = [p.detach().clone().requires_grad_() for p in module.parameters() if p.requires_grad]

    def of_parameters(*given: Tensor) -> Tensor:
        torch.manual_seed(0)
        return functional_call(
            _Wrapped(copy.deepcopy(module), loss),
            {f"module.{name}": value for name, value in zip(names, given, strict=True)},
            (batch.clone(),),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.autograd.gradcheck(of_parameters, values, fast_mode=fast)
        except Exception:
            return False


class _Wrapped(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, loss: object) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, batch: Tensor) -> Tensor:
        return self._loss(self.module, batch)  # type: ignore[operator,no-any-return]

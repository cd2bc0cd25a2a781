"""A loss as a function of double-precision parameters, repeatable bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_stab.functional.gradcheck.randomness import random_states, set_random_states
from lightning_stab.functional.gradcheck.state import ModuleState

OnLoss = Callable[[Tensor], None]
Program = Callable[..., None]
"""Called as ``program(on_loss, *inputs)``; hands each scalar loss to ``on_loss`` when it is due."""


class Problem:
    """The losses of one training step as a function of the module's parameters.

    Each run starts from the same state: buffers, plain attributes, random generators, inputs.

    Args:
        module: a module in double precision that nobody else uses.
        program: runs one step of it and hands over each loss.
        inputs: what the program gets besides, copied anew for each run.
    """

    def __init__(self, module: nn.Module, program: Program, inputs: Sequence[Any] = ()) -> None:
        self.module = module
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        for parameter in self.parameters.values():
            parameter.data = parameter.data.contiguous()  # so that coordinates have a flat view
        self._program = program
        self._inputs = tuple(inputs)
        self._state = ModuleState(module)
        self._random = random_states()
        self.num_forwards = 0
        self.num_backwards = 0

    def losses(self) -> list[float]:
        """Return the value of each loss at the parameters as they are now."""
        values: list[float] = []
        self.run(lambda loss: values.append(float(loss.detach())))
        return values

    def gradients(self) -> list[dict[str, Tensor | None]]:
        """Return autograd's gradient of each loss, dense, by the parameters' names."""
        found: list[dict[str, Tensor | None]] = []
        self.run(lambda loss: found.append(self._gradients_of(loss)))
        return found

    def run(self, on_loss: OnLoss) -> None:
        """Run the program once, from the same state as always."""
        self.num_forwards += 1
        self._state.restore()
        set_random_states(self._random)
        with _double_by_default(), torch.enable_grad():
            self._program(on_loss, *copy.deepcopy(self._inputs))

    def _gradients_of(self, loss: Tensor) -> dict[str, Tensor | None]:
        trainable = {n: p for n, p in self.parameters.items() if p.requires_grad}
        found: dict[str, Tensor | None] = dict.fromkeys(self.parameters)
        if loss.requires_grad and trainable:
            self.num_backwards += 1
            gradients = torch.autograd.grad(
                loss, list(trainable.values()), retain_graph=True, allow_unused=True
            )
            found.update(zip(trainable, map(_dense, gradients), strict=True))
        return found


def _dense(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    return gradient.to_dense() if gradient.layout != torch.strided else gradient


@contextmanager
def _double_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

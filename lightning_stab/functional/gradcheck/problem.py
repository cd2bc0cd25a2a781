"""A loss as a function of double-precision parameters, repeatable bit for bit."""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lightning_stab.functional.autograd_graph import walk_graph
from lightning_stab.functional.gradcheck.branches import (
    Branch,
    BranchReplay,
    BranchWatch,
    check_sum,
)
from lightning_stab.functional.gradcheck.class_attributes import ClassAttributes
from lightning_stab.functional.gradcheck.custom_functions import Depth
from lightning_stab.functional.gradcheck.detached import DetachedValues, DetachReplay
from lightning_stab.functional.gradcheck.rounding import RandomRounding
from lightning_stab.functional.gradcheck.state import ModuleState
from lightning_stab.functional.random_states import get_random_states, set_random_states

_ERROR_NODES = {"Error", "torch::autograd::Error"}
OnLoss = Callable[[Tensor], None]
Program = Callable[..., None]
"""Called as ``program(on_loss, *inputs)``; hands each scalar loss to ``on_loss`` when it is due."""
Gradients = dict[str, Tensor | None]
"""By parameter name; None where autograd finds no way, missing where the loss is not for it."""


class Problem:
    """The losses of one training step as a function of the module's parameters.

    Each run starts from the same state: buffers, plain attributes, random generators, inputs.
    Values that autograd takes for constants are the same in each run.

    Args:
        module: a module in double precision that nobody else uses.
        program: runs one step of it and hands over each loss.
        inputs: what the program gets besides, copied for each run.
        depth: counts running custom forward passes; shared by problems that are nested.
    """

    def __init__(
        self,
        module: nn.Module,
        program: Program,
        inputs: Sequence[Any] = (),
        depth: Depth | None = None,
    ) -> None:
        self.module = module
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        for parameter in self.parameters.values():
            parameter.data = parameter.data.contiguous()  # so that coordinates have a flat view
        self.depth = Depth() if depth is None else depth
        self.detached = DetachedValues()
        self.notes: list[str] = []
        self.num_forwards = 0
        self.num_backwards = 0
        self._program = program
        self._inputs = tuple(inputs)
        self._state = ModuleState(module)
        self._random = get_random_states()
        self._without_graph = False
        self._kept: dict[str, Tensor] | None = None

    @property
    def classes(self) -> ClassAttributes:
        """What stands on the module's classes: put back when this context is left."""
        return self._state.classes

    def settle(self) -> list[float]:
        """Make the point one that a run leaves alone, and return the losses there.

        A module may project its weights in its forward pass (``clamp_``, ``max_norm``). The
        gradient is taken behind that, so the projected weights are the point to check at.
        """
        losses: list[float] = []
        before = [check_sum(parameter) for parameter in self.parameters.values()]
        self.run(lambda loss: losses.append(float(loss.detach())), replay=False)
        if [check_sum(parameter) for parameter in self.parameters.values()] != before:
            projected: dict[str, Tensor] = {}

            def keep_first(loss: Tensor) -> None:
                if not projected:  # a later loss comes too late
                    projected.update(self._copies())

            self.run(keep_first, replay=False)
            self._put(projected or self._copies())
            self._kept = self._copies()
        return losses

    def allow_no_graph(self, here: Sequence[float]) -> None:
        """Run without a graph from now on, if that gives the losses ``here`` and is safe."""
        if self.detached.matters or self.detached.needs_graph:
            return
        self._without_graph = True
        try:
            self._without_graph = self.losses() == list(here)
        except Exception:  # the step needs a graph: runs keep it
            self._without_graph = False

    def losses(
        self,
        *,
        replay: bool = True,
        watch: BranchWatch | None = None,
        branches: list[Branch] | None = None,
    ) -> list[float]:
        """Return the value of each loss at the parameters as they are now; none if a replay fails.

        Args:
            replay: use the recorded detached values again, as autograd does.
            watch: receives the branches that the run takes.
            branches: branches to replay, instead of watching.
        """
        values: list[float] = []
        mode = watch if branches is None else BranchReplay(branches)
        complete = self.run(lambda loss: values.append(float(loss.detach())), replay, mode)
        return values if complete else []

    def rounding_noise(self, branches: list[Branch] | None, runs: int = 4) -> list[float]:
        """Return how far `RandomRounding` moves each loss, as a root mean square; none if it fails.

        Args:
            branches: to be replayed.
            runs: how many runs are compared with their mean.
        """
        generator, rows = torch.Generator().manual_seed(0), []
        for _ in range(runs):
            with RandomRounding(generator):
                rows.append(self.losses(branches=branches))
        return [statistics.stdev(column) for column in zip(*rows, strict=True)]

    def record_branches(self) -> list[Branch] | None:
        """Return the branches at the parameters as they are now, None if there are none."""
        branches: list[Branch] = []
        self.run(lambda loss: None, branches=BranchReplay(branches, record=True))
        return branches or None

    def gradients(
        self, *, record: bool = False, restore: bool = True
    ) -> tuple[list[float], list[Gradients]]:
        """Return the losses and autograd's dense gradient of each, by the parameters' names.

        Nothing where other values are detached than in the run that was recorded.

        Args:
            record: keep what autograd takes for constants; later runs use it again.
            restore: see `run`.
        """
        values: list[float] = []
        found: list[Gradients] = []

        def take(loss: Tensor) -> None:
            values.append(float(loss.detach()))
            found.append(self._gradients_of(loss))

        detached = DetachedValues()
        self.run(take, replay=False, detached=detached, restore=restore)
        if record:
            detached.finish()
            self.detached = detached
        is_other = detached.places() != self.detached.places()
        return ([], []) if is_other else (values, found)

    def run(
        self,
        on_loss: OnLoss,
        replay: bool = True,
        branches: BranchWatch | BranchReplay | None = None,
        detached: DetachedValues | None = None,
        restore: bool = True,
    ) -> bool:
        """Run the program once, from the same state as always.

        Args:
            on_loss: called with each scalar loss.
            replay: use the recorded detached values again; without, there is always a graph.
            branches: watches, records or replays the branches that the run takes.
            detached: receives what autograd takes for constants, without ``replay``.
            restore: begin with the module as it was at first; without, go on from the last run.

        Returns:
            Whether every replay found what was recorded, and nothing else.
        """
        detached = self.detached if replay else detached or DetachedValues()
        self.num_forwards += 1
        if restore:
            self._state.restore()
        set_random_states(self._random)
        inputs = copy.deepcopy(self._inputs)
        constants = DetachReplay(detached, replay=replay, depth=self.depth)

        def unobserved(loss: Tensor) -> None:
            with torch._C.DisableTorchFunction():
                on_loss(loss)

        with ExitStack() as stack:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
            if "torch._dynamo" in sys.modules:  # compiled parts would trace the replay
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(torch.set_grad_enabled(not (replay and self._without_graph)))
            if not replay or detached.matters:
                stack.enter_context(constants)
            if branches is not None:
                stack.enter_context(branches)
            self._program(unobserved, *inputs)
        if self._kept is not None:
            self._put(self._kept)
        replays = [constants.replay, getattr(branches, "replay", None)]
        return all(each.complete for each in replays if each is not None)

    def padding_rows(self, name: str) -> list[int]:
        """Return the rows of a parameter that get no gradient by design."""
        here = id(self.parameters[name])
        return [row for owner, row in self.detached.padding if owner == here]

    def keep_point(self) -> None:
        """Take the parameters as they are now for those that each run starts from."""
        if self._kept is not None:
            self._kept = self._copies()

    def _copies(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.data.copy_(values[name])

    def _gradients_of(self, loss: Tensor) -> Gradients:
        trainable = {n: p for n, p in self.parameters.items() if p.requires_grad}
        found: Gradients = dict.fromkeys(trainable)
        if loss.requires_grad and trainable:
            self.num_backwards += 1
            _refuse_what_torch_refuses(loss)
            gradients = _differentiate(loss, list(trainable.values()))
            found.update(zip(trainable, gradients, strict=True))
        is_sparse = {n: g is not None and g.layout != torch.strided for n, g in found.items()}
        return {n: g.to_dense() if g is not None and is_sparse[n] else g for n, g in found.items()}


def _refuse_what_torch_refuses(loss: Tensor) -> None:
    """Raise where ``loss.backward()`` would, in a node that ``autograd.grad`` goes around.

    Such is the second derivative of a Function with ``once_differentiable``.
    """
    if any(node.name() in _ERROR_NODES for node, _ in walk_graph(loss.grad_fn)):
        raise RuntimeError(
            "trying to differentiate twice a function that was marked with @once_differentiable, "
            "where `backward` raises too. Write its backward with differentiable operations, and "
            "take the mark away."
        )


def _differentiate(loss: Tensor, parameters: list[Tensor]) -> Sequence[Tensor | None]:
    try:
        return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
    for parameter in parameters:
        parameter.grad = None
    torch.autograd.backward(loss, retain_graph=True)
    return [parameter.grad for parameter in parameters]

"""`LogitsForLoss`: a loss that takes logits gets what comes before the last activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

from lightning_stab.callbacks._hooks.compiled import compiled_parts
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.errors import ConflictError
from lightning_stab.functional.function_mode import FunctionMode

STEPS = ("training_step", "validation_step", "test_step")
LOSSES = (functional.cross_entropy, functional.binary_cross_entropy_with_logits)
# they keep the order of the classes, so that predictions stay what they were
ACTIVATIONS = frozenset(
    {
        *(torch.softmax, functional.softmax, Tensor.softmax),
        *(torch.sigmoid, functional.sigmoid, Tensor.sigmoid),
        *(torch.tanh, functional.tanh, Tensor.tanh),
        *(torch.relu, functional.relu, Tensor.relu),
    }
)


@dataclass(frozen=True, kw_only=True)
class LogitsOptions:
    """`LogitsForLoss` has no arguments."""


class LogitsForLoss(Callback, options=LogitsOptions):
    """Give a loss that takes logits what a softmax, sigmoid, tanh or ReLU before it has received.

    For cross-entropy and binary cross-entropy with logits, in the steps of a fit. The network gives
    what it gave; where its last activation is a module, `ReplaceModules` takes it out instead.

    Raises:
        ConflictError: before the first step, if parts of the module are compiled; after the first
            batch, if no loss received what an activation had just made.

    Example:
        >>> LogitsForLoss()
        LogitsForLoss()

    Source: torch.nn.CrossEntropyLoss takes logits.
    """

    def __init__(self) -> None:
        self.options = LogitsOptions()
        self._found = False
        self._before: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the steps into a function mode."""
        if compiled := compiled_parts(pl_module):
            raise ConflictError(
                f"`LogitsForLoss` cannot see into compiled code, got {compiled[0] or 'the module'}."
                " Take the last activation out of `forward`."
            )
        own = vars(pl_module)
        self._before = {name: own[name] for name in STEPS if name in own}
        for name in STEPS:
            own[name] = partial(self._run, getattr(pl_module, name))

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Say where there was nothing to do."""
        if not self._found:
            raise ConflictError(
                "`LogitsForLoss` needs a cross-entropy that receives the output of an activation,"
                " and the first batch had none. Leave it out."
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its steps back."""
        for name in STEPS:
            if stage == "fit":
                vars(pl_module).pop(name, None)
        vars(pl_module).update(self._before)
        super().teardown(trainer, pl_module, stage)

    def _run(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a step; bound to it by ``partial``, so that a copy of the module runs its own."""
        made: list[tuple[Tensor, Tensor]] = []  # of this step: results and their sources

        def call(function: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
            if function in LOSSES:
                args, options = self._with_logits(args, options, made)
            result = function(*args, **options)
            source = args[0] if args else options.get("input")
            if function in ACTIVATIONS and isinstance(source, Tensor):
                made.append((result, source))
            return result

        with FunctionMode(call):
            return step(*args, **kwargs)

    def _with_logits(
        self, args: Sequence[Any], options: Mapping[str, Any], made: list[tuple[Tensor, Tensor]]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        given = args[0] if args else options.get("input")
        source = next((s for result, s in made if result is given), None)
        if source is None:
            return args, options
        self._found = True
        return ((source, *args[1:]), options) if args else (args, {**options, "input": source})

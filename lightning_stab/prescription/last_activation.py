"""Callbacks that take from a loss the activation which its network should not end with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from lightning_stab.callbacks._hooks.compiled import compiled_parts
from lightning_stab.callbacks._trainer.lightning_classes import Callback
from lightning_stab.errors import ConflictError
from lightning_stab.functional.function_mode import FunctionMode

# they keep the order of the classes, so that predictions stay what they were
ACTIVATIONS = frozenset(
    {
        *(torch.softmax, functional.softmax, Tensor.softmax),
        *(torch.sigmoid, functional.sigmoid, Tensor.sigmoid),
        *(torch.tanh, functional.tanh, Tensor.tanh),
        *(torch.relu, functional.relu, Tensor.relu),
    }
)
RANGES = frozenset({*ACTIVATIONS, functional.softplus, functional.relu6, functional.hardtanh})
NOT_OF_THE_USER = (f"{torch.__name__}.", "lightning_stab.")  # modules whose frames are passed over

Args = Sequence[Any]
Options = Mapping[str, Any]
Made = tuple[Tensor, Tensor, str]  # a result, what it was made from, and where


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """They have no arguments."""


class InSteps(Callback):
    """What both do: each step runs in a function mode, which shows activations and losses."""

    steps: ClassVar[tuple[str, ...]] = ("training_step", "validation_step", "test_step")

    def __init__(self) -> None:
        self.options = NoOptions()
        self._before: dict[str, Any] | None = None

    def begin(self, module: LightningModule) -> None:
        """Put the steps into a function mode.

        Raises:
            ConflictError: if parts of the module are compiled.
        """
        if compiled := compiled_parts(module):
            raise ConflictError(
                f"`{type(self).__name__}` cannot see into compiled code, got"
                f" {compiled[0] or 'the module'}. Take the last activation out of `forward`."
            )
        own = vars(module)
        self._before = {name: own[name] for name in self.steps if name in own}
        for name in self.steps:
            own[name] = partial(self._run, getattr(module, name))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its steps back."""
        for name in self.steps if self._before is not None else ():
            vars(pl_module).pop(name, None)
        vars(pl_module).update(self._before or {})
        self._before = None
        super().teardown(trainer, pl_module, stage)

    def _run(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a step; bound to it by ``partial``, so that a copy of the module runs its own."""
        made: list[Made] = []  # of this step
        with FunctionMode(partial(self._call, made)):
            result = step(*args, **kwargs)
        self._has_run(made)
        return result

    def _call(self, made: list[Made], function: Any, args: Args, options: Options) -> Any:
        raise NotImplementedError

    def _has_run(self, made: list[Made]) -> None:
        """Learn from what a step has made."""


class LogitsForLoss(InSteps, options=NoOptions):
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

    losses = (functional.cross_entropy, functional.binary_cross_entropy_with_logits)

    def __init__(self) -> None:
        super().__init__()
        self._found = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the steps into a function mode."""
        self._found = False  # in this fit
        self.begin(pl_module)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Say where there was nothing to do."""
        if not self._found:
            raise ConflictError(
                "`LogitsForLoss` needs a cross-entropy that receives the output of an activation,"
                " and the first batch had none. Leave it out."
            )

    def _call(self, made: list[Made], function: Any, args: Args, options: Options) -> Any:
        if function in self.losses:
            given = _first(args, options)
            source = next((source for result, source, _ in made if result is given), None)
            if source is not None:
                self._found = True
                args, options = _with_first(source, args, options)
        result, source = function(*args, **options), _first(args, options)
        if function in ACTIVATIONS and isinstance(source, Tensor):
            made.append((result, source, ""))
        return result


class WithoutLastActivation(InSteps, options=NoOptions):
    """Leave out the activation function whose result an error loss compares with the targets.

    For ``tanh``, ``relu``, ``sigmoid``, ``softplus`` and their like that ``forward`` calls as
    functions before a squared, absolute or Huber error, where targets lie outside their range. The
    call is known by its place in the code: loss, metrics and predictions are those without it, in
    every step that a Trainer with this callback runs. Without the callback the network ends with
    the activation as before: take it out of the code for good. Where it is a module,
    `ReplaceModules` takes it out instead.

    Raises:
        ConflictError: before the first step, if parts of the module are compiled, or in ``predict``
            before a fit or a checkpoint has shown which call it is; after the first batch, if no
            loss received what such a call had just made, or if the same place in the code is also
            called for other layers.

    Example:
        >>> WithoutLastActivation()
        WithoutLastActivation()
    """

    steps = (*InSteps.steps, "predict_step")
    losses = (
        *(functional.mse_loss, functional.l1_loss),
        *(functional.smooth_l1_loss, functional.huber_loss),
    )

    def __init__(self) -> None:
        super().__init__()
        self._places: list[str] = []  # of the calls that are left out
        self._compared: set[str] = set()  # places whose result a loss received, in this step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the steps into a function mode; a fit begins as new, or with its checkpoint."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._places = []
        self.begin(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be known."""
        if not self._places:
            raise ConflictError(
                "`WithoutLastActivation` must have seen a loss before it predicts, and has not:"
                " fit with it first, or give `ckpt_path=` of a fit that had it."
            )

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Say where there was nothing to do."""
        if not self._places:
            raise ConflictError(
                "`WithoutLastActivation` needs an error loss that receives the output of an"
                " activation which is called as a function, and the first batch had none. Leave it"
                " out, or take the activation out of `forward`."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return which calls are left out."""
        return {"places": list(self._places)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the same calls."""
        self._places = list(state["places"])

    def _call(self, made: list[Made], function: Any, args: Args, options: Options) -> Any:
        source = _first(args, options)
        place = ""
        if function in RANGES and isinstance(source, Tensor):
            place = _place_of_call()
            if place in self._places:
                return source
        elif function in self.losses:
            args, options = self._with_sources(made, args, options)
        result = function(*args, **options)
        if place:
            made.append((result, source, place))
        return result

    def _with_sources(self, made: list[Made], args: Args, options: Options) -> tuple[Args, Options]:
        """Return the loss's arguments with what the activation had received.

        Of a view of its result, such as ``squeeze(-1)``, a view of that.
        """
        given = _first(args, options)
        for result, source, place in made:
            if given is result or _is_view(given, result):
                self._compared.add(place)
                return _with_first(source.reshape(given.shape), args, options)
        return args, options

    def _has_run(self, made: list[Made]) -> None:
        compared, self._compared = self._compared, set()
        for place in compared - set(self._places):
            calls = sum(own == place for _, _, own in made)
            if calls > 1:
                raise ConflictError(
                    f"`WithoutLastActivation` cannot tell the last call in {place} from those for"
                    f" other layers: it was reached {calls} times in one step. Take the last"
                    " activation out of the code."
                )
            self._places.append(place)


def _first(args: Args, options: Options) -> Any:
    return args[0] if args else options.get("input")


def _with_first(value: Tensor, args: Args, options: Options) -> tuple[Args, Options]:
    return ((value, *args[1:]), options) if args else (args, {**options, "input": value})


def _is_view(given: Any, result: Tensor) -> bool:
    """Say whether a tensor holds the entries of another one in the same order."""
    return (
        isinstance(given, Tensor)
        and given.numel() == result.numel()
        and given.data_ptr() == result.data_ptr()
        and given.is_contiguous()
        and result.is_contiguous()
    )


def _place_of_call() -> str:
    """Return the function, and the instruction in it, from which the user's code calls."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None:
        name = f"{frame.f_globals.get('__name__', '')}."
        if not name.startswith(NOT_OF_THE_USER):
            break
        frame = frame.f_back
    if frame is None:  # an interpreter that keeps no frames
        return ""
    owner = frame.f_locals.get("self")
    named = f"{type(owner).__name__}." if isinstance(owner, nn.Module) else ""
    return f"{named}{frame.f_code.co_name}:{frame.f_lasti}"

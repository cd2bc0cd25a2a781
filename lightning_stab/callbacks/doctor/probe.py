"""Everything that is measured while one batch runs; hooks exist only on that batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_stab.callbacks._hooks.compiled import Hookable, hookable
from lightning_stab.callbacks._hooks.hooks import ModuleHooks, is_transformed, without_modes
from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe
from lightning_stab.callbacks.doctor.loss_functions import LISTENED, LossFunctions
from lightning_stab.callbacks.doctor.targets import Targets
from lightning_stab.functional.attention import logit_spread_of_call, packed_logit_spread
from lightning_stab.functional.function_mode import FunctionMode
from lightning_stab.functional.layer_kinds import WEIGHT_LAYERS
from lightning_stab.functional.sampling import few_rows, per_sample

ATTENTION = frozenset(
    {nn.functional.scaled_dot_product_attention, nn.functional.multi_head_attention_forward}
)
WATCHED = ATTENTION | LISTENED
TIME_SHARE = 0.1  # of a sequence's steps, that count as its beginning and as its end
LEAST_STEPS = 8  # of a sequence, below which there is no talk of vanishing over time


class DoctorProbe:
    """Watches one forward and backward pass of a module.

    Args:
        targets: what was seen of the run's targets before; it is added to.
        of_batch: the batch's targets, where it is plain which they are.
        inputs: the batch's first tensor.
    """

    def __init__(
        self, targets: Targets, of_batch: Tensor | None = None, inputs: Tensor | None = None
    ) -> None:
        self.gradients = LayerProbe()  # of the pre-activations
        self.losses = LossFunctions(targets, of_batch, inputs)
        self.spread: dict[str, Tensor] = {}  # of a layer's outputs, over the samples
        self.inputs: Tensor | None = None  # RMS of each feature that enters the first weight layer
        self.attention: dict[str, Tensor] = {}  # by layer, the spread of the logits
        self._time: dict[str, Tensor] = {}
        self._cells: dict[str, dict[int, Tensor]] = {}
        self._names: list[str] = []
        self._is_whole = True  # no part is compiled, which may stand before the first weight layer
        self._mode = FunctionMode(self._see_function)
        self._hooks = ModuleHooks()

    def install(self, module: LightningModule | Hookable) -> str:
        """Put the hooks on; return what cannot be seen, in one sentence, or nothing."""
        parts = hookable(module)
        self._is_whole = not parts.compiled
        if not parts.said:  # else it would be compiled again under a function mode
            self._mode.enter()
        for name, part in parts.modules:
            layer = _Layer(self, name)
            if isinstance(part, WEIGHT_LAYERS):
                self._hooks.after(part, layer.after_weights)
            elif isinstance(part, nn.RNNBase):
                self._hooks.before(part, layer.before_recurrence)
                self._hooks.after(part, layer.after)
            elif isinstance(part, (nn.MultiheadAttention, nn.RNNCellBase)):
                self._hooks.before(part, layer.enter)
                self._hooks.after(part, layer.leave)
        if not parts.said:
            return ""
        return (
            f"{parts.said[0].upper()}{parts.said[1:]}: layers and units inside are not seen, and"
            " neither are loss functions and attention logits."
        )

    def end_forward(self) -> None:
        """See no function from here on."""
        self._mode.leave()

    def remove(self) -> None:
        """Take every hook away; what was measured stays."""
        self._mode.leave()
        self.gradients.remove()
        self.losses.forget()
        self._hooks.remove()

    def time_ratios(self) -> dict[str, Tensor]:
        """Return, by recurrent layer, the gradient's RMS at the beginning and the end, ``[2]``."""
        for name, squares in self._cells.items():
            if len(squares) >= LEAST_STEPS:
                self._time[name] = ends(torch.stack([squares[i] for i in sorted(squares)]))
        return dict(self._time)

    @without_modes
    def see_input(self, value: Any) -> None:
        """Note the size of the features that enter the first weight layer."""
        if not self._is_whole or self.inputs is not None:
            return
        if isinstance(value, Tensor) and value.is_floating_point():
            if value.dim() < 2 or len(value) == 0:
                self.inputs = torch.full((1,), torch.nan, device=value.device)
                return
            features = 1 if value.dim() > 3 else value.dim() - 1
            flat = few_rows(value.detach()).float().movedim(features, 0).flatten(1)
            self.inputs = flat.square().mean(1).sqrt()

    @without_modes
    def see_output(self, name: str, output: Any) -> None:
        """Note how far a layer's outputs differ from sample to sample."""
        if name in self.spread or not isinstance(output, Tensor):
            return
        if output.dim() > 1 and len(output) > 1:
            with torch.no_grad():
                values = per_sample(output)
                values = values if values.dtype is torch.float64 else values.float()
                difference = torch.linalg.vector_norm(values - values.mean(0))
                self.spread[name] = difference / math.sqrt(values.numel())

    def watch_time(self, name: str, layer: nn.RNNBase, value: Any) -> Any:
        """Let the input of a recurrent layer have a gradient, and read it over time."""
        if not isinstance(value, Tensor) or value.dim() != 3 or not torch.is_grad_enabled():
            return None
        steps = 1 if layer.batch_first else 0
        if value.shape[steps] < LEAST_STEPS:
            return None
        watched = value if value.requires_grad else value.detach().requires_grad_()
        self._hooks.on_gradient(watched, partial(self._see_time, name, dim=steps))
        return watched

    @without_modes
    def watch_cell(self, name: str, output: Any) -> None:
        """Read the gradient of a cell's output, call by call."""
        state = output[0] if isinstance(output, tuple) else output
        if state.requires_grad:
            squares = self._cells.setdefault(name, {})
            place = squares[len(squares)] = state.new_zeros((), dtype=torch.float32)

            @without_modes
            def read(gradient: Tensor) -> None:
                place.copy_(gradient.detach().float().square().mean())

            self._hooks.on_gradient(state, read)

    @without_modes
    def _see_time(self, name: str, gradient: Tensor, *, dim: int) -> None:
        with torch.no_grad():
            squares = gradient.float().square().movedim(dim, 0).flatten(1).mean(1)
            self._time[name] = ends(squares)

    def _see_function(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        result = function(*args, **kwargs)
        if function not in WATCHED or is_transformed():  # of nearly all calls nothing is asked
            return result
        if function not in ATTENTION:
            with torch._C.DisableTorchFunction(), suppress(Exception):
                # torch has taken these arguments, of any form; where a form is not understood
                # here, nothing is known of that loss, and the fit goes on
                self.losses(function, args, kwargs, result)
            return result
        name = self._names[-1] if self._names else f"attention_{len(self.attention) + 1}"
        with torch.no_grad(), torch._C.DisableTorchFunction():
            spread = None
            if function is nn.functional.scaled_dot_product_attention:
                spread = logit_spread_of_call(args, kwargs)
            elif function is nn.functional.multi_head_attention_forward:
                spread = packed_logit_spread(args, kwargs)
            if spread is not None:
                self.attention[name] = spread
        return result


def ends(squares: Tensor) -> Tensor:
    """Return the root mean squares at the beginning and the end of mean squares over time.

    Example:
        >>> ends(torch.tensor([1.0] + [0.0] * 8 + [4.0])).tolist()
        [1.0, 2.0]
    """
    count = max(1, int(len(squares) * TIME_SHARE))
    return torch.stack([squares[:count].mean(), squares[-count:].mean()]).sqrt()


class _Layer:
    """What the hooks of one layer call."""

    def __init__(self, probe: DoctorProbe, name: str) -> None:
        self.probe = probe
        self.name = name
        self.calls = 0

    def before_recurrence(self, module: Any, args: Any, kwargs: Any) -> Any:
        if not args or not _is_training_pass():
            return None
        self.probe.see_input(args[0])
        watched = self.probe.watch_time(self.name, module, args[0])
        return None if watched is None else ((watched, *args[1:]), kwargs)

    @without_modes
    def after_weights(self, module: nn.Module, args: Any, output: Any) -> None:
        if args and _is_training_pass():
            self.probe.see_input(args[0])
        self.probe.gradients.add_output(self.name, True, module, args, output)
        self.after(module, args, output)

    @without_modes
    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        if _is_training_pass():
            self.calls += 1
            self.probe.see_output(self.name, output)
            if self.calls > 1 and isinstance(output, Tensor):  # a recurrence written by hand
                self.probe.watch_cell(self.name, output)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.probe._names.append(self.name)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.probe._names.pop()
        if isinstance(module, nn.RNNCellBase) and _is_training_pass():
            self.probe.watch_cell(self.name, output)


def _is_training_pass() -> bool:
    return torch.is_grad_enabled() and not is_transformed()

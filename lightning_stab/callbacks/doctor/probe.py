"""Everything that the doctor looks at while one batch runs; hooks exist only on that batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_stab.callbacks._hooks.function_mode import FunctionWatch
from lightning_stab.callbacks._hooks.layer_outputs import (
    LayerProbe,
    is_compiled,
    is_transformed,
)
from lightning_stab.callbacks.activations.recognition import compiled_functions
from lightning_stab.callbacks.doctor.loss_functions import LossFunctions, Targets
from lightning_stab.functional.attention import logit_spread_of_call, packed_logit_spread
from lightning_stab.functional.layer_kinds import WEIGHT_LAYERS
from lightning_stab.functional.names import plain_name

TIME_SHARE = 0.1  # of a sequence's steps, that count as its beginning and as its end
LEAST_STEPS = 8  # of a sequence, below which there is no talk of vanishing over time


class DoctorProbe:
    """Watches one forward and backward pass of a module.

    Args:
        targets: what was seen of the run's targets before; it is added to.

    Attributes:
        gradients: the gradient of the pre-activations by layer.
        losses: what enters the loss functions.
        spread: by layer in execution order, the standard deviation over samples of its output.
        inputs: root mean square of each feature that enters the first weight layer.
        attention: by layer, the spread of the attention logits.
    """

    def __init__(self, targets: Targets) -> None:
        self.gradients = LayerProbe()
        self.losses = LossFunctions(targets)
        self.spread: dict[str, Tensor] = {}
        self.inputs: Tensor | None = None
        self.attention: dict[str, Tensor] = {}
        self._time: dict[str, Tensor] = {}
        self._cells: dict[str, dict[int, Tensor]] = {}
        self._names: list[str] = []
        self._watch = FunctionWatch(self._see_function)
        self._handles: list[RemovableHandle] = []

    def install(self, module: LightningModule) -> str:
        """Put the hooks on; return what cannot be seen, in one sentence, or nothing.

        Args:
            module: the module that will run.
        """
        if is_compiled(module):
            return "The module is compiled: layers, units and loss functions inside are not seen."
        if not compiled_functions(module):  # which would be compiled again under a function mode
            self._watch.enter()
        self.gradients.install(module)
        for name, part in module.named_modules():
            seen = plain_name(name)
            if isinstance(part, (*WEIGHT_LAYERS, nn.RNNBase)):
                hook = _Hook(self, seen)
                self._handles.append(part.register_forward_pre_hook(hook.before))
                self._handles.append(part.register_forward_hook(hook.after))
            elif isinstance(part, (nn.MultiheadAttention, nn.RNNCellBase)):
                hook = _Hook(self, seen)
                self._handles.append(part.register_forward_pre_hook(hook.enter))
                self._handles.append(part.register_forward_hook(hook.leave))
        return ""

    def remove(self) -> None:
        """Take every hook away; what was measured stays."""
        self._watch.leave()
        self.gradients.remove()
        self.losses.forget()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def time_ratios(self) -> dict[str, Tensor]:
        """Return, by recurrent layer, the gradient's RMS at the beginning and the end, ``[2]``."""
        for name, squares in self._cells.items():
            if len(squares) >= LEAST_STEPS:
                self._time[name] = ends(torch.stack([squares[i] for i in sorted(squares)]))
        return dict(self._time)

    def see_input(self, name: str, value: Any) -> None:
        """Note the size of the features that enter the first weight layer."""
        if self.inputs is None and isinstance(value, Tensor) and value.is_floating_point():
            if value.dim() < 2 or len(value) == 0:
                self.inputs = torch.full((1,), torch.nan, device=value.device)
                return
            features = 1 if value.dim() > 3 else value.dim() - 1
            flat = value.detach().float().movedim(features, 0).flatten(1)
            self.inputs = flat.square().mean(1).sqrt()

    def see_output(self, name: str, output: Any) -> None:
        """Note how far a layer's outputs differ from sample to sample."""
        if (
            isinstance(output, Tensor)
            and output.dim() > 1
            and len(output) > 1
            and name not in self.spread
        ):
            value = output.detach()
            value = value if value.dtype is torch.float64 else value.float()
            self.spread[name] = value.var(0, correction=0).mean().sqrt()

    def watch_time(self, name: str, layer: nn.RNNBase, value: Any) -> Any:
        """Let the input of a recurrent layer have a gradient, and read it over time."""
        if not isinstance(value, Tensor) or value.dim() != 3 or not torch.is_grad_enabled():
            return None
        steps = 1 if layer.batch_first else 0
        if value.shape[steps] < LEAST_STEPS:
            return None
        watched = value if value.requires_grad else value.detach().requires_grad_()
        see = partial(self._see_time, name, dim=steps)
        self._handles.append(watched.register_hook(see))  # type: ignore[no-untyped-call]
        return watched

    def watch_cell(self, name: str, output: Any) -> None:
        """Read the gradient of a cell's output, call by call."""
        state = output[0] if isinstance(output, tuple) else output
        if state.requires_grad:
            squares = self._cells.setdefault(name, {})
            place = squares[len(squares)] = torch.zeros((), device=state.device)

            def read(gradient: Tensor) -> None:
                place.copy_(gradient.detach().float().square().mean())

            state.register_hook(read)

    def _see_time(self, name: str, gradient: Tensor, *, dim: int) -> None:
        with torch.no_grad():
            squares = gradient.float().square().movedim(dim, 0).flatten(1).mean(1)
            self._time[name] = ends(squares)

    def _see_function(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        if is_transformed():
            return
        self.losses(function, args, kwargs, result)
        name = self._names[-1] if self._names else f"attention_{len(self.attention) + 1}"
        with torch.no_grad():
            spread = None
            if function is nn.functional.scaled_dot_product_attention:
                spread = logit_spread_of_call(args, kwargs)
            elif function is nn.functional.multi_head_attention_forward:
                spread = packed_logit_spread(args, kwargs)
            if spread is not None:
                self.attention[name] = spread


def ends(squares: Tensor) -> Tensor:
    """Return the root mean squares at the beginning and at the end of a sequence.

    Args:
        squares: mean squares at each time step, shape ``[T]``.

    Example:
        >>> ends(torch.tensor([1.0] + [0.0] * 8 + [4.0])).tolist()
        [1.0, 2.0]
    """
    count = max(1, int(len(squares) * TIME_SHARE))
    return torch.stack([squares[:count].mean(), squares[-count:].mean()]).sqrt()


class _Hook:
    """The hooks of one layer as an object; in a copy of a watched module they do nothing."""

    def __init__(self, probe: DoctorProbe | None, name: str) -> None:
        self.probe = probe
        self.name = name
        self.calls = 0

    def __reduce__(self) -> Any:
        return _Hook, (None, self.name)

    @property
    def _sees(self) -> DoctorProbe | None:
        return self.probe if torch.is_grad_enabled() and not is_transformed() else None

    def before(self, module: nn.Module, args: Any) -> Any:
        probe = self._sees
        if not args or probe is None:
            return None
        probe.see_input(self.name, args[0])
        if isinstance(module, nn.RNNBase):
            watched = probe.watch_time(self.name, module, args[0])
            return None if watched is None else (watched, *args[1:])
        return None

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        probe = self._sees
        if probe is not None:
            self.calls += 1
            probe.see_output(self.name, output)
            if self.calls > 1 and isinstance(output, Tensor):  # a recurrence written by hand
                probe.watch_cell(self.name, output)

    def enter(self, module: nn.Module, args: Any) -> None:
        if self.probe is not None:
            self.probe._names.append(self.name)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.probe is not None:
            self.probe._names.pop()
        probe = self._sees
        if isinstance(module, nn.RNNCellBase) and probe is not None:
            probe.watch_cell(self.name, output)

"""Which layer is the output layer: the last one that runs, not the last one declared."""

from __future__ import annotations

from torch import nn

from lightning_stab.callbacks._hooks.compiled import compiled_parts
from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe
from lightning_stab.callbacks._trainer.step import OptimizerStep
from lightning_stab.callbacks._trainer.terminal import say
from lightning_stab.functional.layer_kinds import WEIGHT_LAYERS
from lightning_stab.functional.names import plain_name


class OutputLayer:
    """Find each optimizer's output layer in the first batch of a fit, with hooks for that batch."""

    def __init__(self) -> None:
        self._probe: LayerProbe | None = None
        self._found: dict[tuple[int, int], set[int]] = {}
        self._has_said_declared = False

    def watch(self, module: nn.Module) -> None:
        """Put hooks on for the first batch, where the module runs its layers one by one."""
        if self._probe is None and not compiled_parts(module):  # one of them may run last
            self._probe = LayerProbe()
            self._probe.install(module, gradients=False)

    def stop(self) -> None:
        """Take the hooks off; the order that they saw stays."""
        if self._probe is not None:
            self._probe.remove()

    def parameters(self, step: OptimizerStep) -> set[int]:
        """Return the identities of the parameters of the last layer that this optimizer trains."""
        key = (step.index, len(step.params))  # more of them, once a group has been added
        if key not in self._found:
            self._found[key] = self._last(step)
        return self._found[key]

    def _last(self, step: OptimizerStep) -> set[int]:
        layers = {plain_name(n): m for n, m in step.module.named_modules()}
        seen = self._probe.order if self._probe is not None else []
        declared = [n for n, m in layers.items() if isinstance(m, WEIGHT_LAYERS)]
        own = {id(p) for p in step.params}
        for name in reversed(seen or declared):
            found = {id(p) for p in layers[name].parameters()}
            if found & own:
                if not seen and not self._has_said_declared:
                    self._has_said_declared = True
                    say(
                        step.trainer,
                        "`GradientClipping`: the layers were not seen running (compiled or"
                        f" functional code); the last one declared, {name!r}, counts as the output"
                        " layer and is not clipped. Name others with `exclude`.",
                    )
                return found
        return set()

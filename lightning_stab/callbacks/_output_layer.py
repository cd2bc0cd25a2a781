"""Which layer is the output layer: the last one that runs, whatever the order of declaration."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_stab.callbacks._logging import plain_name
from lightning_stab.callbacks._probe import WEIGHT_LAYERS, LayerProbe, is_compiled


class OutputLayer:
    """Find the output layer during the first batch of a fit, with hooks that go away after it."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._probe: LayerProbe | None = None

    def watch(self, module: nn.Module) -> None:
        """Put hooks on, unless the layer is known or is being watched for."""
        if self.name is None and self._probe is None and not is_compiled(module):
            self._probe = LayerProbe()
            self._probe.install(module, gradients=False)

    def find(self, module: nn.Module) -> str:
        """Return the layer's name once a batch has run; without one seen, the last declared."""
        if self.name is None:
            order = self._probe.order if self._probe is not None else []
            self.name = order[-1] if order else self._last_declared(module)
        self.stop()
        return self.name

    def stop(self) -> None:
        """Take the hooks off."""
        if self._probe is not None:
            self._probe.remove()
            self._probe = None

    def parameters(self, module: nn.Module) -> set[int]:
        """Return the identities of the output layer's parameters."""
        name = self.find(module)
        layers = [m for n, m in module.named_modules() if name and plain_name(n) == name]
        return {id(p) for layer in layers for p in layer.parameters()}

    @staticmethod
    def _last_declared(module: nn.Module) -> str:
        names = [n for n, m in module.named_modules() if isinstance(m, WEIGHT_LAYERS)]
        name = plain_name(names[-1]) if names else ""
        rank_zero_info(
            "`GradientClipping`: the layers were not seen running (compiled or functional code);"
            f" {f'the last one declared, {name!r}, counts' if name else 'none counts'}"
            " as the output layer and is not clipped. Name others with `exclude`."
        )
        return name

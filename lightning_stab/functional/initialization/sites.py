"""Where the weights are, and which activation comes before each.

Here by the order in which the modules are declared, which a ``Sequential`` shares with its forward
pass. An activation that is called as a function is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_stab.functional.initialization.gains import (
    INPUT,
    LINEAR,
    Preceding,
    preceding_of,
)
from lightning_stab.functional.layer_kinds import EMBEDDINGS, RECURRENT, SCHEME_LAYERS, is_norm
from lightning_stab.functional.names import plain_name

_PACKED = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True, eq=False)
class WeightSite:
    """One weight of a module: its name, its owner, the tensor, and what precedes it.

    ``weight`` is None where the owner computes it from other tensors.
    """

    name: str
    layer: str
    owner: nn.Module
    weight: Tensor | None
    preceding: Preceding

    def biases(self) -> list[tuple[str, Tensor]]:
        """Return the names and tensors of the biases that belong to this weight."""
        if isinstance(self.owner, RECURRENT):
            first, _, rest = self.name.rpartition(".")[2].partition("_")
            attribute = f"bias_{rest}" if first == "weight" else ""
        else:
            packed = isinstance(self.owner, nn.MultiheadAttention)
            attribute = "in_proj_bias" if packed else "bias"
        bias = self.owner._parameters.get(attribute)
        return [] if bias is None else [(join(self.layer, attribute), bias)]


def weight_sites(module: nn.Module) -> list[WeightSite]:
    """Return every weight of ``module`` in the order of declaration, shared ones each time.

    Weights of linear, convolutional, attention, embedding and recurrent layers, and every other
    parameter of two or more dimensions; those of norms and all vectors are left out.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Dropout(), nn.Linear(2, 2))
        >>> [(site.name, site.preceding.name) for site in weight_sites(net)]
        [('0.weight', 'input'), ('3.weight', 'ReLU')]
    """
    sites: list[WeightSite] = []
    preceding = INPUT
    for compiled_name, owner in module.named_modules(remove_duplicate=False):
        layer = plain_name(compiled_name)
        own = [
            WeightSite(join(layer, name), layer, owner, weight, preceding)
            for name, weight in _weights(owner)
        ]
        sites += own
        if isinstance(owner, (*SCHEME_LAYERS, *EMBEDDINGS, *RECURRENT)):
            preceding = LINEAR
        else:
            preceding = preceding_of(owner) or preceding
    return sites


def join(layer: str, attribute: str) -> str:
    """Return the full name of a layer's attribute.

    Example:
        >>> join("net.0", "weight"), join("", "weight")
        ('net.0.weight', 'weight')
    """
    return f"{layer}.{attribute}" if layer else attribute


def _weights(owner: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    if isinstance(owner, nn.MultiheadAttention):
        names = [name for name in _PACKED if getattr(owner, name, None) is not None]
    elif isinstance(owner, (*SCHEME_LAYERS, *EMBEDDINGS)):
        names = ["weight"]
    else:
        yield from _other_matrices(owner)
        return
    for name in names:
        yield name, owner._parameters.get(name)


def _other_matrices(owner: nn.Module) -> Iterator[tuple[str, Tensor]]:
    if is_norm(owner):
        return
    for name, parameter in owner._parameters.items():
        if parameter is not None and (_is_lazy(parameter) or parameter.dim() > 1):
            yield name, parameter


def _is_lazy(parameter: Tensor) -> bool:
    return isinstance(parameter, nn.parameter.UninitializedParameter)

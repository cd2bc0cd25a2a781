"""Where the weights are, and which activation comes before each.

Here by the order in which the modules are declared, which a ``Sequential`` shares with its forward
pass. An activation that is called as a function is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from lightning_stab.functional.initialization.gains import INPUT, LINEAR, Preceding, preceding_of
from lightning_stab.functional.layer_kinds import EMBEDDINGS, RECURRENT, SCHEME_LAYERS, is_norm
from lightning_stab.functional.names import plain_name

_PACKED = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True, eq=False)
class WeightSite:
    """One weight of a module at one of its places.

    Attributes:
        name: of the parameter.
        layer: the name of the owner.
        owner: the module that holds it.
        weight: the tensor; None where the owner computes it from other tensors.
        preceding: what comes before it.
        shared: the further places where the same weight is used.
    """

    name: str
    layer: str
    owner: nn.Module
    weight: Tensor | None
    preceding: Preceding
    shared: list[WeightSite] = field(default_factory=list)

    @property
    def places(self) -> list[WeightSite]:
        """All places of this weight, the first first."""
        return [self, *self.shared]

    @property
    def is_embedding(self) -> bool:
        """Whether one of its places is an embedding."""
        return any(isinstance(site.owner, EMBEDDINGS) for site in self.places)

    def biases(self) -> list[tuple[str, Tensor]]:
        """Return the names and tensors of the biases that belong to this weight."""
        if isinstance(self.owner, RECURRENT):
            first, _, rest = self.name.rpartition(".")[2].partition("_")
            attribute = f"bias_{rest}" if first == "weight" else ""
        else:
            packed = isinstance(self.owner, nn.MultiheadAttention)
            attribute = "in_proj_bias" if packed else "bias"
        bias = _own_parameters(self.owner).get(attribute)
        return [] if bias is None else [(f"{self.layer}.{attribute}".removeprefix("."), bias)]


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
        sites += [
            WeightSite(f"{layer}.{name}".removeprefix("."), layer, owner, weight, preceding)
            for name, weight in _weights(owner)
        ]
        if isinstance(owner, (*SCHEME_LAYERS, *EMBEDDINGS, *RECURRENT)):
            preceding = LINEAR
        else:
            preceding = preceding_of(owner) or preceding
    return sites


def distinct_weights(module: nn.Module) -> list[WeightSite]:
    """Return every weight of ``module`` once, at its first place, which knows the others."""
    found: dict[tuple[int, str], WeightSite] = {}
    for site in weight_sites(module):
        computed = site.weight is None
        key = (id(site.owner), site.name) if computed else (id(site.weight), "")
        first = found.setdefault(key, site)
        if first is not site:
            first.shared.append(site)
    return list(found.values())


def _own_parameters(owner: nn.Module) -> dict[str, Tensor]:
    return dict(owner.named_parameters(recurse=False, remove_duplicate=False))


def _weights(owner: nn.Module) -> list[tuple[str, Tensor | None]]:
    own = _own_parameters(owner)
    if isinstance(owner, nn.MultiheadAttention):
        return [(n, own.get(n)) for n in _PACKED if getattr(owner, n, None) is not None]
    if isinstance(owner, (*SCHEME_LAYERS, *EMBEDDINGS)):
        return [("weight", own.get("weight"))]
    if is_norm(owner):
        return []
    return [(n, p) for n, p in own.items() if nn.parameter.is_lazy(p) or p.dim() > 1]

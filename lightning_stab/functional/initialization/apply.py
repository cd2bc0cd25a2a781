"""Initialise a module in place, and keep a record of what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.initialization.data_flow import WeightSite, weight_sites
from lightning_stab.functional.initialization.fans import weight_shape
from lightning_stab.functional.initialization.policy import (
    EMBEDDING,
    InitializationSettings,
    choose,
    is_embedding,
    matches,
    reason_to_leave,
)
from lightning_stab.functional.initialization.schemes import draw


@dataclass(frozen=True)
class WeightRecord:
    """What happened to one weight; ``reason`` says why it was left alone, if it was.

    Attributes:
        name: the parameter's name.
        layer: the name of the layer that owns it.
        shape: its shape; empty where it has none yet.
        preceding: the activation before it, or ``input``, ``linear``, ``norm``.
        scheme: the scheme that drew it; empty if left alone.
        gain: the gain of the scheme; None if left alone.
        std_before: the standard deviation of its elements before; None if left alone.
        std_after: and after.
        reason: empty if it was drawn.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    preceding: str
    scheme: str = ""
    gain: float | None = None
    std_before: float | None = None
    std_after: float | None = None
    reason: str = ""


@torch.no_grad()
def initialize_(
    module: nn.Module, settings: InitializationSettings | None = None, seed: int = 0
) -> list[WeightRecord]:
    """Draw the weights of ``module`` anew, in place; return one record for each weight.

    The numbers come from a generator of its own: torch's global random state is neither read nor
    moved, and the same seed gives the same weights on every device and rank. Biases become zero.
    Norms, vectors, embeddings, recurrent layers, and frozen, excluded, parametrized, lazy,
    quantised and sharded weights stay as they are. A weight used in several places is drawn once,
    by the first.

    Args:
        module: any module.
        settings: schemes and exclusions; the automatic choice by default.
        seed: of the generator, at least 0.

    Raises:
        InvalidArgumentError: if a pattern of ``exclude`` matches nothing.

    Example:
        >>> net = nn.Sequential(nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10))
        >>> [(r.name, r.preceding, r.scheme, round(r.gain, 3)) for r in initialize_(net)]
        [('0.weight', 'input', 'xavier_normal', 1.0), ('2.weight', 'ReLU', 'kaiming_normal', 1.414)]
        >>> net[2].bias.abs().sum().item()
        0.0
    """
    settings = settings or InitializationSettings()
    generator = torch.Generator().manual_seed(seed)
    places = _places(weight_sites(module))
    _check_patterns(settings, places)
    return [_initialize_one(settings, sites, generator) for sites in places]


def _places(sites: Sequence[WeightSite]) -> list[list[WeightSite]]:
    """Group the places where one and the same weight is used, in the order of the first."""
    places: dict[tuple[int, str], list[WeightSite]] = {}
    for site in sites:
        computed = site.weight is None
        key = (id(site.owner), site.name) if computed else (id(site.weight), "")
        places.setdefault(key, []).append(site)
    return list(places.values())


def _check_patterns(
    settings: InitializationSettings, places: Sequence[Sequence[WeightSite]]
) -> None:
    names = {name for sites in places for site in sites for name in _names(site)}
    for pattern in settings.exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidArgumentError(
                f"`exclude` must hold patterns that match a weight, its bias or its layer, got "
                f"{pattern!r}, which matches none of {len(names)} names. Correct or remove it."
            )


def _names(site: WeightSite) -> list[str]:
    return [site.name, site.layer, *([site.bias[0]] if site.bias else [])]


def _initialize_one(
    settings: InitializationSettings, sites: Sequence[WeightSite], generator: torch.Generator
) -> WeightRecord:
    site, reason = sites[0], reason_to_leave(settings, sites)
    weight = site.weight
    record = WeightRecord(site.name, site.layer, _shape(weight), site.preceding.name, reason=reason)
    if reason or weight is None:
        return record
    before = _std(weight)
    scheme, gain = _draw_(settings, sites, weight, generator)
    if settings.bias == "zeros":
        _zero_biases_(settings, sites)
    return replace(record, scheme=scheme, gain=gain, std_before=before, std_after=_std(weight))


def _draw_(
    settings: InitializationSettings,
    sites: Sequence[WeightSite],
    weight: Tensor,
    generator: torch.Generator,
) -> tuple[str, float | None]:
    site = sites[0]
    if settings.embedding_std is not None and is_embedding(sites):
        _draw_embedding_(sites, weight, settings.embedding_std, generator)
        return EMBEDDING, None
    scheme, gain = choose(settings, site)
    weight.copy_(draw(scheme, weight, weight_shape(site.owner, weight), gain, generator))
    return scheme, gain


def _draw_embedding_(
    sites: Sequence[WeightSite], weight: Tensor, std: float, generator: torch.Generator
) -> None:
    new = torch.empty(weight.shape).normal_(0.0, std, generator=generator)
    for site in sites:
        padding = getattr(site.owner, "padding_idx", None)
        if padding is not None:
            new[padding] = 0.0
    weight.copy_(new)


def _zero_biases_(settings: InitializationSettings, sites: Sequence[WeightSite]) -> None:
    for bias in (site.bias for site in sites):
        if bias and bias[1].requires_grad and not matches(settings, [bias[0]]):
            bias[1].zero_()


def _shape(weight: Tensor | None) -> tuple[int, ...]:
    lazy = isinstance(weight, nn.parameter.UninitializedParameter)
    return () if weight is None or lazy else tuple(weight.shape)


def _std(weight: Tensor) -> float:
    values = weight.detach()
    wide = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return float(wide.std(correction=0))

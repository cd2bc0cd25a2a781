"""What a real batch shows: the plan for each weight before drawing, corrections after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from lightning_stab.functional.initialization.auto import AutomaticPolicy, Plan
from lightning_stab.functional.initialization.flow import Flow, Use
from lightning_stab.functional.initialization.passes import Program, Readings, measure, trace
from lightning_stab.functional.initialization.policy import (
    InitializationSettings,
    is_embedding,
    names_of,
)
from lightning_stab.functional.initialization.schemes import AUTO
from lightning_stab.functional.initialization.sites import WeightSite
from lightning_stab.functional.layer_kinds import RECURRENT

OPENS_LATER = "starts at zero: a branch that opens later"
ADAPTER = "adapter: leads into a weight that starts at zero"
COMBINED = "combined with other tensors before use (adapter or parametrized)"


@dataclass(frozen=True)
class BatchAnalysis:
    """What the first pass showed.

    Attributes:
        plans: how the weights of the automatic scheme are drawn, by name.
        reasons: why others stay as they are.
        readings: signal and gradient before.
        zero: names of weights that are all zero.
        feeds: the layer whose data come from a weight alone, by the weight's name.
        outputs: names of weights that feed no other.
    """

    plans: Mapping[str, Plan] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    readings: Readings = field(default_factory=Readings)
    zero: frozenset[str] = frozenset()
    feeds: Mapping[str, str] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()


def analyze_batch(
    settings: InitializationSettings,
    places: Sequence[Sequence[WeightSite]],
    reasons: Sequence[str],
    program: Program,
) -> BatchAnalysis:
    """Run the batch once through a copy; return the plans, and what is not to be touched."""
    flow, readings = trace(program, _layers(places))
    sites = {each[0].name: each[0] for each in places}
    zero = frozenset(name for name, site in sites.items() if _is_zero(site))
    kept = _adapters(flow, zero)
    automatic = [
        name
        for (name, site), reason, group in zip(sites.items(), reasons, places, strict=True)
        if not (reason or name in kept or is_embedding(group) or isinstance(site.owner, RECURRENT))
        and settings.scheme_of(names_of(site)) == AUTO
    ]
    owners = {name: site.owner for name, site in sites.items()}
    policy = AutomaticPolicy(flow, owners, automatic)
    plans = {name: plan for name in automatic if (plan := policy.plan(name)) is not None}
    names = {use.operation: name for name, uses in flow.uses.items() for use in uses}
    feeds = {
        name: names.get(use.consumers[0].operation, "")
        for name, uses in flow.uses.items()
        for use in uses
        if use.consumers
    }
    outputs = frozenset(
        n for n, uses in flow.uses.items() if not any(u.reaches_weight for u in uses)
    )
    return BatchAnalysis(plans, kept, readings, zero, feeds, outputs)


def correct_(
    program: Program, places: Sequence[Sequence[WeightSite]], corrections: Mapping[str, str]
) -> Readings:
    """Run the batch once more through a copy, rescale the drawn weights by what it shows.

    Args:
        program: the batch.
        places: the weights, each with all its sites.
        corrections: how each layer is corrected, as `measure` takes it.
    """
    after = measure(program, _layers(places), corrections)
    for sites in places:
        site = sites[0]
        if site.layer in after.scale and site.weight is not None:
            site.weight.mul_(after.scale[site.layer])
        for _, bias in site.biases() if site.layer in after.shift else ():
            bias.copy_(after.shift[site.layer])
    return after


def _layers(places: Sequence[Sequence[WeightSite]]) -> list[str]:
    """Return the layers whose forward can be watched: one weight, one result."""
    return [
        sites[0].layer
        for sites in places
        if sites[0].name.endswith("weight")
        and not isinstance(sites[0].owner, (nn.MultiheadAttention, *RECURRENT))
        and "out_proj" not in sites[0].layer
    ]


def _is_zero(site: WeightSite) -> bool:
    weight = site.weight
    if weight is None or weight.is_meta or not weight.is_floating_point():
        return False
    if isinstance(weight, nn.parameter.UninitializedParameter) or weight.numel() == 0:
        return False
    values = weight.detach()
    # Most show it in their first row, without reading millions of numbers.
    return not (bool(values[0].any()) or bool(torch.count_nonzero(values)))


def _adapters(flow: Flow, zero: frozenset[str]) -> dict[str, str]:
    reasons = dict.fromkeys(flow.combined, COMBINED)
    for name in zero:
        uses = flow.uses.get(name, [])
        if not any(use.joins_sum for use in uses):
            continue
        reasons[name] = OPENS_LATER
        for feeder, its in flow.uses.items():
            if any(set(use.consumers) <= set(uses) and _narrows(use, uses) for use in its):
                reasons[feeder] = ADAPTER
    return reasons


def _narrows(use: Use, into: Sequence[Use]) -> bool:
    """Return whether a layer is the first half of a low-rank pair."""
    fed = [consumer for consumer in use.consumers if consumer in into]
    return bool(fed) and use.operation.outputs[0].shape[-1] < use.data.shape[-1]

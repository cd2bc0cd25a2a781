"""What a real batch shows: the plan for each weight before drawing, corrections after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_stab.functional.initialization.auto import AutomaticPolicy, Plan
from lightning_stab.functional.initialization.flow import Flow, Use
from lightning_stab.functional.initialization.passes import Program, Readings, measure, trace
from lightning_stab.functional.initialization.policy import InitializationSettings
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
    weights: Sequence[WeightSite],
    reasons: Mapping[str, str],
    program: Program,
) -> BatchAnalysis:
    """Run the batch once through a copy; return the plans, and what is not to be touched."""
    flow, readings = trace(program, _layers(weights))
    zero = frozenset(site.name for site in weights if _is_zero(site.weight))
    kept = _adapters(flow, zero)
    automatic = [
        site.name
        for site in weights
        if not (reasons[site.name] or site.name in kept or site.is_embedding)
        and not isinstance(site.owner, RECURRENT)
        and settings.scheme_of(site) == AUTO
    ]
    policy = AutomaticPolicy(flow, {site.name: site.owner for site in weights}, automatic)
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
    program: Program, weights: Sequence[WeightSite], corrections: Mapping[str, str]
) -> Readings:
    """Run the batch once more through a copy, rescale the drawn weights by what it shows.

    Args:
        program: the batch.
        weights: all of them.
        corrections: how each layer is corrected, as `measure` takes it.
    """
    after = measure(program, _layers(weights), corrections)
    for site in weights:
        if site.layer in after.scale and site.weight is not None:
            site.weight.mul_(after.scale[site.layer])
        for _, bias in site.biases() if site.layer in after.shift else ():
            bias.copy_(after.shift[site.layer])
    return after


def _layers(weights: Sequence[WeightSite]) -> list[str]:
    """Return the layers whose forward can be watched: one weight, one result."""
    return [
        site.layer
        for site in weights
        if site.name.endswith("weight")
        and not isinstance(site.owner, (nn.MultiheadAttention, *RECURRENT))
        and "out_proj" not in site.layer
    ]


def _is_zero(weight: Tensor | None) -> bool:
    if weight is None or weight.is_meta or not weight.is_floating_point():
        return False
    if nn.parameter.is_lazy(weight) or weight.numel() == 0:
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
            if any(_narrows_into(uses, use) for use in its):
                reasons[feeder] = ADAPTER
    return reasons


def find_adapters(weights: Sequence[WeightSite]) -> dict[str, str]:
    """Return the low-rank adapters that start at zero, with the reason to leave them alone.

    Without a batch they show by their shapes: B (out x r) is all zero, A (r x in) stands near it,
    r is less than either side, and beside them stands a weight of out x in, or out is in.
    """
    shapes = {site.name: _sides(site) for site in weights}
    reasons: dict[str, str] = {}
    for b in weights:
        (out, rank), zero = shapes[b.name], _is_zero(b.weight)
        for a in weights if zero and rank < out else ():
            place = _common_place(a.layer, b.layer)
            narrow, into = shapes[a.name]
            if a is b or narrow != rank or into <= rank or place is None:
                continue
            whole = (out, into)
            inside = [w for w in weights if f"{w.layer}.".startswith(f"{place}." if place else "")]
            beside = [w for w in inside if w not in (a, b)]
            if out == into or any(shapes[w.name] == whole for w in beside):
                reasons |= {b.name: OPENS_LATER, a.name: ADAPTER}
    return reasons


def _sides(site: WeightSite) -> tuple[int, int]:
    """Return how many units a weight makes of how many, (0, 0) where it is not known."""
    out, into = (getattr(site.owner, f"{side}_features", None) for side in ("out", "in"))
    if isinstance(out, int) and isinstance(into, int):  # also where the weight is packed
        return out, into
    if site.weight is None or nn.parameter.is_lazy(site.weight) or site.weight.dim() < 2:
        return 0, 0
    return site.weight.shape[0], site.weight.shape[1]


def _common_place(first: str, second: str) -> str | None:
    """Return the module that holds two layers, None if it is more than two levels above one."""
    a, b = first.split("."), second.split(".")
    same = 0
    while a[same : same + 1] == b[same : same + 1] != []:
        same += 1
    return ".".join(a[:same]) if max(len(a), len(b)) - same <= 2 else None


def _narrows_into(uses: Sequence[Use], use: Use) -> bool:
    """Return whether a layer feeds these uses alone, as the first half of a low-rank pair."""
    feeds = bool(use.consumers) and set(use.consumers) <= set(uses)
    return feeds and use.operation.outputs[0].shape[-1] < use.data.shape[-1]

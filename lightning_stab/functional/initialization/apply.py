"""Initialise a module in place, and keep a record of what was done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.functional.initialization.auto import Plan
from lightning_stab.functional.initialization.batch_analysis import (
    BatchAnalysis,
    analyze_batch,
    correct_,
    find_adapters,
)
from lightning_stab.functional.initialization.passes import Program, Readings, materialize_
from lightning_stab.functional.initialization.policy import (
    EMBEDDING,
    InitializationSettings,
    any_matches,
    choose,
    reason_to_leave,
)
from lightning_stab.functional.initialization.schemes import AUTO, DATA_SCHEMES, draw, weight_shape
from lightning_stab.functional.initialization.sites import WeightSite, distinct_weights
from lightning_stab.functional.initialization.structured import (
    ORTHOGONAL_GATES,
    draw_gates_,
    draw_structured_,
    open_forget_gate_,
)
from lightning_stab.functional.layer_kinds import RECURRENT


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
        activation_std_before: the standard deviation over the batch of the layer's result, per
            unit, RMS over units; None without a batch, or where the layer has no single result.
        activation_std_after: and after.
        gradient_rms_before: the RMS of the loss's gradient with respect to that result.
        gradient_rms_after: and after.
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
    activation_std_before: float | None = None
    activation_std_after: float | None = None
    gradient_rms_before: float | None = None
    gradient_rms_after: float | None = None

    def with_readings(self, before: Readings, after: Readings) -> WeightRecord:
        """Return this record with what the batch showed of its layer."""
        if self.name.rpartition(".")[2] != "weight":
            return self
        return replace(
            self,
            activation_std_before=before.signal.get(self.layer),
            activation_std_after=after.signal.get(self.layer),
            gradient_rms_before=before.gradient.get(self.layer),
            gradient_rms_after=after.gradient.get(self.layer),
        )


@torch.no_grad()
def initialize_(
    module: nn.Module,
    settings: InitializationSettings | None = None,
    seed: int = 0,
    program: Program | None = None,
) -> list[WeightRecord]:
    """Draw new weights for ``module``, in place; return one record for each weight.

    With a ``program``, the activation before each weight is found by what a real batch does in a
    copy of the module; without one, by the order in which the modules are declared.

    The numbers come from a generator of its own: torch's global random state is neither read nor
    moved, and the same seed gives the same weights on every rank, and on every device to rounding.
    Biases become zero. Norms, vectors, embeddings, and frozen, excluded, parametrized, quantised,
    adapter and sharded weights stay as they are; so do lazy ones, unless a batch gives them their
    shapes first. A weight used in several places is drawn once, by the first.

    Args:
        module: any module.
        settings: schemes and exclusions; the automatic choice by default.
        seed: of the generator, at least 0.
        program: runs a batch through copies of the module.

    Raises:
        InvalidArgumentError: if a pattern of ``exclude`` matches nothing, or a scheme needs a
            batch and there is none.
        ConflictError: if a weight that is to stay is all zero and feeds another layer.

    Example:
        >>> net = nn.Sequential(nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10))
        >>> [(r.name, r.preceding, r.scheme, round(r.gain, 3)) for r in initialize_(net)]
        [('0.weight', 'input', 'xavier_normal', 1.0), ('2.weight', 'ReLU', 'kaiming_normal', 1.414)]
        >>> net[2].bias.abs().sum().item()
        0.0
    """
    settings = settings or InitializationSettings()
    if program is None and settings.needs_data:
        raise InvalidArgumentError(
            "`scheme` must be one that needs no data where there is no batch, got "
            f"{settings.scheme!r}. Give a batch, or choose {AUTO!r} or 'orthogonal'."
        )
    if program is not None:
        materialize_(module, program)
    weights = distinct_weights(module)
    _check_patterns(settings, weights)
    reasons = {site.name: reason_to_leave(settings, site) for site in weights}
    if program is not None:
        analysis = analyze_batch(settings, weights, reasons, program)
    else:
        analysis = BatchAnalysis(reasons=find_adapters(weights))
    _refuse_dead_weights(reasons, analysis)
    drawing = _Drawing(settings, analysis, torch.Generator().manual_seed(seed))
    records = [
        drawing.draw_(site, reasons[site.name] or analysis.reasons.get(site.name, ""))
        for site in weights
    ]
    _set_output_prior_(settings, weights, analysis)
    if program is not None:
        corrections = {r.layer: c for r in records if (c := _correction(r, analysis))}
        after = correct_(program, weights, corrections)
        records = [record.with_readings(analysis.readings, after) for record in records]
    return [
        replace(record, std_after=_std(site.weight))
        if record.scheme and site.weight is not None
        else record
        for record, site in zip(records, weights, strict=True)
    ]


def _correction(record: WeightRecord, analysis: BatchAnalysis) -> str:
    if record.scheme in DATA_SCHEMES:
        return record.scheme
    plan = analysis.plans.get(record.name)
    return plan.correction if plan is not None and not record.reason else ""


@dataclass
class _Drawing:
    """What a run of drawing needs: the settings, what the batch showed, and the random numbers."""

    settings: InitializationSettings
    analysis: BatchAnalysis
    generator: torch.Generator

    def draw_(self, site: WeightSite, reason: str) -> WeightRecord:
        """Draw one weight, unless there is a reason to leave it; return its record."""
        weight, plan = site.weight, self.analysis.plans.get(site.name)
        preceding = site.preceding if plan is None else plan.preceding
        shape = () if weight is None or nn.parameter.is_lazy(weight) else tuple(weight.shape)
        record = WeightRecord(site.name, site.layer, shape, preceding.name, reason=reason)
        if reason or weight is None:
            return record
        before = _std(weight)
        scheme, gain = self._fill_(site, weight, plan)
        if self.settings.bias == "zeros":
            self._set_biases_(site, weight, plan)
        return replace(record, scheme=scheme, gain=gain, std_before=before)

    def _fill_(
        self, site: WeightSite, weight: Tensor, plan: Plan | None
    ) -> tuple[str, float | None]:
        settings = self.settings
        if settings.embedding_std is not None and site.is_embedding:
            new = torch.empty(weight.shape)
            new.normal_(0.0, settings.embedding_std, generator=self.generator)
            for place in site.places:
                padding = getattr(place.owner, "padding_idx", None)
                if padding is not None:
                    new[padding] = 0.0
            weight.copy_(new)
            return EMBEDDING, None
        if isinstance(site.owner, RECURRENT):
            attribute = site.name.rpartition(".")[2]
            draw_gates_(site.owner, attribute, weight, self.generator)
            return ORTHOGONAL_GATES, 1.0
        if plan is None:
            drawn, gain = choose(settings, site)
            asked = settings.scheme_of(site)
            scheme = asked if asked in DATA_SCHEMES else drawn
        else:
            drawn = scheme = plan.scheme
            gain = plan.gain if settings.gain is None else settings.gain
        if plan is not None and plan.structure is not None:
            draw_structured_(weight, plan.structure, gain, self.generator)
        else:
            shape = weight_shape(site.owner, weight)
            weight.copy_(draw(drawn, weight, shape, gain, self.generator))
        return scheme, gain

    def _set_biases_(self, site: WeightSite, weight: Tensor, plan: Plan | None) -> None:
        for place in site.places:
            for name, bias in place.biases():
                if not bias.requires_grad or any_matches(self.settings.exclude, [name]):
                    continue
                if isinstance(place.owner, RECURRENT):
                    open_forget_gate_(place.owner, name.rpartition(".")[2], bias)
                elif plan is not None and plan.center:
                    bias.copy_(-plan.center * weight.flatten(1).sum(1))
                else:
                    bias.zero_()


def _check_patterns(settings: InitializationSettings, weights: Sequence[WeightSite]) -> None:
    names, types = set(), set()
    for place in (place for site in weights for place in site.places):
        names |= {place.name, place.layer, *(name for name, _ in place.biases())}
        types.add(type(place.owner).__name__)
    for argument in ("exclude", "include", "schemes"):
        known = names | types if argument == "schemes" else names
        for pattern in getattr(settings, argument) or ():
            if not any_matches([pattern], known):
                raise InvalidArgumentError(
                    f"`{argument}` must hold patterns that match a weight, its bias or its layer, "
                    f"got {pattern!r}, which matches none of {len(names)} names. Correct or remove "
                    "it."
                )


def _refuse_dead_weights(reasons: Mapping[str, str], analysis: BatchAnalysis) -> None:
    for name, reason in reasons.items():
        fed = analysis.feeds.get(name, "")
        is_kept = reason in ("excluded", "not included", "to be kept")
        if is_kept and fed and name in analysis.zero:
            raise ConflictError(
                f"`{name}` is {reason} and all zero, and it feeds `{fed}`, which "
                "would get no signal and send back no gradient. Let it be drawn, or give it "
                "random values."
            )


def _set_output_prior_(
    settings: InitializationSettings, weights: Sequence[WeightSite], analysis: BatchAnalysis
) -> None:
    if settings.output_prior is None:
        return
    total = sum(settings.output_prior)
    prior = torch.tensor([math.log(frequency / total) for frequency in settings.output_prior])
    outputs = [
        bias
        for site in weights
        if site.name in analysis.outputs
        for _, bias in site.biases()
        if bias.numel() == prior.numel()
    ]
    if len(outputs) != 1:
        raise InvalidArgumentError(
            f"`output_prior` must have one value for each output of the last layer, which needs a "
            f"bias and a batch to be found, got {prior.numel()} values and {len(outputs)} such "
            "layers. Set the bias yourself instead."
        )
    outputs[0].copy_(prior)


def _std(weight: Tensor) -> float:
    values = weight.detach()
    wide = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return float(wide.std(correction=0))

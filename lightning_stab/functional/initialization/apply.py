"""Initialise a module in place, and keep a record of what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.functional.initialization.auto import Plan
from lightning_stab.functional.initialization.driven import Survey, correct_, survey
from lightning_stab.functional.initialization.fans import weight_shape
from lightning_stab.functional.initialization.lazy import materialize_
from lightning_stab.functional.initialization.passes import Program
from lightning_stab.functional.initialization.policy import (
    EMBEDDING,
    InitializationSettings,
    choose,
    is_embedding,
    matches,
    names_of,
    reason_to_leave,
)
from lightning_stab.functional.initialization.records import WeightRecord, shape_of, std_of
from lightning_stab.functional.initialization.recurrent import (
    ORTHOGONAL_GATES,
    draw_gates_,
    open_forget_gate_,
)
from lightning_stab.functional.initialization.schemes import AUTO, draw
from lightning_stab.functional.initialization.sites import WeightSite, weight_sites
from lightning_stab.functional.initialization.structured import draw_structured_
from lightning_stab.functional.layer_kinds import RECURRENT


@torch.no_grad()
def initialize_(
    module: nn.Module,
    settings: InitializationSettings | None = None,
    seed: int = 0,
    program: Program | None = None,
) -> list[WeightRecord]:
    """Draw the weights of ``module`` anew, in place; return one record for each weight.

    With a ``program``, the activation before each weight is found by what a real batch does in a
    copy of the module; without one, by the order in which the modules are declared.

    The numbers come from a generator of its own: torch's global random state is neither read nor
    moved, and the same seed gives the same weights on every device and rank. Biases become zero.
    Norms, vectors, embeddings, and frozen, excluded, parametrized, quantised, adapter and sharded
    weights stay as they are; so do lazy ones, unless a batch gives them their shapes first. A
    weight used in several places is drawn once, by the first.

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
    if settings.needs_data and program is None:
        raise InvalidArgumentError(
            "`scheme` must be one that needs no data where there is no batch, got "
            f"{settings.scheme!r}. Give a batch, or choose {AUTO!r} or 'orthogonal'."
        )
    if program is not None:
        materialize_(module, program)
    places = _places(weight_sites(module))
    _check_patterns(settings, places)
    reasons = [reason_to_leave(settings, sites) for sites in places]
    found = survey(settings, places, reasons, program) if program is not None else Survey()
    _refuse_dead_weights(places, reasons, found)
    generator = torch.Generator().manual_seed(seed)
    drawing = _Drawing(settings, found, generator)
    records = [
        drawing.draw_(sites, reason or found.reasons.get(sites[0].name, ""))
        for sites, reason in zip(places, reasons, strict=True)
    ]
    _set_output_prior_(settings, places, found)
    if program is not None:
        after = correct_(program, places, records, found)
        records = [record.with_readings(found.readings, after) for record in records]
    return [
        replace(record, std_after=std_of(sites[0].weight))
        if record.scheme and sites[0].weight is not None
        else record
        for record, sites in zip(records, places, strict=True)
    ]


@dataclass
class _Drawing:
    """One run of drawing: the wishes, what the batch told, and the random numbers."""

    settings: InitializationSettings
    found: Survey
    generator: torch.Generator

    def draw_(self, sites: Sequence[WeightSite], reason: str) -> WeightRecord:
        """Draw one weight, unless there is a reason to leave it; return its record."""
        site, weight = sites[0], sites[0].weight
        plan = self.found.plans.get(site.name)
        preceding = site.preceding if plan is None else plan.preceding
        record = WeightRecord(
            site.name, site.layer, shape_of(weight), preceding.name, reason=reason
        )
        if reason or weight is None:
            return record
        before = std_of(weight)
        scheme, gain = self._fill_(sites, weight, plan)
        if self.settings.bias == "zeros":
            self._set_biases_(sites, weight, plan)
        return replace(record, scheme=scheme, gain=gain, std_before=before)

    def _fill_(
        self, sites: Sequence[WeightSite], weight: Tensor, plan: Plan | None
    ) -> tuple[str, float | None]:
        site, settings = sites[0], self.settings
        if settings.embedding_std is not None and is_embedding(sites):
            _draw_embedding_(sites, weight, settings.embedding_std, self.generator)
            return EMBEDDING, None
        if isinstance(site.owner, RECURRENT):
            attribute = site.name.rpartition(".")[2]
            draw_gates_(site.owner, attribute, weight, self.generator)
            return ORTHOGONAL_GATES, 1.0
        if plan is None:
            scheme, gain = choose(settings, site)
            weight.copy_(
                draw(scheme, weight, weight_shape(site.owner, weight), gain, self.generator)
            )
            asked = settings.scheme_of(names_of(site))
            return (asked if asked.startswith("lsuv") else scheme), gain
        gain = plan.gain if settings.gain is None else settings.gain
        if plan.structure is not None:
            draw_structured_(weight, plan.structure, gain, self.generator)
        else:
            shape = weight_shape(site.owner, weight)
            weight.copy_(draw(plan.scheme, weight, shape, gain, self.generator))
        return plan.scheme, gain

    def _set_biases_(self, sites: Sequence[WeightSite], weight: Tensor, plan: Plan | None) -> None:
        for site in sites:
            for name, bias in site.biases():
                if not bias.requires_grad or matches(self.settings, [name]):
                    continue
                if isinstance(site.owner, RECURRENT):
                    open_forget_gate_(site.owner, name.rpartition(".")[2], bias)
                elif plan is not None and plan.center:
                    bias.copy_(-plan.center * weight.flatten(1).sum(1))
                else:
                    bias.zero_()


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
    patterns = [("exclude", p) for p in settings.exclude]
    patterns += [("include", p) for p in settings.include]
    patterns += [("schemes", p) for p in settings.schemes]
    types = {type(site.owner).__name__ for sites in places for site in sites}
    for argument, pattern in patterns:
        known = names | types if argument == "schemes" else names
        if not any(fnmatchcase(name, pattern) for name in known):
            raise InvalidArgumentError(
                f"`{argument}` must hold patterns that match a weight, its bias or its layer, got "
                f"{pattern!r}, which matches none of {len(names)} names. Correct or remove it."
            )


def _names(site: WeightSite) -> list[str]:
    return [site.name, site.layer, *(name for name, _ in site.biases())]


def _refuse_dead_weights(
    places: Sequence[Sequence[WeightSite]], reasons: Sequence[str], found: Survey
) -> None:
    for sites, reason in zip(places, reasons, strict=True):
        fed = found.feeds.get(sites[0].name, "")
        wished = reason in ("excluded", "not included", "to be kept")
        if wished and fed and sites[0].name in found.zero:
            raise ConflictError(
                f"`{sites[0].name}` is {reason} and all zero, and it feeds `{fed}`, which "
                "would get no signal and send back no gradient. Let it be drawn, or give it "
                "random values."
            )


def _set_output_prior_(
    settings: InitializationSettings, places: Sequence[Sequence[WeightSite]], found: Survey
) -> None:
    if settings.output_prior is None:
        return
    prior = torch.tensor(settings.log_prior())
    outputs = [
        bias
        for sites in places
        if sites[0].name in found.outputs
        for _, bias in sites[0].biases()
        if bias.numel() == prior.numel()
    ]
    if len(outputs) != 1:
        raise InvalidArgumentError(
            f"`output_prior` must have one value for each output of the last layer, which needs a "
            f"bias and a batch to be found, got {prior.numel()} values and {len(outputs)} such "
            "layers. Set the bias yourself instead."
        )
    outputs[0].copy_(prior)


def _draw_embedding_(
    sites: Sequence[WeightSite], weight: Tensor, std: float, generator: torch.Generator
) -> None:
    new = torch.empty(weight.shape).normal_(0.0, std, generator=generator)
    for site in sites:
        padding = getattr(site.owner, "padding_idx", None)
        if padding is not None:
            new[padding] = 0.0
    weight.copy_(new)

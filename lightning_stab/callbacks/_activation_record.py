"""What was seen of each activation: a few numbers per call, on the device, joined when read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_stab.callbacks._activation_names import Maker
from lightning_stab.functional.activation_kinds import ActivationKind
from lightning_stab.functional.activations import (
    dead_units,
    mean_and_spread,
    pooled,
    saturated_fraction,
    unit_dimension,
    unit_peaks,
)

FOLD = 8  # more calls than these after one and the same layer are steps of a recurrence


@dataclass(frozen=True)
class LayerSeen:
    """An activation function at its place in the net.

    Attributes:
        name: the module's dotted name; of a function that of the module around it and its own.
        kind: the function's name.
        is_head: whether no weight layer takes its output, so that it is an output of the net.
    """

    name: str
    kind: str
    is_head: bool = False


@dataclass(eq=False)
class Site:
    """One call site of an activation within a batch.

    Attributes:
        base: its name before equal names are numbered.
        kind: what function it is.
        maker: the identity of the layer before it.
        by_output: whether only the output is seen, as of a fused recurrent layer.
        peaks: each unit's largest pre-activation so far.
        samples: how many values each unit has seen, positions of a convolution not counted.
        feeds: whether a weight layer takes its output, or nothing says otherwise.
    """

    base: str
    kind: ActivationKind
    maker: int
    by_output: bool = False
    peaks: Tensor | None = None
    ragged: bool = False
    samples: int = 0
    feeds: bool = False


@dataclass(frozen=True)
class _Row:
    """One call's numbers: mean and spread of the output, saturation, spread of the input."""

    site: Site
    entries: int
    repeats: int  # values per unit: the input's spread means nothing for one
    numbers: Tensor


@dataclass
class Pending:
    """What was read of a call's input, before an in-place function overwrites it."""

    site: Site
    full: bool
    repeats: int = 0
    saturated: Tensor | None = None
    input_spread: Tensor | None = None


@dataclass
class ActivationRecord:
    """All call sites of a watched module, in the order in which they first ran."""

    sites: dict[tuple[str, int, int], Site] = field(default_factory=dict)
    _rows: list[_Row] = field(default_factory=list)
    _calls: dict[tuple[str, int], int] = field(default_factory=dict)

    def begin_batch(self) -> None:
        """Let the next call of a module be its first again."""
        self._calls.clear()

    def before(
        self, base: str, kind: ActivationKind, maker: Maker | None, inputs: Tensor, full: bool
    ) -> Pending:
        """Look at the input of a call."""
        place = maker or Maker(0, None)
        unit = unit_dimension(inputs.shape, place.dimension, place.features)
        site = self._site(base, kind, place.identity)
        self._add_peaks(site, inputs, unit)
        if not full:
            return Pending(site, full)
        saturated = saturated_fraction(inputs, kind) if kind.can_saturate else None
        spread = mean_and_spread(inputs, unit)[1]
        return Pending(site, full, inputs.numel() // inputs.shape[unit], saturated, spread)

    def after(self, pending: Pending, output: Tensor) -> None:
        """Look at the output of the same call."""
        if pending.full:
            mean, spread = mean_and_spread(output)
            self._add_row(pending, output, mean, spread)

    def output_only(self, base: str, kind: ActivationKind, output: Tensor, full: bool) -> Site:
        """Look at a layer whose activation is fused into it; its kind has bounds on the output."""
        site = self._site(base, kind, 0)
        site.by_output = site.feeds = True
        self._add_peaks(site, output, output.dim() - 1)
        if full:
            saturated = saturated_fraction(output, kind) if kind.can_saturate else None
            self.after(Pending(site, full, saturated=saturated), output)
        return site

    def groups(self, *, heads: bool) -> list[list[Site]]:
        """Return the sites of each layer: one, or all calls of a recurrence."""
        calls: dict[tuple[str, int], list[Site]] = {}
        for (base, maker, _), site in self.sites.items():
            calls.setdefault((base, maker), []).append(site)
        groups: list[list[Site]] = []
        for site in self.sites.values():
            same = calls[site.base, site.maker]
            if len(same) <= FOLD:
                groups.append([site])
            elif site is same[0]:
                groups.append(same)
        ends = self._heads()
        return [g for g in groups if heads or (g[0].base, g[0].maker) not in ends]

    def layers(self, groups: Sequence[Sequence[Site]]) -> list[LayerSeen]:
        """Return what the groups are called; equal names are numbered."""
        ends = self._heads()
        taken: dict[str, int] = {}
        seen = []
        for first, *_ in groups:
            taken[first.base] = number = taken.get(first.base, 0) + 1
            name = first.base if number == 1 else f"{first.base}_{number}"
            seen.append(LayerSeen(name, first.kind.name, (first.base, first.maker) in ends))
        return seen

    def values(self, groups: Sequence[Sequence[Site]]) -> Tensor:
        """Return the statistics of each group, shape ``[groups, 6]``."""
        if not groups:
            return torch.zeros(0, 6)
        dead = _dead_fractions(groups, self._device())
        place = {id(site): number for number, group in enumerate(groups) for site in group}
        rows = [row for row in self._rows if id(row.site) in place]
        statistics = dead.new_full((len(groups), 4), math.nan)
        if rows:
            statistics = _statistics(rows, [place[id(r.site)] for r in rows], len(groups), dead)
            saturates = [group[0].kind.can_saturate for group in groups]
            defined = torch.tensor(saturates, device=dead.device)
            statistics[:, 2].masked_fill_(~defined, math.nan)
        samples = dead.new_tensor([float(sum(s.samples for s in group)) for group in groups])
        mean, std, saturated, input_std = statistics.unbind(1)
        return torch.stack([mean, std, dead, saturated, input_std, samples], dim=1)

    def _device(self) -> torch.device:
        """Return where the numbers are; those of a net on several devices meet at the first."""
        peaks = (site.peaks for site in self.sites.values() if site.peaks is not None)
        tensors = [row.numbers for row in self._rows[:1]] or list(peaks)
        return tensors[0].device if tensors else torch.device("cpu")

    def _heads(self) -> set[tuple[str, int]]:
        """Return which have any call whose output leaves the net: then all their calls are heads.

        A discriminator that runs on true and on false samples ends in the same activation twice.
        """
        return {(site.base, site.maker) for site in self.sites.values() if not site.feeds}

    def _site(self, base: str, kind: ActivationKind, maker: int) -> Site:
        number = self._calls.get((base, maker), 0)
        self._calls[base, maker] = number + 1
        return self.sites.setdefault((base, maker, number), Site(base, kind, maker))

    def _add_peaks(self, site: Site, values: Tensor, unit: int) -> None:
        units = values.shape[unit]
        channels = unit < values.dim() - 1
        site.samples += values.shape[0] if channels else values.numel() // units
        if not site.kind.can_die or site.ragged:
            return
        peaks = unit_peaks(values, unit)
        if site.peaks is not None and site.peaks.shape != peaks.shape:
            site.ragged, site.peaks = True, None  # other units each time: none can be followed
            return
        site.peaks = peaks if site.peaks is None else torch.maximum(site.peaks, peaks)

    def _add_row(self, pending: Pending, output: Tensor, mean: Tensor, spread: Tensor) -> None:
        numbers = (mean, spread, pending.saturated, pending.input_spread)
        # what is not defined is filled up with something, and left out when it is read
        packed = torch.stack([mean if n is None else n.to(mean.dtype) for n in numbers])
        repeats = pending.repeats if pending.input_spread is not None else 0
        self._rows.append(_Row(pending.site, output.numel(), repeats, packed))


def _dead_fractions(groups: Sequence[Sequence[Site]], device: torch.device) -> Tensor:
    peaks = [_peaks_of(group) for group in groups]
    missing = torch.full((), math.nan, device=device)
    fractions = [
        missing if p is None else dead_units(p, group[0].kind).float().mean().to(device)
        for p, group in zip(peaks, groups, strict=True)
    ]
    return torch.stack(fractions)


def _peaks_of(group: Sequence[Site]) -> Tensor | None:
    peaks = [site.peaks for site in group]
    if any(p is None or p.shape != peaks[0].shape for p in peaks):  # type: ignore[union-attr]
        return None
    return torch.stack([p for p in peaks if p is not None]).amax(0)


def _statistics(rows: list[_Row], places: list[int], number: int, like: Tensor) -> Tensor:
    """Return mean, standard deviation, saturated fraction and the input's deviation by group."""
    device = rows[0].numbers.device
    table = torch.stack([row.numbers.to(device) for row in rows])
    groups = torch.tensor(places, device=device)
    counts = table.new_tensor([float(row.entries) for row in rows])
    repeats = table.new_tensor([float(row.repeats) if row.repeats > 1 else 0.0 for row in rows])
    mean, std = pooled(table[:, 0], table[:, 1], counts, groups, number)
    saturated, _ = pooled(table[:, 2], torch.zeros_like(counts), counts, groups, number)
    spread, _ = pooled(table[:, 3], torch.zeros_like(counts), repeats, groups, number)
    joined = torch.stack([mean, std, saturated, spread.sqrt()], dim=1)
    return joined.to(like.device)

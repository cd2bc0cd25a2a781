"""What was seen of each activation: a few numbers per call, on the device, joined when read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_stab.callbacks.activations.recognition import Maker
from lightning_stab.functional.activation_kinds import ActivationKind
from lightning_stab.functional.activations import (
    dead_units,
    mean_and_variance,
    pool_moments,
    saturated_fraction,
    unit_dimension,
    unit_peaks,
)


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
    """An activation after one layer, however often the two are called.

    The steps of a recurrence, the true and the false samples of a discriminator: the units are the
    same, and one is dead only if it is so in every call.

    Attributes:
        base: its name before equal names are numbered.
        kind: what function it is.
        maker: the layer before it.
        peaks: each unit's largest pre-activation so far; the output where that alone is seen.
        ragged: whether the number of units changes, so that none can be followed.
        samples: how many values each unit has seen, positions of a convolution not counted.
        is_head: whether no weight layer takes the output of some call: it is one of the net.
    """

    base: str
    kind: ActivationKind
    maker: Maker
    peaks: Tensor | None = None
    ragged: bool = False
    samples: int = 0
    is_head: bool = False


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

    sites: dict[tuple[str, int], Site] = field(default_factory=dict)
    _rows: list[_Row] = field(default_factory=list)

    def forget_statistics(self) -> None:
        """Drop what was measured of means and spreads; dead units are followed on."""
        self._rows.clear()

    def before(
        self, base: str, kind: ActivationKind, maker: Maker, inputs: Tensor, full: bool
    ) -> Pending:
        """Look at the input of a call."""
        site = self._site(base, kind, maker)
        unit = self.follow(site, inputs)
        if not full:
            return Pending(site, full)
        saturated = saturated_fraction(inputs, kind) if kind.can_saturate else None
        spread = mean_and_variance(inputs, unit)[1]
        return Pending(site, full, inputs.numel() // inputs.shape[unit], saturated, spread)

    def follow(self, site: Site, values: Tensor) -> int:
        """Look for units that are alive, and return the dimension that counts units."""
        unit = unit_dimension(values.shape, site.maker.dimension, site.maker.features)
        units = values.shape[unit]
        channels = unit < values.dim() - 1
        site.samples += values.shape[0] if channels else values.numel() // units
        if site.kind.can_be_dead and not site.ragged:
            peaks = unit_peaks(values, unit)
            if site.peaks is not None and site.peaks.shape != peaks.shape:
                site.ragged, site.peaks = True, None  # other units each time: none can be followed
            else:
                site.peaks = peaks if site.peaks is None else torch.maximum(site.peaks, peaks)
        return unit

    def after(self, pending: Pending, output: Tensor) -> None:
        """Look at the output of the same call."""
        if pending.full:
            mean, spread = mean_and_variance(output)
            self._add_row(pending, output, mean, spread)

    def output_only(self, base: str, kind: ActivationKind, output: Tensor, full: bool) -> None:
        """Look at a layer whose activation is fused into it; its kind has bounds on the output."""
        site = self._site(base, kind, Maker(0, -1))
        self.follow(site, output)
        if full:
            saturated = saturated_fraction(output, kind) if kind.can_saturate else None
            self.after(Pending(site, full, saturated=saturated), output)

    def chosen(self, *, heads: bool) -> list[Site]:
        """Return the sites that are layers, with or without the outputs of the net."""
        return [site for site in self.sites.values() if heads or not site.is_head]

    def layers(self, sites: Sequence[Site]) -> list[LayerSeen]:
        """Return what the sites are called; equal names are numbered."""
        taken: dict[str, int] = {}
        seen = []
        for site in sites:
            taken[site.base] = number = taken.get(site.base, 0) + 1
            name = site.base if number == 1 else f"{site.base}_{number}"
            seen.append(LayerSeen(name, site.kind.name, site.is_head))
        return seen

    def values(self, sites: Sequence[Site]) -> Tensor:
        """Return the statistics of each site, shape ``[sites, 6]``."""
        if not sites:
            return torch.zeros(0, 6)
        dead = self.dead_fractions(sites)
        place = {id(site): number for number, site in enumerate(sites)}
        rows = [row for row in self._rows if id(row.site) in place]
        statistics = dead.new_full((len(sites), 4), math.nan)
        if rows:
            statistics = _statistics(rows, [place[id(r.site)] for r in rows], len(sites), dead)
            defined = torch.tensor([s.kind.can_saturate for s in sites], device=dead.device)
            statistics[:, 2].masked_fill_(~defined, math.nan)
        samples = dead.new_tensor([float(site.samples) for site in sites])
        mean, std, saturated, input_std = statistics.unbind(1)
        return torch.stack([mean, std, dead, saturated, input_std, samples], dim=1)

    def dead_fractions(self, sites: Sequence[Site]) -> Tensor:
        """Return the fraction of dead units of each site, NaN where none can be; ``[sites]``."""
        device = self._device()
        missing = torch.full((), math.nan, device=device)
        fractions = [missing]
        for site in sites:
            if site.peaks is None:
                fractions.append(missing)
            else:
                dead = torch.count_nonzero(dead_units(site.peaks, site.kind))
                fractions.append((dead / site.peaks.numel()).to(device))
        return torch.stack(fractions)[1:]

    def fewest_samples(self) -> float:
        """Return the least number of samples over the sites whose units can be dead."""
        mortal = (site.samples for site in self.sites.values() if site.peaks is not None)
        return min(mortal, default=math.inf)

    def _device(self) -> torch.device:
        """Return where the numbers are; those of a net on several devices meet at the first."""
        peaks = (site.peaks for site in self.sites.values() if site.peaks is not None)
        tensors = [row.numbers for row in self._rows[:1]] or list(peaks)
        return tensors[0].device if tensors else torch.device("cpu")

    def _site(self, base: str, kind: ActivationKind, maker: Maker) -> Site:
        return self.sites.setdefault((base, maker.identity), Site(base, kind, maker))

    def _add_row(self, pending: Pending, output: Tensor, mean: Tensor, spread: Tensor) -> None:
        numbers = (mean, spread, pending.saturated, pending.input_spread)
        # what is not defined is filled up with something, and left out when it is read
        packed = torch.stack([mean if n is None else n.to(mean.dtype) for n in numbers])
        repeats = pending.repeats if pending.input_spread is not None else 0
        self._rows.append(_Row(pending.site, output.numel(), repeats, packed))


def _statistics(rows: list[_Row], places: list[int], number: int, like: Tensor) -> Tensor:
    """Return mean, standard deviation, saturated fraction and the input's deviation by group."""
    device = rows[0].numbers.device
    table = torch.stack([row.numbers.to(device) for row in rows])
    groups = torch.tensor(places, device=device)
    counts = table.new_tensor([float(row.entries) for row in rows])
    repeats = table.new_tensor([float(row.repeats) if row.repeats > 1 else 0.0 for row in rows])
    mean, std = pool_moments(table[:, 0], table[:, 1], counts, groups, number)
    saturated, _ = pool_moments(table[:, 2], torch.zeros_like(counts), counts, groups, number)
    spread, _ = pool_moments(table[:, 3], torch.zeros_like(counts), repeats, groups, number)
    joined = torch.stack([mean, std, saturated, spread.sqrt()], dim=1)
    return joined.to(like.device)

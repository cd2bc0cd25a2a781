"""What was measured of each activation: a few numbers per call, on the device, joined when read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_stab.callbacks.activations.recognition import UnitLayout
from lightning_stab.functional.activation_kinds import ActivationKind
from lightning_stab.functional.activations import (
    dead_units,
    mean_and_variance,
    pool_moments,
    saturated_fraction,
    unit_dimension,
    unit_peaks,
)


@dataclass(eq=False)
class ActivationSite:
    """An activation after one layer, however often the two are called.

    The steps of a recurrence, the true and the false samples of a discriminator: the units are the
    same, and one is dead only if it is so in every call.

    Attributes:
        base: its name before equal names are numbered.
        kind: what function it is.
        layout: what the units of the layer before it are.
        peaks: each unit's largest pre-activation so far; the output where that alone is seen.
        ragged: whether the number of units changes, so that none can be followed.
        samples: how many values each unit has seen, positions of a convolution not counted.
        is_head: whether no weight layer takes the output of some call: it is one of the net.
        calls: of each call, entries of the output, values per unit of the input, and four numbers:
            mean and spread of the output, saturation, spread of the input.
    """

    base: str
    kind: ActivationKind
    layout: UnitLayout
    peaks: Tensor | None = None
    ragged: bool = False
    samples: int = 0
    is_head: bool = False
    calls: list[tuple[int, int, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class ActivationLayer:
    """An activation function at its place in the net.

    Attributes:
        name: the module's dotted name; of a function that of the module around it and its own.
        kind: the function's name.
        site: what was measured of it.
    """

    name: str
    kind: str
    site: ActivationSite = field(repr=False)


@dataclass
class PendingCall:
    """What was read of a call's input, before an in-place function overwrites it."""

    site: ActivationSite
    repeats: int = 0  # values per unit: the input's spread means nothing for one
    saturated: Tensor | None = None
    input_spread: Tensor | None = None


@dataclass
class ActivationRecord:
    """All call sites of a watched module, in the order in which they first ran.

    Attributes:
        sites: by name and by the layer before.
        moments: whether means and spreads are measured, too; else they are NaN.
    """

    sites: dict[tuple[str, int], ActivationSite] = field(default_factory=dict)
    moments: bool = True

    def forget_statistics(self) -> None:
        """Drop what was measured of means and spreads; dead units are followed on."""
        for site in self.sites.values():
            site.calls.clear()

    def begin_call(
        self, base: str, kind: ActivationKind, layout: UnitLayout, inputs: Tensor, *, full: bool
    ) -> PendingCall | None:
        """Measure the input of a call; only with ``full`` more than which units are alive."""
        site = self._site(base, kind, layout)
        unit = self.follow(site, inputs)
        if not full:
            return None
        saturated = saturated_fraction(inputs, kind) if kind.can_saturate else None
        spread = mean_and_variance(inputs, unit)[1] if self.moments else None
        return PendingCall(site, inputs.numel() // inputs.shape[unit], saturated, spread)

    def end_call(self, pending: PendingCall, output: Tensor) -> None:
        """Measure the output of the same call."""
        saturated = pending.saturated
        if self.moments:
            mean, spread = mean_and_variance(output)
            numbers = (mean, spread, saturated, pending.input_spread)
            # what is not defined is filled up with something, and left out when it is read
            packed = torch.stack([mean if n is None else n.to(mean.dtype) for n in numbers])
        elif saturated is not None:
            missing = torch.full_like(saturated, math.nan)
            packed = torch.stack([missing, missing, saturated, missing])
        else:
            return
        pending.site.calls.append((output.numel(), pending.repeats, packed))

    def add_output(self, base: str, kind: ActivationKind, output: Tensor, *, full: bool) -> None:
        """Measure a layer whose activation is fused into it; its kind has bounds on the output."""
        site = self._site(base, kind, UnitLayout(0, -1))
        self.follow(site, output)
        if full:
            saturated = saturated_fraction(output, kind) if kind.can_saturate else None
            self.end_call(PendingCall(site, saturated=saturated), output)

    def follow(self, site: ActivationSite, values: Tensor) -> int:
        """Look for units that are alive, and return the dimension that counts units."""
        unit = unit_dimension(values.shape, site.layout.dimension, site.layout.features)
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

    def layers(self) -> list[ActivationLayer]:
        """Return all sites but the outputs of the net as layers; equal names are numbered."""
        taken: Counter[str] = Counter()
        layers = []
        for site in self.sites.values():
            if not site.is_head:
                taken[site.base] += 1
                number = taken[site.base]
                name = site.base if number == 1 else f"{site.base}_{number}"
                layers.append(ActivationLayer(name, site.kind.name, site))
        return layers

    def values(self, layers: Sequence[ActivationLayer]) -> Tensor:
        """Return the statistics of each layer, shape ``[layers, 6]``."""
        if not layers:
            return torch.zeros(0, 6)
        sites = [layer.site for layer in layers]
        dead = self.dead_fractions(layers)
        samples = dead.new_tensor([float(site.samples) for site in sites])
        mean, std, saturated, input_std = _pooled_calls(sites, dead.device)
        return torch.stack([mean, std, dead, saturated, input_std, samples], dim=1)

    def dead_fractions(self, layers: Sequence[ActivationLayer]) -> Tensor:
        """Return the fraction of dead units of each layer, NaN where none can be; ``[layers]``."""
        known = [call[2] for site in self.sites.values() for call in site.calls[:1]]
        known += [site.peaks for site in self.sites.values() if site.peaks is not None]
        # the numbers of a net on several devices meet at the first
        missing = torch.full((), math.nan, device=known[0].device if known else "cpu")
        fractions = [missing]
        for site in (layer.site for layer in layers):
            if site.peaks is None:
                fractions.append(missing)
            else:
                dead = torch.count_nonzero(dead_units(site.peaks, site.kind))
                fractions.append((dead / site.peaks.numel()).to(missing.device))
        return torch.stack(fractions)[1:]

    def _site(self, base: str, kind: ActivationKind, layout: UnitLayout) -> ActivationSite:
        key = (base, layout.identity)
        return self.sites.setdefault(key, ActivationSite(base, kind, layout))


def _pooled_calls(sites: Sequence[ActivationSite], device: torch.device) -> list[Tensor]:
    """Return mean, standard deviation, saturated fraction and the input's deviation by site."""
    rows = [(place, *call) for place, site in enumerate(sites) for call in site.calls]
    if not rows:
        return [torch.full((len(sites),), math.nan, device=device)] * 4
    places, entries, repeats, numbers = zip(*rows, strict=True)
    table = torch.stack([each.to(device) for each in numbers])
    groups = torch.tensor(places, device=device)
    counts = table.new_tensor([float(n) for n in entries])
    varied = table.new_tensor([float(n) if n > 1 else 0.0 for n in repeats])
    still = torch.zeros_like(counts)
    mean, std = pool_moments(table[:, 0], table[:, 1], counts, groups, len(sites))
    saturated, _ = pool_moments(table[:, 2], still, counts, groups, len(sites))
    spread, _ = pool_moments(table[:, 3], still, varied, groups, len(sites))
    defined = torch.tensor([site.kind.can_saturate for site in sites], device=device)
    return [mean, std, saturated.masked_fill(~defined, math.nan), spread.sqrt()]

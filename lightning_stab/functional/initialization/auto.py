"""The automatic policy: from what really precedes a weight to how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from lightning_stab.functional.activation_kinds import Activation
from lightning_stab.functional.initialization.flow import Flow, UpstreamPath, Use, is_transposed
from lightning_stab.functional.initialization.gains import Preceding, ScalarFunction
from lightning_stab.functional.initialization.passes import INPUT_RANGE, RESCALE
from lightning_stab.functional.initialization.replay import (
    activation_of,
    keeps_halves,
    scalar_function,
)
from lightning_stab.functional.initialization.structured import Structure
from lightning_stab.functional.layer_kinds import CONVOLUTIONS

ORTHOGONAL, MIRRORED, BALANCED, HE = (
    "orthogonal",
    "mirrored orthogonal",
    "balanced orthogonal",
    "kaiming_normal",
)
_MUCH = 0.5  # a mirrored weight has to deviate less than half as much as a plain one
_SAMPLES = torch.linspace(-4, 4, 17, dtype=torch.float64)


@dataclass(frozen=True)
class Plan:
    """How one weight is drawn.

    Attributes:
        preceding: what comes before it.
        scheme: ``orthogonal``, ``mirrored orthogonal``, ``balanced orthogonal``, or the name of a
            plain scheme.
        gain: the factor on it.
        structure: how an orthogonal one is put together; None for a plain scheme.
        center: the activation's mean, which the bias takes away again; 0 for none.
        correction: how the weight is rescaled on the batch; empty for not.
    """

    preceding: Preceding
    scheme: str
    gain: float
    structure: Structure | None = None
    center: float = 0.0
    correction: str = ""


class PathActivation(NamedTuple):
    """What bends the signal on the way to a weight: its name, its row if known, what it computes.

    ``function`` is None where nothing does, or nothing that runs on a line of numbers.
    """

    name: str = ""
    row: Activation | None = None
    function: ScalarFunction | None = None


class AutomaticPolicy:
    """Plans for the weights of a traced module.

    Args:
        flow: the flow of data between the weights.
        owners: the layer that owns each weight, by the weight's name.
        drawn: the names of the weights that are to be drawn by this policy.
    """

    def __init__(self, flow: Flow, owners: Mapping[str, nn.Module], drawn: Collection[str]) -> None:
        self._flow, self._owners = flow, owners
        self._uses = {
            name: uses[0] for name, uses in flow.uses.items() if name in drawn and len(uses) == 1
        }
        self._names = {use.operation: name for name, use in self._uses.items()}
        self._functions: dict[tuple[float, ...], ScalarFunction] = {}
        self._balances: dict[tuple[ScalarFunction, int], tuple[float, float]] = {}
        self._activations = {
            name: self._activation(uses[0].upstream) for name, uses in flow.uses.items()
        }
        self._mirrored = {name for name, use in self._uses.items() if self._is_mirrored(name, use)}
        self._feeding = {
            self._names[use.upstream.source]
            for name, use in self._uses.items()
            if name in self._mirrored and use.upstream.source is not None
        }
        self._branches = sum(use.ends_branch for uses in flow.uses.values() for use in uses)

    def plan(self, name: str) -> Plan | None:
        """Return the plan for a weight, or None if the batch does not pass through it."""
        uses = self._flow.uses.get(name)
        if not uses:
            return None
        plan = self._plan(name, uses[0])
        if name in self._feeding:
            correction = "" if plan.structure is None else plan.correction
            structure = replace(plan.structure or Structure(), mirror_out=True)
            plan = replace(plan, scheme=MIRRORED, structure=structure, correction=correction)
        if uses[0].ends_branch and self._branches:
            plan = replace(plan, gain=plan.gain / math.sqrt(self._branches), correction="")
        return plan if len(uses) == 1 else replace(plan, correction="")

    def _plan(self, name: str, use: Use) -> Plan:
        found, kind = self._activations[name], use.upstream.kind
        structure = self._structure(name, use)
        if found.function is None:
            normed = self._flow.normalizes(use.upstream.operations)
            before = "norm" if normed else "linear" if kind == "weight" else kind
            correction = INPUT_RANGE if before == "input" and name in self._uses else ""
            return Plan(Preceding(before), ORTHOGONAL, 1.0, structure, correction=correction)
        preceding = _preceding(found, found.function)
        mirrored_gain = self._mirrored_gain(found, found.function)
        if name in self._mirrored and mirrored_gain is not None:
            structure = replace(structure, mirror_in=True)
            return Plan(preceding, MIRRORED, mirrored_gain, structure)
        plain = kind == "weight" and name in self._uses
        if found.function.mirror_slope is not None:
            return Plan(preceding, HE, preceding.gain, correction=RESCALE if plain else "")
        if not plain:
            return Plan(preceding, "xavier_normal", preceding.gain)
        center = found.function.mean() if found.function.is_bounded() else 0.0
        center = center if abs(center) > 1e-6 else 0.0
        return Plan(
            preceding, BALANCED, self._balanced_gain(found, found.function), structure, center
        )

    def _mirrored_gain(self, found: PathActivation, function: ScalarFunction) -> float | None:
        """Return the gain of a mirrored weight, None where another structure serves better.

        Where f(x) - f(-x) is exactly kx, it is 1/k. Where it is not, as for Mish, that difference
        may still be much closer to a straight line than f, which keeps signal and gradient.
        """
        if function.mirror_slope is not None:
            return 1 / function.mirror_slope
        if found.row is not None and found.row.balanced_gains:
            return None
        gain, deviation = self._balance(found, function.mirror)
        return gain if deviation < _MUCH * self._balance(found, function)[1] else None

    def _balanced_gain(self, found: PathActivation, function: ScalarFunction) -> float:
        if found.row is not None and found.row.balanced_gains:
            return _at_depth(found.row.balanced_gains, self._depth(found))
        return self._balance(found, function)[0]

    def _balance(self, found: PathActivation, function: ScalarFunction) -> tuple[float, float]:
        key = (function, self._depth(found))
        if key not in self._balances:
            self._balances[key] = function.balance(key[1])
        return self._balances[key]

    def _depth(self, found: PathActivation) -> int:
        return sum(other.name == found.name for other in self._activations.values())

    def _structure(self, name: str, use: Use) -> Structure:
        owner = self._owners[name]
        bent = self._activations[name].function is not None
        hidden = bent and use.upstream.kind in ("weight", "sum")
        delta = isinstance(owner, CONVOLUTIONS) and hidden and owner.groups == 1
        packed = name.endswith("in_proj_weight")
        return Structure(delta=delta, blocks=3 if packed else getattr(owner, "groups", 1))

    def _activation(self, path: UpstreamPath) -> PathActivation:
        if path.source is None or self._flow.normalizes(path.operations):
            return PathActivation()  # what the raw input is like, its batch shows
        name, row = activation_of(self._flow, path)
        if not name:
            return self._activation_of_branch(path)
        function = scalar_function(self._flow, path)
        try:
            samples = function.function(_SAMPLES)
        except Exception:  # an operator that does not run on a line of numbers shows no function
            return PathActivation()
        if not bool(samples.isfinite().all()) or float(samples.std()) == 0:
            return PathActivation()
        # Layers that bend the signal alike share one function, so that its quadrature is done once.
        known = self._functions.setdefault(tuple(samples.tolist()), function)
        return PathActivation(name, row, known)

    def _activation_of_branch(self, path: UpstreamPath) -> PathActivation:
        """Return the activation of the first branch of what several branches were put into."""
        branches = self._flow.data_sources(path.source) if path.source is not None else []
        if path.kind != "other" or not branches:
            return PathActivation()
        inner = self._flow.trace_upstream(branches[0])
        return PathActivation() if inner.kind == "other" else self._activation(inner)

    def _is_mirrored(self, name: str, use: Use) -> bool:
        """Return whether a weight and the layer before it can be mirrored about each other."""
        function, source = self._activations[name].function, use.upstream.source
        feeder_name = self._names.get(source) if source is not None else None
        if function is None or use.upstream.kind != "weight" or feeder_name is None:
            return False
        feeder = self._uses[feeder_name]
        return (
            self._mirrored_gain(self._activations[name], function) is not None
            and feeder.consumers == [use]
            and not (feeder.has_other_consumers or feeder.ends_branch or use.ends_branch)
            and all(self._can_be_mirrored(n) for n in (name, feeder_name))
            and keeps_halves(self._flow, feeder, use)
        )

    def _can_be_mirrored(self, name: str) -> bool:
        owner = self._owners[name]
        plain = isinstance(owner, (nn.Linear, *CONVOLUTIONS)) and getattr(owner, "groups", 1) == 1
        return plain and not is_transposed(self._uses[name].operation)


def _preceding(found: PathActivation, function: ScalarFunction) -> Preceding:
    if found.row is not None and isinstance(found.row.gain, float):
        return Preceding(found.name, found.row.gain, found.row.rectifier)
    gain = 1 / math.sqrt(function.second_moment())
    return Preceding(found.name, gain, rectifier=function.mirror_slope is not None)


def _at_depth(table: tuple[tuple[int, float], ...], depth: int) -> float:
    """Return a gain between the measured depths, linear in the logarithm of the depth."""
    above = [(d, g) for d, g in table if d >= depth]
    below = [(d, g) for d, g in table if d <= depth]
    if not above or not below:
        return (above or below[::-1])[0][1]
    (low, start), (high, end) = below[-1], above[0]
    part = 0.0 if high == low else math.log(depth / low) / math.log(high / low)
    return start + part * (end - start)

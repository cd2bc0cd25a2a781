"""The automatic policy: from what really precedes a weight to how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from lightning_stab.functional.initialization.flow import Flow, is_transposed
from lightning_stab.functional.initialization.gains import (
    RECTIFIER_GAINS,
    SLOPE_GAINS,
    Preceding,
)
from lightning_stab.functional.initialization.laws import Activation
from lightning_stab.functional.initialization.passes import INPUT_RANGE, RESCALE
from lightning_stab.functional.initialization.replay import (
    activation_name,
    keeps_halves,
    scalar_law,
)
from lightning_stab.functional.initialization.structured import Structure
from lightning_stab.functional.initialization.tape import Operation
from lightning_stab.functional.initialization.uses import Stem, Use
from lightning_stab.functional.layer_kinds import CONVOLUTIONS

ORTHOGONAL, MIRRORED, BALANCED, HE = (
    "orthogonal",
    "mirrored orthogonal",
    "balanced orthogonal",
    "kaiming_normal",
)
# Measured: the gain by depth at which signal and gradient of these survive best.
BALANCED_GAINS = {
    "Sigmoid": ((1, 4.4),),
    "Tanh": ((1, 1.25), (50, 1.25), (200, 1.1)),
    "SELU": ((1, 1.0), (20, 1.0), (50, 0.93), (100, 0.85)),
    "ELU": ((1, 1.245),),
}
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
        centre: the activation's mean, which the bias takes away again; 0 for none.
        correction: how the weight is rescaled on the batch; empty for not.
    """

    preceding: Preceding
    scheme: str
    gain: float
    structure: Structure | None = None
    centre: float = 0.0
    correction: str = ""


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
        self._laws: dict[tuple[float, ...], Activation] = {}
        self._slopes: dict[Activation, float | None] = {}
        self._gains: dict[tuple[Activation, int], float] = {}
        self._activations = {
            name: self._activation(uses[0].stem) for name, uses in flow.uses.items()
        }
        self._mirrored = {name for name, use in self._uses.items() if self._is_mirrored(name, use)}
        self._feeding = {
            self._names[use.stem.junction]
            for name, use in self._uses.items()
            if name in self._mirrored and use.stem.junction is not None
        }
        every = [use for uses in flow.uses.values() for use in uses]
        self._branches = sum(use.ends_branch for use in every)

    def plan(self, name: str) -> Plan | None:
        """Return the plan for a weight, or None if the batch does not pass through it."""
        uses = self._flow.uses.get(name)
        if not uses:
            return None
        plan = self._plan(name, uses[0])
        if plan.structure is not None and name in self._feeding:
            mirrored = replace(plan.structure, mirror_out=True)
            plan = replace(plan, scheme=MIRRORED, structure=mirrored)
        elif name in self._feeding:
            structure = Structure(mirror_out=True)
            plan = replace(plan, scheme=MIRRORED, structure=structure, correction="")
        if uses[0].ends_branch and self._branches:
            plan = replace(plan, gain=plan.gain / math.sqrt(self._branches), correction="")
        return plan if len(uses) == 1 else replace(plan, correction="")

    def _plan(self, name: str, use: Use) -> Plan:
        activation, law = self._activations[name]
        structure = self._structure(name, use)
        if law is None:
            kind = "linear" if use.stem.kind == "weight" else use.stem.kind
            kind = "norm" if self._flow.normalizes(use.stem.operations) else kind
            correction = INPUT_RANGE if kind == "input" and name in self._uses else ""
            return Plan(Preceding(kind), ORTHOGONAL, 1.0, structure, correction=correction)
        slope = self._slope(law)
        preceding = _preceding(activation, law, slope)
        if name in self._mirrored and slope is not None:
            structure = replace(structure, mirror_in=True)
            return Plan(preceding, MIRRORED, 1 / slope, structure)
        plain = use.stem.kind == "weight" and name in self._uses
        if slope is not None:
            return Plan(preceding, HE, preceding.gain, correction=RESCALE if plain else "")
        if not plain:
            return Plan(preceding, "xavier_normal", preceding.gain)
        return self._balanced(preceding, law, structure)

    def _balanced(self, preceding: Preceding, law: Activation, structure: Structure) -> Plan:
        depth = sum(name == preceding.name for name, _ in self._activations.values())
        table = BALANCED_GAINS.get(preceding.name)
        if table is not None:
            gain = _at_depth(table, depth)
        else:
            gain = self._gains.get((law, depth)) or law.balanced_gain(depth)
            self._gains[law, depth] = gain
        centre = law.mean() if law.bounded() else 0.0
        return Plan(preceding, BALANCED, gain, structure, centre if abs(centre) > 1e-6 else 0.0)

    def _structure(self, name: str, use: Use) -> Structure:
        owner = self._owners[name]
        hidden = use.stem.kind in ("weight", "sum") and self._activations[name][1] is not None
        delta = isinstance(owner, CONVOLUTIONS) and hidden and owner.groups == 1
        packed = name.endswith("in_proj_weight")
        return Structure(delta=delta, blocks=3 if packed else getattr(owner, "groups", 1))

    def _activation(self, stem: Stem) -> tuple[str, Activation | None]:
        if stem.junction is None or self._flow.normalizes(stem.operations):
            return "", None  # what the raw input is like, its batch tells
        name = activation_name(self._flow, stem)
        if not name and stem.kind == "other":
            return self._activation_of_branch(stem.junction)
        if not name:
            return "", None
        law = Activation(scalar_law(self._flow, stem))
        try:
            samples = law.law(_SAMPLES)
        except Exception:  # an operator that does not run on a line of numbers tells no law
            return "", None
        if not bool(samples.isfinite().all()) or float(samples.std()) == 0:
            return "", None
        # Layers that bend the signal alike share one law, so that its quadrature is done once.
        return name, self._laws.setdefault(tuple(samples.tolist()), law)

    def _slope(self, law: Activation) -> float | None:
        if law not in self._slopes:
            self._slopes[law] = law.mirror_slope()
        return self._slopes[law]

    def _activation_of_branch(self, junction: Operation) -> tuple[str, Activation | None]:
        branches = self._flow.data_sources(junction)
        inner = self._flow.stem(branches[0]) if branches else Stem(None, [], "input")
        return ("", None) if inner.kind == "other" else self._activation(inner)

    def _is_mirrored(self, name: str, use: Use) -> bool:
        """Return whether a weight and the layer before it can be mirrored about each other."""
        law = self._activations[name][1]
        feeder_name = self._names.get(use.stem.junction) if use.stem.junction else None
        if law is None or use.stem.kind != "weight" or feeder_name is None:
            return False
        feeder = self._uses[feeder_name]
        return (
            self._slope(law) is not None
            and feeder.consumers == [use]
            and not (feeder.leaks or feeder.ends_branch or use.ends_branch)
            and all(self._can_be_mirrored(n) for n in (name, feeder_name))
            and keeps_halves(self._flow, feeder, use)
        )

    def _can_be_mirrored(self, name: str) -> bool:
        owner = self._owners[name]
        plain = isinstance(owner, (nn.Linear, *CONVOLUTIONS)) and getattr(owner, "groups", 1) == 1
        return plain and not is_transposed(self._uses[name].operation)


def _preceding(name: str, law: Activation, slope: float | None) -> Preceding:
    if name in SLOPE_GAINS:
        return Preceding(name, SLOPE_GAINS[name])
    if name in RECTIFIER_GAINS:
        return Preceding(name, RECTIFIER_GAINS[name], rectifier=True)
    return Preceding(name, 1 / math.sqrt(law.second_moment()), rectifier=slope is not None)


def _at_depth(table: tuple[tuple[int, float], ...], depth: int) -> float:
    """Return a gain between the measured depths, linear in the logarithm of the depth."""
    above = [(d, g) for d, g in table if d >= depth]
    below = [(d, g) for d, g in table if d <= depth]
    if not above or not below:
        return (above or below[::-1])[0][1]
    (low, start), (high, end) = below[-1], above[0]
    part = 0.0 if high == low else math.log(depth / low) / math.log(high / low)
    return start + part * (end - start)

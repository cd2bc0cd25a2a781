"""What the doctor reads of optimizer steps: gradients, updates, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from lightning_stab.callbacks._trainer.device_values import Reading
from lightning_stab.callbacks._trainer.step import OptimizerStep
from lightning_stab.functional.autograd_graph import leaves_of
from lightning_stab.functional.gradient_statistics import change_and_size
from lightning_stab.functional.identical_units import identical_fraction
from lightning_stab.functional.layer_kinds import CONSUMERS
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import is_sharded, local, tensor_norms

EARLY = 10  # steps after the warm-up at which every update is looked at
FIRST_NORMS = 10  # gradient norms whose median is the start
RECENT_RATIOS = 5  # looks whose median ratio is the present one
SAMPLED = 1024  # entries of a parameter from which the size of its change is told


class StepReader:
    """Reads steps and sums them up as facts.

    The numbers of a look leave as ``readings()``, which give them back under the names that
    ``crossed`` takes.
    """

    def __init__(self) -> None:
        self.early_seen = 0
        self._copies: list[tuple[tuple[str, ...], list[Tensor], list[Parameter]]] = []
        self._readings: list[Reading] = []
        self._looks: dict[str, int] = {}  # steps seen, by the optimizer's place
        self._never: dict[str, int] = {}
        self._owner: dict[str, str] = {}  # of the parameters in _never, the optimizer's place
        self._unoptimized: tuple[str, ...] = ()
        self._norms: list[float] = []
        self._early: list[float] = []
        self._ratios: list[float] = []
        self._from_zero: set[str] = set()
        self._start_size = math.nan
        self._known: dict[str, Any] = {}

    def measure(self, step: OptimizerStep, *, first: bool) -> None:
        """Read one step before it is taken.

        Args:
            step: the step.
            first: whether it is the run's first, at which identical units are looked for.
        """
        names = step.names()
        if step.index == 0:
            self._readings.append(Reading(step.total.reshape(1), lambda v: {"norm": v[0]}))
        if first:
            self._read_units(step.module)
        chosen = [i for i, p in enumerate(step.params) if p.dim() > 1]
        params = [step.params[i] for i in chosen]
        copies = [_sample(p).clone() for p in params]
        if params:
            self._copies.append((tuple(names[i] for i in chosen), copies, params))

    def count_missing(self, module: LightningModule, optimizer: Optimizer, place: str) -> None:
        """Note which parameters of an optimizer have no gradient at its step.

        Args:
            module: whose names they have.
            optimizer: that is about to step, also if none has a gradient.
            place: what tells it from other optimizers.
        """
        self._looks[place] = self._looks.get(place, 0) + 1
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and parameter.grad is None and id(parameter) in held:
                plain = plain_name(name)
                self._never[plain] = self._never.get(plain, 0) + 1
                self._owner[plain] = place

    def drop(self) -> None:
        """Forget the copies of a step that is not taken."""
        self._copies.clear()

    def readings(self, *, is_taken: bool) -> list[Reading]:
        """Return everything that was read.

        Args:
            is_taken: whether the step was taken, so that the weights are compared with before.
        """
        if not is_taken:
            readings, self._readings = self._readings, []
            return readings
        for names, copies, params in self._copies:
            change, size = change_and_size(copies, [_sample(p) for p in params])
            norms = tensor_norms([p.detach() for p in params])
            numbers = torch.cat([change.to(norms), size.to(norms), norms])
            self._readings.append(Reading(numbers, lambda v, n=names: _by_name(n, v)))  # type: ignore[misc]
        self._copies.clear()
        readings, self._readings = self._readings, []
        return readings

    def crossed(self, numbers: Mapping[str, float], *, early: bool) -> None:
        """Take in the numbers that have crossed.

        Args:
            numbers: of the readings of one batch.
            early: whether the step is one of the first after the warm-up.
        """
        if math.isfinite(numbers.get("norm", math.nan)):
            self._norms.append(numbers["norm"])
            del self._norms[FIRST_NORMS:-1]
        sizes = {n[5:]: v for n, v in numbers.items() if n.startswith("size:")}
        known = {n[6:]: v for n, v in numbers.items() if n.startswith("ratio:")}
        ratios = [ratio for ratio in known.values() if math.isfinite(ratio)]
        self._from_zero.update(n for n, v in known.items() if math.isnan(v))
        # what started at zero has grown without bound, in the healthiest run
        first = [s for n, s in sizes.items() if math.isfinite(s) and n not in self._from_zero]
        size = math.sqrt(sum(s * s for s in first))
        if sizes and not self._start_size > 0:
            self._start_size = size
        if ratios:
            self._ratios = [*self._ratios[1 - RECENT_RATIOS :], median(ratios)]
            if early:
                self.early_seen += 1
                # a weight that started at zero changes by all that it is
                grown = [v for n, v in known.items() if n not in self._from_zero]
                usual = [ratio for ratio in grown if math.isfinite(ratio)]
                self._early += [median(usual)] if usual else []
        bad = {n: 1.0 for n, s in sizes.items() if not math.isfinite(s)}
        identical = {n[10:]: v for n, v in numbers.items() if n.startswith("identical:")}
        if identical:
            self._known["identical_units"] = identical
        if sizes:
            self._known["nonfinite_weights"] = bad
            growth = size / self._start_size if self._start_size > 0 else math.nan
            self._known["weight_growth"] = growth

    def find_unoptimized(self, trainer: Trainer, module: LightningModule) -> None:
        """Look for trainable parameters that no optimizer holds."""
        held = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
        self._unoptimized = tuple(
            plain_name(n)
            for n, p in module.named_parameters()
            if p.requires_grad and id(p) not in held
        )

    def know(self, name: str, value: Any) -> None:
        """Take in a fact that was measured elsewhere."""
        self._known[name] = value

    def find_unregistered(self, loss: Tensor, module: LightningModule) -> None:
        """Look for parameters that the loss depends on and the module does not know."""
        if any(map(is_sharded, module.parameters())):  # the graph knows the whole ones instead
            return
        known = {id(p) for p in module.parameters()}
        used = {id(p): p for p in leaves_of(loss) if isinstance(p, Parameter)}
        self._known["unregistered"] = float(sum(id_ not in known for id_ in used))

    def facts(self) -> dict[str, Any]:
        """Return the facts of the steps so far."""
        facts: dict[str, Any] = dict(self._known)
        facts["unoptimized"] = dict.fromkeys(self._unoptimized, 1.0)
        facts["without_gradient"] = {
            n: count / self._looks[self._owner[n]] for n, count in self._never.items()
        }
        if self._early:
            facts["early_update_ratio"] = max(self._early)
        if self._ratios:
            facts["update_ratio"] = median(self._ratios)
        if len(self._norms) > FIRST_NORMS and self._norms[-1] > 0:
            start = median(self._norms[:FIRST_NORMS])
            if start > 0:
                facts["gradient_growth_log10"] = math.log10(self._norms[-1] / start)
        return facts

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {
            "looks": dict(self._looks),
            "never": dict(self._never),
            "owner": dict(self._owner),
            "norms": list(self._norms),
            "early": list(self._early),
            "from_zero": sorted(self._from_zero),
            "ratios": list(self._ratios),
            "start_size": self._start_size,
            "identical_units": dict(self._known.get("identical_units", {})),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._looks, self._start_size = dict(state["looks"]), state["start_size"]
        self._never, self._owner = dict(state["never"]), dict(state["owner"])
        self._norms, self._early = list(state["norms"]), list(state["early"])
        self._ratios, self._from_zero = list(state["ratios"]), set(state["from_zero"])
        self.early_seen = len(self._early)
        self._known["identical_units"] = dict(state["identical_units"])

    def _read_units(self, module: nn.Module) -> None:
        names, values = [], []
        for name, part in module.named_modules():
            for own, p in part.named_parameters(recurse=False):
                if not _is_matrix(part, own, p):
                    continue
                names.append(plain_name(name))
                values.append(identical_fraction(p.detach(), p.grad))
        if values:
            packed = torch.stack([v.to(values[0].device) for v in values])
            self._readings.append(
                Reading(
                    packed, lambda v: {f"identical:{n}": x for n, x in zip(names, v, strict=True)}
                )
            )


def _is_matrix(part: nn.Module, name: str, parameter: Parameter) -> bool:
    known = isinstance(part, CONSUMERS)
    usable = parameter.grad is not None and not is_sharded(parameter)
    return known and usable and parameter.dim() > 1 and len(parameter) > 1 and "weight" in name


def _sample(parameter: Parameter) -> Tensor:
    """Return evenly spread entries of a parameter, enough for the norm of its change."""
    flat = local(parameter.detach()).reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)]


def _by_name(names: tuple[str, ...], values: list[float]) -> dict[str, float]:
    count = len(names)
    pairs = zip(values[:count], values[count : 2 * count], strict=True)
    ratios = [change / size if size > 0 else math.nan for change, size in pairs]
    named = {f"ratio:{name}": ratio for name, ratio in zip(names, ratios, strict=True)}
    sizes = zip(names, values[2 * count :], strict=True)
    return named | {f"size:{name}": size for name, size in sizes}

"""What optimizer steps show: gradients, updates, weights, and whether gradients are cleared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks._trainer.step import OptimizerStep
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.functional.autograd_graph import leaves_of
from lightning_stab.functional.gradient_statistics import (
    change_and_size,
    change_norms,
    copy_entries,
    identical_fraction,
)
from lightning_stab.functional.layer_kinds import CONSUMERS
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import is_sharded, local_shard, tensor_norms, wide_dtype

EARLY_UPDATES = 10  # steps after the warm-up whose updates are all measured
FIRST_NORMS = 10  # gradient norms whose median is the start
RECENT_RATIOS = 5  # sampled steps whose median ratio is the present one
SCALED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # whose rows are units
SAMPLED = 1024  # entries of a parameter from which the size of its change is estimated


class StepFacts(FactSource):
    """Measures steps, and sums them up as facts."""

    SAVED = (
        *("never", "owner", "norms", "early", "from_zero", "ratios", "start_size", "largest"),
        *("zeros", "travelled", "straightness"),
    )
    SAVED_FACTS = (
        *("identical_units", "start_scale", "weight_decay"),
        *("unregistered", "unoptimized", "frozen_held"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.early_seen = 0  # first steps after the warm-up that were measured
        self._uncleared = UnclearedGradients()
        self._copies: list[tuple[dict[str, Parameter], list[Tensor]]] = []
        self._scalars: dict[str, DeviceScalars] = {}  # by kind: of several the last one counts
        self._steps: dict[str, int] = {}  # sampled steps, by the optimizer's place
        self._never: dict[str, int] = {}  # of those, the steps without gradient, by parameter
        self._owner: dict[str, str] = {}  # of these parameters, the optimizer's place
        self._norms: list[float] = []
        self._early: list[float] = []
        self._ratios: list[float] = []
        self._from_zero: set[str] = set()
        self._start_size = math.nan
        self._largest = math.nan  # ratio of update to weight so far
        self._zeros: list[float] = []  # of the recent sampled steps, whether the gradient was 0
        self._travelled = self._straightness = math.nan
        self._travelled_before = math.nan  # a restart, which leaves no weights of the start
        self._origin: dict[str, Tensor] = {}  # entries of each weight at the start,
        self._previous: dict[str, Tensor] = {}  # and at the sampled step before, which
        self._previous_step = 0  # was this one,
        self._previous_changes: dict[str, float] = {}  # and changed each weight so much

    def before_backward(self, loss: Tensor, module: LightningModule, *, first: bool) -> None:
        """Check that gradients are cleared; at ``first``, that the module knows its parameters."""
        self._uncleared.before_backward()
        # of sharded parameters the graph knows the whole ones instead
        if first and not any(map(is_sharded, module.parameters())):
            known = {id(p) for p in module.parameters()}
            used = {id(p): p for p in leaves_of(loss) if isinstance(p, Parameter)}
            self._known["unregistered"] = float(len(used.keys() - known))

    def before_step(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, *, sampled: bool
    ) -> None:
        """Count which parameters of an optimizer have no gradient at its step, if it is sampled."""
        self._uncleared.before_step(optimizer, follow=sampled)
        if not sampled:
            return
        wrapped = [(o, getattr(o, "optimizer", None)) for o in trainer.optimizers]
        same = (i for i, pair in enumerate(wrapped) if any(o is optimizer for o in pair))
        place = str(next(same, 0))
        self._steps[place] = self._steps.get(place, 0) + 1
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and parameter.grad is None and id(parameter) in held:
                plain = plain_name(name)
                self._never[plain] = self._never.get(plain, 0) + 1
                self._owner[plain] = place

    def measure(self, step: OptimizerStep, *, first: bool) -> None:
        """Measure a step before it is taken; at ``first``, also what only the start shows."""
        if step.index == 0:
            self._scalars["norm"] = DeviceScalars(step.total.reshape(1), self._add_norm)
        if first:
            groups = (group for o in step.trainer.optimizers for group in o.param_groups)
            held = {id(p) for group in groups for p in group["params"]}
            trainable = [(n, p) for n, p in step.module.named_parameters() if p.requires_grad]
            unoptimized = [plain_name(n) for n, p in trainable if id(p) not in held]
            if not any(o is step.optimizer for o in step.trainer.optimizers):
                unoptimized = []  # the module keeps optimizers to itself: which is not known
            frozen = [
                plain_name(n)
                for n, p in step.module.named_parameters()
                if not p.requires_grad and id(p) in held
            ]
            self._known["frozen_held"] = dict.fromkeys(frozen, 1.0)
            decays = [group.get("weight_decay", 0.0) for group in step.optimizer.param_groups]
            self._known["weight_decay"] = max(map(float, decays), default=0.0)
            self._known["unoptimized"] = dict.fromkeys(unoptimized, 1.0)
            self._measure_units(step.module)
        named = zip(step.names(), step.params, strict=True)
        matrices = {name: p for name, p in named if p.dim() > 1}
        if matrices:
            self._copies.append((matrices, copy_entries(list(matrices.values()), SAMPLED)))

    def _measure_units(self, module: nn.Module) -> None:
        weights = [
            part.weight.detach()
            for part in module.modules()
            if isinstance(part, SCALED) and not is_sharded(part.weight) and part.weight.dim() > 1
        ]
        if weights:
            sizes = torch.stack(tensor_norms(weights).unbind())
            counts = sizes.new_tensor([len(w) for w in weights])
            self._scalars["scale"] = DeviceScalars(sizes / counts.sqrt(), self._add_scale)
        identical = {
            plain_name(name): identical_fraction(p.detach(), p.grad)
            for name, part in module.named_modules()
            for own, p in part.named_parameters(recurse=False)
            if isinstance(part, CONSUMERS) and "weight" in own and p.grad is not None
            if not is_sharded(p) and p.dim() > 1 and len(p) > 1
        }
        if identical:
            values = list(identical.values())
            packed = torch.stack([v.to(values[0].device) for v in values])
            self._scalars["units"] = DeviceScalars(
                packed,
                lambda v: self._known.update(identical_units=dict(zip(identical, v, strict=True))),
            )

    def _add_scale(self, scales: list[float]) -> None:
        known = [scale for scale in scales if scale > 0]  # what starts at zero says nothing
        self._known["start_scale"] = median(known) if known else math.nan

    @property
    def largest_ratio(self) -> float:
        """The largest ratio of update to weight so far, of the median layer."""
        return self._largest

    def drop_step(self) -> None:
        """Forget the copies of a step that is not taken."""
        self._copies.clear()

    @torch.no_grad()
    def compare(self, step: int, *, early: bool, full: bool) -> None:
        """Compare the weights with those before the step.

        Args:
            step: how many were taken before it.
            early: whether it is soon after the warm-up.
            full: whether the weights are also compared with those of the start and of the fully
                sampled step before.
        """
        copies, self._copies = self._copies, []
        columns = []
        for matrices, before in copies:
            params = list(matrices.values())
            now = copy_entries(params, SAMPLED)
            rows = [*change_and_size(before, now), tensor_norms(params)]
            rows += self._distances(list(matrices), before, now) if full else []
            columns.append(torch.stack([row.to(rows[2]) for row in rows]))
        if columns:
            names = [name for matrices, _ in copies for name in matrices]
            device = columns[0].device
            packed = torch.cat([c.to(device, wide_dtype(device)) for c in columns], dim=1)
            update = partial(self._add_changes, names, early=early, full=full, step=step)
            self._scalars["changes"] = DeviceScalars(packed.flatten(), update)

    def _distances(self, names: list[str], before: list[Tensor], now: list[Tensor]) -> list[Tensor]:
        """Return how far weights are from the start, and from the fully sampled step before."""
        rows = []
        for kept in (self._origin, self._previous):
            kept |= {n: b for n, b in zip(names, before, strict=True) if n not in kept}
            rows.append(change_norms([kept[n] for n in names], now))
        self._previous |= dict(zip(names, now, strict=True))
        return rows

    def pending(self) -> list[DeviceScalars]:
        """Return everything that was measured, still on the device."""
        scalars, self._scalars = self._scalars, {}
        return list(scalars.values())

    def _add_norm(self, values: list[float]) -> None:
        self._zeros = [*self._zeros[1 - RECENT_RATIOS :], float(values[0] == 0)]
        if math.isfinite(values[0]):
            self._norms.append(values[0])
            del self._norms[FIRST_NORMS:-1]

    def _add_changes(
        self, names: Sequence[str], values: list[float], *, early: bool, full: bool, step: int
    ) -> None:
        count = len(names)
        if full:
            self._add_distances(names, values, step)
        pairs = zip(values[:count], values[count : 2 * count], strict=True)
        ratios = [change / before if before > 0 else math.nan for change, before in pairs]
        ratio = dict(zip(names, ratios, strict=True))
        sizes = dict(zip(names, values[2 * count : 3 * count], strict=True))
        self._from_zero.update(n for n, r in ratio.items() if math.isnan(r))
        # what started at zero has grown without bound, in the healthiest run
        grown = [s for n, s in sizes.items() if math.isfinite(s) and n not in self._from_zero]
        size = math.sqrt(sum(s * s for s in grown))
        if not self._start_size > 0:
            self._start_size = size
        start = self._start_size if self._start_size > 0 else math.nan
        self._known["weight_growth"] = size / start
        self._known["nonfinite_weights"] = _nonfinite(sizes)
        finite = {n: r for n, r in ratio.items() if math.isfinite(r)}
        if finite:
            middle = median(finite.values())
            self._ratios = [*self._ratios[1 - RECENT_RATIOS :], middle]
            self._largest = middle if math.isnan(self._largest) else max(self._largest, middle)
            if early:
                self.early_seen += 1
                # a weight that started at zero changes by all that it is
                usual = [r for n, r in finite.items() if n not in self._from_zero]
                self._early += [median(usual)] if usual else []

    def _add_distances(self, names: Sequence[str], values: list[float], step: int) -> None:
        count = len(names)
        change, size, _, start, path = (values[i * count : (i + 1) * count] for i in range(5))
        travelled = [far / s for far, s in zip(start, size, strict=True) if s > 0]
        since, known = median(travelled) if travelled else math.nan, self._travelled_before
        self._travelled = known if known > since else since
        steps, changes = step - self._previous_step, dict(zip(names, change, strict=True))
        before = self._previous_changes
        if steps > 1 and before.keys() == changes.keys():
            lengths = [steps * (before[n] + changes[n]) / 2 for n in names]
            shares = [far / length for far, length in zip(path, lengths, strict=True) if length > 0]
            self._straightness = median(shares) if shares else math.nan
        self._previous_step, self._previous_changes = step, changes

    def measure_end(self, module: LightningModule, *, alone: bool) -> None:
        """Check whether the weights are finite and, after a failure, the gradients.

        After a failure this rank is ``alone``: the others may be elsewhere and are asked nothing.
        """
        self._uncleared.forget()
        present = ((plain_name(n), p) for n, p in module.named_parameters() if not is_lazy(p))
        named = {
            n: p for n, p in present if p.numel() and (p.is_floating_point() or p.is_complex())
        }
        weights = {n: local_shard(p.detach()) if alone else p.detach() for n, p in named.items()}
        self._known["nonfinite_weights"] = _nonfinite(_norms(weights))
        if alone:
            left = {n: local_shard(p.grad) for n, p in named.items() if p.grad is not None}
            self._known["nonfinite_gradients"] = _nonfinite(_norms(left))

    def facts(self) -> dict[str, Any]:
        """Return the facts of the steps so far."""
        facts = {**self._known, **self._uncleared.facts()}
        facts["without_gradient"] = {
            n: count / self._steps[self._owner[n]] for n, count in self._never.items()
        }
        if self._early:
            facts["early_update_ratio"] = max(self._early)
        facts |= {"travelled": self._travelled, "straightness": self._straightness}
        if self._zeros:
            facts["zero_gradient"] = sum(self._zeros) / len(self._zeros)
        if self._ratios:
            facts["update_ratio"] = median(self._ratios)
        if len(self._norms) > FIRST_NORMS and self._norms[-1] > 0:
            start = median(self._norms[:FIRST_NORMS])
            if start > 0:
                facts["gradient_growth_log10"] = math.log10(self._norms[-1] / start)
        return facts

    @property
    def first_norm(self) -> float:
        """The median norm of the first gradients, NaN before there is one."""
        return median(self._norms[:FIRST_NORMS]) if self._norms else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values; a key has the name that earlier versions gave it."""
        own = {"looks": dict(self._steps), "early_seen": self.early_seen}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        super().load_state_dict(state)
        self._steps = dict(state["looks"])
        self.early_seen = state.get("early_seen", len(self._early))
        self._travelled_before = self._travelled


class UnclearedGradients:
    """Follows the gradient of one parameter of each optimizer from one step to the next.

    Only from a sampled step to the next one, because reading values waits for the device.
    """

    def __init__(self) -> None:
        self._cleared: dict[Optimizer, bool | None] = {}  # None before a backward pass is seen
        self._latest: bool | None = None  # whether the latest one that was followed was cleared

    def before_backward(self) -> None:
        """Check whether the gradients of the steps before are gone."""
        for optimizer, cleared in self._cleared.items():
            if not cleared:
                self._cleared[optimizer] = not _has_gradient(optimizer)

    def before_step(self, optimizer: Optimizer, *, follow: bool) -> None:
        """End following the gradient of the step before; ``follow`` that of this one, or not."""
        cleared = self._cleared.pop(optimizer, None)
        self._latest = self._latest if cleared is None else cleared
        if follow and _has_gradient(optimizer):
            self._cleared[optimizer] = None

    def forget(self) -> None:
        """Let go of the optimizers."""
        self._cleared.clear()

    def facts(self) -> dict[str, float]:
        """Return whether the latest gradient that was followed was still there."""
        return {} if self._latest is None else {"stale_gradients": float(not self._latest)}


def _has_gradient(optimizer: Optimizer) -> bool:
    """Say whether the smallest parameter that has a gradient has one that is not zero."""
    params = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    gradient = min(params, key=lambda p: p.numel()).grad if params else None
    return gradient is not None and bool(gradient.any())


def _norms(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    return dict(zip(tensors, tensor_norms(list(tensors.values())).tolist(), strict=True))


def _nonfinite(norms: Mapping[str, float]) -> dict[str, float]:
    return {name: 1.0 for name, norm in norms.items() if not math.isfinite(norm)}

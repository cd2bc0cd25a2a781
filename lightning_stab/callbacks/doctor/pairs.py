"""Pairs of rows: the loss of inputs with others' targets, and whether neighbours' targets agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_stab.callbacks._trainer.device_values import DeviceScalars
from lightning_stab.callbacks._trainer.isolated import isolated_copy, run_training_step
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.callbacks.doctor.targets import Targets, is_plain
from lightning_stab.functional.dependence import neighbour_agreement, simple_skill
from lightning_stab.functional.random_states import preserve_random_states

MEAN_OF = 3  # losses in a row
MOST_PARAMETERS = 20_000_000  # of a module that is copied for it
ROWS_OF_A_BATCH = 150  # that are compared with their neighbours,
LEAST_ROWS, ENOUGH_ROWS = 60, 300  # of a run
FEATURES = 64  # of each, evenly spread
TARGETS = ("target", "label", "y")  # names of a batch's targets


class ShuffledPairs(FactSource):
    """The training step's own loss on batches whose targets are exchanged among the rows.

    A net that has learnt nothing loses as much on them as on its batches. The least of these
    losses stands for the loss of a constant prediction where that is not known otherwise: it is
    reached when the net has learnt how the targets are spread, and nothing else.
    """

    SAVED = ("losses",)
    SAVED_FACTS = ("constant_rows",)

    def __init__(self) -> None:
        super().__init__()
        self._losses: list[float] = []
        self._pending: list[Tensor] = []
        self._before: Tensor | None = None  # the targets of the batch before, if it was a row
        self._targets = Targets()
        self._constant: Tensor | None = None  # 1 where all targets so far are the same
        self._is_possible = True

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart, the targets of the batch before among it."""
        before = None if self._before is None else self._before.tolist()
        own = {"before": before, "targets": self._targets.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory; earlier versions kept the losses alone."""
        super().load_state_dict(state)
        if "targets" in state:
            before = state["before"]
            self._before = None if before is None else torch.tensor(before)
            self._targets.load_state_dict(state["targets"])

    @property
    def baseline(self) -> float:
        """The least mean of several such losses, NaN if there are none."""
        count = min(MEAN_OF, len(self._losses))
        starts = range(len(self._losses) - count + 1) if count else ()
        means = (fmean(self._losses[i : i + count]) for i in starts)
        return min(means, default=math.nan)

    def note(self, batch: Any) -> None:
        """Note whether all targets so far are one and the same."""
        place = place_of_targets(batch)
        if place is not None and is_plain(batch[place]):
            self._constant = self._targets.are_constant(batch[place])

    def measure(self, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Run the training step on a copy and an exchanged batch; nothing of the run changes."""
        exchanged = self._exchange(batch) if self._is_possible else None
        if exchanged is None or not getattr(module, "automatic_optimization", False):
            return
        if sum(p.numel() for p in module.parameters()) > MOST_PARAMETERS:
            self._is_possible = False
            return
        try:
            with preserve_random_states():
                losses = run_training_step(isolated_copy(module), exchanged, batch_idx)
        except Exception:  # a user's step may fail in any way on rows that were never there
            self._is_possible = False
            return
        if len(losses) == 1:
            self._pending.append(losses[0].detach())

    def pending(self) -> list[DeviceScalars]:
        """Return the losses, still on the device."""
        pending, self._pending = self._pending, []
        waiting = [DeviceScalars(loss.reshape(1), self._update) for loss in pending]
        if self._constant is not None:
            waiting.append(DeviceScalars(self._constant.reshape(1), self._note_constant))
            self._constant = None
        return waiting

    def _note_constant(self, values: list[float]) -> None:
        self._known["constant_rows"] = values[0]

    def _update(self, values: list[float]) -> None:
        self._losses += [value for value in values if math.isfinite(value)]

    def _exchange(self, batch: Any) -> Any:
        """Return the batch with its targets exchanged, None where that cannot be done."""
        place = place_of_targets(batch)
        if place is None:
            return None
        targets = batch[place]
        before, self._before = self._before, targets if len(targets) == 1 else None
        if len(targets) > 1:
            other = targets.roll(len(targets) // 2, 0)
        elif before is not None and before.shape == targets.shape:
            other = before.to(targets)
        else:
            return None
        if isinstance(batch, Mapping):
            return {**batch, place: other}
        parts = list(batch)
        parts[place] = other
        return tuple(parts) if type(batch) is tuple else parts


class NeighbourRows(FactSource):
    """The first rows of a run: whether neighbours' targets agree, what simple models learn of them.

    Only rows of the first epoch count, because a row that comes again agrees with itself. They are
    compared when they are asked for: whatever is concluded from them is about a validation, too.
    """

    SAVED = ("agreement", "skill")

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._count = self._counted = 0  # rows, and of them those that were compared
        self._are_due = False
        self._agreement = self._skill = math.nan

    def add(self, batch: Any, epoch: int) -> None:
        """Note some rows of a batch."""
        if epoch > 0 or self._count >= ENOUGH_ROWS:
            return
        place = place_of_targets(batch)
        inputs = batch[0] if place == 1 else None
        if inputs is None or not is_plain(inputs) or inputs.is_complex() or inputs.dim() < 2:
            return
        targets = batch[place]
        few = _few_features(targets) if targets.dim() > 1 else targets.detach()[:ROWS_OF_A_BATCH]
        known = _few_features(inputs)
        self._rows.append((known if inputs.dim() == 2 else known.float(), few.clone()))
        self._count += len(few)

    def ask(self, *, again: bool = True) -> None:
        """Have the rows compared that are there by now.

        Args:
            again: also where some were compared and more are to come.
        """
        self._are_due |= again or not self._counted or self._count >= ENOUGH_ROWS

    def pending(self) -> list[DeviceScalars]:
        """Return both, where they were asked for and there are enough new rows."""
        are_due, self._are_due = self._are_due, False
        if not (are_due and self._rows and LEAST_ROWS <= self._count != self._counted):
            return []
        self._counted = self._count
        inputs, targets = (list(each) for each in zip(*self._rows, strict=True))
        if self._count >= ENOUGH_ROWS:
            self._rows = []
        is_alike = len({x.shape[1:] for x in inputs}) == len({y.shape[1:] for y in targets}) == 1
        if not is_alike:
            self._rows, self._count = [], ENOUGH_ROWS
            return []
        x, y = torch.cat(inputs), torch.cat(targets)
        skill = simple_skill(x, y)
        has_distance = x.is_floating_point()  # numbers of symbols have none
        agreement = neighbour_agreement(x, y) if has_distance else torch.full_like(skill, torch.nan)
        both = torch.stack([agreement, skill])
        return [DeviceScalars(both, self._update)]

    def _update(self, values: list[float]) -> None:
        self._agreement, self._skill = values

    def facts(self) -> dict[str, float]:
        """Return the agreement in standard errors, and the skill."""
        return {"neighbour_agreement": self._agreement, "simple_skill": self._skill}


def _few_features(rows: Tensor) -> Tensor:
    """Return a copy of some rows, each cut to entries that are spread evenly over it."""
    flat = rows.detach()[:ROWS_OF_A_BATCH].flatten(1)
    return flat[:, :: max(1, -(-flat.shape[1] // FEATURES))].clone()


def place_of_targets(batch: Any) -> Any:
    """Return the key or index of a batch's targets, None if it is not plain which they are."""
    if type(batch) in (list, tuple) and len(batch) > 1:
        alike = all(isinstance(x, Tensor) and x.dim() > 0 for x in batch[:2])
        return 1 if alike and len(batch[0]) == len(batch[1]) else None
    if type(batch) is dict:
        names = [k for k in batch if isinstance(k, str) and k.lower().rstrip("s") in TARGETS]
        is_one = len(names) == 1 and isinstance(batch[names[0]], Tensor) and batch[names[0]].dim()
        return names[0] if is_one else None
    return None

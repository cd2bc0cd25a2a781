"""What batches show: their largest values, and what probes see of one on its way through."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from statistics import median
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_stab.callbacks._hooks.compiled import Hookable
from lightning_stab.callbacks._hooks.layer_outputs import first_and_last_hidden
from lightning_stab.callbacks._trainer.device_values import DeviceScalars, stacked
from lightning_stab.callbacks.activations.probe import ActivationProbe
from lightning_stab.callbacks.doctor.fact_source import FactSource
from lightning_stab.callbacks.doctor.pairs import ShuffledPairs, place_of_targets
from lightning_stab.callbacks.doctor.probe import DoctorProbe
from lightning_stab.callbacks.doctor.targets import Targets, is_plain
from lightning_stab.functional.gradient_statistics import log_ratio
from lightning_stab.functional.norms import wide_dtype

LEAST_VARIETIES, VARIETIES = 4, 10  # sampled steps whose mean is the variety within batches
BASELINES = 5  # sampled steps whose mean is the loss of a constant prediction
NOTHING = -45.0  # the log10 of float32's least positive number
TENSORS = 2  # of a batch: its inputs and its targets
SAMPLED = 65536  # entries of each at most, spread evenly, so that every sample is among them
REMEMBERED, LEAST = 500, 20  # batches whose largest values count
WINDOW_SAMPLES = 1000.0  # on all of which a dead unit is zero
WINDOW_STEPS = 4  # or that many sampled steps, whichever comes first,
WINDOW_ROWS = 24.0  # of so many samples at least
LEAST_STEPS = 2  # before anything is called dead
ROW_FEATURES = 64  # of a row, evenly spread, that tell its size
LEAST_ROWS = 8  # of a batch, among which one row stands out
Ends = tuple[Tensor, Tensor]  # the least and the largest value of a tensor


class BatchFacts(FactSource):
    """What the probe of a sampled step saw, and what is kept of the start."""

    SAVED = ("known", "baselines", "variety")

    def __init__(self) -> None:
        super().__init__()
        self.pairs = ShuffledPairs()  # for losses whose baseline is not known otherwise
        self.loss: Tensor | None = None  # of the batch, where there is a single one
        self._probe: DoctorProbe | None = None
        self._targets = Targets()
        self._baselines: list[list[float]] = []
        self._variety: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart, with what was seen of the targets."""
        return {**super().state_dict(), "targets": self._targets.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory; earlier versions did not keep the targets."""
        super().load_state_dict(state)
        if "targets" in state:
            self._targets.load_state_dict(state["targets"])

    def start(self, module: LightningModule | Hookable, batch: Any) -> str:
        """Put the hooks on for a batch; return what cannot be seen, in one sentence, or nothing."""
        place = place_of_targets(batch)
        of_batch = None if place is None else batch[place].detach()
        first = batch[0] if isinstance(batch, (list, tuple)) and len(batch) > 0 else batch
        inputs = first if isinstance(first, Tensor) else None
        self.loss, self._probe = None, DoctorProbe(self._targets, of_batch, inputs)
        return self._probe.install(module)

    def end_forward(self) -> None:
        """See no function from here on; the hooks stay."""
        if self._probe is not None:
            self._probe.end_forward()

    def stop(self) -> None:
        """Take the hooks off; what was measured stays."""
        if self._probe is not None:
            self._probe.remove()

    def drop(self) -> None:
        """Leave the batch unread."""
        self._probe = None

    def pending(self) -> list[DeviceScalars]:
        """Return what the probe measured, still on the device."""
        self._known["attention_logits"] = {}  # those of the latest step alone
        self.stop()
        probe, self._probe = self._probe, None
        if probe is None:
            return []
        probe.losses.note_targets()
        groups: list[tuple[Mapping[str, Tensor], Callable[[dict[str, Any]], None]]] = [
            (probe.gradients.gradient_rms(), self._update_gradients),
            (probe.spread, self._update_spread),
            (probe.attention, lambda spread: self._known.update(attention_logits=spread)),
            (probe.losses.measured, self._update_loss_inputs),
            (probe.time_ratios(), self._update_time),
        ]
        scalars = [_by_name(values, update) for values, update in groups if values]
        if probe.inputs is not None and "input_size" not in self._known:
            ends = torch.stack([probe.inputs.max(), probe.inputs.min()])
            scalars.append(DeviceScalars(ends, self._update_inputs))
        if self.loss is not None:
            pair = probe.losses.baseline_of(self.loss)
            is_finite = self.loss.isfinite().all().reshape(1).to(pair)
            scalars.append(DeviceScalars(torch.cat([pair, is_finite]), self._add_baseline))
        return scalars

    def _update_gradients(self, rms: dict[str, float]) -> None:
        self._known["depth"] = float(len(rms))
        ratio = self._known["gradient_depth_log10"] = _ratio(*first_and_last_hidden(rms))
        self._known.setdefault("gradient_depth_start_log10", ratio)

    def _update_spread(self, spread: dict[str, float]) -> None:
        first, last = first_and_last_hidden(spread)
        self._known["activation_depth_log10"] = _ratio(last, first)

    def _update_time(self, ends: dict[str, list[float]]) -> None:
        ratios = [_ratio(*pair) for pair in ends.values()]
        known = [ratio for ratio in ratios if math.isfinite(ratio)]
        self._known["gradient_time_log10"] = max(known, key=abs, default=math.nan)

    def _update_loss_inputs(self, measured: dict[str, float]) -> None:
        variety = measured.pop("batch_variety", math.nan)
        if math.isfinite(variety):
            self._variety = [*self._variety[1 - VARIETIES :], variety]
        if len(self._variety) >= LEAST_VARIETIES:
            self._known["batch_variety"] = sum(self._variety) / len(self._variety)
        self._known |= measured

    def _update_inputs(self, ends: list[float]) -> None:
        self._known["input_size"] = ends[0]
        self._known["input_spread"] = log_ratio(*ends)

    def _add_baseline(self, values: list[float]) -> None:
        *pair, is_finite = values
        # the first sampled step knows the fewest targets, so the latest ones count; a loss that is
        # NaN says nothing about the function that made it
        if is_finite:
            self._baselines = [*self._baselines[1 - BASELINES :], pair]

    @property
    def baseline(self) -> float:
        """The loss of the best constant prediction: the mean over several, NaN if unknown."""
        return self._mean(0) if self.knows_baseline else self.pairs.baseline

    @property
    def knows_baseline(self) -> bool:
        """Whether the loss functions say what a constant prediction loses."""
        return math.isfinite(self._mean(0))

    @property
    def blind(self) -> float:
        """The loss of a prediction that knows nothing of the targets, NaN if unknown."""
        return self._mean(1)

    def _mean(self, column: int) -> float:
        known = [pair[column] for pair in self._baselines if math.isfinite(pair[column])]
        return sum(known) / len(known) if len(known) == len(self._baselines) > 0 else math.nan


class UnitFacts(FactSource):
    """Follows each unit over a window of sampled steps, so that a rare one is not called dead."""

    SAVED_FACTS = ("saturated_at_start",)

    def __init__(self) -> None:
        super().__init__()
        self._probe = ActivationProbe(moments=False)
        self._steps = 0
        self._samples = 0.0
        self._is_new = False  # whether the probe has seen a batch since it was read

    def start(self, module: LightningModule | Hookable) -> None:
        """Put the hooks on for a batch."""
        is_full = self._steps >= WINDOW_STEPS and self._samples >= WINDOW_ROWS
        if self._samples >= WINDOW_SAMPLES or is_full:
            self._steps, self._samples = 0, 0.0
        self._probe.install(module, forget=self._steps == 0)
        self._steps += 1
        self._is_new = True

    def end_forward(self) -> None:
        """See nothing from here on; the hooks stay."""
        self._probe.pause()

    def stop(self) -> None:
        """Take the hooks off."""
        self._probe.remove()

    def drop(self) -> None:
        """Leave the batch unread; its units are followed on."""
        self._is_new = False

    def pending(self) -> list[DeviceScalars]:
        """Return what was seen of each layer, still on the device."""
        layers = self._probe.layers if self._is_new else []
        self._is_new = False
        if not layers:
            return []
        # a kind that is fused into a recurrent layer is bounded by nature, and not seen saturating
        columns = self._probe.values()[:, [2, 3, 5]].T.flatten()
        return [DeviceScalars(columns, partial(self._update, [layer.name for layer in layers]))]

    def _update(self, names: Sequence[str], values: list[float]) -> None:
        count = len(names)
        dead, saturated = (
            {n: v for n, v in zip(names, values[start:], strict=False) if math.isfinite(v)}
            for start in (0, count)
        )
        self._samples = min(values[2 * count :])
        is_enough = self._steps >= LEAST_STEPS and self._samples >= WINDOW_ROWS
        if is_enough or self._samples >= WINDOW_SAMPLES:
            self._known["dead_fraction"] = dead
            self._known["most_dead"] = max(dead.values(), default=math.nan)
        self._known["saturated_fraction"] = saturated
        self._known.setdefault("saturated_at_start", saturated)


class InputPeaks(FactSource):
    """The largest magnitude of inputs and targets, batch by batch; it stays on the device.

    Where every batch holds a few values far out, no batch stands out, so that the rows of sampled
    batches are compared, too.
    """

    SAVED = ("peaks", "highest", "row", "batches", "nonfinite")

    def __init__(self) -> None:
        super().__init__()
        self._pending: list[list[Ends]] = []  # of each batch, the ends of some tensors
        self._peaks: list[list[float]] = [[] for _ in range(TENSORS)]
        self._highest = [0.0] * TENSORS
        self._pending_rows: list[Tensor] = []
        self._row = math.nan  # the largest row so far over the median one of its batch
        self._batches = self._nonfinite = 0  # seen, and of them those with NaN or infinite values

    def add(self, batch: Any, *, sampled: bool = False) -> None:
        """Note a batch's largest values, so that no broken sample is missed."""
        is_flat = type(batch) in (list, tuple) and all(isinstance(v, Tensor) for v in batch)
        leaves = [v for v in (batch if is_flat else tree_leaves(batch)) if isinstance(v, Tensor)]
        usable = [v.detach() for v in leaves if v.is_floating_point() and v.numel() > 0]
        plain = [v for v in usable if is_plain(v)]
        if plain:
            self._pending.append([torch.aminmax(_spread(v)) for v in plain[:TENSORS]])
        if sampled and plain and plain[0] is usable[0]:
            first = plain[0]
            if first.dim() > 1 and len(first) >= LEAST_ROWS:
                rows = first.flatten(1)
                few = rows[:, :: -(-rows.shape[1] // ROW_FEATURES)]
                sizes = few.float().square().mean(1).sqrt()
                self._pending_rows.append(sizes.amax() / sizes.median())

    def pending(self) -> list[DeviceScalars]:
        """Return the values of each batch."""
        pending, self._pending = self._pending, []
        if not pending:
            return []
        ends = [end for batch in pending for pair in batch for end in pair]
        peaks = stacked(ends, ends[0].device, torch.float32).abs().reshape(-1, 2).amax(1)
        counts = [len(batch) for batch in pending]
        waiting = [DeviceScalars(peaks, partial(self._update, counts))]
        ratios, self._pending_rows = self._pending_rows, []
        if ratios:
            waiting.append(DeviceScalars(torch.stack(ratios), self._update_rows))
        return waiting

    def _update_rows(self, ratios: list[float]) -> None:
        known = [ratio for ratio in (self._row, *ratios) if math.isfinite(ratio)]
        self._row = max(known, default=math.nan)

    def _update(self, counts: Sequence[int], values: list[float]) -> None:
        """Take in the values of some batches, so many of each."""
        numbers = iter(values)
        rows = [list(islice(numbers, count)) for count in counts]
        self._batches += len(rows)
        self._nonfinite += sum(not math.isfinite(row[0]) for row in rows)
        for column, peaks in enumerate(self._peaks):
            new = [row[column] for row in rows if column < len(row) and math.isfinite(row[column])]
            peaks.extend(new)
            del peaks[:-REMEMBERED]
            self._highest[column] = max([self._highest[column], *new])

    def facts(self) -> dict[str, float]:
        """Return the largest peak over the median one, and the share of batches with NaN."""
        ratios = [
            highest / usual if len(peaks) >= LEAST and (usual := median(peaks)) > 0 else math.nan
            for highest, peaks in zip(self._highest, self._peaks, strict=True)
        ]
        known = [ratio for ratio in (*ratios, self._row) if math.isfinite(ratio)]
        facts = {"input_peak": max(known, default=math.nan), "target_peak": ratios[-1]}
        share = self._nonfinite / self._batches if self._batches else math.nan
        return {**facts, "nonfinite_inputs": share}


def _spread(values: Tensor) -> Tensor:
    """Return at most so many entries as are sampled, spread evenly, in a precision that compares.

    Floats of 8 bits are stored, and torch has no order of them.
    """
    if values.numel() > SAMPLED:
        values = values.reshape(-1)[:: -(-values.numel() // SAMPLED)]
    return values.float() if values.element_size() == 1 else values


def _by_name(
    values: Mapping[str, Tensor], update: Callable[[dict[str, Any]], None]
) -> DeviceScalars:
    """Pack tensors of one shape; ``update`` gets a number, or a list of them, by name."""
    tensors = list(values.values())
    device = tensors[0].device
    packed = stacked(tensors, device, wide_dtype(device)).detach()

    def named(numbers: list[float]) -> None:
        size = len(numbers) // len(tensors)
        rows = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        update(dict(zip(values, rows if packed.dim() > 1 else numbers, strict=True)))

    return DeviceScalars(packed.flatten(), named)


def _ratio(numerator: float, denominator: float) -> float:
    """Return the log10 of a ratio; of what has shrunk to nothing, that of the least number."""
    if numerator == 0 and denominator > 0 and math.isfinite(denominator):
        return NOTHING
    return log_ratio(numerator, denominator)

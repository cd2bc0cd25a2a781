"""From a probe's table to logged values: what is certain now, and what needs more samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import compress

from lightning_stab.callbacks._trainer.device_values import DeviceScalars, to_host
from lightning_stab.callbacks._trainer.logging import tag
from lightning_stab.callbacks.activations.probe import ActivationProbe
from lightning_stab.callbacks.activations.record import ActivationLayer
from lightning_stab.functional.gradient_statistics import log_ratio

MEAN, STD, DEAD, SATURATED = range(4)  # the first columns of the probe's table

Rows = Sequence[Sequence[float]]


class ActivationWindow:
    """A probe that stays on from a logging step until it is certain which units are dead.

    A unit that was not zero once is not dead, so one batch decides about most layers. Only where
    units were zero on the whole batch does the window go on, and follows dead units alone.

    Args:
        samples: how many samples make a unit dead that was zero on all of them.
        include: patterns of the layers to log.
        exclude: patterns of layers to leave out.

    Attributes:
        probe: the probe.
        is_over: whether all layers are decided.
    """

    def __init__(self, samples: int, include: Sequence[str], exclude: Sequence[str]) -> None:
        self.probe = ActivationProbe()
        self.is_over = False
        self._samples = samples
        self._include = include
        self._exclude = exclude
        self._decided: set[str] = set()
        self._batches = 0
        self._next_reading = 1

    def end_batch(self, epoch: float) -> bool:
        """Count a batch, and say whether the window has seen all that it needs.

        Args:
            epoch: batches in an epoch, which are enough however few their samples.
        """
        self._batches += 1
        return self._batches >= epoch or self.probe.fewest_samples() >= self._samples

    def is_worth_reading(self) -> bool:
        """Say whether another look may end the window: after 1, 4, 16, ... batches."""
        return self._batches >= self._next_reading

    def read(self, *, statistics: bool, final: bool) -> dict[str, float]:
        """Return what can be logged now, moved to the host in one transfer.

        Args:
            statistics: whether this batch's means, deviations and saturation are to be logged;
                else only dead fractions that have become certain.
            final: whether no further sample is needed, or to be had.
        """
        self._next_reading = 4 * self._batches
        wanted = [self._is_wanted(layer.name) for layer in self.probe.layers]
        layers = list(compress(self.probe.layers, wanted))
        samples = list(compress(self.probe.samples(), wanted))
        columns = 6 if statistics else 1
        table = self.probe.values() if statistics else self.probe.dead_fractions()

        def to_scalars(numbers: list[float]) -> dict[str, float]:
            rows = [numbers[i : i + columns] for i in range(0, len(numbers), columns)]
            rows = list(compress(rows, wanted))
            dead = [row[DEAD] if statistics else row[0] for row in rows]
            scalars = _statistics(layers, rows) if statistics else {}
            certain = [
                final or not d > 0 or n >= self._samples for d, n in zip(dead, samples, strict=True)
            ]
            return {**scalars, **self._dead(layers, dead, certain, again=statistics)}

        scalars = to_host([DeviceScalars(table.flatten(), to_scalars)])
        still_open = {layer.name for layer in layers} - self._decided
        self.is_over = not still_open
        self.probe.narrow(still_open)
        return scalars

    def _is_wanted(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._include) and not any(
            fnmatchcase(name, pattern) for pattern in self._exclude
        )

    def _dead(
        self,
        layers: Sequence[ActivationLayer],
        fractions: Sequence[float],
        certain: Sequence[bool],
        *,
        again: bool,
    ) -> dict[str, float]:
        """Return the dead fractions that are certain; those decided before only ``again``."""
        scalars = {}
        for layer, dead in compress(zip(layers, fractions, strict=True), certain):
            known = layer.name in self._decided
            self._decided.add(layer.name)
            if (again or not known) and not math.isnan(dead):
                scalars[tag("dead_fraction", layer.name)] = dead
        return scalars


def _statistics(layers: Sequence[ActivationLayer], rows: Rows) -> dict[str, float]:
    scalars = {}
    for layer, row in zip(layers, rows, strict=True):
        scalars[tag("activation_mean", layer.name)] = row[MEAN]
        scalars[tag("activation_std", layer.name)] = row[STD]
        if not math.isnan(row[SATURATED]):
            scalars[tag("saturated_fraction", layer.name)] = row[SATURATED]
    return {**scalars, **_growth(layers, rows)}


def _growth(layers: Sequence[ActivationLayer], rows: Rows) -> dict[str, float]:
    """Return how the deviation grows from the first to the last layer of the most frequent kind."""
    kinds = Counter(layer.kind for layer in layers)
    kind = max(kinds, key=lambda each: kinds[each], default="")
    deviations = [row[STD] for layer, row in zip(layers, rows, strict=True) if layer.kind == kind]
    if len(deviations) < 2:
        return {}
    return {tag("depth", "activation_std_log10"): log_ratio(deviations[-1], deviations[0])}

"""What was seen of a run's targets, batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_stab.functional.norms import in_double

MOST_SAVED = 1000  # entries of a row's targets that a checkpoint holds
LEAST_CONSTANT = 16  # rows, all with one target, before that is said


def is_plain(tensor: Tensor) -> bool:
    """Say whether a tensor holds numbers side by side: neither sparse nor nested."""
    return tensor.layout is torch.strided and not tensor.is_nested


class Targets:
    """What was seen of a run's targets: how often each class, the mean of each column."""

    def __init__(self) -> None:
        self._counts: dict[int, Tensor] = {}
        self._means: dict[torch.Size, tuple[Tensor, int]] = {}
        self._moments: deque[Tensor] = deque(maxlen=50)
        # by shape of a row: the first one, whether all equal it, and how many were seen
        self._firsts: dict[torch.Size, tuple[Tensor, Tensor | None, int]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values; large targets, such as masks, are left out."""
        small = {shape for shape in (*self._means, *self._firsts) if shape.numel() <= MOST_SAVED}
        firsts = [self._firsts[shape] for shape in self._firsts if shape in small]
        return {
            "counts": [counts.tolist() for counts in self._counts.values()],
            "means": [[m.tolist(), seen] for k, (m, seen) in self._means.items() if k in small],
            "moments": [moments.tolist() for moments in self._moments],
            "firsts": [
                [in_double(first).tolist(), None if same is None else bool(same), seen]
                for first, same, seen in firsts
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved memory."""
        self._counts = {len(counts): torch.tensor(counts) for counts in state["counts"]}
        means = [(torch.tensor(mean), seen) for mean, seen in state["means"]]
        self._means = {mean.shape: (mean, seen) for mean, seen in means}
        self._moments = deque(map(torch.tensor, state["moments"]), maxlen=self._moments.maxlen)
        for plain, same, seen in state["firsts"]:
            first = torch.tensor(plain, dtype=torch.float64)  # to be compared, exactly
            was = None if same is None else torch.tensor(same)
            self._firsts[first.shape[1:]] = (first, was, seen)

    def counts(self, new: Tensor) -> Tensor:
        """Return the class counts so far, with the new ones."""
        known = self._counts.get(new.numel())
        self._counts[new.numel()] = new if known is None else known.to(new.device) + new
        return self._counts[new.numel()]

    def variance(self, target: Tensor) -> Tensor:
        """Return the variance of all targets so far, with these."""
        moments = torch.stack([target.mean(), target.square().mean()])
        self._moments.append(moments)
        mean, square = torch.stack([m.to(target.device) for m in self._moments]).mean(0)
        variance: Tensor = square - mean.square()
        return variance

    def are_constant(self, rows: Tensor) -> Tensor:
        """Return 1 where these targets and all before them are one and the same, else 0.

        Args:
            rows: shape ``[N, ...]``, without what does not count; NaN is returned for few rows.
        """
        rows = rows.detach()
        key = rows.shape[1:]
        first, same, seen = self._firsts.get(key, (rows[:1], None, 0))
        now = (rows == (first if first.device == rows.device else first.to(rows))).all()
        same = now if same is None else same.to(rows.device) & now
        seen += len(rows)
        self._firsts[key] = (first, same, seen)
        return same.float() if seen >= LEAST_CONSTANT else torch.full_like(same.float(), torch.nan)

    def mean(self, target: Tensor) -> tuple[Tensor, int]:
        """Return the mean of each column so far, with these rows, and how many rows it is of."""
        rows = len(target) if target.dim() else 1
        new = target.float().mean(0) if target.dim() else target.float()
        known, seen = self._means.get(new.shape, (torch.zeros_like(new), 0))
        mean = known.to(new.device) + (new - known.to(new.device)) * (rows / (seen + rows))
        self._means[new.shape] = (mean, seen + rows)
        return mean, seen + rows

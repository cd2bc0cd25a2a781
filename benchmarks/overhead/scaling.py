"""How the cost of one measurement and one clip grows with the number of tensors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_stab.functional.clipping import clip_by_norm_
from lightning_stab.functional.norms import tensor_norms, total_norm


def scaling_rows(counts: list[int], entries: list[int], repeats: int) -> list[dict[str, Any]]:
    """Return a row per number of tensors and entries per tensor: microseconds and their ratio."""
    return [_row(count, size, repeats) for size in entries for count in counts]


def _row(count: int, size: int, repeats: int) -> dict[str, Any]:
    params = [nn.Parameter(torch.zeros(size)) for _ in range(count)]
    for p in params:
        p.grad = torch.randn(size)
    gradients = [p.grad for p in params if p.grad is not None]
    # thresholds that clip nothing leave the gradients alike for both; the product is still taken
    own = _microseconds(lambda: _measure_and_clip(gradients), repeats)
    torchs = _microseconds(lambda: torch.nn.utils.clip_grad_norm_(params, 1e9), repeats)
    own_median, torch_median = statistics.median(own), statistics.median(torchs)
    return {
        "tensors": count,
        "entries_per_tensor": size,
        "suite_us": own_median,
        "torch_us": torch_median,
        "ratio": own_median / torch_median,
        "suite_us_per_tensor": own_median / count,
    }


def _measure_and_clip(gradients: list[Tensor]) -> None:
    clip_by_norm_(gradients, total_norm(tensor_norms(gradients)), 1e9)


def _microseconds(act: Callable[[], Any], repeats: int) -> list[float]:
    act()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        act()
        times.append((time.process_time() - start) * 1e6)
    return times

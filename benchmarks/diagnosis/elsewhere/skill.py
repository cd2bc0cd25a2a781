"""How much better predictions are than a constant: one notion for nets and for simple models."""

from __future__ import annotations

import math

from torch import Tensor


def skill(task: str, said: Tensor, y: Tensor) -> float:
    """Return 0 for what a constant prediction reaches and 1 for no error, in [0, 1].

    Args:
        task: `numbers`, `labels` or `classes`.
        said: numbers [N, F], whether labels are on [N, F], or classes [N].
        y: the targets of the same shape.
    """
    if task == "numbers":
        error, spread = (said - y).square().mean(), (y - y.mean(0)).square().mean()
        value = float(1 - error / spread)
    else:
        right = float((said == y).float().mean())
        if task == "labels":
            share = y.float().mean(0)
            most = float((share.maximum(1 - share)).mean())
        else:
            most = float(y.bincount().max()) / len(y)
        value = (right - most) / (1 - most)
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0

"""Whether targets depend on inputs at all: rows that lie close together have targets that agree."""

from __future__ import annotations

import torch
from torch import Tensor

PERMUTATIONS = 64


@torch.no_grad()
def neighbour_agreement(inputs: Tensor, targets: Tensor) -> Tensor:
    """Return by how many standard errors targets of nearest rows agree more than by chance.

    The agreement of two rows is the product of their targets: standardised numbers, or classes as
    one-hot vectors. Chance is the agreement after the targets were permuted, 64 times. About 0
    where targets are independent of the inputs, beyond 2 in one case of 40; a dependence that the
    distance of inputs does not show, as in long sequences, stays unseen. Rows that are equal are
    no neighbours; NaN and infinite values count as 0. NaN where all targets are the same. The
    global random state is left alone.

    Args:
        inputs: shape ``[N, ...]``.
        targets: classes ``[N]``, or numbers ``[N, ...]``.

    Source: Friedman & Rafsky 1983; Schilling 1986 (tests by nearest neighbours).

    Example:
        >>> x = torch.linspace(0, 1, 100)[:, None]
        >>> bool(neighbour_agreement(x, (x[:, 0] > 0.5).long()) > 5)
        True
        >>> neighbour_agreement(x, torch.zeros(100))
        tensor(nan)
    """
    x = _standardised(inputs.reshape(len(inputs), -1).float().nan_to_num(0.0, 0.0, 0.0))
    if targets.dim() == 1 and not targets.is_floating_point():
        classes = torch.unique(targets)
        y = (targets[:, None] == classes).float()
        y = y - y.mean(0)
    else:
        y = _standardised(targets.reshape(len(targets), -1).float().nan_to_num(0.0, 0.0, 0.0))
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.masked_fill(distance <= 1e-4 * distance.mean(), torch.inf).argmin(1)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(x), generator=generator) for _ in range(PERMUTATIONS)]
    permuted = torch.stack([torch.arange(len(x)), *orders]).to(y.device)
    agreement = (y @ y.T)[permuted, permuted[:, nearest]].mean(1)
    chance = agreement[1:]
    spread = chance.std()
    excess = (agreement[0] - chance.mean()) / spread
    return torch.where(spread > 0, excess, torch.nan)


def _standardised(columns: Tensor) -> Tensor:
    spread = columns.std(0)
    return (columns - columns.mean(0)) / torch.where(spread > 0, spread, 1.0)

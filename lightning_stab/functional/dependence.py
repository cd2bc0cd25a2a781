"""Whether targets depend on inputs, and what simple models learn of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PERMUTATIONS = 64
NEIGHBOURS = 1, 5
PENALTY = 1.0  # of the linear model's coefficients, of standardised columns
WIDTHS = 0.3, 1.5  # of Gaussian kernels, in medians of the squared distance
SMOOTHNESS = 0.03  # the penalty beside such a kernel
SYMBOLS = 1024  # that are counted apart


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
    x = _standardised(_columns(inputs))
    y = _one_hot(targets)
    y = _standardised(_columns(targets)) if y is None else y - y.mean(0)
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


@torch.no_grad()
def simple_skill(inputs: Tensor, targets: Tensor) -> Tensor:
    """Return how well simple models predict each row from the others: 0 a constant, 1 no error.

    The best of the nearest row, the five nearest rows, ridge regression and kernel ridge regression
    with Gaussian kernels of two widths, each row left out in its turn. Integers ``[N, L]`` may be
    numbers or symbols: then the same models know the rows by their numbers, by which symbol stands
    where, and by how often each occurs. Of classes (a - m) / (1 - m), with the accuracy a and the
    share m of the commonest class; of numbers R2. A network that gets there has learnt what is easy
    to learn. NaN where all targets are the same, and of several classes per row. NaN and infinite
    values count as 0.

    Args:
        inputs: shape ``[N, ...]``.
        targets: classes ``[N]``, or numbers ``[N, ...]``.

    Source: Cover & Hart 1967 (nearest neighbours); Allen 1974 (PRESS: rows left out); Saunders,
    Gammerman & Vovk 1998 (kernel ridge regression).

    Example:
        >>> x = torch.linspace(-1, 1, 100)[:, None]
        >>> round(float(simple_skill(x, 3 * x)), 2), round(float(simple_skill(x, x[:, 0] > 0)), 2)
        (1.0, 1.0)
        >>> symbols = torch.arange(60).reshape(20, 3) % 4
        >>> round(float(simple_skill(symbols, symbols[:, 0])), 2)
        1.0
    """
    classes = _one_hot(targets)
    y = _columns(targets) if classes is None else classes
    guesses = [guess for each in _squared_distances(inputs) for guess in _guesses(each, y)]
    if classes is None:
        spread = (y - y.mean(0)).square().sum()
        skills = [1 - (guess - y).square().sum() / spread for guess in guesses]
        is_known = (spread > 0) & (targets.is_floating_point() | (y.max() <= 1))
        return torch.where(is_known, torch.stack(skills).max(), torch.nan)
    share = y.mean(0).max()
    right = [y.gather(1, guess.argmax(1, keepdim=True)).mean() for guess in guesses]
    return torch.where(share < 1, (torch.stack(right).max() - share) / (1 - share), torch.nan)


def _squared_distances(inputs: Tensor) -> Iterator[Tensor]:
    """Yield the squared distances [N, N] of rows, once for each way to read them."""
    x = _standardised(_columns(inputs))
    yield torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    if inputs.dim() == 2 and not inputs.is_floating_point():
        places = inputs.new_zeros(len(inputs), len(inputs), dtype=torch.float32)
        for column in inputs.T:  # where two rows have other symbols
            places += column[:, None] != column
        yield 2 * places
        rows = torch.arange(len(inputs), device=inputs.device)[:, None]
        cells = (rows * SYMBOLS + inputs.long() % SYMBOLS).flatten()  # one dimension: deterministic
        counts = inputs.new_zeros(len(inputs) * SYMBOLS, dtype=torch.float32)
        counts = counts.scatter_add_(0, cells, torch.ones_like(cells, dtype=counts.dtype))
        counts = counts.reshape(len(inputs), SYMBOLS)
        yield torch.cdist(counts, counts).square()


def _guesses(squared: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield what each model predicts for each row from the others."""
    rows = torch.eye(len(y), device=y.device, dtype=y.dtype)
    others = squared + torch.where(rows > 0, torch.inf, 0.0)
    nearest = others.topk(min(max(NEIGHBOURS), len(y) - 1), largest=False).indices
    for count in NEIGHBOURS:
        yield y[nearest[:, :count]].mean(1)
    typical = squared.median().clamp_min(torch.finfo(squared.dtype).tiny)
    kernels = [-squared / 2 / PENALTY]
    kernels += [torch.exp(-squared / typical / width) / SMOOTHNESS for width in WIDTHS]
    kernel = torch.stack(kernels)
    mean = kernel.mean(1, keepdim=True)
    centred = kernel - mean - mean.mT + mean.mean(2, keepdim=True)
    # no error is raised, which would wait for the device; a singular matrix gives no good guess
    inverse = torch.linalg.inv_ex(centred + rows).inverse
    rest = (inverse.diagonal(dim1=1, dim2=2) - 1 / len(y)).clamp_min(1e-3)
    yield from y - (inverse @ y - y.mean(0)) / rest[..., None]


def _columns(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).float().nan_to_num(0.0, 0.0, 0.0)


def _one_hot(targets: Tensor) -> Tensor | None:
    """Return classes as one-hot vectors, None for numbers."""
    if targets.dim() != 1 or targets.is_floating_point():
        return None
    same: Tensor = targets[:, None] == torch.unique(targets)
    return same.float()


def _standardised(columns: Tensor) -> Tensor:
    spread = columns.std(0)
    return (columns - columns.mean(0)) / torch.where(spread > 0, spread, 1.0)

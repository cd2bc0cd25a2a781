"""The one recipe by which the benchmark of initialisation trains, for one net at a time.

SGD with momentum 0.9, batches of 64, a linear warm-up over the first 10 % of the steps and a cosine
to zero after it, gradients clipped to norm 1. A net whose loss is not finite stops there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BATCH, MOMENTUM, WARM_UP, CLIP = 64, 0.9, 0.1, 1.0


def rate_factor(step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by at a step, of ``steps`` in all."""
    warm = min(1.0, (step + 1) / max(WARM_UP * steps, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def batches_of_epoch(count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the images of each full batch of the generator's next epoch."""
    order = torch.randperm(count, generator=generator)
    return order[: count // BATCH * BATCH].split(BATCH)


def train(
    net: nn.Module, images: tuple[Tensor, Tensor], rate: float, seed: int, epochs: int
) -> None:
    """Train one net by the recipe."""
    values, classes = images
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), rate, MOMENTUM, foreach=True)
    steps, step = max(epochs * (len(values) // BATCH), 1), 0
    net.train()
    for _ in range(epochs):
        for chosen in batches_of_epoch(len(values), generator):
            optimizer.param_groups[0]["lr"] = rate * rate_factor(step, steps)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(values[chosen]), classes[chosen])
            if not bool(loss.isfinite()):
                return
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP, foreach=True)
            optimizer.step()
            step += 1


@torch.no_grad()
def accuracy(net: nn.Module, images: tuple[Tensor, Tensor]) -> float:
    """Return the percentage of images that are classified right."""
    net.eval()
    right = (net(images[0]).argmax(1) == images[1]).float().mean()
    return round(100 * float(right), 2)

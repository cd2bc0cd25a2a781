"""Train several dense nets of one shape at once, each as if it were alone.

Small matrices leave a CPU idle. Here the weights of all nets are stacked, [nets, in, out], and one
batched product serves them all, with a learning rate, an order of the images, a clipped norm and an
end for each net. Up to rounding it is the recipe of `training.py`, net by net.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.initialization.training import (
    BATCH,
    CLIP,
    MOMENTUM,
    batches_of_epoch,
    rate_factor,
    train,
)


class Stack:
    """The weights and momenta of several nets of one shape."""

    def __init__(self, nets: Sequence[nn.Sequential]) -> None:
        self.parts = list(nets[0])
        self.nets = list(nets)
        states = [net.state_dict() for net in nets]
        self.tensors = {
            name: torch.stack([_turned(state[name]) for state in states])
            for name, value in states[0].items()
            if value.is_floating_point()
        }
        self.names = [name for name, _ in nets[0].named_parameters()]
        self.velocities = {name: torch.zeros_like(self.tensors[name]) for name in self.names}
        self._follow_gradients()

    def _follow_gradients(self) -> None:
        for name in self.names:
            self.tensors[name] = self.tensors[name].detach().requires_grad_()

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with some of the nets; the others have got their weights back before."""
        self.nets = [self.nets[place] for place in kept]
        self.tensors = {n: value.detach()[list(kept)] for n, value in self.tensors.items()}
        self.velocities = {n: value[list(kept)] for n, value in self.velocities.items()}
        self._follow_gradients()

    @torch.no_grad()
    def write_back_(self) -> None:
        """Copy the weights back into the nets."""
        for place, net in enumerate(self.nets):
            for name, value in net.state_dict().items():
                if name in self.tensors:
                    value.copy_(_turned(self.tensors[name][place]))

    def forward(self, values: Tensor) -> Tensor:
        """Return the logits, [nets, batch, classes], of [nets, batch, features]."""
        for place, part in enumerate(self.parts):
            if isinstance(part, nn.Linear):
                weight, bias = (self.tensors[f"{place}.{n}"] for n in ("weight", "bias"))
                values = torch.baddbmm(bias.unsqueeze(1), values, weight)
            elif isinstance(part, nn.BatchNorm1d):
                values = self._normalised(place, part, values)
            else:
                values = part(values)
        return values

    def _normalised(self, place: int, part: nn.BatchNorm1d, values: Tensor) -> Tensor:
        """Every unit of every net has statistics of its own, so all are features of one norm."""
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (self.tensors[f"{place}.{n}"].view(-1) for n in names)
        rows = values.transpose(0, 1)
        normal = nn.functional.batch_norm(
            rows.flatten(1), mean, variance, weight, bias, True, part.momentum or 0.0, part.eps
        )
        return normal.view_as(rows).transpose(0, 1)

    def step_(self, losses: Tensor, rates: Tensor) -> None:
        """Clip each net's gradient by its own norm, and move its weights by its own rate."""
        gradients = torch.autograd.grad(losses.sum(), [self.tensors[n] for n in self.names])
        with torch.no_grad():
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
            factors = (CLIP / (norms + 1e-6)).clamp(max=1.0)
            for name, gradient in zip(self.names, gradients, strict=True):
                each = (-1,) + (1,) * (gradient.dim() - 1)
                velocity = self.velocities[name].mul_(MOMENTUM)
                velocity.addcmul_(gradient, factors.view(each))
                self.tensors[name].addcmul_(velocity, rates.view(each), value=-1)


def train_together(
    nets: Sequence[nn.Sequential],
    images: tuple[Tensor, Tensor],
    rates: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
) -> None:
    """Train each net by the recipe, with its own rate and its own seed for the order.

    Dense nets are trained at once, convolutional ones one by one.
    """
    if any(isinstance(part, nn.Conv2d) for part in nets[0]):
        for net, rate, seed in zip(nets, rates, seeds, strict=True):
            train(net, images, rate, seed, epochs)
        return
    values, classes = images
    stack, alive = Stack(nets), list(range(len(nets)))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    steps, step = max(epochs * (len(values) // BATCH), 1), 0
    for _ in range(epochs):
        orders = [torch.stack(batches_of_epoch(len(values), each)) for each in generators]
        for every in torch.stack(orders, 1):
            chosen = every[alive]
            losses = _losses(stack.forward(values[chosen]), classes[chosen])
            kept = [place for place, loss in enumerate(losses.tolist()) if math.isfinite(loss)]
            if len(kept) < len(alive):
                stack.write_back_()  # those that stop here keep the weights that they have now
            moving = losses.new_tensor([rates[net] * rate_factor(step, steps) for net in alive])
            stack.step_(losses, moving)
            if len(kept) < len(alive):
                stack.keep(kept)
                alive = [alive[place] for place in kept]
            if not alive:
                return
            step += 1
    stack.write_back_()


def _losses(logits: Tensor, classes: Tensor) -> Tensor:
    """Return each net's mean cross-entropy."""
    each = nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")
    return each.view(classes.shape).mean(1)


def _turned(tensor: Tensor) -> Tensor:
    """Return a weight with its inputs first, or with its outputs first again."""
    return tensor.mT if tensor.dim() == 2 else tensor

"""Whether two runs ended the same, bit for bit, and what a callback has left on a module."""

from itertools import chain

import torch
from torch.utils._pytree import tree_leaves


def optimizer_tensors(trainer):
    """Yield every tensor in the states of the Trainer's optimizers, in order."""
    for optimizer in trainer.optimizers:
        leaves = tree_leaves(optimizer.state_dict()["state"])
        yield from (leaf for leaf in leaves if isinstance(leaf, torch.Tensor))


def same_state(first, second):
    """Say whether two modules hold the same parameters and buffers, bit for bit."""
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def same_optimizers(first, second):
    """Say whether two Trainers' optimizers hold the same states, bit for bit."""
    a, b = list(optimizer_tensors(first)), list(optimizer_tensors(second))
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def all_finite(module, trainer):
    """Say whether no weight, buffer or optimizer state is NaN or infinite."""
    everything = chain(module.state_dict().values(), optimizer_tensors(trainer))
    return all(bool(torch.isfinite(t).all()) for t in everything)


def hooks_of(module):
    """Return every forward, backward and tensor hook that is left on the module."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    left = [hook for m in module.modules() for kind in kinds for hook in getattr(m, kind).values()]
    return left + [hook for p in module.parameters() for hook in (p._backward_hooks or {}).values()]

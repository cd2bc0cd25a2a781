"""Hooks come off when asked, are dead in copies, and leave the others alone."""

import copy
import pickle
import threading

import pytest
import torch
from helpers.comparing import hooks_of
from torch import nn

from lightning_stab.callbacks._hooks.hooks import ModuleHooks


class Note:
    """Keeps what hooks show; holds a lock, so that it cannot be pickled."""

    def __init__(self):
        self.calls, self.lock = [], threading.Lock()

    def before(self, module, args, kwargs):
        self.calls.append(("before", len(args), sorted(kwargs)))

    def after(self, module, args, output):
        self.calls.append(("after", output is None))

    def gradient(self, gradient):
        self.calls.append(("gradient", gradient.sum().item()))


class Scaled(nn.Module):
    """Scales its input, or fails."""

    def forward(self, x, scale=1.0):
        if scale == 0:
            raise ValueError("on purpose")
        return scale * x


def hooked(module, note, *, always=False):
    hooks = ModuleHooks()
    hooks.before(module, note.before)
    hooks.after(module, note.after, always=always)
    return hooks


def test_hooks_see_each_pass_and_come_off_together():
    module, note = Scaled(), Note()
    hooks = hooked(module, note)
    assert hooks
    x = torch.ones(3, requires_grad=True)
    hooks.on_gradient(x, note.gradient)
    module(x, scale=2.0).sum().backward()
    assert note.calls == [("before", 1, ["scale"]), ("after", False), ("gradient", 6.0)]
    hooks.remove()
    hooks.remove()
    assert not hooks
    assert hooks_of(module) == []
    module(x).sum().backward()
    assert len(note.calls) == 3


def test_a_hook_may_change_the_arguments():
    module, hooks = Scaled(), ModuleHooks()
    hooks.before(module, lambda module, args, kwargs: ((args[0] + 1,), {**kwargs, "scale": 3.0}))
    assert module(torch.tensor(1.0)).item() == 6.0


@pytest.mark.parametrize("always", [False, True])
def test_where_the_pass_raises_a_hook_is_called_only_if_asked(always):
    module, note = Scaled(), Note()
    hooked(module, note, always=always)
    with pytest.raises(ValueError, match="on purpose"):
        module(torch.ones(1), scale=0)
    assert note.calls[1:] == ([("after", True)] if always else [])


@pytest.mark.parametrize("make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_hooked_module_carry_no_live_hook(make):
    module, note = nn.Sequential(nn.Linear(2, 2), Scaled()), Note()
    for part in module:
        hooked(part, note)
    other = make(make(module))
    assert torch.equal(other(torch.ones(1, 2)), module(torch.ones(1, 2)))
    assert len(note.calls) == 4  # of the original alone


@pytest.mark.filterwarnings("ignore")
def test_a_compiler_leaves_hooks_out():
    module, note = Scaled(), Note()
    hooked(module, note)
    assert torch.compile(module, backend="eager")(torch.ones(2)).tolist() == [1, 1]
    assert note.calls == []
    torch._dynamo.reset()

"""What stands on classes is exchanged for copies, and comes back."""

import threading

import pytest
import torch
from torch import nn

from lightning_stab.functional.gradcheck import ClassAttributes

ABSENT = object()


def make():
    class Base(nn.Module):
        losses = []  # noqa: RUF012
        nested = {"train": [], "seen": {1}}  # noqa: RUF012
        counter, absent, lock = 0, ABSENT, threading.Lock()
        table, part = torch.zeros(2), nn.BatchNorm1d(2)

        @classmethod
        def step(cls, self):
            self.losses.append(1.0)
            cls.nested["train"].append(2.0)
            cls.nested["seen"].add(3)
            cls.counter += 1
            cls.new = 5
            cls.table += 1
            cls.part.weight.data.add_(1)
            assert cls.absent is ABSENT

    return type("Child", (Base,), {}), Base


def state(cls):
    plain = cls.losses, cls.nested, cls.counter, hasattr(cls, "new")
    return (*plain, cls.table.tolist(), cls.part.weight.tolist())


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_attributes_of_every_kind_come_back_the_very_objects(error):
    child, base = make()
    module = nn.Sequential(child())
    kept, before = dict(vars(base)), repr(state(base))
    try:
        with ClassAttributes(module) as classes:
            child.step(module[0])
            once = repr(state(base))
            assert once != before
            classes.renew()
            assert repr(state(base)) == before
            child.step(module[0])
            assert repr(state(base)) == once
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    assert repr(state(base)) == before
    assert not hasattr(child, "new")
    assert all(vars(base)[name] is value for name, value in kept.items() if name[:2] != "__")


def test_counters_of_functions_come_back():
    class Counts(torch.autograd.Function):
        calls = 0

    with ClassAttributes(nn.Linear(1, 1)):
        Counts.calls += 1
        assert Counts.calls == 1
    assert Counts.calls == 0

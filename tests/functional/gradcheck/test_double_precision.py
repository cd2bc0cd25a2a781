"""Copies in double, states that come back, random generators that are not consumed."""

import random
import threading

import numpy as np
import torch
from torch import nn

from lightning_stab.functional.gradcheck.double_precision import double_copy
from lightning_stab.functional.gradcheck.state import ModuleState
from lightning_stab.functional.random_states import preserve_random_states


class Odd(nn.Module):
    """Holds everything that makes copying hard."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.linear.weight
        self.lstm = nn.LSTM(3, 2)
        self.register_buffer("halved", torch.ones(2, dtype=torch.float16))
        self.turn = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        self.count = nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)
        self.lock = threading.Lock()
        self.cached = self.linear(torch.ones(1, 3))
        self.table = {"scale": torch.ones(2), "names": ["a"]}


def test_every_float_becomes_double_and_ties_stay():
    source = Odd()
    twin, memo = double_copy(source)
    assert twin.linear.weight.dtype == torch.float64
    assert twin.tied.weight is twin.linear.weight
    assert twin.halved.dtype == torch.float64
    assert twin.turn.dtype == torch.complex128
    assert twin.count.dtype == torch.int64
    assert twin.cached.dtype == torch.float64
    assert not twin.cached.requires_grad
    assert twin.table["scale"].dtype == torch.float64
    assert twin.lock is source.lock
    assert twin.lstm._flat_weights[0] is twin.lstm.weight_ih_l0
    assert memo[id(source.linear.weight)] is twin.linear.weight
    assert source.linear.weight.dtype == torch.float32


def test_many_copies_in_a_row_never_take_one_object_for_another():
    for _ in range(100):
        source = Odd()
        twin, _ = double_copy(source)
        assert twin.table is not source.table
        assert twin.linear is not source.linear
        assert twin.table["scale"].dtype == torch.float64


def test_a_stand_in_takes_the_place_of_what_it_replaces():
    source = nn.Linear(1, 1)
    source.owner = object()
    twin, _ = double_copy(source, {id(source.owner): "stand-in"})
    assert twin.owner == "stand-in"


def test_a_state_brings_back_buffers_attributes_modes_and_generators():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    module.generator = torch.Generator().manual_seed(1)
    module.history, module.steps = [1], 0
    module[0].hidden = None
    state = ModuleState(module)
    first = torch.rand(2, generator=module.generator)
    for _ in range(2):
        module(torch.randn(4, 2))
        module.history.append(2)
        module.steps += 1
        module[0].hidden, module[0].extra = torch.ones(1), "new"
        module.eval()
        module[0].weight.requires_grad_(False)
        state.restore()
        assert torch.equal(module[0].running_mean, torch.zeros(2))
        assert int(module[0].num_batches_tracked) == 0
        assert (module.history, module.steps, module[0].hidden) == ([1], 0, None)
        assert not hasattr(module[0], "extra")
        assert module.training
        assert module[1].training
        assert module[0].weight.requires_grad
        assert torch.equal(first, torch.rand(2, generator=module.generator))


def test_random_states_are_kept_also_when_the_body_raises():
    before = torch.rand(1), np.random.random(), random.random()  # noqa: NPY002
    with preserve_random_states():
        expected = torch.rand(1), np.random.random(), random.random()  # noqa: NPY002
    try:
        with preserve_random_states():
            torch.rand(5), np.random.random(), random.random()  # noqa: NPY002
            raise KeyError
    except KeyError:
        pass
    assert expected == (torch.rand(1), np.random.random(), random.random())  # noqa: NPY002
    assert before != expected

"""Copies in double, states that come back, random generators that are not consumed."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from lightning_stab.functional.gradcheck.double_precision import (
    call_in_double,
    double_copy,
    is_in_place,
)
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
    module_copy, memo = double_copy(source)
    assert module_copy.linear.weight.dtype == torch.float64
    assert module_copy.tied.weight is module_copy.linear.weight
    assert module_copy.halved.dtype == torch.float64
    assert module_copy.turn.dtype == torch.complex128
    assert module_copy.count.dtype == torch.int64
    assert module_copy.cached.dtype == torch.float64
    assert not module_copy.cached.requires_grad
    assert module_copy.table["scale"].dtype == torch.float64
    assert module_copy.lock is source.lock
    assert module_copy.lstm._flat_weights[0] is module_copy.lstm.weight_ih_l0
    assert memo[id(source.linear.weight)] is module_copy.linear.weight
    assert source.linear.weight.dtype == torch.float32


def test_many_copies_in_a_row_never_take_one_object_for_another():
    for _ in range(100):
        source = Odd()
        module_copy, _ = double_copy(source)
        assert module_copy.table is not source.table
        assert module_copy.linear is not source.linear
        assert module_copy.table["scale"].dtype == torch.float64


class Refuses(torch.Tensor):
    def __deepcopy__(self, memo):
        raise MemoryError("no room")


def test_a_tensor_that_cannot_be_copied_is_never_shared():
    source = Odd()
    source.extra = torch.ones(2).as_subclass(Refuses)
    with pytest.raises(MemoryError, match="no room"):
        double_copy(source)
    assert source.extra.dtype == torch.float32


def test_a_module_that_refuses_to_be_copied_is_not():
    class Uncopied(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("holds a connection")

    with pytest.raises(TypeError, match="holds a connection"):
        double_copy(nn.Sequential(Uncopied(1, 1)))


def test_a_state_brings_back_what_a_module_is_made_of():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False))
    state, weight, part = ModuleState(module), module[0].weight, module[1]
    module[0].weight = nn.Parameter(torch.zeros(2, 2))
    module[1].register_buffer("extra", torch.ones(1))
    module[1].running_mean = torch.ones(3)
    module.append(nn.ReLU())
    del module[1]
    state.restore()
    assert module[0].weight is weight
    assert list(module) == [module[0], part]
    assert set(dict(part.named_buffers())) == {"running_mean", "running_var", "num_batches_tracked"}
    assert torch.equal(part.running_mean, torch.zeros(2))


def test_a_replacement_takes_the_place_of_what_it_replaces():
    source = nn.Linear(1, 1)
    source.owner = object()
    module_copy, _ = double_copy(source, {id(source.owner): "replacement"})
    assert module_copy.owner == "replacement"


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


F32, F64, C128 = torch.float32, torch.float64, torch.complex128
ONE, LOW = torch.ones(2, dtype=F64), torch.ones(2)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "dtype", "lifted"),
    [
        (torch.Tensor.float, (ONE,), {}, F64, True),
        (torch.Tensor.half, (ONE,), {}, F64, True),
        (torch.Tensor.cfloat, (ONE,), {}, C128, True),
        (torch.Tensor.to, (ONE, torch.bfloat16), {}, F64, True),
        (torch.Tensor.to, (ONE, torch.int64), {}, torch.int64, False),
        (torch.zeros, (2,), {"dtype": F32}, F64, True),
        (torch.zeros, (2,), {"dtype": torch.complex64}, C128, True),
        (torch.zeros, (2,), {}, F64, True),  # of the default type
        (torch.Tensor.type, (ONE, "torch.HalfTensor"), {}, F64, True),
        (torch.Tensor.type, (ONE, "torch.LongTensor"), {}, torch.int64, False),
        (torch.add, (ONE, ONE), {}, F64, False),
        (torch.dot, (ONE, LOW), {}, F64, True),  # which torch refuses as it is
        (torch.Tensor.add_, (LOW.clone(), ONE), {}, F32, False),  # what is written to stays
    ],
)
def test_a_call_is_made_in_double(function, args, kwargs, dtype, lifted):
    result, was_lifted = call_in_double(function, args, kwargs)
    assert (result.dtype, was_lifted) == (dtype, lifted)


def test_another_error_of_a_call_is_the_callers():
    with pytest.raises(RuntimeError, match="size"):
        call_in_double(torch.dot, (ONE, torch.ones(3, dtype=F64)), {})


def test_which_functions_write_into_their_first_argument():
    names = ["add_", "__setitem__", "__iadd__", "__imul__"]
    others = ["add", "__getitem__", "__add__", "__invert__", "__int__", "__index__", "relu"]
    assert [name for name in (*names, *others) if is_in_place(name)] == names

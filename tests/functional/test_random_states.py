"""Every global generator is put back, on every device; what is not there is not asked for."""

import random
import sys

import numpy
import pytest
import torch

from lightning_stab.functional.random_states import (
    get_random_states,
    preserve_random_states,
    set_random_states,
)


def draw():
    legacy = numpy.random.rand()  # noqa: NPY002  # the global generator is what is put back
    return random.random(), float(legacy), float(torch.rand(()))


def test_what_is_drawn_inside_leaves_no_trace():
    states = get_random_states()
    following = draw()
    set_random_states(states)

    def fail():
        with preserve_random_states():
            assert draw() == following
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert draw() == following


def test_without_numpy_its_generator_is_not_asked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy")
    with preserve_random_states() as states:
        first = torch.rand(3)
    assert "numpy" not in states
    assert torch.equal(torch.rand(3), first)


class Generators:
    """A device's generators, of which there are none here."""

    def __init__(self):
        self.state = 7

    def is_available(self):
        return True

    def get_rng_state_all(self):
        return self.state

    def set_rng_state_all(self, state):
        self.state = state

    get_rng_state, set_rng_state = get_rng_state_all, set_rng_state_all


@pytest.mark.parametrize("device", ["cuda", "xpu", "mps"])
def test_the_generators_of_a_device_are_put_back(device, monkeypatch):
    generators = Generators()
    monkeypatch.setattr(torch, device, generators)
    if device == "mps":
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with preserve_random_states() as states:
        assert states[device] == 7
        generators.state = 8
    assert generators.state == 7

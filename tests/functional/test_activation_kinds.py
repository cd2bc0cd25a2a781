"""The bounds at which each activation is called flat, against autograd in double precision."""

import math

import pytest
import torch
from helpers.cases import for_each
from helpers.laws import OF_TORCH
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.activation_kinds import (
    FLAT,
    activation_kind,
    tanh_by_output,
)

PARAMETERS = {
    "threshold": (0.5, 0.0),
    "leaky_relu": (0.1,),
    "softplus": (2.0,),
    "hardtanh": (-1.5, 2.5),
    "elu": (3.0,),
    "celu": (0.5,),
}
NEVER_FLAT = ("leaky_relu", "prelu", "rrelu", "softshrink", "hardshrink", "tanhshrink")
SMOOTH_RECTIFIERS = ("gelu", "silu", "mish")
Z = st.floats(-30, 30, allow_subnormal=False)


def slopes(name, z, parameters=()):
    """Return f'(z) by autograd."""
    z = torch.as_tensor(z, dtype=torch.float64).requires_grad_()
    getattr(functional, name)(z, *parameters).sum().backward()
    return z.grad


def largest_slope(name, parameters=()):
    around_zero = torch.tensor([-1e-12, 1e-12], dtype=torch.float64)
    z = torch.cat([torch.linspace(-40, 40, 160_001, dtype=torch.float64), around_zero])
    return slopes(name, z, parameters).abs().max().item()


LARGEST = {
    (name, parameters): largest_slope(name, parameters)
    for name in OF_TORCH
    if name not in NEVER_FLAT
    for parameters in {(), PARAMETERS.get(name, ())}
    if (name, parameters) != ("threshold", ())  # torch has no defaults for it
}


def is_flat_side(kind, z):
    return any(
        (
            kind.dead_below is not None and z <= kind.dead_below,
            kind.saturated_below is not None and z <= kind.saturated_below,
            kind.saturated_above is not None and z >= kind.saturated_above,
        )
    )


def bounds(kind):
    every = (kind.dead_below, kind.saturated_below, kind.saturated_above)
    return [bound for bound in every if bound is not None]


@for_each(LARGEST)
def test_flat_is_a_derivative_under_2_percent_of_its_maximum(name, parameters):
    kind = activation_kind(name, *parameters)
    z = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    away = [(z - bound).abs() > 1e-6 for bound in bounds(kind)]
    z = z[torch.stack(away).all(0)] if away else z
    relative = slopes(name, z, parameters).abs() / LARGEST[name, parameters]
    flat = torch.tensor([is_flat_side(kind, value) for value in z.tolist()])
    assert (relative[flat] < FLAT * (1 + 1e-6)).all()
    steep = relative >= FLAT * (1 - 1e-6)
    if name in SMOOTH_RECTIFIERS or name == "hardswish":
        # the one place where the derivative changes its sign is small and no flat side
        steep |= (z > -2) & (z < -0.5)
    assert steep[~flat].all()


@for_each(LARGEST)
def test_each_bound_is_where_the_derivative_crosses_2_percent(name, parameters):
    for bound in bounds(activation_kind(name, *parameters)):
        before, after = slopes(name, [bound - 1e-6, bound + 1e-6], parameters).abs().tolist()
        limit = FLAT * LARGEST[name, parameters]
        assert min(before, after) <= limit * (1 + 1e-9)
        assert max(before, after) >= limit * (1 - 1e-9)


@for_each([n for n in OF_TORCH if activation_kind(n).can_be_dead])
def test_a_dead_unit_gives_next_to_nothing(name):
    z = torch.linspace(-60, activation_kind(name).dead_below, 2001, dtype=torch.float64)
    parameters = (0.0, 0.0) if name == "threshold" else ()
    assert getattr(functional, name)(z, *parameters).abs().max() < 0.03


@for_each(NEVER_FLAT)
def test_some_are_never_flat(name):
    kind = activation_kind(name)
    assert not kind.can_be_dead
    assert not kind.can_saturate


@given(alpha=st.floats(0.01, 20))
def test_elu_saturates_by_its_own_largest_slope(alpha):
    kind = activation_kind("elu", alpha)
    largest = max(1.0, alpha)
    slope = alpha * math.exp(kind.saturated_below)
    assert slope <= FLAT * largest * (1 + 1e-9)
    assert kind.saturated_below == 0 or slope == pytest.approx(FLAT * largest)


def test_special_parameters_make_another_function():
    assert activation_kind("leaky_relu", 0.0).dead_below == 0
    assert activation_kind("elu", 0.0).saturated_below == 0
    assert activation_kind("hardtanh", 0.0, 6.0).dead_below == 0
    assert activation_kind("hardtanh", 0.0, 6.0).saturated_above == 6
    assert activation_kind("threshold", 1.0, 20.0).saturated_below == 1
    assert not activation_kind("threshold", 1.0, 20.0).can_be_dead


@pytest.mark.parametrize("z", [-5.0, -2.7, -2.6, 0.0, 2.6, 2.7])
def test_a_tanh_known_by_its_output_is_judged_alike(z):
    by_input, by_output = activation_kind("tanh"), tanh_by_output()
    assert is_flat_side(by_input, z) == is_flat_side(by_output, math.tanh(z))


def test_the_tanh_approximation_of_gelu_is_flat_at_nearly_the_same_place():
    z = torch.tensor(activation_kind("gelu").dead_below, dtype=torch.float64, requires_grad=True)
    functional.gelu(z, approximate="tanh").backward()
    assert z.grad.abs() / LARGEST["gelu", ()] == pytest.approx(FLAT, abs=0.003)


def test_an_unknown_name_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"`activation` must be one of .*'sigmoid'"):
        activation_kind("sigmoidd")

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_stab.functional.activation_kinds import CATALOGUE
from lightning_stab.functional.initialization import (
    InitializationSettings,
    WeightShape,
    draw,
    initialize_,
    preceding_of,
    scheme_std,
    weight_shape,
)
from lightning_stab.functional.initialization.schemes import SCHEMES

RANDOM = [scheme for scheme in SCHEMES if scheme != "orthogonal"]


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


# --- gains -------------------------------------------------------------------------------------


def normal_grid():
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2)
    return z, density / density.sum()


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(),
        nn.ReLU6(),
        nn.LeakyReLU(0.2),
        nn.GELU(),
        nn.SiLU(),
        nn.Mish(),
        nn.Hardswish(),
        nn.ELU(),
        nn.SELU(),
        nn.PReLU(init=0.4, dtype=torch.float64),
    ],
    ids=repr,
)
def test_a_rectifiers_gain_keeps_the_second_moment(activation):
    z, weight = normal_grid()
    second_moment = (weight * activation(z).detach() ** 2).sum().item()
    assert preceding_of(activation).gain ** 2 * second_moment == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    "activation",
    [nn.Sigmoid(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.Hardtanh(), nn.Softsign()],
    ids=repr,
)
def test_a_squashers_gain_undoes_its_slope_at_zero(activation):
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(zero), zero)
    assert preceding_of(activation).gain * slope.item() == pytest.approx(1, abs=1e-6)


def test_activations_are_known_by_the_names_of_their_classes():
    class Swish(nn.Module):
        pass

    class MyReLU(nn.ReLU):
        pass

    assert preceding_of(Swish()).gain == CATALOGUE["silu"].gain
    assert preceding_of(MyReLU()).rectifier
    assert preceding_of(nn.Tanhshrink()).gain == 1
    assert preceding_of(nn.RReLU(0.1, 0.3)).gain == pytest.approx(math.sqrt(2 / 1.04))


# --- fans and standard deviations ----------------------------------------------------------------


@given(
    groups=st.integers(1, 4),
    fan=st.integers(1, 4),
    out=st.integers(1, 4),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
)
@settings(max_examples=25)
def test_fan_in_of_a_convolution_counts_what_an_output_sees(groups, fan, out, kernel, stride):
    layer = nn.Conv2d(fan * groups, out * groups, kernel, stride=stride, groups=groups, bias=False)
    seen = torch.func.functional_call(
        layer, {"weight": torch.ones_like(layer.weight)}, torch.ones(1, fan * groups, 16, 16)
    )
    assert weight_shape(layer, layer.weight).fan_in == seen.max().item() == seen.min().item()


@given(
    groups=st.integers(1, 3),
    channels=st.integers(1, 3),
    taps=st.integers(1, 3),
    s=st.integers(1, 3),
)
@settings(max_examples=25)
def test_fan_in_of_a_transposed_convolution_is_the_mean_of_what_an_output_sees(
    groups, channels, taps, s
):
    layer = nn.ConvTranspose1d(
        channels * groups, 2 * groups, taps * s, stride=s, groups=groups, bias=False
    )
    seen = torch.func.functional_call(
        layer, {"weight": torch.ones_like(layer.weight)}, torch.ones(1, channels * groups, 40)
    )
    inside = seen[..., 10:-10]  # away from the borders
    assert weight_shape(layer, layer.weight).fan_in == pytest.approx(inside.mean().item())


def test_fans_agree_with_torch_on_plain_layers():
    for layer in (nn.Linear(5, 7), nn.Conv1d(3, 4, 5), nn.Conv3d(2, 3, (1, 2, 3))):
        fans = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        shape = weight_shape(layer, layer.weight)
        assert (shape.fan_in, shape.fan_out) == fans


@pytest.mark.parametrize(
    ("scheme", "formula"),
    [
        ("xavier_normal", lambda i, o, g: g * math.sqrt(2 / (i + o))),
        ("xavier_uniform", lambda i, o, g: g * math.sqrt(6 / (i + o)) / math.sqrt(3)),
        ("kaiming_normal", lambda i, o, g: g / math.sqrt(i)),
        ("kaiming_uniform", lambda i, o, g: g / math.sqrt(i)),
        ("lecun_normal", lambda i, o, g: g / math.sqrt(i)),
        ("lecun_uniform", lambda i, o, g: g / math.sqrt(i)),
        ("trunc_normal", lambda i, o, g: g / math.sqrt(i)),
    ],
)
@given(
    fan_in=st.integers(1, 10_000),
    fan_out=st.integers(1, 10_000),
    gain=st.floats(0.01, 100, allow_nan=False),
)
@settings(max_examples=20)
def test_the_standard_deviation_is_the_published_formula(scheme, formula, fan_in, fan_out, gain):
    shape = WeightShape(float(fan_in), float(fan_out))
    assert scheme_std(scheme, shape, gain) == pytest.approx(formula(fan_in, fan_out, gain), 1e-14)


@pytest.mark.parametrize("scheme", RANDOM)
def test_what_is_drawn_has_mean_zero_and_the_formulas_standard_deviation(scheme):
    shape = WeightShape(300.0, 500.0)
    new = draw(scheme, torch.empty(500, 300, dtype=torch.float64), shape, 1.5, seeded())
    std, count = scheme_std(scheme, shape, 1.5), new.numel()
    # Five standard errors: of the mean, std / sqrt(n); of the std, at most std / sqrt(2 n),
    # which is the normal's (a bounded distribution has a smaller kurtosis).
    assert abs(new.mean().item()) < 5 * std / math.sqrt(count)
    assert abs(new.std().item() - std) < 5 * std / math.sqrt(2 * count)
    bounds = {"uniform": math.sqrt(3) * std, "trunc_normal": 2 * std / 0.8796256610342398}
    for name, bound in bounds.items():
        if scheme.endswith(name):
            assert new.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("scheme", "reference"),
    [
        ("xavier_normal", lambda w, g: nn.init.xavier_normal_(w, 1.3, generator=g)),
        ("orthogonal", lambda w, g: nn.init.orthogonal_(w, 1.3, generator=g)),
    ],
)
def test_a_plain_linear_gets_the_very_numbers_of_torch(scheme, reference):
    layer = nn.Linear(30, 20)
    expected = reference(torch.empty(20, 30), seeded())
    new = draw(scheme, layer.weight, weight_shape(layer, layer.weight), 1.3, seeded())
    assert torch.equal(new, expected)


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), gain=st.floats(0.1, 10))
@settings(max_examples=25)
def test_orthogonal_has_equal_singular_values(rows, columns, gain):
    like = torch.empty(rows, columns, dtype=torch.float64)
    new = draw("orthogonal", like, WeightShape(float(columns), float(rows)), gain, seeded())
    assert torch.linalg.svdvals(new) == pytest.approx(gain, rel=1e-9)


def test_blocks_are_orthogonal_each_by_itself():
    attention, depthwise = nn.MultiheadAttention(8, 2), nn.Conv2d(6, 12, 3, groups=6)
    initialize_(nn.ModuleList([attention, depthwise]), InitializationSettings("orthogonal"))
    for block in attention.in_proj_weight.detach().chunk(3):
        assert torch.allclose(block @ block.T, torch.eye(8), atol=1e-5)
    for block in depthwise.weight.detach().flatten(1).chunk(6):
        assert torch.allclose(block @ block.T, torch.eye(2), atol=1e-5)


def test_attentions_packed_projection_is_three_square_blocks():
    attention = nn.MultiheadAttention(64, 2)
    attention.in_proj_bias.data.fill_(1.0)
    record, output = initialize_(attention)
    expected = math.sqrt(2 / (64 + 64))
    assert record.name == "in_proj_weight"
    assert record.std_after == pytest.approx(expected, rel=5 / math.sqrt(2 * 3 * 64 * 64))
    assert (output.name, output.preceding) == ("out_proj.weight", "linear")
    assert attention.in_proj_bias.abs().max() == 0


def test_attention_with_its_own_key_size():
    records = initialize_(nn.MultiheadAttention(8, 2, kdim=4, vdim=6))
    assert [r.shape for r in records] == [(8, 8), (8, 4), (8, 6), (8, 8)]

"""What activations do to a normal signal, and the structure of weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_stab.functional.activation_kinds import CATALOGUE
from lightning_stab.functional.initialization import structured
from lightning_stab.functional.initialization.auto import _at_depth
from lightning_stab.functional.initialization.gains import ScalarFunction, preceding_of
from lightning_stab.functional.initialization.passes import (
    INPUT_RANGE,
    LSUV,
    LSUV_CENTERED,
    RESCALE,
    _scale_and_shift,
)
from lightning_stab.functional.initialization.structured import (
    Structure,
    draw_gates_,
    draw_structured_,
    fast_orthogonal,
    orthogonal,
    orthonormal_columns,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(
    rows=st.integers(1, 6), columns=st.integers(1, 6), gain=st.floats(0.1, 5),
    mirror_in=st.booleans(), mirror_out=st.booleans(),
)  # fmt: skip
@settings(max_examples=40)
def test_structured_weights_keep_the_variance_of_each_unit(
    rows, columns, gain, mirror_in, mirror_out
):
    new = torch.empty(2 * rows, 2 * columns, dtype=torch.float64)
    draw_structured_(new, Structure(mirror_in, mirror_out), gain, seeded())
    core = new[: rows if mirror_out else 2 * rows, : columns if mirror_in else 2 * columns]
    mean_row = core.square().sum(1).mean().sqrt().item()
    assert mean_row == pytest.approx(gain, rel=1e-9)
    assert not mirror_in or torch.equal(new[:, :columns], -new[:, columns:])
    assert not mirror_out or torch.equal(new[:rows], -new[rows:])


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (2, 2), (7, 7), (100, 100), (131, 131), (131, 40), (40, 131)]
)
def test_the_fast_orthogonal_matrix_is_exactly_orthogonal_and_full(rows, columns):
    new = fast_orthogonal(rows, columns, torch.float64, seeded(), 3.0)
    assert new.shape == (rows, columns)
    gram = new @ new.T if rows <= columns else new.T @ new
    assert torch.allclose(gram, 9 * torch.eye(len(gram), dtype=torch.float64), atol=1e-12)
    assert max(rows, columns) < 100 or (new == 0).double().mean().item() < 0.05


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_order_of_a_weight_in_memory_does_not_matter(kernel):
    drawn = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        new = torch.empty(8, 6, kernel, kernel).to(memory_format=memory_format)
        draw_structured_(new, Structure(), 1.0, seeded())
        drawn.append(new)
    assert torch.equal(*drawn)
    assert torch.allclose(drawn[1].flatten(1).square().sum(1).mean(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (torch.relu, 1.0),
        (nn.functional.gelu, 1.0),
        (nn.functional.silu, 1.0),
        (nn.functional.softplus, 1.0),
        (nn.functional.hardswish, 1.0),
        (lambda x: nn.functional.leaky_relu(x, 0.2), 1.2),
        (lambda x: 3 * torch.relu(x), 3.0),
        (torch.tanh, None),
        (torch.sigmoid, None),
        (nn.functional.elu, None),
        (nn.functional.mish, None),
        (torch.abs, None),
    ],
)
def test_the_mirror_identity_is_recognised(function, slope):
    found = ScalarFunction(function).mirror_slope
    assert found == (None if slope is None else pytest.approx(slope, abs=1e-5))


@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid, nn.functional.selu])
def test_the_balanced_gain_keeps_both_recursions_near_one(function):
    curve, variance, gradient = ScalarFunction(function), 1.0, 1.0
    gain = curve.balanced_gain(50)
    for _ in range(50):
        scale = math.sqrt(variance)
        gradient *= gain**2 * curve.slope_square(scale)
        variance = gain**2 * curve.variance(scale)
    assert 0.2 < variance < 5
    assert 0.1 < gradient < 10


@pytest.mark.parametrize(("function", "is_bounded"), [(torch.tanh, True), (torch.relu, False)])
def test_saturation_is_recognised(function, is_bounded):
    assert ScalarFunction(function).is_bounded() is is_bounded


def test_large_matrices_are_orthogonal_too(monkeypatch):
    from lightning_stab.functional.initialization import structured

    monkeypatch.setattr(structured, "LARGE", 16)
    new = torch.empty(40, 30, dtype=torch.float64)
    draw_structured_(new, Structure(), 1.5, seeded())
    assert torch.allclose(new.T @ new, 1.5**2 * 40 / 30 * torch.eye(30).double(), atol=1e-9)


def test_what_torch_calls_an_activation_precedes_although_the_catalogue_lacks_it():
    preceding = preceding_of(nn.Softmax(dim=1))
    assert (preceding.name, preceding.gain, preceding.rectifier) == ("Softmax", 1.0, False)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(1, 1), (17, 17), (300, 300), (40, 900), (900, 40), (6, 5, 3, 3), (1024, 1024)]
)
def test_orthogonal_weights_of_an_accelerator_are_those_of_torch(shape, precision, monkeypatch):
    expected = nn.init.orthogonal_(torch.empty(shape, dtype=precision), 1.3, generator=seeded())
    monkeypatch.setattr(structured, "_FAST_PRODUCTS", ("cpu",))
    new = orthogonal(torch.empty(shape, dtype=precision), seeded(), 1.3, torch.device("cpu"))
    assert new.shape == expected.shape
    bound = 2e-5 if precision == torch.float32 else 1e-12
    torch.testing.assert_close(new, expected, rtol=0, atol=bound)


def test_columns_are_orthonormal_where_cholesky_fails():
    tall = torch.randn(30, 5, generator=seeded(), dtype=torch.float64)
    tall[:, 4] = tall[:, 3] + 1e-11 * tall[:, 4]
    q = orthonormal_columns(tall)
    torch.testing.assert_close(q.T @ q, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert bool(((q.T @ tall).diagonal() > 0).all())


# f, its mean, its second moment, and the mean of its squared slope, over N(0, 1)
CLOSED_FORMS = {
    "identity": (lambda x: x, 0.0, 1.0, 1.0),
    "relu": (torch.relu, 1 / math.sqrt(2 * math.pi), 0.5, 0.5),
    "abs": (torch.abs, math.sqrt(2 / math.pi), 1.0, 1.0),
    "square": (torch.square, 1.0, 3.0, 4.0),
    "sin": (torch.sin, 0.0, (1 - math.exp(-2)) / 2, (1 + math.exp(-2)) / 2),
    "erf": (lambda x: torch.erf(x / math.sqrt(2)), 0.0, 1 / 3, 2 / (math.pi * math.sqrt(3))),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_moments_over_the_standard_normal_are_the_closed_forms(name):
    function, mean, square, slope = CLOSED_FORMS[name]
    curve = ScalarFunction(function)
    tolerance = {"rel": 2e-3, "abs": 1e-12}  # a kink at 0 falls between two points of the grid
    assert curve.mean() == pytest.approx(mean, **tolerance)
    assert curve.second_moment() == pytest.approx(square, **tolerance)
    assert curve.variance() == pytest.approx(square - mean**2, rel=4e-3)
    assert curve.slope_square() == pytest.approx(slope, rel=2e-2)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_a_scaled_normal_has_the_moments_of_its_scale(scale):
    curve, decay = ScalarFunction(torch.sin), math.exp(-2 * scale**2)
    assert curve.variance(scale) == pytest.approx((1 - decay) / 2)
    assert curve.slope_square(scale) == pytest.approx((1 + decay) / 2)


@pytest.mark.parametrize("depth", [1, 10, 50, 300])
def test_the_balanced_gain_of_a_straight_line_undoes_its_slope(depth):
    gain, deviation = ScalarFunction(lambda x: 0.25 * x).balance(depth)
    assert gain == pytest.approx(4.0)
    assert deviation < 1e-6 * depth


def test_the_measured_gains_and_those_between_the_measured_depths():
    measured = {name: row.balanced_gains for name, row in CATALOGUE.items() if row.balanced_gains}
    assert measured == {
        "selu": ((1, 1.0), (20, 1.0), (50, 0.93), (100, 0.85)),
        "elu": ((1, 1.245),),
        "sigmoid": ((1, 4.4),),
        "tanh": ((1, 1.25), (50, 1.25), (200, 1.1)),
    }
    for name, depth, gain in (
        ("tanh", 1, 1.25), ("tanh", 50, 1.25), ("tanh", 100, 1.175), ("tanh", 200, 1.1),
        ("tanh", 900, 1.1), ("elu", 7, 1.245), ("selu", 20, 1.0), ("selu", 100, 0.85),
        ("selu", 35, 1 - 0.07 * math.log(35 / 20) / math.log(50 / 20)),
    ):  # fmt: skip
        assert _at_depth(measured[name], depth) == pytest.approx(gain), (name, depth)


def test_the_gains_that_no_module_shows():
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    weight = torch.exp(-z * z / 2) / torch.exp(-z * z / 2).sum()
    quick = CATALOGUE["quick_gelu"].gain
    assert quick**2 * (weight * (z * torch.sigmoid(1.702 * z)) ** 2).sum() == pytest.approx(1)
    # with torch's defaults
    assert preceding_of(nn.CELU()).gain == preceding_of(nn.ELU()).gain
    assert preceding_of(nn.Softplus()).gain == pytest.approx(math.sqrt(2))
    assert preceding_of(nn.LeakyReLU()).gain == pytest.approx(math.sqrt(2 / (1 + 1e-4)))
    assert preceding_of(nn.PReLU()).gain == pytest.approx(math.sqrt(2 / (1 + 1 / 16)))
    assert preceding_of(nn.RReLU()).gain == pytest.approx(math.sqrt(2 / (1 + (11 / 48) ** 2)))
    for name in ("softshrink", "hardshrink", "tanhshrink", "threshold"):
        assert CATALOGUE[name].gain is None


@pytest.mark.parametrize(
    ("layer", "name", "blocks"),
    [
        (nn.LSTM(5, 8, proj_size=4), "weight_hr_l0", 1), (nn.LSTM(5, 8), "weight_hh_l0", 4),
        (nn.GRU(5, 8), "weight_hh_l0", 3), (nn.RNN(5, 8), "weight_hh_l0", 1),
        (nn.LSTMCell(5, 8), "weight_hh", 4), (nn.GRUCell(5, 8), "weight_ih", 3),
        (nn.RNNCell(5, 8), "weight_hh", 1),
    ],
)  # fmt: skip
def test_each_gate_has_an_orthogonal_block_of_its_own(layer, name, blocks):
    weight = getattr(layer, name).detach()
    draw_gates_(layer, name, weight, seeded())
    for block in weight.chunk(blocks):
        rows, columns = block.shape
        gram = block @ block.T if rows <= columns else block.T @ block
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)), rtol=0, atol=1e-5)
    assert len(weight.chunk(blocks)) == blocks


def test_a_signal_of_the_inputs_is_left_as_it_is_between_one_half_and_two():
    def units(std, mean=0.0):
        return torch.tensor([[mean - std], [mean + std]], dtype=torch.float64)

    for std, healthy in ((0.5, True), (2.0, True), (1.0, True), (0.499, False), (2.001, False)):
        scale, shift = _scale_and_shift(INPUT_RANGE, units(std))
        assert scale == pytest.approx(1.0 if healthy else 1 / std)
        assert shift is None
        for correction in (LSUV, RESCALE):
            assert _scale_and_shift(correction, units(std))[0] == pytest.approx(1 / std)
    scale, shift = _scale_and_shift(LSUV_CENTERED, units(4.0, 3.0))
    assert (scale, shift.tolist()) == (0.25, [-0.75])
    for nothing in (units(0.0), units(1e-21), units(1e21)):
        assert _scale_and_shift(LSUV, nothing)[0] == 1.0


def test_the_balanced_gain_of_next_to_nothing_is_bounded():
    """A slope is undone down to a millionth, around which gains are looked for."""
    assert ScalarFunction(lambda x: 1e-5 * x).balanced_gain(1) == pytest.approx(1e5, rel=0.02)
    for size in (1e-9, 0.0):
        gain = ScalarFunction(lambda x: size * x).balanced_gain(1)  # noqa: B023
        assert 1e6 * 1.02**-20.5 < gain < 1e6 * 1.02**40.5
    # a signal that dies at once asks for the largest of them
    assert ScalarFunction(lambda x: 1e-9 * x).balanced_gain(1) == pytest.approx(1e6 * 1.02**40)

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.initialization import (
    InitializationSettings,
    WeightShape,
    draw,
    initialize_,
    preceding_of,
    scheme_std,
    weight_shape,
    weight_sites,
)
from lightning_stab.functional.initialization.gains import RECTIFIER_GAINS
from lightning_stab.functional.initialization.schemes import SCHEMES

RANDOM = [scheme for scheme in SCHEMES if scheme != "orthogonal"]


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def options(**arguments):
    return InitializationSettings(**arguments)


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

    assert preceding_of(Swish()).gain == RECTIFIER_GAINS["SiLU"]
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
@settings(max_examples=25, deadline=None)
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
@settings(max_examples=25, deadline=None)
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
@settings(max_examples=20, deadline=None)
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
@settings(max_examples=25, deadline=None)
def test_orthogonal_has_equal_singular_values(rows, columns, gain):
    like = torch.empty(rows, columns, dtype=torch.float64)
    new = draw("orthogonal", like, WeightShape(float(columns), float(rows)), gain, seeded())
    assert torch.linalg.svdvals(new) == pytest.approx(gain, rel=1e-9)


def test_blocks_are_orthogonal_each_by_itself():
    attention, depthwise = nn.MultiheadAttention(8, 2), nn.Conv2d(6, 12, 3, groups=6)
    initialize_(nn.ModuleList([attention, depthwise]), options(scheme="orthogonal"))
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


# --- which activation precedes, and what auto makes of it ----------------------------------------


def test_auto_takes_the_activation_that_precedes():
    shared = nn.ReLU()
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), shared),
        *(nn.Conv2d(4, 4, 3), shared, nn.Dropout(), nn.Flatten()),
        *(nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Linear(8, 8)),
        *(nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2)),
    )
    assert [(r.name, r.preceding, r.scheme, r.gain) for r in initialize_(net)] == [
        ("0.weight", "input", "xavier_normal", 1.0),
        ("3.weight", "ReLU", "kaiming_normal", math.sqrt(2)),
        ("7.weight", "ReLU", "kaiming_normal", math.sqrt(2)),
        ("9.weight", "Sigmoid", "xavier_normal", 4.0),
        ("10.weight", "linear", "xavier_normal", 1.0),
        ("13.weight", "norm", "xavier_normal", 1.0),
    ]


def test_a_given_gain_and_scheme_hold_for_every_layer():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    records = initialize_(net, options(scheme="orthogonal", gain=3.0))
    assert {(r.scheme, r.gain) for r in records} == {("orthogonal", 3.0)}
    assert net[2].weight.square().sum().item() == pytest.approx(4 * 9, rel=1e-5)


def test_lecun_has_gain_one_as_published():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert [r.gain for r in initialize_(net, options(scheme="lecun_normal"))] == [1.0, 1.0]


def test_twenty_relu_layers_keep_the_second_moment():
    net = nn.Sequential(*(m for _ in range(20) for m in (nn.Linear(256, 256), nn.ReLU())))
    initialize_(net)
    output = net(torch.randn(256, 256))
    assert 0.2 < 2 * output.square().mean().item() < 5


# --- what is left alone ------------------------------------------------------------------------


def unchanged(module, settings=None):
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    reasons = {r.name: r.reason for r in initialize_(module, settings)}
    after = dict(module.named_parameters())
    return {name for name in before if torch.equal(before[name], after[name])}, reasons


def test_frozen_and_excluded_weights_and_their_biases_stay():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    net[0].weight.requires_grad_(False)
    net[3].bias.requires_grad_(False)
    same, reasons = unchanged(net, options(exclude=["1.*", "2.bias"]))
    assert same == {"0.weight", "0.bias", "1.weight", "1.bias", "2.bias", "3.bias"}
    assert reasons == {
        "0.weight": "frozen", "1.weight": "excluded", "2.weight": "", "3.weight": "",
    }  # fmt: skip


def test_a_layers_name_excludes_it():
    same, _ = unchanged(nn.ModuleDict({"head": nn.Linear(3, 3)}), options(exclude=["head"]))
    assert same == {"head.weight", "head.bias"}


def test_a_pattern_without_a_match_is_an_error():
    with pytest.raises(InvalidArgumentError, match=r"'haed\.\*', which matches none"):
        initialize_(nn.ModuleDict({"head": nn.Linear(3, 3)}), options(exclude=["haed.*"]))


def test_norms_embeddings_recurrent_layers_and_unknown_owners_stay():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.values = nn.Parameter(torch.randn(3, 3))

    net = nn.ModuleDict(
        {"norm": nn.LayerNorm([3, 3]), "embedding": nn.Embedding(5, 3), "lstm": nn.LSTM(3, 3)}
    )
    net["table"] = Table()
    net["norm"].weight.data.uniform_()
    same, reasons = unchanged(net)
    assert same == {name for name, _ in net.named_parameters()}
    assert reasons == {
        "embedding.weight": "embedding, not asked for",
        "lstm.weight_ih_l0": "recurrent: keeps its own initialisation",
        "lstm.weight_hh_l0": "recurrent: keeps its own initialisation",
        "table.values": "no rule for Table",
    }


def test_embeddings_are_drawn_when_asked_for_and_keep_their_padding_row():
    embedding = nn.Embedding(400, 100, padding_idx=3)
    (record,) = initialize_(embedding, options(embedding_std=0.02))
    assert embedding.weight[3].abs().max() == 0
    rows = torch.cat([embedding.weight[:3], embedding.weight[4:]]).detach()
    assert rows.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * rows.numel()))
    assert (record.scheme, record.gain) == ("embedding", None)


def test_a_head_tied_to_an_embedding_counts_as_the_embedding():
    net = nn.ModuleDict({"head": nn.Linear(3, 5, bias=False), "embedding": nn.Embedding(5, 3)})
    net["head"].weight = net["embedding"].weight
    same, reasons = unchanged(net)
    assert same == {"head.weight"}
    assert reasons == {"head.weight": "embedding, not asked for"}


def test_a_tied_weight_is_drawn_once_and_excluded_by_any_of_its_names():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3, bias=False))
    net[2].weight = net[0].weight
    (record,) = initialize_(net)
    assert (record.name, record.preceding) == ("0.weight", "input")
    assert net[2].weight is net[0].weight
    assert initialize_(net, options(exclude=["2.weight"]))[0].reason == "excluded"


def parametrized():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    return nn.ModuleDict({"layer": layer})


def integer_weight():
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False)
    return nn.ModuleDict({"layer": layer})


def with_weight(weight):
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(weight)
    return nn.ModuleDict({"layer": layer})


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (parametrized, "parametrized"),
        (lambda: nn.ModuleDict({"layer": nn.LazyLinear(3)}), "lazy"),
        (lambda: nn.ModuleDict({"layer": nn.Linear(3, 3, device="meta")}), "meta"),
        (integer_weight, "quantised"),
        (lambda: with_weight(torch.ones(9)), "sharded or flattened"),
        (lambda: with_weight(torch.ones(3, 0)), "empty"),
    ],
)
def test_weights_that_cannot_be_drawn_are_left_alone_with_a_reason(net, reason):
    module = net()
    bias = module["layer"].bias
    before = None if reason in {"lazy", "meta"} else bias.detach().clone()
    records = initialize_(module)
    assert reason in records[0].reason
    assert not any(record.scheme for record in records)
    assert before is None or torch.equal(bias, before)


def test_biases_can_be_kept():
    same, _ = unchanged(nn.Linear(3, 3), options(bias="keep"))
    assert same == {"bias"}


# --- random numbers ----------------------------------------------------------------------------


def test_the_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    torch.set_rng_state(state)
    initialize_(first, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    initialize_(second, seed=3)
    assert torch.equal(first.weight, second.weight)
    initialize_(second, seed=4)
    assert not torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_gets_the_same_weights_up_to_rounding(dtype):
    layer, reference = nn.Linear(64, 64, dtype=dtype), nn.Linear(64, 64)
    settings = options(scheme="orthogonal")
    initialize_(layer, settings)
    initialize_(reference, settings)
    if dtype != torch.float64:  # the generator draws other numbers in double precision
        assert torch.equal(layer.weight, reference.weight.to(dtype))
    assert torch.linalg.svdvals(layer.weight.detach().double()) == pytest.approx(1, abs=0.02)


def test_names_are_without_the_prefix_of_compiled_parts():
    net = nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager"), nn.Linear(2, 2))
    assert [site.name for site in weight_sites(net)] == ["0.weight", "1.weight"]


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["zeros", "ones", "constant"])
def test_equal_weights_are_refused_with_the_reason(scheme):
    with pytest.raises(InvalidArgumentError, match="stay identical for ever"):
        options(scheme=scheme)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "xavier_norm"}, "Did you mean 'xavier_normal'"),
        ({"gain": 0.0}, "`gain` must be > 0"),
        ({"gain": -1.0}, "`gain` must be > 0"),
        ({"bias": "ones"}, "`bias` must be one of 'zeros', 'keep'"),
        ({"embedding_std": 0.0}, "`embedding_std` must be > 0"),
        ({"exclude": "head.*"}, r"`exclude` must be a list"),
        ({"exclude": [1]}, r"`exclude` must be a list"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        options(**arguments)

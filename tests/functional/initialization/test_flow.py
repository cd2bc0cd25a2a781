"""What precedes a weight is read from what a batch does, whatever the module looks like."""

import copy
import math

import pytest
import torch
from helpers.initialization_programs import IMAGES, X, found, preceding, program
from helpers.small_modules import FromParts
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own habit

from lightning_stab.functional.initialization import (
    Program,
    initialize_,
)

NAMED_ALIKE = ("ReLU", "GELU", "SiLU", "Softplus", "Hardswish", "ELU", "SELU", "ReLU6", "Mish")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        *[(getattr(F, name.lower()), name) for name in NAMED_ALIKE],
        (torch.relu_, "ReLU"),
        (F.leaky_relu, "LeakyReLU"),
        (torch.sigmoid, "Sigmoid"),
        (torch.tanh, "Tanh"),
        (nn.PReLU(), "PReLU"),
        (nn.ReLU(inplace=True), "ReLU"),
        (lambda x: x.clamp_min(0), "clamp_min"),
        (lambda x: x * torch.sigmoid(1.702 * x), "sigmoid+mul"),
    ],
)
def test_an_activation_called_as_a_function_is_seen(function, name):
    net = FromParts(lambda m, x: m.b(function(m.a(x))), a=nn.Linear(8, 8), b=nn.Linear(8, 2))
    assert preceding(net, X) == {"a.weight": "input", "b.weight": name}


def test_the_order_of_declaration_does_not_matter():
    net = FromParts(
        lambda m, x: m.last(m.act(m.middle(torch.tanh(m.first(x))))),
        last=nn.Linear(8, 2),
        act=nn.ReLU(),
        middle=nn.Linear(8, 8),
        first=nn.Linear(8, 8),
    )
    assert preceding(net, X) == {
        "last.weight": "ReLU", "middle.weight": "Tanh", "first.weight": "input",
    }  # fmt: skip


@pytest.mark.parametrize(
    "between",
    [
        lambda x: F.dropout(x, 0.5),
        lambda x: x.reshape(2, 3, 8).transpose(0, 1).reshape(6, 8),
        lambda x: 0.5 * x + 1,
        lambda x: torch.cat([x, x], 1)[:, :8],
        lambda x: F.pad(x, (1, 1))[:, 1:-1],
        lambda x: x.double().float(),
    ],
)
def test_what_keeps_the_signal_is_looked_through(between):
    net = FromParts(lambda m, x: m.b(between(F.relu(m.a(x)))), a=nn.Linear(8, 8), b=nn.Linear(8, 2))
    assert preceding(net, X)["b.weight"] == "ReLU"


def test_norms_give_gain_one_and_an_activation_after_a_norm_its_own():
    net = nn.Sequential(
        *(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        *(nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2)),
    )
    assert found(net, X) == {
        "0.weight": ("input", "orthogonal"),
        "3.weight": ("ReLU", "kaiming_normal"),
        "6.weight": ("norm", "orthogonal"),
    }


def test_a_hand_written_norm_is_a_norm():
    def normed(x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)

    net = FromParts(
        lambda m, x: m.b(normed(torch.relu(m.a(x)))), a=nn.Linear(8, 8), b=nn.Linear(8, 2)
    )
    assert preceding(net, X)["b.weight"] == "norm"


def residual(m, x):
    h = m.stem(x)
    for block in m.blocks:
        h = h + block[1](F.relu(block[0](F.layer_norm(h, (8,)))))
    return m.head(h)


def residual_net():
    blocks = nn.ModuleList(nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 8)]) for _ in range(4))
    return FromParts(residual, stem=nn.Linear(8, 8), blocks=blocks, head=nn.Linear(8, 2))


def test_the_last_layer_of_a_residual_branch_is_scaled_down():
    net = residual_net()
    records = {r.name: r for r in initialize_(net, program=program(net, X))}
    assert records["blocks.2.0.weight"].preceding == "norm"
    assert records["blocks.2.1.weight"].preceding == "ReLU"
    assert records["blocks.2.1.weight"].scheme == "kaiming_normal"
    assert records["blocks.2.1.weight"].gain == pytest.approx(math.sqrt(2) / math.sqrt(4))
    assert records["head.weight"].preceding == "sum"
    assert records["stem.weight"].gain == 1.0


def test_a_branch_that_is_added_to_the_raw_input_counts_as_one():
    net = residual_net()
    net.stem = nn.Identity()
    records = {r.name: r for r in initialize_(net, program=program(net, X))}
    for block in range(4):
        gain = records[f"blocks.{block}.1.weight"].gain
        assert gain == pytest.approx(math.sqrt(2) / math.sqrt(4))
    net = FromParts(
        lambda m, x: m.c(F.relu(x + m.b(F.relu(m.a(x))))),
        **{name: nn.Linear(8, 8) for name in "abc"},
    )
    assert found(net, X) == {
        "a.weight": ("input", "orthogonal"),
        "b.weight": ("ReLU", "kaiming_normal"),
        "c.weight": ("ReLU", "kaiming_normal"),
    }


def test_noise_of_the_shape_of_the_data_makes_no_branch():
    def forward(m, x):
        h = m.stem(x)
        for block in m.blocks:
            h = h + block[1](F.relu(block[0](torch.rand_like(h))))
        return m.head(h)

    net = residual_net()
    net.function = forward
    records = {r.name: r for r in initialize_(net, program=program(net, X))}
    assert records["blocks.2.1.weight"].scheme == "mirrored orthogonal"


@pytest.mark.parametrize("shape", [(6, 8), (6, 2, 4)])
def test_the_error_against_the_input_is_no_branch(shape):
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def loss(twin):
        x = X.view(shape).flatten(1)
        return (twin(x) - x).square().mean()

    records = initialize_(net, program=Program(lambda: copy.deepcopy(net), loss))
    assert [r.scheme for r in records] == ["mirrored orthogonal"] * 2


class PassingNorm(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    "first",
    [PassingNorm(), nn.Tanh(), nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Tanh())],
)
def test_whatever_is_done_to_the_raw_input_it_stays_the_input(first):
    net = nn.Sequential(first, nn.Linear(8, 2))
    assert found(net, X) == {"1.weight": ("input", "orthogonal")}


def test_a_saturating_activation_after_a_norm():
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    assert found(net, X)["3.weight"] == ("Tanh", "xavier_normal")


def test_convolutions_transposed_ones_and_pools():
    net = nn.Sequential(
        *(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.ConvTranspose2d(8, 4, 2, stride=2), nn.SiLU()),
        *(nn.Conv2d(4, 4, 3, groups=4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4, 2),
    )
    assert found(net, IMAGES) == {
        "0.weight": ("input", "orthogonal"),
        "3.weight": ("ReLU", "kaiming_normal"),
        "5.weight": ("SiLU", "kaiming_normal"),
        "9.weight": ("Tanh", "balanced orthogonal"),
    }


def test_a_tied_weight_is_drawn_once_by_its_first_use():
    net = FromParts(
        lambda m, x: m.b(F.relu(m.a(torch.tanh(m.a(x))))), a=nn.Linear(8, 8), b=nn.Linear(8, 8)
    )
    net.b.weight = net.a.weight
    assert found(net, X) == {"a.weight": ("input", "orthogonal")}
    assert net.b.weight is net.a.weight


def test_transformer_layers():
    layer = nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, batch_first=True)
    net = nn.Sequential(
        nn.Linear(8, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    )
    records = initialize_(net, program=program(net, torch.randn(2, 5, 8)))
    first = {r.name: (r.preceding, r.gain) for r in records if "layers.0" in r.name}
    assert first == {
        "1.layers.0.self_attn.in_proj_weight": ("norm", 1.0),
        "1.layers.0.self_attn.out_proj.weight": ("attention", pytest.approx(1 / 2)),
        "1.layers.0.linear1.weight": ("norm", 1.0),
        "1.layers.0.linear2.weight": ("ReLU", pytest.approx(math.sqrt(2) / 2)),
    }
    for block in net[1].layers[0].self_attn.in_proj_weight.detach().chunk(3):
        assert torch.allclose(block @ block.T, torch.eye(8), atol=1e-5)


def test_recurrent_layers_and_what_follows_them():
    net = FromParts(
        lambda m, x: m.head(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(8, 4), head=nn.Linear(4, 2)
    )
    assert found(net, torch.randn(3, 6, 8)) == {
        "lstm.weight_ih_l0": ("input", "orthogonal gates"),
        "lstm.weight_hh_l0": ("input", "orthogonal gates"),
        "head.weight": ("recurrent", "orthogonal"),
    }
    for gate in net.lstm.weight_hh_l0.detach().chunk(4):
        assert torch.allclose(gate @ gate.T, torch.eye(4), atol=1e-5)
    forget = (net.lstm.bias_ih_l0 + net.lstm.bias_hh_l0).detach().chunk(4)
    assert [part.mean().item() for part in forget] == [0, 1, 0, 0]


def test_embeddings_stay_and_the_layer_after_one_has_gain_one():
    net = FromParts(
        lambda m, x: m.head(m.table(x).mean(1)), table=nn.Embedding(9, 8, 0), head=nn.Linear(8, 2)
    )
    assert found(net, torch.randint(0, 9, (3, 4))) == {
        "table.weight": ("input", "embedding, not asked for"),
        "head.weight": ("linear", "orthogonal"),
    }


def test_a_layer_behind_a_frozen_and_detached_one_is_seen():
    net = FromParts(
        lambda m, x: m.head(F.relu(m.back(x)).detach()), back=nn.Linear(8, 8), head=nn.Linear(8, 2)
    )
    net.back.requires_grad_(False)
    assert found(net, X) == {
        "back.weight": ("input", "frozen"), "head.weight": ("ReLU", "kaiming_normal"),
    }  # fmt: skip


def test_under_autocast_the_same_is_found():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))

    def loss(twin):
        with torch.autocast("cpu", torch.bfloat16):
            return twin(X).float().square().mean()

    records = initialize_(net, program=Program(lambda: copy.deepcopy(net), loss))
    assert [r.preceding for r in records] == ["input", "Tanh"]


def test_a_layer_that_the_batch_does_not_reach_goes_by_declaration():
    net = FromParts(lambda m, x: m.a(x), a=nn.Linear(8, 2), act=nn.ReLU(), b=nn.Linear(8, 2))
    assert found(net, X)["b.weight"] == ("ReLU", "kaiming_normal")

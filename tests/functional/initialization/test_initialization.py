import math

import pytest
import torch
from torch import nn

from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.initialization import (
    InitializationSettings,
    initialize_,
    weight_sites,
)


def options(**arguments):
    return InitializationSettings(**arguments)


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
    settings = options(scheme="xavier_normal")  # only `auto` has a rule for recurrent layers
    net["table"] = Table()
    net["norm"].weight.data.uniform_()
    same, reasons = unchanged(net, settings)
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


def test_an_embedding_without_a_padding_row_is_drawn_whole():
    embedding = nn.Embedding(40, 10)
    initialize_(embedding, options(embedding_std=0.02))
    assert (embedding.weight != 0).all()


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

"""What the automatic choice draws: exactly linear, balanced, or rescaled on the batch."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from helpers.tiers import in_tiers
from torch import nn

from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.initialization import (
    InitializationSettings,
    Program,
    initialize_,
)

ACTIVATIONS = {
    "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU, "silu": nn.SiLU, "selu": nn.SELU, "elu": nn.ELU,
}  # fmt: skip
MIRRORED = {**ACTIVATIONS, "softplus": nn.Softplus, "hardswish": nn.Hardswish}
for balanced in ("sigmoid", "tanh", "selu", "elu"):
    del MIRRORED[balanced]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(net, batch, scheme="auto", seed=0, **arguments):
    settings = InitializationSettings(scheme, **arguments)
    program = Program(lambda: copy.deepcopy(net), lambda twin: twin(batch).square().mean())
    return initialize_(net, settings, seed, program)


def plain_net(activation, depth, width=128, features=64, biased=True):
    sizes = [features] + [width] * depth
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b, bias=biased), activation())]
    return nn.Sequential(*layers, nn.Linear(width, 10, bias=biased))


def profile(net, batch, classes):
    """Return the std of each layer's result over a batch, and its gradient's RMS."""
    results, value = [], batch
    for part in net:
        value = part(value)
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            value.retain_grad()
            results.append(value)
    nn.functional.cross_entropy(value, classes).backward()
    signal = [z.detach().transpose(0, 1).flatten(1).var(1).mean().sqrt().item() for z in results]
    return signal, [z.grad.square().mean().sqrt().item() for z in results]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_fifty_plain_layers_keep_signal_and_gradient(name, seed):
    net = plain_net(ACTIVATIONS[name], 50)
    drawn(net, torch.randn(64, 64, generator=seeded(seed)), seed=seed)
    held_out = torch.randn(128, 64, generator=seeded(seed + 100))
    signal, gradient = profile(net, held_out, torch.arange(128) % 10)
    assert min(signal) > 0.5
    assert max(signal) < 2
    assert 0.1 < gradient[0] / gradient[-2] < 10


@pytest.mark.parametrize(
    ("activation", "depth"),
    [pytest.param(nn.Tanh, 200, marks=pytest.mark.nightly), (nn.SELU, 100)],
)
def test_very_deep_plain_nets_keep_signal_and_gradient(activation, depth):
    net = plain_net(activation, depth, width=32, features=32)
    drawn(net, torch.randn(64, 32, generator=seeded()))
    signal, gradient = profile(net, torch.randn(64, 32, generator=seeded(5)), torch.arange(64) % 10)
    assert min(signal) > 0.2
    assert max(signal) < 2
    assert 0.05 < gradient[0] / gradient[-2] < 20


BY_QUADRATURE = {  # smooth ones without a rule of their own in the catalogue
    "mish": nn.functional.mish,
    "celu": nn.functional.celu,
    "softsign": nn.functional.softsign,
    "atan": torch.atan,
    "serf": lambda x: x * torch.erf(nn.functional.softplus(x)),
    "smish": lambda x: x * torch.tanh(torch.log1p(torch.sigmoid(x))),
    "logish": lambda x: x * torch.log1p(torch.sigmoid(x)),
    "tanhexp": lambda x: x * torch.tanh(torch.exp(x)),
    "x + sin^2": lambda x: x + torch.sin(x) ** 2,
    "x + sin": lambda x: x + torch.sin(x),
}


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", in_tiers(BY_QUADRATURE, ["mish", "softsign", "x + sin^2"]))
def test_fifty_layers_of_any_smooth_activation_keep_signal_and_gradient(name):
    net = plain_net(lambda: Of(BY_QUADRATURE[name]), 50)
    drawn(net, torch.randn(64, 64, generator=seeded()))
    signal, gradient = profile(
        net, torch.randn(128, 64, generator=seeded(9)), torch.arange(128) % 10
    )
    # softsign and atan bend every signal, so that they lose a part of it; the others keep it
    assert min(signal) > 0.3
    assert max(signal) < 2
    assert 0.1 < gradient[0] / gradient[-2] < 10


def test_mish_is_mirrored_for_it_is_nearly_linear_then():
    net = plain_net(nn.Mish, 50)
    records = drawn(net, torch.randn(64, 64, generator=seeded()))
    assert {record.scheme for record in records} == {"mirrored orthogonal"}
    # f(x) - f(-x) has the slope 1.2 at 0 and 1 far away: the gain lies between
    assert all(1 / 1.2 < record.gain < 1 for record in records[1:])
    assert len({record.gain for record in records[1:]}) == 1


@pytest.mark.parametrize("name", MIRRORED)
def test_a_mirrored_net_is_exactly_linear_at_the_start(name):
    net = plain_net(MIRRORED[name], 20, width=32).double()
    records = drawn(net, torch.randn(16, 64, generator=seeded()).double())
    assert {r.scheme for r in records} == {"mirrored orthogonal"}
    a, b = torch.randn(2, 5, 64, generator=seeded(3)).double()
    with torch.no_grad():
        combined = net(2 * a - 3 * b)
        assert torch.allclose(combined, 2 * net(a) - 3 * net(b), atol=1e-8)


def test_a_mirrored_convolutional_net_is_linear_too():
    layers = [m for _ in range(6) for m in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *layers, nn.Flatten(), nn.Linear(128, 4))
    net = net.double()
    records = drawn(net, torch.randn(4, 3, 6, 6, generator=seeded()).double())
    assert {r.scheme for r in records} == {"mirrored orthogonal"}
    assert torch.count_nonzero(net[4].weight) == 64  # the central tap alone
    a, b = torch.randn(2, 2, 3, 6, 6, generator=seeded(3)).double()
    with torch.no_grad():
        assert torch.allclose(net(a + b), net(a) + net(b), atol=1e-8)


def two_consumers():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, x):
            hidden = torch.relu(self.a(x))
            return self.b(hidden) * self.c(hidden)

    return Forked()


@pytest.mark.parametrize(
    "net",
    [
        lambda: nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2)),
        two_consumers,
        lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.ChannelShuffle(2), nn.Linear(8, 2)),
    ],
    ids=["odd width", "two consumers", "units out of order"],
)
def test_where_a_mirror_cannot_work_he_is_rescaled_once(net):
    module = net()
    if "ChannelShuffle" in repr(module):
        module[2] = Shuffle()
    batch = torch.randn(64, 8, generator=seeded())
    records = drawn(module, batch)
    assert [r.scheme for r in records][1:] == ["kaiming_normal"] * (len(records) - 1)
    assert records[1].gain == pytest.approx(math.sqrt(2))
    last = module[-1] if isinstance(module, nn.Sequential) else module.b
    seen = []
    last.register_forward_hook(lambda *args: seen.append(args[-1]))
    module(batch)
    assert seen[0].std(correction=0).item() == pytest.approx(1, rel=1e-3)


class Shuffle(nn.Module):
    def forward(self, x):
        return x[:, [0, 4, 1, 5, 2, 6, 3, 7]]


def test_an_input_far_from_standard_is_brought_to_scale():
    net = plain_net(nn.ReLU, 3, width=16)
    batch = 300 * torch.randn(64, 64, generator=seeded())
    drawn(net, batch)
    assert net[0](batch).std().item() == pytest.approx(1, rel=0.05)


def test_an_unknown_activation_gets_its_gain_by_quadrature():
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(x)

    net = plain_net(Sine, 50)
    records = drawn(net, torch.randn(64, 64, generator=seeded()))
    assert {(r.preceding, r.scheme) for r in records[1:]} == {("sin", "balanced orthogonal")}
    signal, gradient = profile(net, torch.randn(64, 64), torch.arange(64) % 10)
    assert min(signal) > 0.4
    assert 0.1 < gradient[0] / gradient[-2] < 10


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_an_elu_of_another_alpha_has_gains_of_its_own(alpha):
    net = plain_net(lambda: nn.ELU(alpha), 50)
    records = drawn(net, torch.randn(64, 64, generator=seeded()))
    assert abs(records[1].gain - 1.245) > 0.05
    signal, gradient = profile(net, torch.randn(64, 64, generator=seeded(1)), torch.arange(64) % 10)
    assert min(signal) > 0.2
    assert max(signal) < 3
    assert 0.1 < gradient[0] / gradient[-2] < 10


def test_a_sigmoids_output_is_centred_by_the_bias():
    net = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8))
    drawn(net, torch.randn(32, 8, generator=seeded()))
    assert net[2](torch.full((1, 8), 0.5)).abs().max().item() < 1e-6


@pytest.mark.parametrize("centred", [False, True])
def test_lsuv_gives_each_layer_unit_variance_in_one_pass(centred):
    net = plain_net(nn.ReLU, 8, width=32)
    batch = torch.randn(128, 64, generator=seeded())
    records = drawn(net, batch, "lsuv_centered" if centred else "lsuv")
    value = batch
    for part in net:
        value = part(value)
        if isinstance(part, nn.Linear):
            std = value.var(0, correction=0).mean().sqrt() if centred else value.std()
            assert std.item() == pytest.approx(1, rel=2e-3)
            assert not centred or value.mean(0).abs().max().item() < 1e-4
    assert records[3].activation_std_after is not None


def test_lsuv_without_a_batch_is_refused():
    from lightning_stab.errors import InvalidArgumentError

    with pytest.raises(InvalidArgumentError, match="needs no data where there is no batch"):
        initialize_(nn.Linear(2, 2), InitializationSettings("lsuv"))


def test_schemes_by_class_and_name_include_and_keep():
    net = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Conv1d(4, 4, 1)})
    settings = InitializationSettings(
        "orthogonal", schemes={"b": "keep", "Conv1d": "kaiming_uniform"}
    )
    found = {r.name: r.reason or r.scheme for r in initialize_(net, settings)}
    assert found == {
        "a.weight": "orthogonal", "b.weight": "to be kept", "c.weight": "kaiming_uniform",
    }  # fmt: skip
    only = initialize_(net, InitializationSettings(include=["b.*"]))
    assert [r.reason for r in only] == ["not included", "", "not included"]


def test_the_output_bias_can_start_at_the_logarithm_of_the_prior():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    drawn(net, torch.randn(8, 4), output_prior=[1, 2, 1])
    assert torch.allclose(net[2].bias.exp(), torch.tensor([0.25, 0.5, 0.25]))
    assert not net[0].bias.any()


def test_buffers_modes_and_random_state_stay():
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    net[2].eval()
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    state, modes = torch.get_rng_state(), [part.training for part in net.modules()]
    drawn(net, torch.randn(8, 8, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())
    assert not any(p.grad is not None for p in net.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_a_layer_after_a_norm_can_feed_a_mirrored_one():
    net = nn.Sequential(
        *(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        *(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)),
    )
    records = drawn(net, torch.randn(16, 8, generator=seeded()))
    assert [r.scheme for r in records] == ["orthogonal", *["mirrored orthogonal"] * 2]
    assert records[1].gain == pytest.approx(math.sqrt(2))
    assert torch.equal(net[3].weight[:4], -net[3].weight[4:])


@pytest.mark.parametrize("layer", [nn.GRU(4, 5), nn.RNN(4, 5), nn.LSTMCell(4, 5)])
def test_gates_without_a_batch(layer):
    initialize_(layer)
    weights = [p for name, p in layer.named_parameters() if name.startswith("weight_hh")]
    for gate in weights[0].detach().chunk(weights[0].shape[0] // 5):
        assert torch.allclose(gate @ gate.T, torch.eye(5), atol=1e-5)


@pytest.mark.parametrize("prior", [5, "ab", {"a": 1}])
def test_an_output_prior_that_is_no_list_is_refused(prior):
    with pytest.raises(InvalidArgumentError, match="`output_prior` must be a list of frequencies"):
        InitializationSettings(output_prior=prior)


def test_an_output_prior_of_another_size_is_refused():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    with pytest.raises(InvalidArgumentError, match="got 2 values and 0 such layers"):
        drawn(net, torch.randn(8, 4), output_prior=[1, 2])

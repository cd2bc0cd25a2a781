"""The probe sees what ran, once and under the right name, changes nothing, and leaves no trace."""

import copy
import math
import pickle

import pytest
import torch
from helpers.comparing import hooks_of
from helpers.small_modules import FromParts, counting_backend
from torch import nn
from torch._C import _len_torch_function_stack
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from lightning_stab.callbacks.activations.probe import ActivationProbe
from lightning_stab.callbacks.activations.recognition import WEIGHT_FUNCTIONS, unit_layout_of
from lightning_stab.functional.activation_kinds import FLAT

MEAN, STD, DEAD, SATURATED, INPUT_STD, SAMPLES = range(6)


def probed(module, *batches, backward=True):
    """Watch training batches and return the probe, and its rows by layer."""
    torch.manual_seed(0)
    probe = ActivationProbe()
    probe.install(module)
    for batch in batches:
        probe.begin_batch()
        output = module(batch)
        probe.pause()
        if backward:
            output.sum().backward()
    probe.remove()
    assert not hooks_of(module)
    assert _len_torch_function_stack() == 0
    names = [layer.name for layer in probe.layers]
    return probe, dict(zip(names, probe.values().tolist(), strict=True))


def x(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(activation, last=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3), *([last] if last else []))


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("inplace", [False, True])
def test_the_row_of_a_relu(inplace):
    net = mlp(nn.ReLU(inplace=inplace))
    net[0].bias.data[2] = -100.0
    z = net[0](x(32, 4)).detach()
    probe, rows = probed(net, x(32, 4))
    row, out = rows["1"], torch.relu(z)
    assert [layer.kind for layer in probe.layers] == ["relu"]
    assert row[MEAN] == pytest.approx(out.mean().item(), rel=1e-5)
    assert row[STD] == pytest.approx(out.std().item(), rel=1e-5)
    assert row[DEAD] == pytest.approx(1 / 6)
    assert math.isnan(row[SATURATED])
    assert row[INPUT_STD] == pytest.approx(z.var(0, correction=0).mean().sqrt().item(), rel=1e-5)
    assert row[SAMPLES] == 32
    assert probe.unseen == ""


def test_the_row_of_a_sigmoid():
    net = mlp(nn.Sigmoid())
    net[0].weight.data.mul_(20)
    z = net[0](x(32, 4)).detach()
    _, rows = probed(net, x(32, 4))
    s = torch.sigmoid(z.double())
    expected = (s * (1 - s) < FLAT / 4).double().mean().item()
    assert 0.2 < expected < 0.9
    assert rows["1"][SATURATED] == pytest.approx(expected)
    assert math.isnan(rows["1"][DEAD])


def test_a_window_is_its_batches_taken_together():
    batches = [x(n, 4, seed=n) for n in (5, 9, 1)]
    _, apart = probed(mlp(nn.ReLU()), *batches)
    _, together = probed(mlp(nn.ReLU()), torch.cat(batches))
    columns = [MEAN, STD, DEAD, SAMPLES]
    assert [apart["1"][c] for c in columns] == pytest.approx([together["1"][c] for c in columns])


def test_a_unit_that_fires_in_one_batch_of_the_window_is_alive():
    net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(2, 1))
    batches = [torch.tensor([[-1.0, -1.0]] * 4), torch.tensor([[1.0, -1.0]] * 4)]
    assert probed(net, batches[0])[1]["1"][DEAD] == 1
    assert probed(net, *batches)[1]["1"][DEAD] == 0.5


def test_dead_units_are_followed_without_the_other_statistics():
    net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(2, 1))
    probe = ActivationProbe()
    probe.install(net)
    net(torch.tensor([[-1.0, -2.0]]))
    probe.begin_batch(full=False)
    net(torch.tensor([[3.0, -2.0]]))
    probe.remove()
    assert probe.values()[0, [MEAN, DEAD, SAMPLES]].tolist() == [0, 0.5, 2]
    probe.record.forget_statistics()
    assert probe.values()[0, DEAD] == 0.5
    assert probe.values()[0, [MEAN, STD, INPUT_STD]].isnan().all()


def test_channels_are_units_after_a_convolution_and_features_elsewhere():
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    net = nn.Sequential(conv, nn.Linear(64, 2))
    conv[1].bias.data[1] = -100.0
    assert probed(net, x(3, 1, 6, 6))[1]["0.2"][DEAD] == 0.25
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.GELU(), nn.Conv1d(4, 1, 3))
    net[0].bias.data[1] = -100.0
    assert probed(net, x(3, 2, 9))[1]["1"][DEAD] == 0.25
    block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    block.linear1.bias.data[:2] = -100.0
    block.linear1.bias.data[2:] = 100.0
    row = probed(nn.Sequential(block, nn.Linear(4, 1)), x(3, 5, 4))[1]["0.relu"]
    assert (row[DEAD], row[SAMPLES]) == (0.25, 15)


def test_a_nan_shows_and_does_not_spread():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    net[2].bias.data[0] = math.nan
    _, rows = probed(net, x(8, 4))
    assert math.isfinite(rows["1"][STD])
    assert math.isnan(rows["3"][STD])
    assert rows["3"][DEAD] < 1


# --- what is a layer, and its name ----------------------------------------------------------------

FUNCTIONS = {
    "relu": [torch.relu, functional.relu, torch.Tensor.relu, torch.relu_, functional.relu_],
    "sigmoid": [torch.sigmoid, torch.Tensor.sigmoid, functional.sigmoid, torch.special.expit],
    "tanh": [torch.tanh, torch.Tensor.tanh_, functional.tanh],
    "gelu": [functional.gelu],
    "silu": [functional.silu],
    "mish": [functional.mish],
    "elu": [functional.elu, functional.elu_],
    "selu": [torch.selu, functional.selu],
    "celu": [torch.celu, functional.celu],
    "leaky_relu": [functional.leaky_relu, functional.leaky_relu_],
    "relu6": [functional.relu6],
    "rrelu": [functional.rrelu],
    "softplus": [functional.softplus],
    "softsign": [functional.softsign],
    "hardtanh": [functional.hardtanh],
    "hardswish": [functional.hardswish],
    "hardsigmoid": [functional.hardsigmoid],
    "logsigmoid": [functional.logsigmoid],
    "softshrink": [functional.softshrink],
    "hardshrink": [functional.hardshrink, torch.hardshrink],
    "tanhshrink": [functional.tanhshrink],
    "threshold": [lambda z: functional.threshold(z, 0.1, 0.0)],
    "prelu": [lambda z: functional.prelu(z, torch.ones(1))],
}


@pytest.mark.filterwarnings("ignore:nn.functional.*is deprecated")
@pytest.mark.parametrize(("kind", "function"), [(k, f) for k, fs in FUNCTIONS.items() for f in fs])
def test_functions_are_seen_once(kind, function):
    part = FromParts(lambda own, z: function(own.linear(z)), linear=nn.Linear(4, 4))
    probe, rows = probed(nn.Sequential(part, nn.Linear(4, 1)), x(5, 4))
    assert [(layer.name, layer.kind) for layer in probe.layers] == [(f"0.{kind}", kind)]
    assert rows[f"0.{kind}"][SAMPLES] == 5


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.LeakyReLU(0.0), nn.Hardtanh(0.0, 1.0), nn.Threshold(0.0, 0.0), nn.ReLU6()],
)
def test_modules_are_seen_once_with_their_own_parameters(module):
    net = mlp(module)
    net[0].bias.data[:] = -100.0
    _, rows = probed(net, x(5, 4))
    assert list(rows) == ["1"]
    assert rows["1"][DEAD] == 1


def test_a_handwritten_activation_is_known_by_the_name_of_its_class():
    class QuickGELUActivation(nn.Module):
        def forward(self, z):
            return z * torch.sigmoid(1.702 * z)

    probe, _ = probed(mlp(QuickGELUActivation()), x(5, 4))
    assert [(layer.name, layer.kind) for layer in probe.layers] == [("1", "gelu")]


def test_a_shared_module_counts_once_for_each_layer_before_it():
    def forward(own, z):
        return own.c(own.act(own.b(own.act(own.a(z)))))

    parts = {n: nn.Linear(4, 4) for n in "abc"}
    assert list(probed(FromParts(forward, act=nn.ReLU(), **parts), x(5, 4))[1]) == ["act", "act_2"]


def test_a_recurrence_is_one_layer():
    def forward(own, z):
        h = torch.zeros(len(z), 4)
        for step in z.unbind(1):
            h = torch.tanh(own.into(step) + own.back(h))
        return own.out(h)

    parts = {"into": nn.Linear(3, 4), "back": nn.Linear(4, 4), "out": nn.Linear(4, 1)}
    _, rows = probed(FromParts(forward, **parts), x(5, 50, 3))
    assert list(rows) == ["tanh"]
    assert rows["tanh"][SAMPLES] == 5 * 50


def test_a_unit_that_fires_in_one_of_two_calls_is_alive():
    net = FromParts(lambda own, z: own.last(own.net(z) + own.net(-z)), net=mlp(nn.ReLU()))
    net.net.append(nn.ReLU())
    net.last = nn.Linear(3, 1)
    net.net[0].weight.data[:3] = 1.0
    net.net[0].bias.data[:] = -1.0
    net.net[0].weight.data[3:] = 0.0
    probe, rows = probed(net, torch.ones(5, 4))
    assert [layer.name for layer in probe.layers] == ["net.1", "net.3"]
    assert rows["net.1"][DEAD] == 0.5
    assert rows["net.1"][SAMPLES] == 10


def test_outputs_of_the_net_are_no_activations():
    for last in (nn.Sigmoid(), nn.Tanh(), nn.Softmax(1), nn.LogSoftmax(1)):
        assert list(probed(mlp(nn.ReLU(), last), x(5, 4))[1]) == ["1"]
    probe, _ = probed(mlp(nn.ReLU(), nn.Sigmoid()), x(5, 4))
    sites = probe.record.sites.values()
    assert [(site.base, site.is_head) for site in sites] == [("1", False), ("3", True)]


def test_two_heads_and_a_head_that_runs_twice():
    def two_heads(own, z):
        h = torch.relu(own.body(z))
        first = torch.sigmoid(own.one(h))
        return first + torch.tanh(own.two(h))

    parts = {"body": nn.Linear(4, 4), "one": nn.Linear(4, 1), "two": nn.Linear(4, 1)}
    assert list(probed(FromParts(two_heads, **parts), x(5, 4))[1]) == ["relu"]
    twice = FromParts(lambda own, z: own.net(z) - own.net(-z), net=mlp(nn.ReLU(), nn.Sigmoid()))
    assert list(probed(twice, x(5, 4))[1]) == ["net.1"]


def test_parameters_without_modules_are_weights_too():
    weights = nn.ParameterList([torch.randn(4, 4), torch.randn(4, 4), torch.randn(4, 1)])

    def forward(own, z):
        return torch.relu(torch.relu(z @ own.w[0]).matmul(own.w[1])).mm(own.w[2])

    assert list(probed(FromParts(forward, w=weights), x(5, 4))[1]) == ["relu", "relu_2"]


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.RNN(3, 4, batch_first=True), "tanh"),
        (nn.RNN(3, 4, nonlinearity="relu", batch_first=True), "relu"),
        (nn.LSTM(3, 4, batch_first=True), "lstm"),
        (nn.GRU(3, 4, batch_first=True), "gru"),
    ],
)
def test_recurrent_layers_show_their_output(layer, kind):
    net = FromParts(lambda own, z: own.out(own.rnn(z)[0][:, -1]), rnn=layer, out=nn.Linear(4, 1))
    probe, rows = probed(net, x(5, 7, 3))
    assert [(seen.name, seen.kind) for seen in probe.layers] == [("rnn", kind)]
    expected = layer(x(5, 7, 3))[0]
    assert rows["rnn"][MEAN] == pytest.approx(expected.mean().item(), rel=1e-4)
    assert rows["rnn"][STD] == pytest.approx(expected.std().item(), rel=1e-4)
    assert math.isnan(rows["rnn"][SATURATED]) == (kind != "tanh")
    assert math.isnan(rows["rnn"][DEAD]) == (kind != "relu")
    assert ("`rnn`" in probe.unseen) == (kind in ("lstm", "gru"))


def test_a_saturated_rnn_shows_it():
    layer = nn.RNN(3, 4, batch_first=True)
    layer.bias_ih_l0.data[:2] = 50.0
    net = FromParts(lambda own, z: own.out(own.rnn(z)[0][:, -1]), rnn=layer, out=nn.Linear(4, 1))
    assert probed(net, x(5, 7, 3))[1]["rnn"][SATURATED] == pytest.approx(0.5, abs=0.1)


# --- what is not looked at ------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_forward_counts_once(reentrant):
    def forward(own, z):
        inner = checkpoint(lambda h: torch.relu(own.body(h)), own.first(z), use_reentrant=reentrant)
        return own.last(inner)

    body = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    net = FromParts(forward, first=nn.Linear(4, 4), body=body, last=nn.Linear(4, 1))
    probe = ActivationProbe()
    probe.install(net)
    net(x(5, 4)).sum().backward()  # the probe is still on
    probe.remove()
    assert [layer.name for layer in probe.layers] == ["body.1", "relu"]
    assert probe.values()[:, SAMPLES].tolist() == [5, 5]


def test_evaluation_is_not_seen():
    net = mlp(nn.ReLU())
    probe = ActivationProbe()
    probe.install(net)
    with torch.no_grad():
        net.eval()(x(5, 4))
    probe.remove()
    assert probe.layers == []
    assert probe.values().shape == (0, 6)
    assert "no activation function ran" in probe.unseen


def test_a_paused_probe_sees_nothing_until_it_goes_on():
    net = mlp(nn.ReLU())
    probe = ActivationProbe()
    probe.install(net)
    probe.pause()
    net(x(5, 4))
    assert probe.layers == []
    probe.resume()
    net(x(5, 4))
    probe.remove()
    probe.resume()
    net(x(5, 4))
    assert probe.values()[:, SAMPLES].tolist() == [5]


def test_odd_tensors_are_passed_over():
    def forward(own, z):
        torch.relu(z[:, 0])  # one dimension: no units
        torch.sigmoid(z[:0])
        torch.tanh(z.to(torch.complex64))
        torch.relu(z.to_sparse())
        torch.vmap(torch.relu)(z[:, None])
        torch.func.grad(lambda v: torch.tanh(v).sum())(z)
        return own.out(torch.relu(own.first(z)))

    net = FromParts(forward, first=nn.Linear(4, 4), out=nn.Linear(4, 1))
    assert list(probed(net, x(5, 4))[1]) == ["relu"]


def test_units_that_change_their_number_are_not_followed():
    net = FromParts(lambda own, z: own.out(torch.relu(z).sum(1, keepdim=True)), out=nn.Linear(1, 1))
    probe, rows = probed(net, x(5, 4).requires_grad_(), x(5, 6).requires_grad_())
    assert math.isnan(rows["relu"][DEAD])
    assert math.isfinite(rows["relu"][STD])
    assert "the number of units of `relu` changes" in probe.unseen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("whole", [False, True])
def test_compiled_parts_are_told_and_never_compiled_again(whole):
    backend, compilations = counting_backend()

    inner = mlp(nn.ReLU())
    net = nn.Sequential(torch.compile(inner, backend=backend), nn.ReLU(), nn.Linear(3, 1))
    net = torch.compile(net, backend=backend) if whole else net
    net(x(5, 4)).sum().backward()
    before = len(compilations)
    probe, rows = probed(net, x(5, 4))
    net(x(5, 4))
    assert len(compilations) == before
    assert list(rows) == ([] if whole else ["1"])
    assert "is compiled" in probe.unseen


@pytest.mark.filterwarnings("ignore")
def test_compiled_functions_are_told_and_never_compiled_again():
    backend, compilations = counting_backend()

    gate = torch.compile(lambda z: z * torch.sigmoid(z), backend=backend)
    net = FromParts(
        lambda own, z: own.out(own.act(own.gate(z))), act=nn.ReLU(), out=nn.Linear(4, 1)
    )
    net.gate = gate
    net(x(5, 4)).sum().backward()
    before = len(compilations)
    probe, rows = probed(net, x(5, 4))
    net(x(5, 4))
    assert len(compilations) == before
    assert list(rows) == ["act"]
    assert "`gate`" in probe.unseen
    net.gate = torch.tanh  # what the compiler has left behind does not count
    assert list(probed(net, x(5, 4).requires_grad_())[1]) == ["tanh", "act"]


# --- nothing is changed, nothing stays ------------------------------------------------------------


def test_watching_changes_no_bit_and_draws_no_random_number():
    def trained(watch):
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        net = nn.Sequential(nn.Linear(4, 4), nn.RReLU(inplace=True), block, nn.Linear(4, 1))
        probe = ActivationProbe()
        if watch:
            probe.install(net)
        net(x(3, 5, 4)).sum().backward()
        probe.remove()
        return [p.grad for p in net.parameters()] + [torch.rand(3)]

    for watched, plain in zip(trained(True), trained(False), strict=True):
        assert torch.equal(watched, plain)


def test_an_exception_leaves_nothing_behind():
    def fails(own, z):
        torch.relu(own.inner(z))
        raise ValueError("on purpose")

    net = nn.Sequential(FromParts(fails, inner=mlp(nn.ReLU())), nn.Linear(3, 1))
    probe = ActivationProbe()
    probe.install(net)
    with pytest.raises(ValueError, match="on purpose"):
        net(x(5, 4))
    net[0].function = lambda own, z: torch.tanh(own.inner(z))
    net(x(5, 4))
    probe.remove()
    probe.remove()
    assert "0.tanh" in [layer.name for layer in probe.layers]
    assert not hooks_of(net)
    assert _len_torch_function_stack() == 0


def test_modes_entered_meanwhile_stay():
    class Other(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    net, probe = mlp(nn.ReLU()), ActivationProbe()
    with Other():
        probe.install(net)
        with Other(), torch.device("cpu"):
            net(x(5, 4))
            probe.remove()
            assert _len_torch_function_stack() == 3
    assert _len_torch_function_stack() == 0
    assert len(probe.layers) == 1


def test_a_watched_module_can_be_pickled_and_copied_and_its_copies_are_not_watched():
    net, probe = mlp(nn.ReLU()), ActivationProbe()
    probe.install(net)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        other(x(5, 4))
    assert probe.layers == []
    net(x(5, 4))
    probe.remove()
    assert [layer.name for layer in probe.layers] == ["1"]


@pytest.mark.parametrize(
    ("module", "dimension", "units"),
    [
        (nn.Linear(3, 5), -1, 5), (nn.Bilinear(3, 3, 5), -1, 5), (nn.Conv1d(3, 5, 1), -2, 5),
        (nn.Conv2d(3, 5, 1), -3, 5), (nn.Conv3d(3, 5, 1), -4, 5),
        (nn.ConvTranspose2d(3, 5, 1), -3, 5), (nn.BatchNorm1d(5), 1, 5), (nn.BatchNorm2d(5), 1, 5),
        (nn.InstanceNorm1d(5), 1, 5), (nn.GroupNorm(2, 6), 1, 6), (nn.LayerNorm((4, 5)), -1, 5),
    ],
)  # fmt: skip
def test_which_dimension_holds_the_units(module, dimension, units):
    layout = unit_layout_of(module)
    assert (layout.identity, layout.dimension, layout.features) == (id(module), dimension, units)
    assert unit_layout_of(nn.ReLU()) is unit_layout_of(nn.Embedding(3, 5)) is None


def made_of(*shape):
    return torch.ones(shape)


# calls of which five units come out, beside sizes of another number
CALLS_OF_FIVE = [
    (functional.linear, made_of(2, 3), made_of(5, 3)),
    (functional.bilinear, made_of(2, 3), made_of(2, 4), made_of(5, 3, 4)),
    (functional.conv1d, made_of(2, 3, 7), made_of(5, 3, 1)),
    (functional.conv2d, made_of(2, 3, 7, 8), made_of(5, 3, 1, 1)),
    (functional.conv3d, made_of(2, 3, 7, 8, 9), made_of(5, 3, 1, 1, 1)),
    (functional.conv_transpose1d, made_of(2, 3, 7), made_of(3, 5, 1)),
    (functional.conv_transpose2d, made_of(2, 3, 7, 8), made_of(3, 5, 1, 1)),
    (functional.conv_transpose3d, made_of(2, 3, 7, 8, 9), made_of(3, 5, 1, 1, 1)),
    (torch.addmm, made_of(5), made_of(2, 3), made_of(3, 5)),
    (torch.baddbmm, made_of(5), made_of(4, 2, 3), made_of(4, 3, 5)),
    *((f, made_of(2, 3), made_of(3, 5)) for f in (
        torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm)),
    *((f, made_of(4, 2, 3), made_of(4, 3, 5)) for f in (torch.bmm, torch.Tensor.bmm)),
    (torch.einsum, "ab,bc->ac", made_of(2, 3), made_of(3, 5)),
]  # fmt: skip


def test_a_weight_function_makes_its_units_in_the_dimension_that_the_table_says():
    for function, *args in CALLS_OF_FIVE:
        result = function(*args)
        places = [place for place, size in enumerate(result.shape) if size == 5]
        assert places == [result.dim() + WEIGHT_FUNCTIONS[function]], function
    none = {f for f, dimension in WEIGHT_FUNCTIONS.items() if dimension is None}
    assert none == {
        functional.multi_head_attention_forward, functional.scaled_dot_product_attention,
    }  # fmt: skip
    assert len(CALLS_OF_FIVE) == len(WEIGHT_FUNCTIONS) - 2


def test_without_moments_units_are_followed_and_saturation_is_measured_as_with_them():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    net[0].bias.data[2] = -100.0
    net[2].weight.data *= 50.0
    whole, lean = ActivationProbe(), ActivationProbe(moments=False)
    for probe in (whole, lean):
        probe.install(net)
        net(x(32, 4)).sum().backward()
        probe.remove()
    assert lean.layers[0].name == whole.layers[0].name == "1"
    for column in (DEAD, SATURATED, SAMPLES):
        torch.testing.assert_close(
            lean.values()[:, column], whole.values()[:, column], equal_nan=True
        )
    assert lean.values()[:, [MEAN, STD, INPUT_STD]].isnan().all()
    assert whole.values()[1, SATURATED] > 0.5

"""What is compiled is found in all its forms, and every probe sees the rest and names it."""

import pytest
import torch
from helpers.comparing import hooks_of
from helpers.lightning_twins import Classifier, batches, built, fit
from torch import nn

from lightning_stab import GradientClipping, GradientMonitor, TrainingDoctor
from lightning_stab.callbacks._hooks.compiled import (
    Hookable,
    compiled_functions,
    compiled_parts,
)
from lightning_stab.callbacks._hooks.layer_outputs import LayerProbe
from lightning_stab.callbacks.activations.probe import ActivationProbe

pytestmark = pytest.mark.filterwarnings(  # torch's own, in compiling
    "ignore:.*grad attribute of a Tensor.*", "ignore:.*torch.jit.*"
)
COMPILATIONS = []


def backend(graph, inputs):
    COMPILATIONS.append(graph)
    return graph.forward


def compiled(value):
    return torch.compile(value, backend=backend)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch._dynamo.reset()
    COMPILATIONS.clear()


class Block(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.linear, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.act(self.linear(x))


class CompiledForward(Block):
    """The method was compiled where the class is written."""

    forward = compiled(Block.forward)


class Excluded(Block):
    """Kept out of compilation, which leaves nearly the same marks."""

    forward = torch.compiler.disable(Block.forward)


class CompiledLinear(nn.Linear):
    """A layer that calls no module: its own hooks see all of it."""

    forward = compiled(nn.Linear.forward)


def in_place():
    block = Block()
    block.compile(backend=backend)
    return block


def on_the_instance():
    block = Block()
    block.forward = compiled(block.forward)
    return block


FORMS = {
    "torch.compile": lambda: compiled(Block()),
    "module.compile": in_place,
    "forward of the class": CompiledForward,
    "forward of the instance": on_the_instance,
    "torch.jit.script": lambda: torch.jit.script(Block()),
}


def net_with(part):
    """Return a net of a layer, a compiled part and two layers more."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), part, Block(), nn.Linear(4, 1))


@pytest.mark.parametrize("form", FORMS)
def test_a_compiled_part_is_named_and_the_rest_can_be_hooked(form):
    net = net_with(FORMS[form]())
    assert compiled_parts(net) == ["2"]
    names = [name for name, _ in Hookable(net).modules]
    border = [] if form in ("module.compile", "torch.jit.script") else ["2"]
    assert names == ["", "0", "1", *border, "3", "3.linear", "3.act", "4"]


@pytest.mark.parametrize("form", FORMS)
def test_every_probe_sees_the_rest_and_compiles_nothing_again(form):
    net, x = net_with(FORMS[form]()), torch.randn(5, 4)
    net(x).sum().backward()
    count = len(COMPILATIONS)
    layers, activations = LayerProbe(), ActivationProbe()
    layers.install(net)
    activations.install(net)
    net(x).sum().backward()
    layers.remove()
    activations.remove()
    net(x)
    assert len(COMPILATIONS) == count
    assert hooks_of(net) == []
    assert list(layers.gradient_rms()) == ["0", "3.linear", "4"]
    assert layers.compiled == ["2"]
    assert [layer.name for layer in activations.layers] == ["1", "3.act"]
    assert "`2` is compiled" in activations.unseen


@pytest.mark.parametrize(
    "make", [lambda: compiled(Block()), CompiledForward], ids=["wrapped", "forward"]
)
def test_an_activation_before_a_compiled_end_is_no_output_of_the_net(make):
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), make())
    probe = ActivationProbe()
    probe.install(net)
    net(torch.randn(5, 4)).sum().backward()
    probe.remove()
    assert [layer.name for layer in probe.layers] == ["1"]


def test_a_module_that_also_stands_in_a_compiled_part_is_passed_over():
    net = nn.Module()
    net.plain = Block()
    net.fast = compiled(net.plain)
    net.head = nn.Linear(4, 1)
    assert compiled_parts(net) == ["fast"]
    assert [name for name, _ in Hookable(net).modules] == ["", "fast", "head"]


def test_parts_inside_parts_are_named_once_and_the_whole_is_empty():
    net = compiled(nn.Sequential(compiled(Block()), Block()))
    assert compiled_parts(net) == [""]
    assert compiled_parts(nn.Sequential(net, nn.Linear(4, 4))) == ["0"]
    assert compiled_parts(compiled(Classifier())) == [""]

    class CompiledStep(Classifier):
        training_step = compiled(Classifier.training_step)

    assert compiled_parts(CompiledStep()) == [""]
    parts = Hookable(CompiledStep())
    assert (parts.modules, parts.compiled) == ([], [""])


def test_what_is_not_compiled_is_not_taken_for_it():
    for plain in (net_with(Block()), net_with(Excluded()), Classifier()):
        assert compiled_parts(plain) == []
        assert len(Hookable(plain).modules) == len(list(plain.modules()))
    assert compiled_functions([Excluded()]) == []


def test_a_layer_whose_forward_is_compiled_is_seen_by_its_own_hooks():
    net = nn.Sequential(CompiledLinear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    assert compiled_parts(net) == []
    assert compiled_functions(net.modules()) == ["forward"]
    probe = LayerProbe()
    probe.install(net)
    net(torch.randn(5, 4)).sum().backward()
    probe.remove()
    assert list(probe.gradient_rms()) == ["0", "2"]


# --- the callbacks --------------------------------------------------------------------------------


def partly_compiled():
    """Return a module of which the second of three blocks is compiled."""
    module = built(Classifier, logs=False)
    torch.manual_seed(0)
    blocks = [nn.Linear(8, 4), compiled(Block()), Block(), nn.Linear(4, 3)]
    module.net = nn.Sequential(*blocks)
    return module


def test_gradient_monitor_logs_the_rest_of_the_profile_and_says_so_once(caplog):
    with caplog.at_level("INFO"):
        trainer = fit(partly_compiled(), [GradientMonitor(1)], batches(3))
    values = trainer.logger.steps[1]
    layers = {n.partition("/")[2] for n in values if n.startswith("preactivation_grad/")}
    assert layers == {"net.0", "net.2.linear", "net.3"}
    assert "depth/first_last_log10" in values
    said = [r.getMessage() for r in caplog.records if "`GradientMonitor`" in r.getMessage()]
    assert len(said) == 1
    assert "`net.1` is compiled" in said[0]


def test_the_doctor_sees_the_rest_and_says_what_it_passes_over():
    doctor = TrainingDoctor(print_findings=False, every_n_steps=1)
    fit(partly_compiled(), [doctor], batches(3))
    (sentence,) = doctor.unseen
    assert sentence.startswith("`net.1` is compiled")
    known = doctor.state_dict()["patient"]["batches"]["known"]
    assert known["depth"] == 3
    assert "input_size" not in known  # what is compiled may stand first


def test_clipping_takes_the_last_declared_layer_where_it_cannot_see_them_all(caplog):
    with caplog.at_level("INFO"):
        fit(partly_compiled(), [GradientClipping("adaptive")], batches(2))
    assert "'net.3', counts as the output layer" in caplog.text

"""What is measured while one batch runs, on modules small enough to be reckoned by hand."""

import math

import pytest
import torch
from helpers.doctor_programs import ADAM, Program, learnable, mlp
from helpers.lightning_twins import RecordingLogger, fit
from torch import nn

from lightning_stab import TrainingDoctor
from lightning_stab.callbacks._trainer.device_values import to_host
from lightning_stab.callbacks.activations.probe import ActivationProbe
from lightning_stab.callbacks.doctor.batch_facts import UnitFacts
from lightning_stab.callbacks.doctor.loss_functions import LossFunctions
from lightning_stab.callbacks.doctor.module_facts import ModuleFacts
from lightning_stab.callbacks.doctor.probe import DoctorProbe, ends
from lightning_stab.callbacks.doctor.state import rows_of
from lightning_stab.callbacks.doctor.targets import Targets
from lightning_stab.diagnosis.facts import SAMPLED_STEP
from lightning_stab.functional.function_mode import FunctionMode


def probed(module, *inputs, loss=lambda out: out.sum(), backward=True):
    """Return the probe after one pass."""
    probe = DoctorProbe(Targets())
    assert probe.install(module) == ""
    try:
        output = module(*inputs)
        output = output[0] if isinstance(output, tuple) else output
        if backward:
            loss(output).backward()
    finally:
        probe.remove()
    return probe


class Steps(nn.Module):
    """Calls a part again and again, each time with its last result."""

    def __init__(self, part, count):
        super().__init__()
        self.part, self.count = part, count

    def forward(self, x):
        state = x
        for _ in range(self.count):
            state = self.part(state)
            state = state[0] if isinstance(state, tuple) else state
        return state


def halving():
    linear = nn.Linear(2, 2, bias=False)
    nn.init.eye_(linear.weight)
    linear.weight.data *= 0.5
    return linear


@pytest.mark.parametrize(("calls", "known"), [(8, False), (9, True)])
def test_the_gradient_over_the_calls_of_a_layer(calls, known):
    """The first call's output is not followed: only at the second it is a recurrence."""
    x = torch.ones(3, 2, requires_grad=True)
    times = probed(Steps(halving(), calls), x).time_ratios()
    assert bool(times) == known
    if known:  # the last has a gradient of 1, each one before half of it
        begin, end = times["part"].tolist()
        assert (begin, end) == (pytest.approx(0.5 ** (calls - 2)), 1.0)


@pytest.mark.parametrize(("calls", "known"), [(7, False), (8, True)])
@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
def test_the_gradient_over_the_calls_of_a_cell(kind, calls, known):
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = kind(2, 2)

        def forward(self, x):
            state = None
            for _ in range(calls):
                state = self.cell(x, state)
            return state[0] if isinstance(state, tuple) else state

    times = probed(Cell(), torch.ones(3, 2)).time_ratios()
    assert bool(times) == known
    assert not known or times["cell"][1] == 1.0
    assert not known or 0 < float(times["cell"][0]) < 1


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("length", "known"), [(7, False), (8, True), (30, True)])
def test_the_gradient_at_the_ends_of_a_sequence(first, length, known):
    rnn = nn.RNN(1, 1, nonlinearity="relu", bias=False, batch_first=first)
    rnn.weight_ih_l0.data.fill_(1.0)
    rnn.weight_hh_l0.data.fill_(0.5)
    shape = (4, length, 1) if first else (length, 4, 1)
    times = probed(rnn, torch.ones(shape), loss=lambda out: out.sum()).time_ratios()
    assert bool(times) == known
    if known:  # step t of T is in every sum from t on: 2 (1 - 2^-(T - t)), of one in ten steps each
        number = max(1, length // 10)
        slopes = [2 * (1 - 0.5 ** (length - t)) for t in range(length)]
        expected = [math.sqrt(sum(s * s for s in part) / number)
                    for part in (slopes[:number], slopes[-number:])]  # fmt: skip
        assert times[""].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_ends_are_a_tenth_each_and_one_step_at_least():
    assert ends(torch.tensor([9.0, 0, 0, 0, 0, 0, 0, 4])).tolist() == [3.0, 2.0]
    squares = torch.tensor([1.0, 7.0] + [0.0] * 16 + [2.0, 16.0])
    assert ends(squares).tolist() == pytest.approx([2.0, 3.0])


def test_no_sequence_is_followed_where_nothing_is_learnt():
    with torch.no_grad():
        assert probed(nn.RNN(1, 1), torch.ones(9, 4, 1), backward=False).time_ratios() == {}
        assert probed(nn.Linear(1, 1), torch.ones(4, 1), backward=False).spread == {}


def test_the_sizes_of_the_features_that_enter_first():
    linear = nn.Linear(2, 3)
    x = torch.tensor([[3.0, 0.0], [4.0, 2.0]])
    found = probed(nn.Sequential(linear, nn.Linear(3, 1)), x).inputs
    assert found.tolist() == pytest.approx([math.sqrt(12.5), math.sqrt(2)])
    # of a sequence the features come last, of images second
    assert probed(nn.Linear(2, 1), x[None].expand(5, 2, 2)).inputs.shape == (2,)
    assert probed(nn.Conv2d(3, 1, 1), torch.ones(2, 3, 4, 5)).inputs.shape == (3,)
    assert probed(nn.Linear(2, 1), torch.ones(2)).inputs.isnan().tolist() == [True]
    empty = probed(nn.Linear(2, 1), torch.ones(0, 2))
    assert empty.inputs.isnan().tolist() == [True]
    assert empty.spread == {}


def test_the_spread_of_outputs_is_that_over_the_samples():
    linear = nn.Linear(1, 2, bias=False)
    linear.weight.data.copy_(torch.tensor([[1.0], [3.0]]))
    net = nn.Sequential(linear)
    found = probed(net, torch.tensor([[1.0], [3.0]])).spread  # deviations of 1 and 3
    assert float(found["0"]) == pytest.approx(math.sqrt(5))
    assert probed(net, torch.tensor([[1.0]])).spread == {}  # of one sample there is none
    twice = probed(Steps(nn.Sequential(halving()), 2), torch.tensor([[0.0, 0], [4.0, 0]]))
    assert float(twice.spread["part.0"]) == pytest.approx(math.sqrt(0.5))  # of the first call


def test_attention_is_named_after_the_layer_around_it_and_after_its_number_without_one():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.MultiheadAttention(2, 1, batch_first=True)

        def forward(self, x):
            y, _ = self.own(x, x, x, need_weights=False)
            for _ in range(2):
                y = nn.functional.scaled_dot_product_attention(y, y, y)
            return y

    found = probed(Two(), torch.randn(2, 3, 2)).attention
    assert set(found) == {"own", "attention_2", "attention_3"}


def test_normalisation_over_few_values_and_the_strongest_dropout():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.BatchNorm1d(3), nn.BatchNorm2d(2)
            self.weak, self.strong, self.off = nn.Dropout(0.2), nn.Dropout2d(0.7), nn.Dropout(0.9)
            self.off.eval()

        def forward(self, x):
            return self.two(self.one(x)[:, :2, None, None].expand(-1, -1, 2, 2))

    facts, part = ModuleFacts(), Part()
    for size, values in ((15, 15.0), (2, 2.0)):
        facts.start(part)
        part(torch.randn(size, 3))
        facts.stop()
        assert facts.facts() == {"dropout": 0.7, "norm_values": values, "norm_rows": values}
    alone = ModuleFacts()
    alone.start(part.two)
    part.two(torch.randn(2, 2, 3, 3))
    alone.stop()
    assert alone.facts() == {"dropout": 0.0, "norm_values": 18.0, "norm_rows": 2.0}
    many = ModuleFacts()
    many.start(part)
    part(torch.randn(16, 3))
    many.stop()
    assert many.facts() == {"dropout": 0.7}
    part.eval()
    many.start(part)
    part(torch.randn(4, 3))
    many.stop()
    assert many.facts() == {"dropout": 0.0}


def test_the_rows_of_a_batch():
    x = torch.zeros(5, 2)
    for batch, rows in ((x, 5), ([torch.tensor(1.0), x], 5), ({"a": "b", "x": x}, 5), ([], 0)):
        assert rows_of(batch) == rows


def units(layer, *batches):
    """Return the facts of units after batches of sampled steps."""
    found = UnitFacts()
    for batch in batches:
        found.start(layer)
        layer(batch)
        found.stop()
        to_host(found.pending())
    return found.facts()


def test_a_unit_is_dead_when_enough_samples_have_not_moved_it():
    layer = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    layer[0].weight.data.copy_(torch.tensor([[1.0], [0.0]]))
    layer[0].bias.data.copy_(torch.tensor([0.0, -1.0]))
    x = torch.ones(12, 1)
    assert "dead_fraction" not in units(layer, torch.ones(24, 1))  # one step of few samples
    assert "dead_fraction" not in units(layer, torch.ones(11, 1), x)
    for batches in ([x, x], [torch.ones(1000, 1)]):
        facts = units(layer, *batches)
        assert facts["dead_fraction"] == {"1": 0.5}
        assert facts["most_dead"] == 0.5
    assert "dead_fraction" not in units(layer, torch.ones(999, 1))


LOSS = nn.functional.binary_cross_entropy


def measured(target, columns):
    losses = LossFunctions()
    chances = torch.full((len(target), columns), 0.5, requires_grad=True)
    losses(LOSS, (chances, target), {}, LOSS(chances, target))
    return losses.measured


def test_labels_exclude_each_other_from_three_columns_on():
    """Of two columns a yes and a no look the same."""
    for columns, known in ((2, False), (3, True)):
        one_each = torch.eye(columns).repeat(9, 1)
        assert ("exclusive_labels" in measured(one_each, columns)) == known
    several = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    none = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    soft = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    for target in (several, none, soft):
        assert float(measured(target, 3)["exclusive_labels"]) == 0.0
    assert "exclusive_labels" not in measured(torch.zeros(3, 1), 1)


def test_chances_outside_of_nought_and_one_are_impossible_and_the_ends_are_not():
    found = measured(torch.tensor([[0.0, 1.0, 0.5, 1.0]]), 4)["impossible_targets"]
    assert float(found) == 0.0
    losses = LossFunctions()
    logits = torch.zeros(1, 4, requires_grad=True)
    target = torch.tensor([[-0.1, 1.1, 0.0, 1.0]])
    function = nn.functional.binary_cross_entropy_with_logits
    losses(function, (logits, target), {}, function(logits, target))
    assert float(losses.measured["impossible_targets"]) == 0.5


class Counting(TrainingDoctor):
    """Counts how often it diagnoses a sampled step."""

    count = 0

    def _diagnose(self, trainer, moment):
        self.count += moment == SAMPLED_STEP
        super()._diagnose(trainer, moment)


def watched(**settings):
    logger = RecordingLogger()
    watcher = Counting(every_n_steps=1, print_findings=False, log_facts=True)
    fit(Program(mlp(), optimizer=ADAM), [watcher], learnable(96), logger=logger, **settings)
    return watcher, {n for n in logger.latest if n.startswith("diagnosis_facts/")}


def test_an_accumulated_step_is_measured_like_any_other_and_once():
    one, plain = watched()
    other, accumulated = watched(accumulate_grad_batches=2)
    late = {"gradient_growth_log10", "relapse", "relapse_noise", "batch_variety"}  # of more steps
    assert plain - accumulated <= {f"diagnosis_facts/{name}" for name in late}
    assert accumulated <= plain
    assert len(accumulated) > 20
    assert (one.count, other.count) == (6, 3)  # of six batches
    assert other._state.steps.early_seen == 3


@pytest.fixture
def functions(monkeypatch):
    """Return a list that gets the name of every function that a function mode sees."""
    seen = []
    own = FunctionMode.__torch_function__

    def count(mode, function, types, args=(), kwargs=None):
        seen.append(getattr(function, "__name__", str(function)))
        return own(mode, function, types, args, kwargs)

    monkeypatch.setattr(FunctionMode, "__torch_function__", count)
    return seen


def test_what_hooks_ask_of_tensors_goes_through_no_function_mode(functions):
    """Each question would cost as much as a small layer."""
    net, inputs = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(3, 4)
    probe, units = DoctorProbe(Targets()), ActivationProbe(moments=False)
    probe.install(net)
    units.install(net)
    try:
        output = net(inputs)
        called = set(functions)
        functions.clear()
        probe.end_forward()
        units.pause()
        output.sum().backward()
    finally:
        probe.remove()
        units.remove()
    assert called == {"linear", "relu"}
    assert functions == []
    assert len(probe.gradients.gradient_rms()) == 2


def test_a_sampled_step_shows_no_function_after_its_forward_pass(functions):
    """Lightning sets each gradient to None before the backward pass, which a mode would see."""
    doctor = TrainingDoctor(print_findings=False)
    fit(Program(mlp(), optimizer=ADAM), [doctor], learnable(96))
    assert "linear" in functions
    assert "__set__" not in functions

"""`check_gradients` without a Trainer."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.gradcheck_modules import Net, ScaledLinear, batch, loader
from lightning.pytorch import LightningDataModule
from torch import nn

from lightning_stab.callbacks.gradcheck.check_gradients import (
    check_batches,
    check_gradients,
    training_batches,
)
from lightning_stab.errors import InvalidArgumentError


def square_loss(module, x):
    return module(x).square().mean()


def test_a_lightning_module_is_checked_through_its_training_step():
    report = check_gradients(Net(), batch())
    assert report.passed
    assert {record.verdict for record in report.parameters} <= {"ok", "zero", "kink"}
    assert [r.name for r in report.parameters] == [name for name, _ in Net().named_parameters()]


def test_a_wrong_gradient_is_named_with_both_values():
    report = check_gradients(ScaledLinear(4, 3, factor=-1.0), torch.randn(5, 4), square_loss)
    assert not report.passed
    (record,) = report.wrong
    assert record.name == "weight"
    assert record.analytic == pytest.approx(-record.numeric, rel=1e-6)
    assert "wrong" in str(report).splitlines()[3]
    assert json.loads(json.dumps(report.to_dict()))["passed"] is False


def test_a_module_without_a_loss_is_refused():
    with pytest.raises(InvalidArgumentError, match="`loss_fn` must be given"):
        check_gradients(nn.Linear(2, 1), torch.ones(1, 2))


def test_module_buffers_and_random_states_stay(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    assert check_gradients(module, torch.randn(8, 4, generator=torch.Generator()), square_loss)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_unused_and_dead_parameters_are_told_apart():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Parameter(torch.ones(3))
            self.dead = nn.Parameter(torch.ones(3))
            self.unused = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.used + 0.0 * self.dead

    report = check_gradients(Partly(), torch.randn(2, 3), square_loss)
    verdicts = {record.name: record.verdict for record in report.parameters}
    assert verdicts == {"used": "ok", "dead": "zero", "unused": "unused"}


class Behind(nn.Module):
    """A wrong Function behind a gate that starts at zero."""

    def __init__(self, factor):
        super().__init__()
        self.inner = ScaledLinear(4, 4, factor)
        self.gate = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return x + self.gate * self.inner(x).tanh()


@pytest.mark.parametrize("mode", ["auto", "tensor", "group", "model"])
def test_every_mode_finds_a_fault_behind_a_zero_gate(mode):
    report = check_gradients(Behind(1.001), torch.randn(5, 4), square_loss, mode=mode)
    (record,) = report.wrong
    assert (record.name, record.function) == ("inner.weight", "ScaledMatmul")
    assert record.relative_error == pytest.approx(1e-3, rel=0.5)
    assert "inner.weight" in str(report)
    assert check_gradients(Behind(1.0), torch.randn(5, 4), square_loss, mode=mode).passed


@pytest.mark.parametrize("coordinates", ["all", 3])
def test_the_plain_formula_names_the_worst_coordinate(coordinates):
    report = check_gradients(
        ScaledLinear(4, 3, 2.0), torch.randn(5, 4), square_loss, coordinates=coordinates
    )
    (record,) = report.wrong
    assert len(record.coordinate) == 2
    assert record.analytic == pytest.approx(2 * record.numeric, rel=1e-6)
    assert record.relative_error == pytest.approx(0.5, rel=1e-6) or coordinates == 3


def test_a_value_behind_no_grad_is_told_apart_from_an_unused_one():
    class Target(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            with torch.no_grad():
                target = self.teacher(x)
            return self.student(x) - target

    report = check_gradients(Target(), torch.randn(4, 3), square_loss)
    verdicts = {record.name: record.verdict for record in report.parameters}
    assert verdicts["teacher.weight"] == verdicts["teacher.bias"] == "stop-gradient"
    assert verdicts["student.weight"] == "ok"
    assert any("linear at test_check_gradients.py" in note for note in report.notes)


def test_entropy_that_cannot_be_repeated_is_nondeterministic_and_not_accused():
    import os

    report = check_gradients(
        nn.Linear(2, 1),
        torch.randn(3, 2),
        lambda net, x: net(x).square().mean() * (1 + os.urandom(1)[0]),
    )
    assert not report.wrong
    assert report.skipped
    assert not report.passed
    assert {record.verdict for record in report.parameters} == {"nondeterministic"}


def test_a_backward_in_float32_is_precision_limited_and_named():
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return (gradient.float() * (1 - x.float().tanh() ** 2)).double()

    report = check_gradients(
        nn.Linear(3, 3), torch.randn(4, 3), lambda net, x: Rounded.apply(net(x)).sum()
    )
    assert report.passed
    assert {(r.verdict, r.function) for r in report.parameters} == {
        ("precision-limited", "Rounded")
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mode": "modle"}, "`mode` must be one of .* Did you mean 'model'"),
        ({"coordinates": "some"}, '`coordinates` must be "all", an integer >= 1 or None'),
        ({"coordinates": 0}, "`coordinates` must be an integer >= 1"),
        ({"num_directions": 0}, "`num_directions` must be an integer >= 1"),
        ({"tolerance": 0.5}, "`tolerance` must be .* <= 0.01, got 0.5"),
        ({"max_samples": 0}, "`max_samples` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        check_gradients(nn.Linear(2, 1), torch.ones(1, 2), square_loss, **arguments)


def test_no_loss_at_all_is_a_skipped_check():
    report = check_gradients(nn.Linear(2, 1), torch.ones(1, 2), lambda net, x: net(x).sum() / 0)
    assert report.skipped
    assert not report.passed
    assert "no finite loss" in str(report)
    assert json.dumps(report.to_dict())


def test_memory_stays_within_three_double_copies():
    module = nn.Sequential(*[nn.Linear(256, 256) for _ in range(6)])
    size = 8 * sum(p.numel() for p in module.parameters())
    with torch.profiler.profile(profile_memory=True) as profile:
        check_gradients(module, torch.randn(2, 256), square_loss)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert size < peak <= 3.1 * size  # three copies, and what a batch of two takes


def test_batches_of_a_data_module_give_an_exit_code(capsys):
    data = LightningDataModule()
    data.train_dataloader = lambda: loader()
    batches = training_batches(data, number=2)
    assert len(batches) == 2
    assert check_batches(Net(), batches) == 0
    assert "Gradient check passed" in capsys.readouterr().out
    assert check_batches(Net(factor=2.0), batches, as_json=True) == 1
    assert [report["passed"] for report in json.loads(capsys.readouterr().out)] == [False, False]


def test_a_step_that_raises_and_no_batch_at_all_give_code_1_and_the_reason(capsys):
    def raises(net, data):
        raise ValueError("only on Sundays")

    assert check_batches(nn.Linear(2, 1), [torch.ones(1, 2)], loss_fn=raises) == 1
    assert "ValueError: only on Sundays" in capsys.readouterr().out
    assert check_batches(Net(), []) == 1
    assert "no training batch" in capsys.readouterr().out


def test_checks_in_several_threads_take_turns():
    factors = [1.0, 2.0] * 4
    nets = [ScaledLinear(4, 3, factor) for factor in factors]
    state, out = torch.get_rng_state(), sys.stdout
    with ThreadPoolExecutor(4) as pool:
        reports = pool.map(lambda net: check_gradients(net, torch.ones(5, 4), square_loss), nets)
        assert [report.passed for report in reports] == [factor == 1.0 for factor in factors]
    assert sys.stdout is out
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(state, torch.get_rng_state())


def test_a_dataset_in_a_module_is_not_copied():
    class Stubborn(torch.utils.data.Dataset):
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    module = Net()
    module.data = Stubborn()
    assert check_gradients(module, batch()).passed

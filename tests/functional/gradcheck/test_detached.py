"""What autograd takes for a constant: recorded once, replayed at every other point."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from lightning_stab.functional.gradcheck import Problem, check_problem
from lightning_stab.functional.gradcheck.check import CheckSettings
from lightning_stab.functional.gradcheck.custom_functions import Depth
from lightning_stab.functional.gradcheck.detached import DetachedValues, DetachReplay

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")
INDEX = torch.tensor([[1, 2], [4, 1]])


def verdicts(program, *tensors, **settings):
    module = nn.ParameterList([nn.Parameter(t.double()) for t in tensors])
    problem = Problem(module, lambda on_loss: on_loss(program(*module)))
    report = check_problem(problem, CheckSettings(**settings))
    return {r.name: r.verdict for r in report.parameters}, report, module


EMBEDDINGS = {
    "max_norm=": lambda w: F.embedding(INDEX, w, max_norm=1.0),
    "max_norm, by its place": lambda w: F.embedding(INDEX, w, None, 1.0),
    "bag, max_norm=": lambda w: F.embedding_bag(INDEX, w, max_norm=1.0),
    "bag, by its place": lambda w: F.embedding_bag(INDEX, w, None, 1.0),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_embedding_that_renormalises_its_weight_is_right_where_it_has_done_so(name):
    weight = 3 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found, report, module = verdicts(lambda w: EMBEDDINGS[name](w).sin().sum(), weight)
    assert found == {"0": "ok"}, str(report)
    norms = module[0].detach().norm(dim=1)
    assert norms[[1, 2, 4]].tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    assert float(norms[[0, 3]].min()) > 1.5  # which no run has looked up


@pytest.mark.parametrize("row", [1, -1])
def test_the_row_of_padding_gets_no_gradient_by_design(row):
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

    def program(w):
        return F.embedding(INDEX, w, padding_idx=row).sin().sum()

    assert verdicts(program, weight)[0] == {"0": "ok"}
    other = verdicts(lambda w: F.embedding_bag(INDEX, w, padding_idx=row).sin().sum(), weight)
    assert other[0] == {"0": "ok"}


def test_what_depends_on_a_parameter_through_a_constant_alone_is_a_stop_of_its_gradient():
    """Also where the loss is no number a little farther away."""
    start = torch.full((3,), 0.1)
    for program, verdict in (
        (lambda w: (1 - w.detach().square()).sqrt().sum() + 0 * w.sum(), "stop-gradient"),
        (lambda w: (1 - w.detach().square()).sqrt().sum() + 0 * w.detach().sum(), "stop-gradient"),
        (lambda w: 0 * w.sum() + w.detach().sum() * 0, "zero"),
        (lambda w: 0 * w.detach().sum() + torch.ones(1, requires_grad=True).sum(), "unused"),
    ):
        for coordinates in (None, "all", 2):
            assert verdicts(program, start, coordinates=coordinates)[0] == {"0": verdict}


def passed(values, function, *args, replay=False):
    """Run a function under a replay; return its result and whether all of it was found."""
    mode = DetachReplay(values, replay=replay, depth=Depth())
    with mode:
        result = function(*args)
    return result, mode.replay is None or mode.replay.complete


def weight(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_a_detached_value_is_the_recorded_one_wherever_it_is_asked_for_again():
    for function, name in (
        (lambda w: w.detach(), "detach"), (lambda w: w.data, "data"),
        (lambda w: w[0].item(), "item"), (lambda w: w.tolist(), "tolist"),
    ):  # fmt: skip
        values = DetachedValues()
        here, _ = passed(values, function, weight(1.0, 2.0))
        values.finish()
        assert [v.function for v in values.values] == [name]
        assert values.values[0].place.startswith("test_detached.py:")
        assert values.places() == [f"{name} at {values.values[0].place}"]
        again, complete = passed(values, function, weight(5.0, 6.0), replay=True)
        assert complete
        assert torch.equal(torch.as_tensor(again), torch.as_tensor(here))
        assert not values.lifted
        assert not values.needs_graph
        assert values.matters


def test_what_is_no_constant_is_computed_anew():
    for function in (
        lambda w: w * 2, lambda w: torch.zeros_like(w), lambda w: w.new_ones(2),
        lambda w: w > 0, lambda w: w.argmax(), lambda w: w.is_leaf, lambda w: w.shape,
    ):  # fmt: skip
        values = DetachedValues()
        passed(values, function, weight(1.0, 2.0))
        assert values.values == []
        assert not values.matters


def test_under_no_grad_a_result_is_a_constant_and_its_place_is_the_users():
    def function(w):
        with torch.no_grad():
            return w * 2

    values = DetachedValues()
    passed(values, function, weight(1.0))
    (known,) = values.values
    assert known.function in ("mul", "__mul__", "_scalar_mul")
    assert known.place.startswith("test_detached.py:")
    again, _ = passed(values, function, weight(7.0), replay=True)
    assert again.tolist() == [2.0]


def test_a_replay_of_another_shape_or_function_has_lost_its_way():
    values = DetachedValues()
    passed(values, lambda w: w.detach(), weight(1.0, 2.0))
    for other in (lambda w: w[:1].detach(), lambda w: w.data, lambda w: w * 1.0,
                  lambda w: (w.detach(), w.detach())):  # fmt: skip
        _, complete = passed(values, other, weight(3.0, 4.0), replay=True)
        assert not complete


def test_an_alias_that_is_written_to_is_not_replayed():
    def function(w):
        alias = w.detach()
        alias.mul_(3.0)
        return alias

    values = DetachedValues()
    passed(values, function, weight(1.0, 2.0))
    first = values.values[0].value
    assert first is not None
    values.finish()
    assert values.values[0].value is None
    assert values.aliases == []


def test_low_precision_and_gradients_within_a_step_are_noted():
    values = DetachedValues()
    result, _ = passed(values, lambda w: w.float(), weight(1.0))
    assert values.lifted
    assert values.matters
    assert result.dtype == torch.float64
    values = DetachedValues()
    passed(values, lambda w: torch.autograd.grad(w.sum(), w, create_graph=True), weight(1.0))
    assert values.needs_graph


def test_a_parameter_that_is_written_to_keeps_what_the_first_run_wrote():
    w = weight(1.0, 2.0)

    def function(w):
        with torch.no_grad():
            return w.mul_(2.0)

    values = DetachedValues()
    passed(values, function, w)
    assert w.tolist() == [2.0, 4.0]
    assert values.writes
    assert values.values == []
    passed(values, function, w, replay=True)
    assert w.tolist() == [2.0, 4.0]

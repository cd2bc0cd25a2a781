"""The examination of parameters: how many directions, which coordinates, and what is recorded."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import Function

from lightning_stab.functional.gradcheck import Problem, check_problem, examination
from lightning_stab.functional.gradcheck.check import CheckSettings, _examine, _record_calls
from lightning_stab.functional.gradcheck.custom_functions import watch_functions
from lightning_stab.functional.gradcheck.differences import Difference
from lightning_stab.functional.gradcheck.examination import Examination
from lightning_stab.functional.gradcheck.lines import Point
from lightning_stab.functional.gradcheck.verdicts import Comparison, below_noise

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")
F64 = torch.float64


def said(verdict, error=0.0):
    return Comparison(verdict, 1.0, 1.0, error, 1e-5)


def examined(*names, gradients=None, answers=None, shape=(2,), **settings):
    """Return an examination whose comparisons are given, and a list of how many tensors each had.

    Args:
        answers: a function of the number of tensors, and of how many comparisons there were.
    """
    module = nn.ParameterDict({name: nn.Parameter(torch.ones(shape, dtype=F64)) for name in names})
    ones = {name: torch.ones(shape, dtype=F64) for name in names}
    point = Point([1.0], [ones] if gradients is None else gradients)
    problem = Problem(module, lambda on_loss: on_loss(sum(p.sum() for p in module.values())))
    found = Examination(problem, point, 1e-7, torch.Generator().manual_seed(0), **settings)
    asked = []

    def compare(line, number):
        asked.append(number)
        return answers(number, len(asked)), 0

    if answers is not None:
        found._compare = compare
    return found, asked


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ([0.9e-8] * 9, 2), ([1.1e-8] * 9, 4), ([0.0, 1.1e-8, 0.0, 0.0, 0.0], 4),
        ([1.1e-8, 0.0, 9e-8, 0.0, 0.0], 4),
    ],
)  # fmt: skip
def test_more_directions_are_tried_from_a_tenth_of_the_tolerance_on(errors, calls):
    found, asked = examined("a", answers=lambda _, number: said("ok", errors[number - 1]))
    found.examine_part(("a",), 2)
    assert len(asked) == calls
    assert found.records["a"].relative_error == max(errors[:calls])


def test_a_direction_that_fails_is_the_last():
    for verdict, calls in (("kink", 1), ("wrong", 1), ("zero", 3), ("ok", 3)):
        found, asked = examined("a", answers=lambda *_: said(verdict))  # noqa: B023
        found._worst_coordinate = lambda *_: None
        found.examine_part(("a",), 3)
        assert len(asked) == calls
        assert found.records["a"].verdict == verdict


def test_what_fails_together_is_halved_down_to_single_tensors():
    found, asked = examined(
        "a", "b", "c", answers=lambda number, _: said("kink" if number > 1 else "ok", 1e-9)
    )
    found.examine_part(("a", "b", "c"), 2)
    assert asked == [3, 1, 1, 2, 1, 1, 1, 1]
    assert [record.verdict for record in found.in_order()] == ["ok"] * 3


def test_of_several_comparisons_of_a_tensor_the_largest_error_is_kept():
    found, _ = examined("a", "b")
    line = SimpleNamespace(directions={})
    for error, kept in ((1e-9, 1e-9), (3e-9, 3e-9), (2e-9, 3e-9)):
        found._conclude(("a", "b"), 1, said("ok", error), 0, line)
        assert {record.relative_error for record in found.in_order()} == {kept}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_error_has_to_show_through_those_of_the_other_tensors(size, monkeypatch):
    seen = []

    def check_line(line, slopes, point, tolerance):
        seen.append(tolerance)
        return {0: said("ok", 1e-9), 1: said("kink"), 2: said("zero")}

    monkeypatch.setattr(examination, "check_line", check_line)
    found, _ = examined("a")
    comparison, loss = found._compare(SimpleNamespace(slopes=lambda gradients: {}), size)
    assert seen == [pytest.approx(1e-7 / size**0.5)]
    assert (comparison.verdict, loss) == ("kink", 1)


GRADIENTS = [{"a": None, "b": torch.zeros(2, dtype=F64)}]


def test_without_a_gradient_there_is_nothing_to_examine_unless_something_depends_on_it():
    for depends, verdicts in (
        ((), ["unused", "zero"]),
        (("a",), ["stop-gradient", "zero"]),
        (("b",), ["unused", "stop-gradient"]),
        (("a", "b"), ["stop-gradient", "stop-gradient"]),
    ):
        found, _ = examined("a", "b", gradients=GRADIENTS, answers=lambda *_: said("zero"))
        found._depends = lambda line: bool(line.directions.keys() & set(depends))  # noqa: B023
        found.examine_zero_gradients(("a", "b"))
        assert [record.verdict for record in found.in_order()] == verdicts, depends
        assert {record.note for record in found.in_order()} == {""}


def test_a_loss_that_changes_where_there_is_no_gradient_is_an_error_of_one_tensor():
    found, asked = examined(
        "a", "b", gradients=GRADIENTS,
        answers=lambda number, calls: said("wrong" if calls in (1, 3) else "zero"),
    )  # fmt: skip
    found._depends = lambda line: False
    found._worst_coordinate = lambda *_: None
    found.examine_zero_gradients(("a", "b"))
    assert asked == [1, 1, 1]
    assert [record.verdict for record in found.in_order()] == ["unused", "wrong"]


class Path:
    """A line with given losses on both sides."""

    def __init__(self, *rows):
        self.rows, self.tried = list(rows), []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return

    def losses_at(self, distance, *, replay=True):
        self.tried.append((distance, replay))
        return self.rows[len(self.tried) - 1]


def test_a_loss_depends_on_what_moves_it_by_a_hundred_times_its_noise():
    unit = 2.0**-20
    for rows, depends in (
        (([0.0], [0.0]), False), (([100 * unit], [-100 * unit]), False),
        (([101 * unit], [0.0]), True), (([0.0], [-101 * unit]), True), (([0.0, 0.0], [0.0]), True),
        (([], [0.0]), True),
    ):  # fmt: skip
        found, _ = examined("a")
        found.point = Point([0.0], [], noise=unit)
        found.problem.detached.writes = True
        path = Path(*rows)
        assert found._depends(path) == depends, rows
        assert path.tried == [(1e-3, False), (-1e-3, False)]
        found.problem.detached.writes = False  # nothing is held constant
        assert not found._depends(Path(*rows))


class Off(Function):
    """The identity, whose gradient is larger by 1 at one place."""

    @staticmethod
    def forward(ctx, x, place):
        ctx.place = place
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        gradient.view(-1)[ctx.place] += 1.0
        return gradient, None


def planted(place, start, shape=(2, 3)):
    module = nn.ParameterList([nn.Parameter(torch.full(shape, start, dtype=F64))])
    weights = torch.arange(1.0, 7.0, dtype=F64).view(shape)
    return Problem(module, lambda on_loss: on_loss((Off.apply(module[0], place) * weights).sum()))


@pytest.mark.parametrize("start", [0.0, 5.0])  # nothing is moved: zeros stay zeros
@pytest.mark.parametrize("coordinates", [None, "all"])
def test_the_worst_coordinate_is_found_and_told_in_its_own_unit(start, coordinates):
    for place in range(6):
        problem = planted(place, start)
        settings = CheckSettings(coordinates=coordinates)
        with watch_functions(problem.depth):
            (record,) = _examine(problem, settings, (0.0,)).in_order()
        assert record.verdict == "wrong"
        assert record.coordinate == divmod(place, 3)
        assert record.numeric == pytest.approx(place + 1.0, rel=1e-6)
        assert record.analytic == pytest.approx(place + 2.0)
        assert record.loss == 0
        # relative to the root mean square of the gradient at least
        gradient = [i + 1.0 + (i == place) for i in range(6)]
        size = max((sum(g * g for g in gradient) / 6) ** 0.5, place + 2.0)
        assert record.relative_error == pytest.approx(1.0 / size, rel=1e-6)
        assert problem.parameters["0"].tolist() == [[start] * 3] * 2


def test_which_coordinates_are_examined():
    def chosen(number, padding=(), shape=(4, 3)):
        found, _ = examined("a", shape=shape)
        seen = []
        found.problem.padding_rows = lambda name: list(padding)

        def compare(name, index, gradients):
            seen.append(index)
            return {0: said("ok", index / 1e12)}

        found._compare_coordinate = compare
        found.examine_coordinates("a", number)
        return seen, found.records["a"].coordinate

    assert chosen(None) == (list(range(12)), (3, 2))
    assert chosen(12)[0] == chosen(99)[0] == list(range(12))
    assert chosen(None, padding=[2])[0] == [0, 1, 2, 3, 4, 5, 9, 10, 11]
    assert chosen(None, padding=[0, 3])[0] == [3, 4, 5, 6, 7, 8]
    assert chosen(None, padding=[1], shape=(3,))[0] == [0, 2]
    assert chosen(None, shape=())[0] == [0]
    some, _ = chosen(5)
    assert some == sorted(set(some))
    assert len(some) == 5
    assert set(some) < set(range(12))


def test_coordinates_of_no_slope_are_zero_where_another_has_one():
    found, _ = examined("a")
    found._compare_coordinate = lambda *_: {0: said("zero")}
    found.examine_coordinates("a", 1)
    assert found.records["a"].verdict == "zero"


def test_the_least_noise_counts_also_where_it_is_nothing_and_up_to_a_hundredfold():
    (still,) = [Difference(1e-2, 1.0, 0.0, 0.0, True)]
    assert below_noise([still], 1.0, 1.0).verdict == "precision-limited"
    coarse, fine = (Difference(s, v, 0.0, n) for s, v, n in ((1e-2, 20.0, 1.0), (1e-3, 5.0, 100.0)))
    found = below_noise([coarse, fine], 0.0, 1.0)  # 20 is more than ten times its noise
    assert (found.verdict, found.step) == ("precision-limited", 1e-3)


def test_the_first_dozen_calls_of_a_function_are_kept_with_what_is_differentiable():
    for number in (1, 12, 13):
        module = nn.ParameterList([nn.Parameter(torch.ones(6, dtype=F64))])

        def program(on_loss):
            x = module[0]  # noqa: B023
            for place in range(number):  # noqa: B023
                x = Off.apply(x, place % 6)
            on_loss(x.sum())

        problem = Problem(module, program)
        with watch_functions(problem.depth):
            calls, nodes = _record_calls(problem)
        assert [place for _, place in calls[Off]] == [i % 6 for i in range(min(number, 12))]
        assert all(x.is_leaf and x.requires_grad for x, _ in calls[Off])
        assert len(nodes) == number
        assert problem.depth.visit is None


def test_eight_places_of_constants_are_named_and_that_there_are_more():
    def named(number):
        lines = ["def program(on_loss):", " total = w.sin().sum()"]
        lines += [" total = total + w.detach().sum()"] * number + [" on_loss(total)"]
        module = nn.ParameterList([nn.Parameter(torch.ones(3, dtype=F64))])
        names = {"w": module[0]}
        exec(compile("\n".join(lines), "steps.py", "exec"), names)
        (note,) = check_problem(Problem(module, names["program"])).notes
        return note

    assert named(2) == (
        "Taken for constants, as autograd does: detach at steps.py:3; detach at steps.py:4."
    )
    assert named(8).count("detach at") == 8
    assert named(8).endswith("steps.py:10.")
    assert named(9).count("detach at") == 8
    assert named(9).endswith("steps.py:10; ....")


def test_rounding_is_tried_in_four_runs():
    module = nn.ParameterList([nn.Parameter(torch.linspace(0.1, 1.0, 50, dtype=F64))])
    problem = Problem(module, lambda on_loss: on_loss(module[0].sin().sum()))
    before = problem.num_forwards
    (noise,) = problem.rounding_noise(None)
    assert problem.num_forwards - before == 4
    assert 0 < noise < 1e-13

"""Lines through the point, how parameters share them, and which steps are taken along them."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab.functional.gradcheck import Problem, lines
from lightning_stab.functional.gradcheck.lines import (
    Line,
    Point,
    Slope,
    divide_into_parts,
    find_point,
    flat_view,
    largest_norm,
    line_through,
    random_direction,
)
from lightning_stab.functional.gradcheck.rounding import RandomRounding
from lightning_stab.functional.gradcheck.search import check_line

F64 = torch.float64


def problem_of(*tensors):
    module = nn.ParameterList([nn.Parameter(t.double()) for t in tensors])
    return Problem(module, lambda on_loss: on_loss(sum(p.sin().sum() for p in module)))


def generator():
    return torch.Generator().manual_seed(0)


def test_a_complex_number_is_two_coordinates():
    tensor = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128)
    assert flat_view(tensor).tolist() == [1.0, 2.0, 3.0, -4.0]
    assert flat_view(tensor.conj()).tolist() == [1.0, -2.0, 3.0, 4.0]
    flat_view(tensor)[1] = 7.0
    assert tensor[0] == 1 + 7j


@pytest.mark.parametrize("is_small", [True, False], ids=["from a copy", "by the difference"])
def test_a_line_goes_to_a_distance_and_comes_back(is_small, monkeypatch):
    monkeypatch.setattr(lines, "_SMALL", 100 if is_small else 0)
    problem = problem_of(torch.tensor([1.0, 2.0]), torch.tensor([3.0]))
    parameter, other = problem.parameters.values()
    line = Line(problem, {"0": torch.tensor([1.0, -2.0])})
    assert (line._origin is None) != is_small
    with line:
        for distance in (0.5, 0.5, -0.25, 0.0, 0.125):
            (loss,) = line.losses_at(distance)
            moved = [1.0 + distance, 2.0 - 2 * distance]
            assert parameter.tolist() == pytest.approx(moved, abs=1e-15)
            expected = math.sin(moved[0]) + math.sin(moved[1]) + math.sin(3.0)
            assert loss == pytest.approx(expected, abs=1e-15)
    assert parameter.tolist() == pytest.approx([1.0, 2.0], abs=1e-15)
    assert other.tolist() == [3.0]


def test_of_many_numbers_a_copy_is_kept_where_at_most_half_of_them_move(monkeypatch):
    monkeypatch.setattr(lines, "_SMALL", 0)
    for moved, rest, is_kept in ((2, 2, True), (3, 2, False), (1, 9, True)):
        problem = problem_of(torch.ones(moved), torch.ones(rest))
        assert (Line(problem, {"0": torch.ones(moved)})._origin is not None) == is_kept
    monkeypatch.setattr(lines, "_SMALL", 5)
    assert Line(problem_of(torch.ones(5)), {"0": torch.ones(5)})._origin is None
    assert Line(problem_of(torch.ones(4)), {"0": torch.ones(4)})._origin is not None


def test_slopes_are_sums_and_roots_of_squares_of_gradient_times_direction():
    problem = problem_of(torch.ones(2), torch.ones(1))
    line = Line(problem, {"0": torch.tensor([1.0, -2.0]), "1": torch.tensor([3.0])})
    first = {"0": torch.tensor([4.0, 5.0]), "1": torch.tensor([2.0])}
    found = line.slopes([first, {"0": None, "1": torch.tensor([1.0])}, {"0": first["0"]}])
    assert found == {
        0: Slope(4 - 10 + 6, math.sqrt(16 + 100 + 36)), 1: Slope(3.0, 3.0),
    }  # fmt: skip


def test_a_random_direction_has_signs_and_sizes_around_the_tensors_own():
    for values, size in ((torch.tensor([3.0, -4.0] * 200), math.sqrt(12.5)), (torch.zeros(400), 1)):
        direction = random_direction(nn.Parameter(values), generator()) / size
        assert 0.5 <= float(direction.abs().min()) < 0.52
        assert 1.48 < float(direction.abs().max()) <= 1.5
        assert 150 < int((direction > 0).sum()) < 250
    assert random_direction(nn.Parameter(torch.zeros(0)), generator()).shape == (0,)


def test_tensors_on_one_line_are_stretched_to_weigh_alike_within_a_factor_of_thirty():
    tensors = [torch.ones(1)] * 5
    problem = problem_of(*tensors)
    sizes = [1.0, 10.0, 40.0, 1e4, 0.0]
    gradients = [{str(i): torch.full((1,), size, dtype=F64) for i, size in enumerate(sizes)}]
    alone = {n: line_through(problem, (n,), gradients, generator()).directions[n]
             for n in ("0",)}  # fmt: skip
    assert 0.5 <= abs(float(alone["0"])) <= 1.5
    line = line_through(problem, tuple("01234"), gradients, generator())
    plain = generator()
    drawn = [float(random_direction(problem.parameters[n], plain)) for n in "01234"]
    weights = [abs(d) * s for d, s in zip(drawn, sizes, strict=True)]
    middle = sorted(w for w in weights if w)[2]  # of four the third
    factors = [min(max(middle / w, 1 / 30), 30.0) if w else 1.0 for w in weights]
    found = [float(line.directions[n]) for n in "01234"]
    assert found == pytest.approx([d * f for d, f in zip(drawn, factors, strict=True)], rel=1e-6)
    assert factors[3] == 1 / 30
    # the largest over the losses counts, and a missing gradient counts nothing
    assert (
        largest_norm("a", [{"a": None}, {"a": torch.tensor([3.0, 4.0])}, {}, {"a": torch.ones(1)}])
        == 5
    )
    assert largest_norm("a", [{}]) == 0.0


def parts(number, mode, losses=1):
    names = [f"p{i}" for i in range(number)]
    gradients = [{n: torch.tensor([float(-i % 7)]) for i, n in enumerate(names)}] * losses
    return divide_into_parts(names, gradients, mode), gradients


@pytest.mark.parametrize(
    ("number", "mode", "sizes"),
    [
        (32, "auto", [1] * 32), (33, "auto", [3] * 11), (160, "auto", [10] * 16),
        (161, "auto", [11] * 14 + [7]), (5, "group", [2, 2, 1]), (33, "group", [3] * 11),
        (40, "tensor", [1] * 40), (40, "model", [40]), (9, "small group", [4, 4, 1]),
        (0, "auto", []),
    ],
)  # fmt: skip
def test_how_many_tensors_share_a_line(number, mode, sizes):
    found, gradients = parts(number, mode)
    assert [len(part) for part in found] == sizes
    assert sorted(n for part in found for n in part) == sorted(f"p{i}" for i in range(number))
    if "group" in mode or (mode == "auto" and number > 32):  # of like size
        norms = [largest_norm(n, gradients) for part in found for n in part]
        assert norms == sorted(norms)


def test_only_parameters_of_the_same_losses_share_a_line():
    one, other = torch.ones(1), None
    gradients = [{"a": one, "b": other, "c": one}, {"b": one, "d": one, "c": one}]
    assert divide_into_parts(["a", "b", "c", "d", "e"], gradients, "model") == [
        ("a",), ("b", "c"), ("d",), ("e",),
    ]  # fmt: skip


def test_the_noise_of_rounding_is_measured_once_and_never_lowers_what_is_known():
    asked = []

    def problem(*found, error=None):
        def rounding_noise(branches):
            asked.append(branches)
            if error:
                raise error
            return list(found)

        return SimpleNamespace(rounding_noise=rounding_noise)

    point = Point([1.0], [], noise=1e-9, branches=["a branch"])
    assert point.raise_noise(problem(1e-10, 1e-8))
    assert point.noise == 1e-8
    assert not point.raise_noise(problem(1.0))
    assert asked == [["a branch"]]
    for found, error in (((1e-9,), None), ((1e-10,), None), ((), None), ((), ValueError())):
        point = Point([1.0], [], noise=1e-9)
        assert not point.raise_noise(problem(*found, error=error))
        assert point.noise == 1e-9


def test_a_point_is_finite_where_there_is_a_loss_and_each_is_a_number():
    assert Point([1.0, -2.0], []).finite
    for losses in ([], [math.nan], [1.0, math.inf]):
        assert not Point(losses, []).finite


class Steps:
    """A line along which the losses are given functions of the distance."""

    def __init__(self, *losses):
        self.losses, self.tried = losses, []
        self.problem = SimpleNamespace(rounding_noise=lambda branches: [])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return

    def losses_at(self, distance, *, watch=None, branches=None):
        self.tried.append(distance)
        return [loss(distance) for loss in self.losses]


def point_of(*losses, **settings):
    return Point([loss(0.0) for loss in losses], [], **settings)


def checked(*losses, slopes, noise=0.0, tolerance=1e-7, **settings):
    line = Steps(*losses)
    point = point_of(*losses, noise=noise, **settings)
    found = check_line(line, {n: Slope(*s) for n, s in slopes.items()}, point, tolerance)
    return {n: c.verdict for n, c in found.items()}, line.tried


def smooth(x):
    return math.exp(x)


@pytest.mark.parametrize(
    ("noise", "size", "step"),
    [
        (0.0, 1.0, 1e-5), (0.9e-13, 1.0, 1e-5), (1.1e-13, 1.0, 1e-4), (0.9e-12, 1.0, 1e-4),
        (1.1e-12, 1.0, 1e-3), (1.1e-11, 1.0, 1e-2), (1.0, 1.0, 1e-2), (1.1e-13, 2.0, 1e-5),
    ],
)  # fmt: skip
def test_the_first_step_is_the_least_at_which_the_noise_does_not_matter(noise, size, step):
    """A tenth of the tolerance of 1e-7, of the slope's own size."""
    _, tried = checked(smooth, slopes={0: (1.0, size)}, noise=noise)
    assert tried[:2] == [step, -step]


def test_two_passes_are_enough_where_the_loss_is_smooth_and_the_gradient_right():
    verdicts, tried = checked(smooth, slopes={0: (1.0, 1.0)})
    assert (verdicts, tried) == ({0: "ok"}, [1e-5, -1e-5])
    # an error of more than a tenth of the tolerance wants a larger and a smaller step first
    verdicts, tried = checked(smooth, slopes={0: (1 + 5e-8, 1.0)})
    assert verdicts == {0: "ok"}
    assert tried == pytest.approx([1e-5, -1e-5, 1e-4, -1e-4, 1e-6, -1e-6])


def test_of_several_losses_each_has_its_verdict():
    verdicts, tried = checked(smooth, lambda x: 3 * x, slopes={0: (1.0, 1.0), 1: (3.0, 3.0)})
    assert (verdicts, len(tried)) == ({0: "ok", 1: "ok"}, 2)
    verdicts, tried = checked(
        smooth, lambda x: 3 * x, slopes={0: (1.0, 1.0), 1: (3.3, 3.0)}, branch_sums=[]
    )
    assert verdicts == {0: "ok", 1: "wrong"}
    # the ladder begins at the largest step, and goes down by 0.3 where no branch has changed
    down = [x for x in tried if x > 0][3:]
    assert down[:2] == pytest.approx([1e-2, 3e-3])


def test_a_run_that_is_another_one_does_not_count():
    class Lost(Steps):
        def losses_at(self, distance, **_):
            return [] if distance else [1.0]

    line = Lost(smooth)
    found = check_line(line, {0: Slope(1.0, 1.0)}, point_of(smooth))
    assert found[0].verdict == "unchecked"
    assert math.isnan(found[0].numeric)
    # a kink where nothing was lost is a kink
    verdicts, _ = checked(abs, slopes={0: (1.0, 1.0)})
    assert verdicts == {0: "kink"}


def test_a_loss_that_is_no_number_on_one_side_gives_no_difference():
    verdicts, _ = checked(lambda x: x if x < 0.5e-3 else math.nan, slopes={0: (1.0, 1.0)})
    assert verdicts == {0: "ok"}  # smaller steps stay within
    verdicts, _ = checked(lambda x: math.inf if x > 0 else x, slopes={0: (1.0, 1.0)})
    assert verdicts == {0: "kink"}


def rounded(function, *tensors):
    with RandomRounding(generator()):
        return function(*tensors)


def test_operations_are_rounded_at_random_in_their_last_digit_and_whole_numbers_stay():
    unit = torch.finfo(F64).eps / 2
    x = torch.full((2000,), 0.3, dtype=F64)
    for function, size in ((lambda x: x * 1.5, 0.45), (lambda x: x + 0.2, 0.5), (torch.exp, None)):
        exact = function(x)
        away = (rounded(function, x) - exact) / (unit * exact)
        assert 0.8 < float(away.std()) < 1.5, size  # and what it is rounded to
        assert abs(float(away.mean())) < 0.1
    whole = torch.arange(5.0, dtype=F64)
    for function in (lambda w: w * 2, lambda w: w + 1, torch.relu):
        assert torch.equal(rounded(function, whole), function(whole))
    # 0.5 + 0.5 is whole, and is a sum of what is not
    half = torch.full((50,), 0.5, dtype=F64)
    assert not torch.equal(rounded(torch.add, half, half), torch.ones(50, dtype=F64))
    # what saturates is rounded at 1, too; a logarithm near 0 by the unit itself
    assert not torch.equal(rounded(torch.tanh, 100 + x), torch.ones_like(x))
    logarithms = torch.zeros(500, 1, dtype=F64)
    away = rounded(lambda z: z.log_softmax(1), logarithms) / unit
    assert 0.9 < float(away.std()) < 1.1


def test_views_copies_and_integers_are_no_new_numbers():
    x = torch.full((4,), 0.3, dtype=F64)
    for function in (lambda x: x.view(2, 2), torch.clone, torch.detach, lambda x: x[1:],
                     lambda x: torch.full_like(x, 0.3)):  # fmt: skip
        assert torch.equal(rounded(function, x), function(x))
    index = torch.arange(4)
    assert torch.equal(rounded(lambda i: i + 1, index), index + 1)
    y = x.clone()
    rounded(lambda y: y.mul_(1.0), y)  # written in place, it is
    assert not torch.equal(y, x)
    assert torch.allclose(y, x, rtol=1e-14)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")
def test_the_noise_of_a_point_is_that_of_runs_so_near_that_they_should_not_differ():
    module = nn.ParameterList([nn.Parameter(torch.linspace(1, 2, 6, dtype=F64))])
    noise = iter(torch.randn(1000, generator=generator(), dtype=F64).tolist())
    begun = []

    def program(on_loss):
        loss = module[0].sin().sum()
        near = loss + 1e-6 * next(noise) if begun else loss
        on_loss(near)

    problem = Problem(module, program)
    problem.allow_no_graph = lambda losses: begun.append(1)  # what comes after the repetition
    point = find_point(problem, generator())
    assert 1e-7 < point.noise < 1e-5
    begun.clear()
    assert find_point(Problem(module, program), generator()).noise < 1e-13


def test_the_ladder_goes_down_to_a_billionth():
    """By 0.3 where the branches are known to be those of the point, by 0.1 elsewhere."""
    _, tried = checked(abs, slopes={0: (1.0, 1.0)}, branch_sums=[])
    down = [x for x in tried if x > 0][3:]
    assert down == pytest.approx([1e-2 * 0.3**k for k in range(14)])
    _, tried = checked(abs, slopes={0: (1.0, 1.0)}, branch_sums=[7])
    down = [x for x in tried if x > 0][3:]
    assert down[:7] == pytest.approx([10.0**-k for k in range(2, 9)])
    assert len(down) <= 8

"""Which side of a kink an argument is on, and how its branch is followed, by hand."""

import math

import pytest
import torch

from lightning_stab.functional.gradcheck.branches import KINKS

aten = torch.ops.aten
NAN = math.nan


def sides(name, *args):
    """Return what is seen of a call, as plain lists."""
    tensors = [torch.tensor(a, dtype=torch.float64) if place == 0 or isinstance(a, list) else a
               for place, a in enumerate(args)]  # fmt: skip
    result = getattr(aten, name)(*tensors)
    return [t.tolist() for side in KINKS[name].sides for t in side(tensors[0], tensors, result)]


TARGET, ONE = torch.tensor(0), [0.0]
# the arguments at two points between which the function has a kink, and at two where it has none
CROSSED = {
    "relu": [(-0.1,), (0.1,)],
    "hardtanh": [(0.9,), (1.1,)],
    "clamp": [(-2.1, -2, 3), (-1.9, -2, 3)],
    "amax": [([1.0, 2.0],), ([2.0, 1.0],)],
    "maximum": [(1.0, [2.0]), (3.0, [2.0])],
    "abs": [([-0.1],), ([0.1],)],
    "elu": [([-0.1],), ([0.1],)],
    "hardswish": [([2.9],), ([3.1],)],
    "hardsigmoid": [([-2.9],), ([-3.1],)],
    "softshrink": [([0.4],), ([0.6],)],
    "sign": [([-0.1],), ([0.1],)],
    "floor": [([0.9],), ([1.1],)],
    "round": [([0.4],), ([0.6],)],
    "smooth_l1_loss": [([0.9], ONE, 1, 1.0), ([1.1], ONE, 1, 1.0)],
    "huber_loss": [([-0.1], ONE, 1, 2.0), ([0.1], ONE, 1, 2.0)],
    "multi_margin_loss": [([1.0, 0.1], TARGET), ([1.2, 0.1], TARGET)],
    "_cdist_forward": [([[1.0]], [[2.0]], 2.0, None), ([[3.0]], [[2.0]], 2.0, None)],
    "dist": [([1.0], [2.0], 1.0), ([3.0], [2.0], 1.0)],
}  # fmt: skip
STAYS = {
    "relu": [(0.1,), (0.2,)],
    "hardtanh": [(-0.9,), (0.9,)],
    "clamp": [(-1.9, -2, 3), (2.9, -2, 3)],
    "amax": [([1.0, 2.0],), ([1.9, 2.0],)],
    "maximum": [(1.0, [2.0]), (1.9, [2.0])],
    "abs": [([-0.1],), ([-5.0],)],
    "hardswish": [([0.1],), ([2.9],)],
    "hardsigmoid": [([-3.1],), ([-9.0],)],
    "softshrink": [([0.6], 0.5), ([1.9], 0.5)],
    "round": [([0.6],), ([1.4],)],
    "smooth_l1_loss": [([0.6], ONE, 1, 0.5), ([1.9], ONE, 1, 0.5)],
    "huber_loss": [([0.9], ONE, 1, 2.0), ([1.9], ONE, 1, 2.0)],
    "multi_margin_loss": [([1.2, 0.1], TARGET), ([9.0, 0.1], TARGET)],
    "_cdist_forward": [([[1.0]], [[2.0]], 2.0, None), ([[0.0]], [[2.0]], 2.0, None)],
    "dist": [([3.0], [2.0], 1.0), ([9.0], [2.0], 1.0)],
}  # fmt: skip


@pytest.mark.parametrize("name", CROSSED)
def test_a_kink_that_is_crossed_is_seen(name):
    before, after = CROSSED[name]
    assert sides(name, *before) != sides(name, *after)


ON_IT = {  # at the kink, and before and behind it
    "abs": [([0.0],), ([-0.1],), ([0.1],)],
    "elu": [([0.0],), ([-0.1],), ([0.1],)],
    "multi_margin_loss": [([1.25, 0.25], TARGET), ([1.0, 0.25], TARGET), ([1.5, 0.25], TARGET)],
    "smooth_l1_loss": [([0.0], ONE, 1, 1.0), ([-0.1], ONE, 1, 1.0), ([0.1], ONE, 1, 1.0)],
}


def test_on_the_kink_itself_is_neither_side():
    for name, points in ON_IT.items():
        here, before, behind = (sides(name, *each) for each in points)
        assert here != before, name
        assert here != behind, name
        assert before != behind, name


@pytest.mark.parametrize("name", STAYS)
def test_a_stretch_without_a_kink_is_one_side(name):
    before, after = STAYS[name]
    assert sides(name, *before) == sides(name, *after)


X0, X1 = [-2.0, -0.5, 0.5, 2.0], [0.5, 2.0, -2.0, -0.5]
# what the smooth piece on which x0 lies makes of x1
FOLLOWED = {
    "relu": ((), [0.0, 0.0, -2.0, -0.5]),
    "abs": ((), [-0.5, -2.0, -2.0, -0.5]),
    "leaky_relu": ((), [0.005, 0.02, -2.0, -0.5]),
    "hardtanh": ((), [-1.0, 2.0, -2.0, 1.0]),
    "sign": ((), [-1.0, -1.0, 1.0, 1.0]),
    "floor": ((), [-2.0, -1.0, 0.0, 2.0]),
    "clamp_min": ((0.0,), [0.0, 0.0, -2.0, -0.5]),
    "maximum": ((torch.zeros(4),), [0.0, 0.0, -2.0, -0.5]),
    "minimum": ((torch.zeros(4),), [0.5, 2.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_branch_is_followed_beyond_its_kink(name):
    more, expected = FOLLOWED[name]
    x0, x1 = torch.tensor(X0), torch.tensor(X1)
    rule = KINKS[name].rule
    branch = rule.record((x0, *more), getattr(aten, name)(x0, *more))
    assert rule.replay(branch, (x1, *more)).tolist() == pytest.approx(expected)
    assert getattr(aten, name)(x0, *more).tolist() == pytest.approx(
        rule.replay(branch, (x0, *more)).tolist()
    )


@pytest.mark.parametrize(("keep", "shape"), [((), (2,)), ((True,), (2, 1))])
def test_the_place_of_a_largest_value_is_followed(keep, shape):
    x0, x1 = torch.tensor([[1.0, 3.0], [4.0, 2.0]]), torch.tensor([[7.0, 5.0], [6.0, 8.0]])
    rule = KINKS["max"].rule
    index = rule.record((x0, 1, *keep), torch.max(x0, 1, *keep))
    values, places = rule.replay(index, (x1, 1, *keep))
    assert values.shape == places.shape == shape
    assert (values.flatten().tolist(), places.flatten().tolist()) == ([5.0, 6.0], [1, 0])


def test_the_places_of_a_pools_values_are_followed():
    x0 = torch.arange(16.0).view(1, 1, 4, 4)
    rule = KINKS["max_pool2d_with_indices"].rule
    index = rule.record((x0, [2, 2]), aten.max_pool2d_with_indices(x0, [2, 2]))
    values, places = rule.replay(index, (-x0, [2, 2]))
    assert values.flatten().tolist() == [-5.0, -7.0, -13.0, -15.0]
    assert torch.equal(places, index)


@pytest.mark.parametrize(
    ("name", "overload", "x", "keywords", "applies"),
    [
        ("relu", "default", torch.ones(2), {}, True),
        ("relu", "out", torch.ones(2), {"out": torch.ones(2)}, False),
        ("relu", "default", torch.ones(2, dtype=torch.int64), {}, False),
        ("abs", "default", torch.ones(2, dtype=torch.complex64), {}, False),
        ("max", "dim", torch.ones(2), {}, True),
        ("max", "default", torch.ones(2), {}, False),
        ("gt", "Scalar", torch.ones(2, dtype=torch.int64), {}, True),
        ("gt", "Scalar", 3.0, {}, False),
    ],
)
def test_a_rule_is_for_the_calls_that_it_knows(name, overload, x, keywords, applies):
    assert KINKS[name].rule.applies(overload, (x, 0), keywords) == applies

import torch
from helpers.gradcheck_modules import Doubled
from torch.autograd.graph import get_gradient_edge

from lightning_stab.functional.autograd_graph import first_edges, leaves_of, walk_graph


def test_each_node_is_visited_once_at_its_least_distance():
    x = torch.ones(3, requires_grad=True)
    hidden = x.exp()
    loss = (hidden.sin().cos() + hidden).sum()
    visited = list(walk_graph(loss.grad_fn))
    names = [(node.name(), distance) for node, distance in visited]
    assert len({node for node, _ in visited}) == len(visited)
    assert names.count(("ExpBackward0", 2)) == 1
    assert [distance for _, distance in visited] == sorted(d for _, d in visited)


def test_walks_with_the_same_set_of_nodes_share_their_work():
    x = torch.ones(3, requires_grad=True)
    hidden = x.exp()
    passed = set()
    first = [node for node, _ in walk_graph(hidden.grad_fn, passed)]
    second = [node.name() for node, _ in walk_graph(hidden.sin().grad_fn, passed)]
    assert len(first) == 2
    assert second == ["SinBackward0"]
    assert not list(walk_graph(hidden.grad_fn, passed))


def test_the_leaves_are_those_that_backward_would_fill():
    a, b, unused = (torch.ones(2, requires_grad=True) for _ in range(3))
    frozen = torch.ones(2)
    loss = (a * b * frozen + a.detach()).sum()
    assert {id(leaf) for leaf in leaves_of(loss)} == {id(a), id(b)}
    assert unused.grad is None
    assert not list(leaves_of(frozen.sum()))


def test_a_custom_function_is_a_node_like_any_other():
    x = torch.ones(2, requires_grad=True)
    assert [leaf is x for leaf in leaves_of(Doubled.apply(x).sum())] == [True]


def test_the_first_edges_are_those_behind_which_there_is_no_other():
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    first, other = x.exp(), y.exp()
    second = first.sin() + first
    edges = [get_gradient_edge(t) for t in (first, second, other, second * other)]
    assert first_edges(edges) == [edges[0], edges[2]]

"""Who is to blame for a wrong gradient, and what is a matter of precision, by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab.functional.autograd_graph import CustomNode
from lightning_stab.functional.gradcheck import Problem
from lightning_stab.functional.gradcheck.check import _suspect
from lightning_stab.functional.gradcheck.examination import Examination
from lightning_stab.functional.gradcheck.lines import Point
from lightning_stab.functional.gradcheck.report import ParameterRecord
from lightning_stab.functional.gradcheck.verdicts import Comparison


def node(function, distance, *parameters):
    return SimpleNamespace(
        name=function.__name__, function=function, distance=distance, parameters=set(parameters)
    )


def test_a_node_has_what_is_asked_of_it_here():
    known = {*CustomNode.__dataclass_fields__, *dir(CustomNode)}
    assert {"name", "function", "distance", "parameters"} <= known


class A:
    pass


class B:
    pass


def test_the_function_that_fails_worst_alone_is_the_suspect():
    nodes = [node(A, 1, "x", "y"), node(B, 2, "x")]
    assert _suspect("x", nodes, {A: 0.1, B: 0.2}, set()) == "B"
    assert _suspect("x", nodes, {A: 0.3, B: 0.2}, {"y"}) == "A"
    assert _suspect("y", nodes, {A: 0.1, B: 0.2}, set()) == "A"  # the other is not on its way
    assert _suspect("z", nodes, {A: 0.1}, set()) is None


def test_where_none_fails_alone_it_is_the_nearest_with_no_right_parameter_behind_it():
    nodes = [node(A, 1, "x"), node(B, 5, "x", "y")]  # the larger distance is nearer to it
    assert _suspect("x", nodes, {}, set()) == "B"
    assert _suspect("x", nodes, {A: 0.0, B: 0.0}, {"y"}) == "A"
    assert _suspect("x", nodes[1:], {}, {"y"}) == "B"  # and else the nearest


def examination(*records):
    module = nn.ParameterDict({r.name: nn.Parameter(torch.ones(2)) for r in records})
    problem = Problem(module, lambda on_loss: None)
    return Examination(
        problem, Point([1.0], []), 1e-7, torch.Generator(), {r.name: r for r in records}
    )


@pytest.mark.parametrize(
    ("verdict", "error", "limited"),
    [
        ("wrong", 0.05, True), ("wrong", 0.051, False), ("nondeterministic", 0.05, True),
        ("nondeterministic", 0.06, False), ("ok", 1.0, True), ("kink", 1.0, True),
        ("precision-limited", 0.0, True), ("zero", 0.0, False), ("unchecked", 0.0, False),
    ],
)  # fmt: skip
def test_an_error_of_a_low_precision_is_no_fault_unless_it_is_large(verdict, error, limited):
    found = examination(ParameterRecord("a", verdict, (2,), error))
    found.limit_precision("a", "Cut", "float32 inside")
    record = found.records["a"]
    assert (record.verdict == "precision-limited") == (limited or verdict == "precision-limited")
    expected = "Cut.backward leaves double precision (float32 inside)." if limited else ""
    assert record.note == expected
    assert record.function == ("Cut" if limited else None)
    found.limit_precision("b", "Cut", "x")
    assert "b" not in found.records


def test_records_come_in_the_order_of_the_parameters_with_their_shapes():
    found = examination(ParameterRecord("a", "ok", (2,)), ParameterRecord("b", "ok", (2,)))
    found.records = {}
    found.note("b", "unused", "So.", 0.5)
    found.note("a", "zero")
    assert found.in_order() == [
        ParameterRecord("a", "zero", (2,)), ParameterRecord("b", "unused", (2,), 0.5, note="So."),
    ]  # fmt: skip


def test_the_place_of_an_error_is_its_index_also_of_a_complex_number():
    module = nn.ParameterDict({
        "m": nn.Parameter(torch.ones(3, 4, dtype=torch.float64)),
        "z": nn.Parameter(torch.ones(3, dtype=torch.complex128)),
    })  # fmt: skip
    found = Examination(
        Problem(module, lambda on_loss: None), Point([1.0], []), 1e-7, torch.Generator()
    )
    wrong = Comparison("wrong", 1.0, 2.0, 0.5, 1e-3)
    for name, index, place in (("m", 6, (1, 2)), ("z", 5, (2, 1)), ("m", None, None)):
        found._record(name, wrong, 1, index)
        record = found.records[name]
        assert (record.coordinate, record.loss, record.note) == (place, 1, "")
        assert (record.analytic, record.numeric, record.relative_error) == (1.0, 2.0, 0.5)
    found._record("m", Comparison("unchecked", 1.0, 2.0, 0.5, 1e-3), 0, None)
    assert found.records["m"].note.startswith("Could not be checked")

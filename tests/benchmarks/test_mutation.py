"""Faults are planted one at a time, where they change something, and the small size runs."""

import ast

import pytest
from helpers.small_runs import numbers

from benchmarks.mutation.faults import sites_of
from benchmarks.mutation.run import rounds_for, sample

TEXT = '''"""A module."""
def f(x: int = 3) -> bool:
    """Say something."""
    if x < 2 and not x:
        raise ValueError(f"{x + 1} is wrong")
    note(x)
    return x + 1
'''


@pytest.fixture
def planted(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(TEXT)
    return [site.plant() for site in sites_of(path)]


def test_each_fault_is_one_change_of_the_text(planted):
    plain = ast.unparse(ast.parse(TEXT)).splitlines()
    for fault in planted:
        changed = ast.unparse(ast.parse(fault.source)).splitlines()
        assert len(changed) == len(plain)
        assert sum(a != b for a, b in zip(plain, changed, strict=True)) == 1


def test_defaults_comparisons_conditions_calls_and_results_are_changed(planted):
    assert {(f.kind, f.before.splitlines()[0], f.after.splitlines()[0]) for f in planted} >= {
        ("constant", "3", "6"),
        ("comparison", "x < 2", "x <= 2"),
        ("and/or", "x < 2 and (not x)", "x < 2 or not x"),
        ("call left out", "note(x)", "None"),
        ("return value left out", "return x + 1", "return None"),
        ("operator", "x + 1", "x - 1"),
    }


def test_messages_docstrings_and_annotations_stay(planted):
    assert all("wrong" not in f.before or f.kind == "condition" for f in planted)
    assert all("something" in f.source for f in planted)


def test_a_sample_is_drawn_anew_by_its_seed_and_its_tests_exist():
    first, again, other = sample(20, 1), sample(20, 1), sample(20, 2)
    assert first == again != other
    assert len(set(first)) == 20
    assert all(rounds_for(fault.path)[-1] == ["tests"] for fault in first)


@pytest.mark.nightly
def test_the_small_size_counts_what_is_noticed():
    result = numbers("benchmarks.mutation.run")
    assert result["table"][-1]["planted"] == len(result["first_failure"]) == 2
    assert len(result["missed"]) == 2 - result["table"][-1]["noticed"]

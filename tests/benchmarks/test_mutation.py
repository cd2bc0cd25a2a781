"""Faults are planted one at a time, where they change something, and the small size runs."""

import ast
from collections import Counter
from types import SimpleNamespace

import pytest
from coverage import CoverageData
from helpers.small_runs import numbers

from benchmarks.mutation import run
from benchmarks.mutation.faults import sites_of
from benchmarks.mutation.reach import Reach
from benchmarks.mutation.run import (
    AT_IMPORT,
    ROOT,
    equivalent_faults,
    is_fault,
    rounds_for,
    sample,
)
from benchmarks.mutation.trial import FirstFailure

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
    first, again, other = (sample(9, seed, "lightning_stab/models") for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 9
    for words in rounds_for(first[0].path):
        assert all((ROOT / word).exists() for word in words)


def test_what_would_be_the_same_is_not_planted(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "def f(a, b):\n    if zip(a, b, strict=True):\n        return False\n    return None\n"
    )
    assert {site.kind for site in sites_of(path)} == {"condition", "constant"}
    assert all(f.before != f.after for f in (site.plant() for site in sites_of(path)))


def test_the_comments_of_a_file_stay_where_they_are(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("# ä\nx = 1 + (\n    2  # two\n)\n")
    sources = {site.plant().source for site in sites_of(path)}
    assert "# ä\nx = 1 + (\n    (4)  # two\n)\n" in sources
    assert "# ä\nx = (1 - 2)\n" in sources


def test_each_marked_fault_is_one_that_can_be_planted_and_has_its_reason():
    entries = equivalent_faults()
    assert entries
    for entry in entries:
        lines = (ROOT / entry["path"]).read_text().splitlines()
        sites = [s for s in sites_of(ROOT / entry["path"]) if entry["code"] in lines[s.line - 1]]
        planted = (site.plant() for site in sites if site.kind == entry["kind"])
        assert sum(is_fault(fault, entry) for fault in planted) == 1, entry
        assert entry["why"].endswith(".")


def test_the_tests_of_what_imports_a_file_are_near_it():
    own, beside, everything = rounds_for(ROOT / "lightning_stab/callbacks/_trainer/places.py")
    assert own[0] == "tests/callbacks/_trainer/test_places.py"
    assert own[-1] == "lightning_stab/callbacks/_trainer/places.py"
    assert "tests/callbacks/guard/test_forensics.py" in beside
    assert "tests/callbacks/test_regimes.py" in beside
    assert not set(own) & set(beside)
    assert everything == ["tests"]


@pytest.fixture
def reach(tmp_path):
    """Return what two tests reach of a file of the package, as pytest-cov writes it."""
    data = CoverageData(str(tmp_path / "map"))
    name = "lightning_stab/functional/spikes.py"
    lines = (ROOT / name).read_text().splitlines()
    place = {word: next(i for i, text in enumerate(lines, start=1) if word in text) for word in (
        "BEYOND_ANY_SCALE =", "early_minimum: int", "def accept", "def is_spike")}  # fmt: skip
    accept, is_spike = place["def accept"], place["def is_spike"]
    for context, reached in (
        ("", [place["BEYOND_ANY_SCALE ="], place["early_minimum: int"], accept, is_spike]),
        ("tests/a.py::test_large|run", [accept + 2, accept + 3, is_spike + 2, is_spike + 3]),
        ("tests/b.py::test_small|run", [accept + 2]),
        ("tests/b.py::test_small|setup", [accept + 3]),
    ):
        data.set_context(context)
        data.add_lines({name: reached})
    data.write()
    return Reach(tmp_path / "map"), ROOT / name, place


def test_the_tests_that_reach_a_line_come_with_the_smallest_first(reach):
    known, path, place = reach
    small, large = "tests/b.py::test_small", "tests/a.py::test_large"
    assert known.tests_of(path, place["def accept"] + 2) == [small, large]
    assert known.tests_of(path, place["def is_spike"] + 2) == [large]


def test_those_of_the_files_own_folder_come_before_all_others(reach):
    known, path, _ = reach
    small, own = "tests/b.py::test_small", "tests/functional/c.py::test_own"
    known._by_line[path.relative_to(ROOT).as_posix()] = {30: [small, own]}
    vars(known)["_sizes"] = Counter({small: 1, own: 9})
    assert known.tests_of(path, 30) == [own, small]


def test_what_runs_at_an_import_is_reached_by_what_stands_around_it(reach):
    known, path, place = reach
    both = ["tests/b.py::test_small", "tests/a.py::test_large"]
    assert known.tests_of(path, place["def is_spike"]) == both[1:]
    assert known.tests_of(path, place["early_minimum: int"]) == both
    assert known.tests_of(path, place["BEYOND_ANY_SCALE ="]) == both
    assert known.tests_of(ROOT / "lightning_stab/errors.py", 1) == []


def test_what_only_an_import_runs_is_known(reach):
    known, path, place = reach
    at_import = ("BEYOND_ANY_SCALE =", "early_minimum: int", "def accept", "def is_spike")
    assert not any(known.is_run_by_tests(path, place[word]) for word in at_import)
    assert known.is_run_by_tests(path, place["def accept"] + 2)
    assert all((ROOT / table).exists() or "*" in table for table in AT_IMPORT)


def test_a_default_is_tried_by_the_tests_of_defaults_first(reach, tmp_path, monkeypatch):
    known, path, place = reach
    fault = next(s.plant() for s in sites_of(path) if s.line == place["early_minimum: int"])
    (copy := tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True)
    copy.write_text(path.read_text())
    tried = []

    def first_failure(copy, words, *chosen):
        tried.append(words)
        return "FAILED tests/a.py::test_of_defaults" if len(tried) == 1 else ""

    monkeypatch.setattr(run, "first_failure", first_failure)
    assert run.notices(fault, tmp_path, reach=known).endswith("test_of_defaults")
    assert len(tried) == 1
    assert "tests/test_signatures.py" in tried[0]
    assert copy.read_text() == path.read_text()


def test_the_chosen_tests_run_in_their_order_until_the_time_is_over():
    items = [SimpleNamespace(nodeid=name) for name in "abc"]
    plugin = FirstFailure(["c", "gone", "a"], seconds=60)
    plugin.pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == ["c", "a"]
    plugin.pytest_runtest_logfinish()
    report = SimpleNamespace(failed=False, nodeid="c")
    plugin.pytest_runtest_logreport(report)
    assert plugin.failed == ""
    for name in "ab":
        plugin.pytest_runtest_logreport(SimpleNamespace(failed=True, nodeid=name))
    assert plugin.failed == "FAILED a"
    with pytest.raises(pytest.exit.Exception):
        FirstFailure(None, seconds=-1e9).pytest_runtest_logfinish()


@pytest.mark.nightly
def test_the_small_size_counts_what_is_noticed():
    result = numbers("benchmarks.mutation.run")
    assert result["table"][-1]["planted"] == len(result["first_failure"]) == 2
    assert len(result["missed"]) == 2 - result["table"][-1]["noticed"]

"""The benchmark runs in a small size, and the corpus is what it says it is."""

import pytest
from helpers.small_runs import numbers, printed

from benchmarks.gradcheck.corpus.right import right_cases
from benchmarks.gradcheck.corpus.wrong import wrong_cases

pytestmark = pytest.mark.nightly
SCRIPT = "benchmarks.gradcheck.run"


def test_the_corpus_is_large_and_its_names_are_unique():
    wrong, right = wrong_cases(), right_cases()
    assert len(wrong) >= 120
    assert len(right) >= 120
    assert len({case.operation for case in wrong}) >= 15
    names = [case.name for case in (*wrong, *right)]
    assert len(set(names)) == len(names)
    assert all(case.wrong for case in wrong)
    assert not any(case.wrong for case in right)


@pytest.mark.parametrize("case", wrong_cases()[::9], ids=lambda case: case.name)
def test_a_wrong_case_is_really_wrong(case):
    assert case.wrong_parameters(seed=0)


def test_the_small_size_finds_everything_and_accuses_nothing():
    result = numbers(SCRIPT)
    check = result["check"]
    assert check["wrong_found"] == check["wrong_tried"] == check["function_named"] > 10
    assert check["right_accused"] == check["others_accused"] == 0 < check["right_tried"]
    assert all(row["precision_limited"] == row["tried"] for row in result["low_precision"])
    assert "| lightning-stab, 2 directions |" in printed(SCRIPT)

"""The benchmark of the command line runs in a small size, and counts what is printed."""

import pytest
from helpers.small_runs import numbers

pytestmark = pytest.mark.nightly


def test_commands_and_mistakes_are_counted():
    results = numbers("benchmarks.front_door.run")
    version, mistake = results["commands"]["now"].values()
    assert version["exit_code"] == 0
    assert version["lines"] == 1
    assert version["cpu_seconds"] < mistake["cpu_seconds"]
    assert mistake["exit_code"] == 2
    assert mistake["lines"] <= 3
    assert mistake["names_the_right_one"]
    assert results["imports"]["now"]["Lightning"] > 0

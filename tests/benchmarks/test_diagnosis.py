"""The benchmark of the doctor, in a small size, and how it counts."""

import pytest
from helpers.small_runs import numbers

from benchmarks.diagnosis import run as bench_diagnosis
from benchmarks.diagnosis.score import Run, misses, share, table, wilson

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def results():
    return {run["name"]: run for run in numbers("benchmarks.diagnosis.run")}


def test_the_small_benchmark_finds_the_sick_and_leaves_the_healthy_alone(results):
    assert set(results) == set(bench_diagnosis.SMALL)
    for run in results.values():
        told = [id_ for id_, _ in run["alarms"]["TrainingDoctor"]]
        assert told[:1] == run["names"][:1]


def test_every_detector_watches_every_run(results):
    for run in results.values():
        assert {"TrainingDoctor", "AUTOTRAINER rules", "SageMaker rules"} <= set(run["alarms"])


def a_run(*told, sick=True, names=("plateau",)):
    alarms = {"TrainingDoctor": [(id_, 1) for id_ in told]}
    return Run("a/b", "a", "tune", sick, False, names if sick else (), 0.5, alarms)


def test_the_first_cause_names_a_run():
    assert a_run("plateau", "dead-units").is_named("TrainingDoctor")
    assert not a_run("dead-units", "plateau").is_named("TrainingDoctor")
    assert not a_run().is_found("TrainingDoctor")


def test_mistakes_are_listed_by_kind():
    runs = [a_run(), a_run("dead-units"), a_run("plateau", sick=False), a_run("plateau")]
    text = misses(runs)
    assert text.count("\n") == 2
    assert "- missed: a/b (plateau)" in text
    assert "- named otherwise: a/b (plateau), reported dead-units" in text
    assert "- false alarm: a/b, reported plateau" in text
    assert "| TrainingDoctor | 2 of 3: 66.7 % (21-94)" in table(runs, ["TrainingDoctor"])


def test_wilson_holds_the_proportion_and_is_known_at_the_ends():
    low, high = wilson(58, 60)
    assert low < 58 / 60 < high < 1
    assert wilson(0, 0) == (0.0, 1.0)
    assert share(60, 60).endswith("100.0 % (94-100)")

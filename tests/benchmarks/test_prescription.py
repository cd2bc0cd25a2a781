"""The benchmark of prescriptions, in a small size."""

import pytest
from helpers.small_runs import numbers, printed

from benchmarks.diagnosis.corpus.labels import BY_NAME
from benchmarks.prescription.run import SMALL, can_be_helped, summary

SCRIPT = "benchmarks.prescription.run"


@pytest.mark.nightly
def test_the_small_benchmark():
    text, rows = printed(SCRIPT), numbers(SCRIPT)
    assert set(rows) == set(SMALL)
    sick, healthy = (rows[name] for name in SMALL)
    assert sick["best"] is not None
    assert sick["treated"] > sick["untreated"]
    assert sick["cost"] <= 5.0
    assert healthy["best"] is None
    assert "- healthy: nothing to cure: 1 of 1" in text


def test_faults_of_the_data_and_of_the_wiring_are_left_out():
    assert can_be_helped(BY_NAME["mlp_digits/rate_1"])
    assert not can_be_helped(BY_NAME["mlp_digits/shuffled_labels"])
    assert not can_be_helped(BY_NAME["deep_sigmoid/head_left_out"])


def test_the_summary_counts():
    row = {
        "name": "mlp_digits/rate_1",
        "names": ["learning-rate-too-high"],
        "found": ["learning-rate-too-high"],
        "best": "lower-learning-rate",
        "cost": 3.0,
        "untreated": 0.1,
        "treated": 0.95,
        "replay": 0.95,
        "noise": 0.01,
        "advice": 0.2,
        "rates": 0.9,
    }
    text = summary([row, {**row, "treated": 0.5}])
    assert "within 5 points of the healthy twin: 1 of 2" in text
    assert "first advice alone, of the rightly named: 0 of 2" in text
    assert "| learning-rate-too-high | 2 | 1 | lower-learning-rate 2 | +0.62 | 3.0 |" in text

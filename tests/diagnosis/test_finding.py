"""A finding as a record: plain values out, the same finding back."""

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
from helpers.diagnosis_moments import EVERY_RULE, moment, reported
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_stab.diagnosis import SEVERITIES, Evidence, Finding

TEXTS = st.text(max_size=9)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
FINDINGS = st.builds(
    Finding,
    id=TEXTS,
    severity=st.sampled_from(SEVERITIES),
    step=st.integers(0),
    layers=st.lists(TEXTS, max_size=3).map(tuple),
    evidence=st.dictionaries(TEXTS, st.builds(Evidence, NUMBERS, TEXTS, NUMBERS, TEXTS),
                             max_size=2),
    message=TEXTS,
    advice=st.lists(TEXTS, max_size=3).map(tuple),
    source=TEXTS,
)  # fmt: skip


@given(FINDINGS)
@settings(max_examples=40)
def test_a_finding_comes_back_from_json(finding):
    back = Finding.from_dict(json.loads(json.dumps(finding.to_dict())))
    assert back == finding
    assert back.source == finding.source
    assert back.to_dict() == finding.to_dict()


@EVERY_RULE
def test_what_a_rule_says_comes_back_from_json(rule):
    (finding,) = reported(rule, [moment(rule, s) for s in range(rule.persistence)])
    assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding
    assert isinstance(finding.id, str)
    assert isinstance(finding.severity, str)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_evidence_that_is_not_finite_is_still_json(value):
    finding = Finding("plateau", "info", 0, (), {"x": Evidence(value, ">", 1.0, "y")}, "", ())
    text = json.dumps(finding.to_dict(), allow_nan=False)
    back = Finding.from_dict(json.loads(text))
    assert not math.isfinite(back.evidence["x"].value)
    assert back.to_dict() == finding.to_dict()


def test_an_alarm_is_more_than_information():
    alarms = [Finding("plateau", s, 0, (), {}, "", ()).is_alarm for s in SEVERITIES]
    assert alarms == [False, True, True]
    assert SEVERITIES == ("info", "warning", "error")


def test_a_finding_is_frozen():
    finding = Finding("plateau", "info", 0, (), {}, "", ())
    with pytest.raises(FrozenInstanceError):
        finding.severity = "error"
    with pytest.raises(FrozenInstanceError):
        Evidence(math.pi, ">", 1.0, "x").value = 2.0


def test_unknown_numbers_are_equal_and_known_ones_are_compared():
    """A dataclass compares NaN by identity up to Python 3.12, and by value from 3.13 on."""
    unknown = [Evidence(float("nan"), "not>", 3.0, "late") for _ in range(2)]
    assert unknown[0] == unknown[1]
    assert len({*unknown}) == 1
    known = Evidence(1.0, "not>", 3.0, "late")
    assert known == Evidence(1.0, "not>", 3.0, "late") != unknown[0]
    for other in (("value", 2.0), ("sign", ">"), ("threshold", 4.0), ("name", "early")):
        assert known != replace(known, **dict([other]))
    assert known != (1.0, "not>", 3.0, "late")

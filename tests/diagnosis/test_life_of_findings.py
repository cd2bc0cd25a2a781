"""A finding is raised, then confirmed when the run ends, or withdrawn when it no longer holds."""

import json

import pytest

from lightning_stab.diagnosis import Engine, Facts, Finding
from lightning_stab.diagnosis.facts import SAMPLED_STEP

SICK = {"dead_fraction": {"a": 1.0}, "learnt": 0.1}
WELL = {"dead_fraction": {"a": 1.0}, "learnt": 0.99}


def told(engine, *shown, moment=SAMPLED_STEP, first=10):
    """Return the states of what is new or changed at each of these moments."""
    states = []
    for step, known in enumerate(shown, first):
        new = engine.update(Facts(moment=moment, step=step, **known))
        states.append([f.state for f in (*new, *engine.changed)])
    return states


def test_an_alarm_is_withdrawn_when_it_holds_no_longer():
    engine = Engine()
    assert told(engine, SICK, SICK, WELL, WELL, WELL) == [[], ["raised"], [], ["withdrawn"], []]
    assert engine.findings == []
    (finding,) = engine.withdrawn
    assert (finding.id, finding.step, finding.withdrawn_at) == ("dead-units", 11, 13)
    assert (finding.since, finding.seen) == (10, 2)


def test_one_good_moment_withdraws_nothing():
    engine = Engine()
    told(engine, SICK, SICK, WELL, SICK, WELL, SICK)
    assert [f.id for f in engine.findings] == ["dead-units"]


def test_what_is_not_known_any_more_withdraws_nothing():
    engine = Engine()
    told(engine, SICK, SICK, {}, {}, {})
    assert [f.id for f in engine.findings] == ["dead-units"]


def test_just_above_the_limit_is_not_well():
    """Else an alarm would come and go with the noise."""
    engine = Engine()
    limit = engine.thresholds["well_learnt"]
    told(engine, SICK, SICK, *[{**SICK, "learnt": limit + 0.01}] * 5)
    assert [f.id for f in engine.findings] == ["dead-units"]


def test_what_comes_back_has_to_last_twice_as_long():
    engine = Engine()
    states = told(engine, SICK, SICK, WELL, WELL, SICK, SICK, SICK, SICK)
    assert states == [[], ["raised"], [], ["withdrawn"], [], [], [], ["raised"]]
    assert len(engine.findings) == len(engine.withdrawn) == 1


def test_the_end_of_the_run_confirms_what_holds_and_withdraws_what_does_not():
    sick, well = Engine(), Engine()
    told(sick, SICK, SICK)
    told(well, SICK, SICK)
    assert told(sick, SICK, moment="end") == [["confirmed"]]
    assert told(well, WELL, moment="end") == [["withdrawn"]]
    assert [f.state for f in sick.findings] == ["confirmed"]
    assert well.findings == []


def test_a_fault_of_form_is_never_withdrawn():
    engine = Engine()
    told(engine, {"doubled_softmax": 1.0}, *[{"doubled_softmax": 0.0, "learnt": 1.0}] * 5)
    assert [f.id for f in engine.findings] == ["output-activation"]


def test_information_is_never_withdrawn():
    engine = Engine()
    told(engine, {"spike_height": 9.0}, *[{"spike_height": 0.0}] * 5)
    assert [f.severity for f in engine.findings] == ["info"]


def test_time_that_passes_withdraws_nothing():
    """A schedule that was over too early is not right when the run has come to its half."""
    engine = Engine()
    gone = {"rate_left": 1e-4, "learnt": 0.1}
    told(engine, *[{**gone, "progress": p} for p in (0.2, 0.3, 0.6, 0.7, 0.8)])
    assert [f.id for f in engine.findings] == ["learning-rate-too-low"]


def test_what_a_withdrawn_alarm_explained_is_reported_afterwards():
    engine = Engine()
    told(engine, SICK, SICK, WELL, WELL)
    later = {"validation_fall": 0.9, "learnt": 0.99}
    told(engine, later, later, moment="validation", first=20)
    assert [f.id for f in engine.findings] == ["overfitting"]


STUCK = {"learnt": 0.0, "epoch": 9.0, "samples": 1e4}


def test_a_sign_of_a_deeper_cause_is_withdrawn_when_that_is_found():
    engine = Engine()
    told(engine, STUCK, STUCK, first=100)
    assert [f.id for f in engine.findings] == ["plateau"]
    told(engine, {**STUCK, **SICK}, {**STUCK, **SICK}, first=102)
    assert [f.id for f in engine.findings] == ["dead-units"]
    (sign,) = engine.withdrawn
    assert (sign.id, sign.explained_by, sign.withdrawn_at) == ("plateau", "dead-units", 103)
    assert Finding.from_dict(sign.to_dict()).explained_by == "dead-units"


def test_what_came_first_and_ruins_the_rest_is_no_sign():
    engine = Engine()
    high = {"loss_ratio": 20.0, "unexplained": 20.0, "reach": 5.0}
    told(engine, high, {**high, **SICK}, {**high, **SICK})
    assert [f.id for f in engine.findings] == ["learning-rate-too-high"]


def test_an_infinite_loss_that_passes_is_withdrawn_and_broken_weights_are_not():
    engine = Engine()
    fine = {"nonfinite_losses": 0.0}
    told(engine, {"nonfinite_losses": 1.0}, fine, fine, fine)
    assert [f.id for f in engine.findings] == ["non-finite"]
    told(engine, fine, moment="validation", first=20)  # at which no losses of training are new
    assert engine.findings
    told(engine, fine, first=30)
    assert engine.findings == []
    told(engine, *[{"nonfinite_weights": {"a": 1.0}}] * 2, *[fine] * 9, first=40)
    assert [f.id for f in engine.findings] == ["non-finite"]


@pytest.mark.parametrize("place", range(6))
def test_a_restart_anywhere_changes_nothing(place):
    shown = [SICK, SICK, WELL, WELL, SICK, SICK]
    whole, first, second = Engine(), Engine(), Engine()
    told(whole, *shown)
    told(first, *shown[:place])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    told(second, *shown[place:], first=10 + place)
    assert second.state_dict() == whole.state_dict()


def test_a_state_of_an_earlier_version_is_taken():
    engine = Engine()
    told(engine, SICK, SICK)
    state = engine.state_dict()
    old = {"findings": state["findings"], "streaks": [0]}
    for plain in old["findings"]:
        for name in ("since", "seen", "state", "withdrawn_at"):
            del plain[name]
    other = Engine()
    other.load_state_dict(old)
    assert [f.id for f in other.findings] == ["dead-units"]
    assert isinstance(other.findings[0], Finding)

"""Which fault is the cause of which: laws that hold for every rule, whatever its numbers."""

from itertools import pairwise

import pytest

from lightning_stab.diagnosis import RULES
from lightning_stab.diagnosis.rules import CAUSES, EXPLAINS


def test_an_event_is_over_at_once_and_need_not_hold_on():
    events = [rule for rule in RULES if rule.is_event]
    assert events
    assert {rule.persistence for rule in events} == {1}


@pytest.mark.parametrize(
    "chain",
    [
        ("input-scale", "bad-initialization", "vanishing-gradient", "plateau"),
        ("target-scale", "exploding-gradient", "plateau"),
        ("learning-rate-too-high", "oscillating-loss"),
        ("learning-rate-too-low", "plateau", "overfitting"),
    ],
)
def test_what_comes_first_in_a_run_is_the_deeper_cause_and_explains_the_rest(chain):
    for cause, effect in pairwise(chain):
        assert CAUSES[cause] < CAUSES[effect], (cause, effect)
        assert effect in EXPLAINS[cause], (cause, effect)


def test_nothing_explains_itself_or_a_fault_by_its_form():
    for cause, effects in EXPLAINS.items():
        assert not effects & {cause, "non-finite", "output-activation", "unused-parameters"}

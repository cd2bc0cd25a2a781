"""What is better: beyond the noise, for every seed, and with the finding gone."""

import math
from dataclasses import replace

import pytest

from lightning_stab.diagnosis import Finding
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.judgement import compare, fall_of, noise_of
from lightning_stab.prescription.search import Search
from lightning_stab.prescription.trial import STOPPED, Program, Run

MIN, MAX = (Program(None, None, {}, "m", mode) for mode in ("min", "max"))
SICK = Finding("plateau", "warning", 1, (), {}, "It stands still.", ())
OTHER = Finding("loss-spike", "warning", 1, (), {}, "It jumps.", ())
CURE = Candidate("x", "plateau", "Do.", callbacks=(("a.B", {}),))


def run(*values, findings=(), ended="", batches=None):
    curve = tuple((10 * (i + 1), value) for i, value in enumerate(values))
    return Run(curve, batches or 10 * len(values), len(values), tuple(findings), ended)


@pytest.mark.parametrize(
    ("program", "treated", "outcome"),
    [
        (MIN, [run(3.0, 2.0, 1.0)], "cured"),
        (MIN, [run(3.0, 2.0, 1.0, findings=[SICK])], "helps"),
        (MIN, [run(3.0, 2.0, 1.0, findings=[OTHER])], "helps"),  # a new fault
        (MIN, [run(3.0, 2.0, 1.995)], "no better"),  # less than 1 %
        (MIN, [run(3.0, 2.0, 3.0)], "worse"),
        (MIN, [run(3.0, 2.0, math.nan)], "worse"),
        (MAX, [run(1.0, 2.0, 3.0)], "cured"),
        (MAX, [run(1.0, 2.0, 1.0)], "worse"),
        (MIN, [run(3.0, 2.0, 1.0), run(3.0, 2.0, 2.1)], "no better"),  # one seed is worse
        (MIN, [Run((), 0, 0, ended="It failed.")], "not tried"),
        (MIN, [run(0.5, ended=STOPPED)], "helps"),  # at that point
    ],
)
def test_outcomes(program, treated, outcome):
    untreated = [run(2.0, 2.0, 2.0, findings=[SICK]), run(2.0, 2.0, 2.0, findings=[SICK])]
    assert compare(program, CURE, treated, untreated).outcome == outcome


def test_any_value_is_better_than_none():
    untreated = [run(2.0, math.nan, math.nan, findings=[SICK])]
    assert compare(MIN, CURE, [run(3.0, 3.0, 3.0)], untreated).outcome == "cured"


def test_the_noise_is_how_far_the_untreated_metric_gets_by_itself():
    assert noise_of(MIN, [run(9.0, 9.0, 9.0, 1.0, 0.8, 1.0)]) == pytest.approx(0.2)
    assert noise_of(MIN, [run(*[1.0] * 6), run(*[0.6] * 6)]) == pytest.approx(0.2)
    assert noise_of(MIN, [run(5.0)]) == pytest.approx(0.05)
    # wild values on the bad side hide nothing
    assert noise_of(MIN, [run(2.0, 2.0, 2.0, 2.0, 1e9, 2.0)]) == pytest.approx(0.02)
    assert noise_of(MAX, [run(0.1, 0.1, 0.4, 0.1, 0.4, 0.1)]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("values", "batches"),
    [
        ((0.6, 0.8, 0.9, 0.1), 30),
        ((0.6, 0.8, 0.9, 0.1, 0.2, 0.1), 30),
        ((0.7, 0.9, 0.95, 0.3, 0.2, 0.3), 30),
        ((0.9, 0.9, 0.5, 0.1), 20),
        ((0.9, math.nan, 0.9, 0.1), 30),
        ((0.6, 0.8, 0.9, 0.1, 0.9), 0),  # it has recovered
        ((0.1, 0.5, 0.8, 0.9, 0.85), 0),  # no more than a usual step
        ((0.5, 0.5, 0.5, 0.7, 0.5, 0.5), 0),  # back to where it was
        ((0.5, 0.5, 0.496), 0),  # less than a hundredth
        ((0.9,), 0),
        ((), 0),
    ],
)
def test_a_fall_is_what_a_run_does_not_recover_from(values, batches):
    assert fall_of(MAX, run(*values)) == batches
    assert fall_of(MIN, run(*[1 - value for value in values])) == batches


def test_what_a_run_had_before_it_fell_is_no_noise():
    assert noise_of(MAX, [run(0.6, 0.8, 0.9, 0.1)]) == pytest.approx(0.001)
    fallen = run(0.6, 0.8, 0.9, 0.1, findings=[SICK])
    assert compare(MAX, CURE, [run(0.6, 0.8, 0.85, 0.9)], [fallen]).outcome == "cured"


def search(*untreated):
    made = Search(MAX, None, 1, 2, 5.0, print)
    made.untreated = list(untreated)
    return made


def test_a_trial_has_to_be_better_than_the_untreated_run_and_among_the_best():
    made = search(run(0.1, 0.2, 0.3, 0.4, 0.5))
    assert [made._bar(rung) for rung in (0.2, 0.5)] == [0.1, 0.3]
    made.runs = {Candidate(str(i), "", ""): [run(0.2 + i / 10)] for i in range(6)}
    assert made._bar(0.2) == pytest.approx(0.6)  # of six trials two go on
    assert made._bar(0.5) == 0.3  # nobody has come so far


def test_a_program_that_fails_late_is_no_early_measure():
    assert search(run(0.9, 0.9, 0.9, 0.1, 0.1))._bar(0.2) == 0.1
    # not where it only sways by itself
    assert search(run(0.6, 0.5, 0.5, 0.7, 0.5))._bar(0.2) == 0.6
    # a trial that fails late is none either, wherever it fails
    made = search(run(0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1))
    made.runs = {CURE: [run(0.9, 0.9, 0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.2)]}
    assert made._bar(0.2) == 0.2
    made.runs = {CURE: [run(0.9, 0.9, 0.9, 0.9, 0.9, 0.895, 0.89, 0.895, 0.895)]}
    assert made._bar(0.2) == 0.9  # by less than a hundredth
    made.runs = {CURE: [replace(run(0.9, 0.9), ended=STOPPED)]}  # nobody knows how it goes on
    assert made._bar(0.2) == 0.9
    broken = replace(run(0.9, 0.9, 0.9), ended="ValueError")
    assert math.isnan(search(broken)._bar(0.2))


def test_two_cures_become_one_where_they_do_not_fight():
    rate = Candidate("rate", "plateau", "Lower.", (("p.OptimizerSettings", {"x": 1}),))
    longer = Candidate("longer", "plateau", "Train on.", trainer={"max_epochs": 9}, length=2.0)
    both = CURE.with_other(rate).with_other(longer)
    assert both.id == "x+rate+longer"
    assert [path for path, _ in both.callbacks] == ["p.OptimizerSettings", "a.B"]
    assert both.overlay["trainer"]["max_epochs"] == 9
    assert both.length == 2.0
    assert both.with_other(longer) is None
    assert CURE.with_other(CURE) is None

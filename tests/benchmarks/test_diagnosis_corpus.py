"""The labelled corpus keeps its own rules, and its programs end as their labels say."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from lightning.pytorch import Callback

from benchmarks.diagnosis.corpus import PROGRAMS, labels, run
from benchmarks.diagnosis.corpus.check import (
    HALVES,
    OUTCOMES,
    check,
    label_problem,
    median_metric,
    wrong_counts,
    wrong_structure,
)
from benchmarks.diagnosis.elsewhere.faults import FAULTS
from benchmarks.diagnosis.elsewhere.programs import programs as elsewhere_programs
from lightning_stab.diagnosis import IDS, RULES

pytestmark = pytest.mark.nightly
BY_NAME = {program.name: program for program in PROGRAMS}
SAMPLE = (
    "mlp_digits/base",
    "mlp_digits/constant",
    "binary_mlp/log_zero",
    "regression_mlp/targets_far",
    "two_optimizers/head_twice",
    "text_bag/bag_left_out",
    "gan/base",
    "autoencoder/decoder_in_a_list",
)


@pytest.fixture(scope="module")
def outcomes():
    return json.loads(OUTCOMES.read_text())


class Steps(Callback):
    """Counts the steps that it sees."""

    def __init__(self):
        self.seen = 0

    def on_train_batch_end(self, *args):
        self.seen += 1


def test_the_corpus_keeps_its_rules():
    assert check() == []


def test_only_known_ids_name_a_fault_and_every_one_leads_in_both_halves():
    assert {name for p in PROGRAMS for name in p.names} <= set(IDS)
    drawn = {fault.name: fault.ids[0] for fault in FAULTS if fault.ids}
    alarms = {rule.id for rule in RULES if rule.severity != "info"}
    assert alarms <= set(IDS)
    alarms -= {"underfitting"}  # what is said where no cause is found: no fault leads with it
    for half in HALVES:
        leads = Counter(p.names[0] for p in PROGRAMS if p.half == half and p.sick)
        elsewhere = {drawn[p.change] for p in elsewhere_programs(half) if p.change in drawn}
        assert set(leads) | elsewhere == alarms
        assert min(leads.values()) >= 2
    assert len({p.architecture for p in PROGRAMS}) >= 16


def test_a_sick_program_sets_one_thing_beside_its_twin():
    for program in PROGRAMS:
        if program.sick:
            twin = BY_NAME[program.twin].settings
            keys = program.settings.keys() | twin.keys()
            differing = [k for k in keys if program.settings.get(k) != twin.get(k)]
            assert len(differing) == 1, program.name


@pytest.mark.parametrize("healthy", [True, False])
def test_an_outcome_that_contradicts_its_label_is_reported(outcomes, healthy):
    program = BY_NAME["mlp_digits/dropout_half" if healthy else "mlp_digits/constant"]
    twin = outcomes[program.twin]
    other = {**twin, "metric": [0.1] * 3} if healthy else twin
    assert label_problem(program, outcomes) == ""
    assert program.name in label_problem(program, {**outcomes, program.name: other})


def test_a_structural_fault_that_is_not_there_is_reported(outcomes):
    program = BY_NAME["gru/gru_left_out"]
    assert label_problem(program, outcomes) == ""
    sound = {**outcomes[program.name], "orphans": [0, 0, 0]}
    assert "no such fault" in label_problem(program, {**outcomes, program.name: sound})


def test_a_half_that_is_too_small_or_too_easy_is_reported(monkeypatch):
    easy = tuple(p for p in PROGRAMS if not (p.half == "report" and p.near_miss))
    monkeypatch.setattr("benchmarks.diagnosis.corpus.check.PROGRAMS", easy)
    problems = [problem for problem in wrong_counts() if "near misses" in problem]
    assert len(problems) == 2
    assert all(problem.startswith("report, ") for problem in problems)
    monkeypatch.setattr("benchmarks.diagnosis.corpus.check.PROGRAMS", PROGRAMS[:50])
    assert any("report, sick: 0 programs" in problem for problem in wrong_counts())


def test_an_architecture_in_both_halves_and_a_name_given_twice_are_reported(monkeypatch):
    moved = (replace(PROGRAMS[0], half="report"), *PROGRAMS[1:], PROGRAMS[1])
    monkeypatch.setattr("benchmarks.diagnosis.corpus.check.PROGRAMS", moved)
    problems = " ".join(wrong_structure())
    assert "is in both halves" in problems
    assert "is there twice" in problems


@pytest.mark.parametrize("name", SAMPLE)
def test_a_program_ends_as_its_outcome_says(name, outcomes):
    program = BY_NAME[name]
    steps = Steps()
    ended = run(program, 0, [steps])
    recorded = outcomes[name]
    assert steps.seen > 50
    assert ended.metric == pytest.approx(median_metric(recorded), abs=0.15)
    assert ended.finite == recorded["finite"][0]
    assert ended.orphans == recorded["orphans"][0]
    assert ended.seconds > 0


def test_a_seed_says_how_a_run_goes_and_the_trainer_can_be_overridden():
    program = BY_NAME["mlp_digits/base"]
    first, again, other = (run(program, seed, max_epochs=1) for seed in (0, 0, 1))
    assert first.loss == again.loss != other.loss
    assert first.metric == again.metric


def test_a_quick_look_writes_nothing(capsys, monkeypatch):
    before = OUTCOMES.read_text()
    monkeypatch.setattr(labels, "measured", lambda programs, seeds, jobs: {})
    assert labels.main(["--only", "mlp_digits/base", "--seeds", "1"]) == 0
    assert OUTCOMES.read_text() == before
    assert "CPU seconds" in capsys.readouterr().out


def test_labels_run_the_programs_beside_their_twins():
    programs = labels.with_twins([BY_NAME["gan/dead_bias"]])
    assert [p.name for p in programs] == ["gan/relu", "gan/dead_bias"]
    row = labels.once(("mlp_digits/base", 0))
    assert row["metric"] > 0.8

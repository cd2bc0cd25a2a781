"""The search with prepared runs: what it asks for, what it refuses, what it tells at the end."""

import io
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from rich.console import Console
from torch import nn

from lightning_stab.diagnosis import Finding
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.judgement import compare, is_whole, mean, noise_of
from lightning_stab.prescription.prescription import CureRecord, Prescription
from lightning_stab.prescription.search import Interrupted, Search
from lightning_stab.prescription.survey import Survey, Surveyor
from lightning_stab.prescription.trial import (
    INTERRUPTED,
    STOPPED,
    Program,
    Run,
    Trial,
    _Judge,
    run_trial,
)

LOW, HIGH = (Program(None, None, {}, "m", mode) for mode in ("min", "max"))
PLATEAU = Finding("plateau", "warning", 1, (), {}, "It stands still.", ())


def run(*values, findings=(), ended="", print_=0.0, **more):
    curve = tuple((10 * (i + 1), value) for i, value in enumerate(values))
    return Run(curve, 10 * len(values), len(values), tuple(findings), ended, logged=("m",),
               survey=Survey(batch_fingerprint=print_), **more)  # fmt: skip


SICK = run(*[4.0] * 4, findings=(PLATEAU,))
HELPS = run(*[3.0] * 4, findings=(PLATEAU,))
CURES, CURES_BETTER, BAD = run(*[3.0] * 4), run(*[2.0] * 4), run(5.0, ended=STOPPED)


def candidate(id_, **arguments):
    return Candidate(id_, "plateau", f"Do {id_}.", callbacks=((f"a.{id_}", {}),), **arguments)


class Engine:
    """Gives the same prepared run for each seed, or one for each."""

    def __init__(self, runs):
        self.runs, self.trials = runs, []

    def __call__(self, trials):
        self.trials += trials
        for trial in trials:
            found = self.runs[trial.candidate.id if trial.candidate else ""]
            yield found[trial.seed] if isinstance(found, list) else found

    @property
    def asked(self):
        return [(t.candidate.id if t.candidate else "", t.seed) for t in self.trials]


def searched(runs, ids, *, seeds=2, max_cost=20.0, jobs=1, program=LOW, **lengths):
    engine = Engine({"": SICK, **runs})
    search = Search(program, engine, jobs, seeds, max_cost, lambda text: None)
    search.untreated = [engine.runs[""] if isinstance(engine.runs[""], Run) else engine.runs[""][0]]
    search.try_all([candidate(id_, length=lengths.get(id_, 1.0)) for id_ in ids])
    return search, engine


@pytest.mark.parametrize("seeds", [1, 2, 3, 4])
def test_of_cures_that_are_found_one_and_a_half_runs_are_enough(seeds):
    """The other runs of the program as it is do not count."""
    _, engine = searched({"a": CURES, "b": CURES, "c": CURES}, "abc", seeds=seeds)
    twins = [("", s) for s in range(1, seeds)]
    assert engine.asked == [("a", 0), ("b", 0), *twins, *[("a", s) for s in range(1, seeds)]]
    half = run(3.0, 3.0, ended=STOPPED)
    _, engine = searched({"a": half, "b": CURES, "c": CURES}, "abc", seeds=seeds)
    assert engine.asked == [("a", 0), ("b", 0), *twins, *[("b", s) for s in range(1, seeds)]]


def test_trials_have_bars_and_confirming_runs_have_none():
    _, engine = searched({"a": HELPS}, "a", seeds=3)
    first, *others = [t for t in engine.trials if t.candidate]
    assert first.bars == ((0.2, 4.0), (0.5, 4.0))
    assert (first.batches, first.seed) == (40, 0)
    assert [(t.seed, t.bars, t.batches) for t in others] == [(1, (), 40), (2, (), 40)]


def test_what_repairs_a_fault_of_form_is_not_stopped_on_its_way():
    """The loss is another one then, and may be slower at first."""
    for id_, bars in (("output-activation", 0), ("loss-function", 0), ("plateau", 2)):
        engine = Engine({"": SICK, "a": CURES})
        search = Search(LOW, engine, 1, 1, 20.0, lambda text: None)
        search.untreated = [SICK]
        search.try_all([Candidate("a", id_, "Do.", callbacks=(("a.A", {}),))])
        assert [len(t.bars) for t in engine.trials] == [bars], id_


def test_the_bar_is_that_of_a_third_of_the_trials_and_of_the_program_itself():
    search, _ = searched({}, "")
    for count, bar in ((1, 0.0), (3, 0.0), (4, 0.0), (5, 1.0), (8, 2.0), (9, 2.0)):
        search.runs = {candidate(str(i)): [run(*[float(i)] * 4)] for i in reversed(range(count))}
        assert search._bar(0.5) == bar, count
    search.runs = {candidate("x"): [run(9.0, 9.0)]}
    assert search._bar(0.5) == 4.0  # no trial is a measure that is worse than the program
    search.runs = {candidate("x"): [run(2.0)]}
    assert search._bar(0.25) == 2.0
    assert search._bar(0.26) == 4.0  # it has not come so far


def test_a_cure_that_failed_its_confirmation_is_none():
    once = [run(*[1.0] * 4), run(*[6.0] * 4), run(*[6.0] * 4)]
    search, engine = searched({"a": once}, "a")
    assert engine.asked == [("a", 0), ("", 1), ("a", 1)]
    assert search.best() is None
    # what nobody had the budget to confirm is a cure all the same
    search, engine = searched({"a": CURES}, "a", seeds=2, max_cost=3.0, a=1.0)
    assert search.best().candidate.id == "a"
    stopped, _ = searched({"a": run(1.0, ended=STOPPED)}, "a")
    assert stopped.best() is None  # a run that was stopped is no whole one


def test_the_longer_run_of_a_leader_is_kept_free():
    """One run of the other seed is left for the cure that leads, as long as its own."""
    long = run(*[3.0] * 8, findings=(PLATEAU,))
    tried = {"a": long, "b": BAD}
    for budget, expected in ((6.0, ["a", "b", "", "a"]), (5.9, ["a", "", "a"])):
        search, engine = searched(tried, "ab", max_cost=budget, a=2.0)
        assert [id_ for id_, _ in engine.asked] == expected, budget
    search, _ = searched({}, "", seeds=3, max_cost=8.0)  # two runs are spent
    search.jobs = 9
    each = [candidate(str(i)) for i in range(9)]
    assert len(search._affordable(each)) == 4  # of six, two are kept for the other seeds
    search.jobs = 3
    assert search._affordable(each) == each[:3]


def test_two_that_help_are_tried_together_where_they_do_not_fight():
    both = run(*[1.0] * 4)
    _, engine = searched({"a": HELPS, "b": run(*[2.0] * 4, findings=(PLATEAU,)), "b+a": both}, "ab")
    assert engine.asked == [("a", 0), ("b", 0), ("b+a", 0), ("", 1), ("b+a", 1)]
    _, engine = searched({"a": HELPS, "b": BAD}, "ab")
    assert engine.asked == [("a", 0), ("b", 0), ("", 1), ("a", 1)]


def test_what_cannot_be_judged_is_refused_at_the_watched_run():
    def watched(found):
        search = Search(LOW, Engine({"": found}), 1, 2, 9.0, print)
        assert search.watch() is found
        assert search.watched is found

    watched(SICK)
    watched(Run(((1, 2.0),), 1, 1, ended="it failed", logged=()))  # its fault may be cured
    with pytest.raises(Interrupted):
        watched(Run((), 5, 5, ended=INTERRUPTED))
    with pytest.raises(ConflictError, match="There must be steps to watch, and the fit took none"):
        watched(Run((), 0, 0))
    with pytest.raises(InvalidArgumentError, match=r"got 'm'\. It logs: a, b\."):
        watched(Run((), 5, 5, logged=("a", "b")))
    with pytest.raises(InvalidArgumentError, match=r"It logs: nothing\."):
        watched(Run((), 5, 5))


def test_data_that_are_consumed_or_in_another_order_are_refused():
    with pytest.raises(ConflictError, match="got 30 batches in the second run after 40"):
        searched({"": [SICK, run(*[4.0] * 3)], "a": CURES}, "a")
    searched({"": [SICK, run(*[4.0] * 3, ended="it failed")], "a": CURES}, "a")
    with pytest.raises(ConflictError, match="must give the same batches in the same order"):
        searched({"a": run(*[3.0] * 4, print_=1.0)}, "a")
    searched({"a": Run((), 0, 0, ended="it cannot be")}, "a")
    engine = Engine({"f": run(*[3.0] * 4, print_=1.0)})
    search = Search(LOW, engine, 1, 1, 9.0, lambda text: None, untreated=[SICK])
    own = Candidate("f", "plateau", "Do.", change=lambda *parts: None)  # may change the data
    search.try_all([own])
    assert search.best().candidate is own
    with pytest.raises(Interrupted):
        searched({"a": Run((), 0, 0, ended=INTERRUPTED)}, "a")


def test_candidates_are_ranked_by_their_metric_and_those_that_were_stopped_come_last():
    runs = {"a": HELPS, "b": BAD, "c": CURES_BETTER, "d": run(*[4.0] * 4), "a+c": run(*[2.5] * 4)}
    search, _ = searched(runs, "abd", seeds=1)
    assert [c.candidate.id for c in search.comparisons()] == ["a", "d", "b"]
    high, _ = searched({"": run(*[1.0] * 4, findings=(PLATEAU,)), **runs}, "ac", program=HIGH,
                       seeds=1)  # fmt: skip
    assert [c.candidate.id for c in high.comparisons()] == ["a", "a+c", "c"]
    assert high.leader_text() == "a leads: 3, 1 without"


# --- judgement ------------------------------------------------------------------------------------


def test_a_run_is_whole_at_its_end_or_at_its_length():
    cure = candidate("a", length=0.5)
    assert is_whole(run(1.0, 1.0, ended=STOPPED), cure, SICK)
    assert not is_whole(run(1.0, ended=STOPPED), cure, SICK)
    assert is_whole(run(1.0), candidate("b"), SICK)


def test_a_run_that_was_stopped_is_compared_where_it_was():
    untreated = [run(9.0, 5.0, 2.0, findings=(PLATEAU,))] * 2
    found = compare(LOW, candidate("a"), [run(8.0, ended=STOPPED)], untreated)
    assert found.pairs == ((8.0, 9.0),)
    assert (found.outcome, found.is_whole, found.failure) == ("helps", False, "")
    assert (found.steps, found.cost) == (1, pytest.approx(1 / 3))
    found = compare(LOW, candidate("a"), [run(1.0, 1.0, 1.0)], untreated)
    assert found.pairs == ((1.0, 2.0),)
    assert (found.metric, found.untreated) == (1.0, 2.0)
    found = compare(LOW, candidate("a"), [run(8.0, ended="It broke.")], untreated)
    assert (found.failure, found.outcome) == ("It broke.", "worse")
    assert math.isnan(mean([]))


def test_all_untreated_runs_count_where_a_cure_has_one():
    """Their mean is 3, and 2 the best of their last values: it has to be better by 1."""
    untreated = [run(2.0, 2.0, 2.0), run(4.0, 4.0, 4.0)]
    for treated, outcome in ((1.99, "cured"), (2.01, "no better"), (3.5, "no better")):
        found = compare(LOW, candidate("a"), [run(*[treated] * 3)], untreated)
        assert found.outcome == outcome, treated


def test_the_noise_is_that_of_the_last_third():
    assert noise_of(LOW, [run(1.0, 1.0, 1.0, 3.0, 3.0, 3.0)]) == pytest.approx(0.03)
    assert noise_of(LOW, [run(3.0, 3.0, 3.0, 3.0, 1.0, 3.0)]) == pytest.approx(2.0)
    assert noise_of(LOW, [run(math.nan)]) == 0.0
    assert noise_of(LOW, [run(-5.0, -5.0, -5.0)]) == pytest.approx(0.05)
    assert noise_of(LOW, [run(2.0, math.nan, 2.0), run(math.nan)]) == pytest.approx(0.02)


def test_a_value_where_the_program_has_none_is_better_and_none_is_worse():
    nothing = [run(math.nan, findings=(PLATEAU,))]
    assert compare(LOW, candidate("a"), [run(3.0)], nothing).outcome == "cured"
    assert compare(LOW, candidate("a"), [run(math.nan)], nothing).outcome == "no better"
    assert compare(LOW, candidate("a"), [run(math.nan)], [run(3.0)]).outcome == "worse"


# --- trials ---------------------------------------------------------------------------------------


def test_the_metric_at_a_point_is_that_of_the_first_validation_from_there_on():
    found = run(3.0, 2.0, 1.0)
    assert [found.at(b) for b in (0, 10, 11, 20, 30, 31)] == [3.0, 3.0, 2.0, 2.0, 1.0, 1.0]
    for ended, metric in ((STOPPED, 1.0), (INTERRUPTED, 1.0), ("it failed", math.nan)):
        assert run(3.0, 1.0, ended=ended).metric == pytest.approx(metric, nan_ok=True)
    assert math.isnan(Run((), 0, 0).metric)


def judged(*values, bars=(), batches=10, each=5):
    """Return what a judge says of values that are logged every five batches."""
    judge = _Judge(LOW, Trial(None, 0, bars, batches))
    loop = SimpleNamespace(min_epochs=7, epoch_loop=SimpleNamespace(min_steps=9))
    trainer = SimpleNamespace(callback_metrics={}, should_stop=False, fit_loop=loop)
    for value in values:
        judge.batches += each
        trainer.callback_metrics = {} if value is None else {"m": torch.tensor(value)}
        judge.on_train_epoch_end(trainer, None)
        judge.on_train_epoch_end(trainer, None)  # noted once
    return judge, trainer


def test_a_trial_ends_where_it_is_not_better_than_its_bar():
    judge, trainer = judged(3.0, 2.0, bars=((0.5, 4.0), (1.0, 2.5)))
    assert (judge.ended, trainer.should_stop) == ("", False)
    assert judge.curve == [(5, 3.0), (10, 2.0)]
    for value in (4.0, 5.0):  # as good is not better
        judge, trainer = judged(value, bars=((0.5, 4.0),))
        assert (judge.ended, trainer.should_stop) == (STOPPED, True)
        assert trainer.fit_loop.min_epochs == 0  # which would hold it
        assert trainer.fit_loop.epoch_loop.min_steps is None
    judge, _ = judged(9.0, bars=((0.6, 4.0),))
    assert judge.ended == ""  # the bar is not reached
    judge, _ = judged(3.0, bars=((0.2, 4.0), (0.5, 2.0)))
    assert judge.ended == STOPPED  # both are passed at once
    judge, _ = judged(None, 3.0, bars=((0.5, 4.0),))
    assert judge.curve == [(10, 3.0)]


class Own(LightningModule):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight


def test_weights_of_an_earlier_trial_are_refused():
    weight = nn.Parameter(torch.zeros(1))
    used = Program(lambda: Own(weight), lambda: ("x", "y"), {"max_epochs": 1}, "m", "min")
    _, data, arguments = used.build(None)
    assert data == ("x", "y")
    assert arguments == {"max_epochs": 1}
    assert arguments is not used.trainer_arguments
    with pytest.raises(InvalidArgumentError, match="got weights that an earlier call gave"):
        used.build(None)
    with pytest.raises(InvalidArgumentError, match="must return a LightningModule, got int"):
        Program(lambda: 3, lambda: None, {}, "m", "min").build(candidate("a"))
    one = Program(lambda: Own(nn.Parameter(torch.zeros(1))), lambda: "loader", {}, "m", "min")
    assert one.build(None)[1] == ("loader",)


def test_a_cure_that_cannot_be_made_is_part_of_the_result_and_a_programs_own_fault_is_not():
    def broken():
        raise ValueError("no data")

    program = Program(lambda: Own(nn.Parameter(torch.zeros(1))), broken, {}, "m", "min")
    found = run_trial(program, Trial(candidate("a"), 0))
    assert (found.ended, found.batches, found.steps) == ("ValueError: no data", 0, 0)
    with pytest.raises(ValueError, match="no data"):
        run_trial(program, Trial(None, 0))
    refused = Program(lambda: 3, lambda: None, {}, "m", "min")
    found = run_trial(refused, Trial(candidate("a"), 0))
    assert found.ended.startswith("`make_module` must return a LightningModule")

    def interrupted():
        raise KeyboardInterrupt

    program = Program(lambda: Own(nn.Parameter(torch.zeros(1))), interrupted, {}, "m", "min")
    assert run_trial(program, Trial(None, 0)).ended == INTERRUPTED


def test_hooks_of_the_survey_go_however_the_first_batch_ends():
    for end in ("on_before_zero_grad", "on_train_batch_end", "on_exception"):
        surveyor, module = Surveyor(), Own(nn.Parameter(torch.zeros(1)))
        module.net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        surveyor.survey = Survey()
        getattr(surveyor, end)(None, module)
        assert repr(surveyor.survey) == repr(Survey())  # nothing was put on; NaN is not itself
        for name, part in module.named_modules():
            if not list(part.children()):
                surveyor._handles.append(part.register_forward_hook(surveyor._note(name)))
        module.net(torch.zeros(4, 2))
        getattr(surveyor, end)(None, module)
        assert surveyor._handles == surveyor._calls == []
        assert surveyor.survey.hidden_classes == ("Tanh",)
        assert not any(part._forward_hooks for part in module.modules())


# --- cures and what is told -----------------------------------------------------------------------


def test_callbacks_are_added_to_those_of_the_program():
    cure = Candidate("a", "plateau", "Do.", (("lightning_stab.StepGuard", {"on_spike": "skip"}),),
                     {"max_epochs": 3})  # fmt: skip
    for own, kept in ((None, []), ("x", ["x"]), (["x", "y"], ["x", "y"]), (("x",), ["x"])):
        given = {"max_epochs": 1} if own is None else {"max_epochs": 1, "callbacks": own}
        module, data, arguments = cure.applied("module", ("data",), given)
        assert (module, data, arguments["max_epochs"]) == ("module", ("data",), 3)
        assert arguments["callbacks"][:-1] == kept
        assert arguments["callbacks"][-1].on_spike == "skip"
    assert cure.overlay == {"trainer": {
        "max_epochs": 3,
        "callbacks+": [{"class_path": "lightning_stab.StepGuard",
                        "init_args": {"on_spike": "skip"}}],
    }}  # fmt: skip
    assert candidate("b").overlay == {"trainer": {"callbacks+": [{"class_path": "a.b"}]}}
    assert Candidate("c", "plateau", "Do.", trainer={"x": 1}).overlay == {"trainer": {"x": 1}}
    assert Candidate("d", "plateau", "Do.").overlay is None
    own = Candidate("e", "plateau", "Do.", trainer={"x": 1}, change=lambda *parts: (1, 2, 3))
    assert own.overlay is None
    assert own.applied(0, 0, 0) == (1, 2, 3)
    assert cure.with_other(own) is None
    assert own.with_other(candidate("b")) is None


RECORD = CureRecord("clip", "plateau", "Clip it " + "well " * 30, {"trainer": {"x": 1}}, ("y = 1",),
                    "cured", 1.0, 2.0, 0.1, 8, 2, 2.0)  # fmt: skip
CODE = CureRecord("code", "plateau", "Write " + "more " * 30, None, ("z = " + "1 + " * 40 + "1",),
                  "helps", 1.0, 2.0, 0.1, 8, 1, 1.0)  # fmt: skip


def shown(*cures, best=0, command="", findings=(PLATEAU,)):
    text = io.StringIO()
    found = Prescription(cures, findings, 2.0, 40, "val_loss", "min", 2.0, False, best)
    found.show(Console(file=text, width=60), command)
    return text.getvalue().splitlines()


def test_sentences_and_commands_are_not_broken_into_lines():
    message = "It stands " + "still " * 30
    finding = Finding("plateau", "error", 1, tuple("abcdefghij"), {}, message, ())
    command = "python train.py fit " + "--config cure.yaml " * 9
    lines = shown(RECORD, command=command, findings=(finding,))
    assert any(line.startswith("error: plateau (a, b, c") and message.strip() in line
               for line in lines)  # fmt: skip
    assert command in lines
    assert RECORD.what in lines
    assert lines[lines.index("# cure.yaml") :][1:3] == ["trainer:", "  x: 1"]
    assert "y = 1" not in lines  # YAML says it
    assert any(line.startswith("`clip` cures plateau: val_loss is 1") for line in lines)
    lines = shown(CODE)
    assert CODE.code[0] in lines
    assert "# cure.yaml" not in lines
    assert lines[-1] == CODE.code[0]
    assert not any(line.startswith("python") for line in shown(RECORD, best=None, command=command))


def test_the_exit_code_is_1_where_something_is_wrong_and_nothing_helps(tmp_path):
    def found(best, *findings):
        return Prescription((RECORD,), findings, 2.0, 40, "m", "min", 2.0, False, best)

    info = Finding("plateau", "info", 1, (), {}, "So.", ())
    codes = [found(*each).exit_code for each in ((None, PLATEAU), (0, PLATEAU), (None, info), (0,))]
    assert codes == [1, 0, 0, 0]
    found(0, PLATEAU).to_yaml(tmp_path / "cure.yaml")
    assert (tmp_path / "cure.yaml").read_text() == "trainer:\n  x: 1\n"
    found(None, PLATEAU).to_yaml(tmp_path / "cure.yaml")
    text = (tmp_path / "cure.yaml").read_text()
    assert text.startswith("# Not cured (plateau): the one cure tried did not beat")
    assert text.endswith("\n{}\n")


def test_the_sentence_counts_seeds_and_cures():
    def sentence(*cures, best=None, findings=(PLATEAU,)):
        return Prescription(cures, findings, 2.0, 40, "m", "min", 2.0, False, best).sentence

    assert "(over 2 seeds;" in sentence(RECORD, best=0)
    assert sentence(CODE, best=0).startswith("`code` helps with plateau: m is 1 instead of 2 (over")
    assert "(over 1 seed;" in sentence(CODE, best=0)
    assert "none of 2 cures tried beat" in sentence(RECORD, CODE)
    healthy = sentence(findings=())
    assert healthy == "Nothing to cure: nothing wrong was found in 40 optimizer steps."
    assert sentence(RECORD, best=0, findings=()).startswith("`clip` cures plateau")


def test_the_table_has_its_heads_and_a_row_for_each_cure():
    untried = CureRecord("other", "plateau", "Wait.", None, (), "not tried", reason="No time.")
    short = replace(RECORD, what="Clip it.", metric=1.23456)
    text = io.StringIO()
    found = Prescription((short, untried), (), 2.0, 40, "val_loss", "min", 2.0, False, 0)
    found.show(Console(file=text, width=100))
    title, heads, *rows = [line.strip(" \u2502\u2503") for line in text.getvalue().splitlines()
                           if any(letter.isalnum() for letter in line)]  # fmt: skip
    cells = [
        [cell.strip() for cell in re.split("[\u2502\u2503]", row)] for row in (heads, *rows[:2])
    ]
    assert title == "val_loss (min), beside the program as it is"
    assert cells == [
        ["cure", "with", "without", "outcome", "cost"],
        ["clip: Clip it.", "1.235", "2", "cured", "2.0"],
        ["other: Wait. (No time.)", "", "", "not tried"],
    ]

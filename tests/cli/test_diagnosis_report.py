"""What came of a diagnosed fit: how far it came, and what is printed of it."""

import json
import math
from types import SimpleNamespace

import pytest

from lightning_stab.cli.diagnosis_report import (
    Diagnosis,
    _is_too_early,
    _unseen,
    diagnosis,
    show,
)
from lightning_stab.diagnosis import IDS, Facts, Finding


@pytest.mark.parametrize(
    ("batches", "done", "epochs"),
    [(3, 1, 0.333), (3, 3, 1.0), (7, 10, 1.429), (1, 1, 1.0), (0, 0, None), (math.inf, 5, None)],
)
def test_the_epochs_have_three_decimals_and_data_without_an_end_has_none(batches, done, epochs):
    progress = SimpleNamespace(total=SimpleNamespace(completed=done))
    trainer = SimpleNamespace(
        num_training_batches=batches,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    found = diagnosis(trainer, SimpleNamespace(findings=[], unseen=("x",)), 0, None)
    assert (found.epochs, found.steps, found.unseen) == (epochs, 0, ())


def found(*severities, layers=3, **more):
    names = tuple(f"net.{i}" for i in range(layers))
    findings = tuple(
        Finding(f"id-{s}", s, 7, names, {}, f"A message of {s}.", ("Do [this].", "Do that."))
        for s in severities
    )
    return Diagnosis(findings, **{"steps": 20, "epochs": 2.54, "unseen": ("Not seen.",), **more})


@pytest.mark.parametrize(
    ("severities", "failure", "has_failed", "stopped"),
    [
        ((), None, False, None),
        (("info", "warning"), None, False, None),
        (("info", "error"), None, True, None),
        ((), SystemExit(3), True, "an interruption"),
        ((), ValueError("of the module"), True, "ValueError: of the module"),
    ],
)
def test_an_error_or_a_failure_has_failed(capsys, severities, failure, has_failed, stopped):
    made = found(*severities, failure=failure)
    assert (made.has_failed, made.stopped) == (has_failed, stopped)
    show(made, as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert [f["id"] for f in plain.pop("findings")] == [f"id-{s}" for s in severities]
    wanted = {"steps": 20, "epochs": 2.54, "unseen": ["Not seen."], "stopped": stopped}
    assert plain == wanted


def shown(capsys, made):
    show(made, as_json=False)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("layers", "there", "missing"),
    [(0, "the whole run", "net."), (3, "net.2", "more"), (5, "and 2 more", "net.3")],
)
def test_the_table_names_three_layers_and_counts_the_others(capsys, layers, there, missing):
    table, _, advice = shown(capsys, found("error", layers=layers)).partition("What to do about")
    assert table.startswith("Found in 20 optimizer steps (2.5 epochs)")
    assert there in table
    assert missing not in table
    for word in ("first advice", "Do [this].", "error", "id-error", " 7 ", "A message of error."):
        assert word in table
    assert "Do that." not in table
    lines = [line.strip() for line in advice.splitlines()]
    assert lines == ["id-error", "1. Do [this].", "2. Do that.", "", "Not seen."]


def test_in_a_narrow_terminal_the_advice_stands_below_alone(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # then rich takes it for a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    for columns, there in (("99", False), ("100", True)):
        monkeypatch.setenv("COLUMNS", columns)
        table = shown(capsys, found("warning")).partition("What to do")[0]
        assert ("first advice" in table) == there


def test_nothing_found_and_how_it_ended(capsys):
    assert shown(capsys, found()).split("\n\n") == [
        "Nothing wrong was found in 20 optimizer steps (2.5 epochs).", "Not seen.\n",
    ]  # fmt: skip
    said = shown(capsys, found(epochs=None, unseen=(), failure=OSError("no [room]")))
    assert said == (
        "Nothing wrong was found in 20 optimizer steps, until the fit failed.\n\n"
        "Stopped by OSError: no [room]\n"
    )


def too_early(epoch, step, **thresholds):
    facts = Facts(epoch=epoch, step=step)
    return {id_ for id_ in IDS if _is_too_early(id_, facts, thresholds)}


def test_it_is_too_early_for_what_each_rule_of_an_id_asks_more_time_for():
    nothing, later = too_early(0.0, 0), too_early(1e9, 10**9)
    assert later == set()  # nor for what is said of short runs alone
    # each has a rule that asks for no time at all
    assert not nothing & {"non-finite", "output-activation", "labels", "dead-units"}
    assert {"plateau", "oscillating-loss", "validation-data", "batch-size"} <= nothing
    assert "plateau" in too_early(1e9, 0)
    assert "plateau" in too_early(0.0, 10**9)
    short = {"one_epoch": -1.0, "tens_of_steps": -1.0}  # as for a doctor with other numbers
    assert "validation-data" in nothing
    assert "validation-data" not in too_early(0.0, 0, **short)


def blind(count, ignored=(), learnt=math.nan, optimizers=1, findings=(), time=1e9):
    facts = Facts(epoch=time, step=int(time), unexplained=learnt)
    options, validation = SimpleNamespace(ignore=ignored), SimpleNamespace(count=count)
    state = SimpleNamespace(facts=lambda trainer: facts, validation=validation)
    doctor = SimpleNamespace(options=options, findings=findings, thresholds={}, _state=state)
    return list(_unseen(SimpleNamespace(optimizers=[0] * optimizers), doctor))


def test_what_a_fit_was_too_short_or_too_unusual_for_is_said():
    (constant,), (validations,) = blind(2), blind(1, learnt=0.5)
    assert constant.startswith("What a constant prediction would lose is not known")
    assert validations.startswith("Fewer than two validations gave a loss or a metric")
    assert blind(1) == [constant, validations]
    assert blind(2, learnt=0.5) == []
    assert blind(0, ignored=["overfitting"], learnt=0.5) == []
    assert blind(2, optimizers=2) == []  # which is said already
    broken = Finding("non-finite", "error", 1, (), {}, "So.", ())
    assert blind(2, findings=[broken]) == []


def test_the_ids_for_which_it_is_too_early_are_listed_without_those_that_are_ignored():
    (sentence,) = blind(2, ["plateau"], learnt=0.5, time=0)
    listed = sentence.removeprefix("It is too early for: ").partition(". They need")[0].split(", ")
    assert listed == [id_ for id_ in IDS if id_ in too_early(0.0, 0) - {"plateau"}]

"""`recommended` and the variable LIGHTNING_STAB: what is made, in which order, and only once."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.contract import Net, end_of, fit, same

import lightning_stab
from _lightning_stab import attach
from lightning_stab import GradientClipping, StepGuard, recommended
from lightning_stab.attach import CLASSES, RECOMMENDED, VARIABLE, from_environment
from lightning_stab.errors import InvalidArgumentError

ROOT = Path(__file__).parents[1]


def names(callbacks):
    return [type(callback).__name__ for callback in callbacks]


def test_every_callback_has_a_name_and_a_keyword():
    assert set(CLASSES.values()) == set(lightning_stab.callbacks.__all__)
    assert list(recommended.__kwdefaults__) == list(CLASSES)
    on = [name for name, default in recommended.__kwdefaults__.items() if default]
    assert tuple(on) == RECOMMENDED


def test_all_are_made_in_the_order_of_the_table():
    wanted = {**dict.fromkeys(CLASSES, True), "stop": {"monitor": "val_loss"}}
    assert names(recommended(**wanted)) == list(CLASSES.values())


def test_arguments_go_to_their_callback():
    made = recommended(clip={"threshold": 0.5}, monitor=False, report=False, doctor=False)
    assert names(made) == ["GradientClipping", "StepGuard"]
    assert made[0].threshold == 0.5
    assert "GradientClipping" not in names(recommended(clip=None))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"stop": True}, "`stop` must name its metric"),
        ({"stop": 5}, "`stop` must be a mapping of names to arguments, got 5"),
        ({"clip": 0}, "`clip` must be a mapping of names to arguments, got 0"),
        ({"clip": {"treshold": 1}}, "`clip` .GradientClipping.: got an unexpected keyword"),
        ({"clip": {"threshold": -1}}, "`threshold` must be"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        recommended(**arguments)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("monitor", ["GradientMonitor()"]),
        ("guard, monitor", ["GradientMonitor()", "StepGuard()"]),
        (
            "clip(rule=value, threshold=0.5),guard(on_nonfinite=skip)",
            [
                "GradientClipping(rule='value', threshold=0.5)",
                "StepGuard(on_nonfinite='skip')",
            ],
        ),
        ("stop(monitor=val_loss)", ["BestWeightsEarlyStopping(monitor='val_loss')"]),
    ],
)
def test_the_variable_names_callbacks_and_their_arguments(text, made):
    assert [repr(callback) for callback in from_environment(text)[0].made] == made


def test_recommended_is_a_name_too():
    made = from_environment("recommended,guard(on_nonfinite=skip),clip")[0].made
    assert names(made) == [CLASSES[n] for n in CLASSES if n in (*RECOMMENDED, "clip")]
    assert next(c for c in made if isinstance(c, StepGuard)).on_nonfinite == "skip"


@pytest.mark.parametrize(
    "text", ["clip: {threshold: 0.5}\nguard:\n", "- clip\n- guard\n", "recommended"]
)
def test_a_file_may_hold_the_same(tmp_path, text):
    path = tmp_path / "stab.yaml"
    path.write_text(text)
    made = names(from_environment(str(path))[0].made)
    assert set(made) >= {"StepGuard"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("montor", "must name some of init, check, .* got 'montor'. Did you mean 'monitor'"),
        ("clip(", "must be names with commas between them"),
        ("nowhere.yaml", "names the file 'nowhere.yaml', which does not exist"),
        ("stop", "`stop` must name its metric"),
    ],
)
def test_a_mistake_in_the_variable_is_one_sentence(text, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        from_environment(text)


def test_both_groups_of_entry_points_name_the_function(monkeypatch):
    for group in ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory"):
        found = [e for e in importlib.metadata.entry_points(group=group) if "stab" in e.name]
        if not found:
            pytest.skip("the package is imported from its folder and not installed")
        assert [e.value for e in found] == ["_lightning_stab:attach"]
    monkeypatch.delenv(VARIABLE, raising=False)
    assert attach() == []


def test_unset_it_loads_nothing():
    code = "import sys, _lightning_stab as a; print(a.attach(), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["[]", "False"]


def test_callbacks_are_attached_once_and_those_that_are_there_stay(monkeypatch):
    monkeypatch.setenv(VARIABLE, "monitor,clip,guard(on_nonfinite=skip)")
    own, made = GradientClipping(threshold=3.0), attach()
    monkeypatch.delenv(VARIABLE)  # where the package is installed, Lightning would ask again
    module = Net()
    trainer = fit([own, *made], module)
    fit([], module, trainer=trainer)
    there = names(trainer.callbacks)
    assert there.count("GradientMonitor") == there.count("StepGuard") == 1
    assert [c for c in trainer.callbacks if isinstance(c, GradientClipping)] == [own]
    assert there.index("Attachment") < there.index("GradientMonitor") < there.index("StepGuard")


def test_what_is_attached_works_like_what_is_given(monkeypatch):
    monkeypatch.setenv(VARIABLE, "clip(threshold=0.01)")
    made = attach()
    monkeypatch.delenv(VARIABLE)  # where the package is installed, Lightning would ask again
    attached, given, bare = fit(made), fit([GradientClipping(threshold=0.01)]), fit([])
    ends = [end_of(trainer) for trainer in (attached, given, bare)]
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])

"""Arguments of choices: one list each, in the type, from which errors and checkers take it."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import lightning_stab
from lightning_stab.arguments import check_choices, choices
from lightning_stab.callbacks.clipping.options import METHODS, RULES, Method, Rule
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.decay import LOSS_FUNCTIONS, LossFunctionName
from lightning_stab.models.activations import ACTIVATIONS, ActivationName

ROOT = Path(__file__).parents[1]
CALLBACKS = {name: getattr(lightning_stab, name) for name in lightning_stab.callbacks.__all__}
GIVEN = {"BestWeightsEarlyStopping": {"monitor": "val_loss"}}
ARGUMENTS = [
    (name, argument, choices(hint))
    for name, kind in CALLBACKS.items()
    for argument, hint in get_type_hints(kind.__init__).items()
    if choices(hint)
    and argument not in ("schemes", "coordinates")  # which allow other values
    and (name, argument) != ("BestWeightsEarlyStopping", "mode")  # refused in Lightning's own words
]


def test_the_tables_have_a_row_for_each_choice():
    for table, hint in ((RULES, Rule), (METHODS, Method), (LOSS_FUNCTIONS, LossFunctionName)):
        assert tuple(table) == choices(hint)
    assert set(ACTIVATIONS) == set(choices(ActivationName))


@pytest.mark.parametrize(("name", "argument", "valid"), ARGUMENTS)
def test_an_error_lists_the_choices_of_the_type(name, argument, valid):
    is_list = "Sequence" in str(inspect.signature(CALLBACKS[name]).parameters[argument].annotation)
    wrong = valid[-1] + "x"
    given = {**GIVEN.get(name, {}), argument: [wrong] if is_list else wrong}
    listed = ", ".join(map(repr, valid))
    listed += " or a function" if argument == "function" else ""  # which a callable may be, too
    words = f"`{argument}` must be one of {listed}, got {wrong!r}. Did you mean {valid[-1]!r}?"
    with pytest.raises(InvalidArgumentError, match=re.escape(words)):
        CALLBACKS[name](**given)


def test_what_is_plain_text_has_no_list():
    hints = [hint for kind in CALLBACKS.values() for hint in get_type_hints(kind.__init__).items()]
    plain = {name for name, hint in hints if hint is str or hint == str | None}
    assert plain == {"folder", "monitor"}
    assert len(ARGUMENTS) > 12


def test_lists_and_mappings_are_checked_item_by_item():
    stopping = lightning_stab.BestWeightsEarlyStopping
    assert stopping(["a", "b"], mode=["min", "max"]).options.mode == ["min", "max"]
    with pytest.raises(InvalidArgumentError, match="`mode` must be one of 'min', 'max', got 'mix'"):
        stopping(["a", "b"], mode=["min", "mix"])
    with pytest.raises(InvalidArgumentError, match="`schemes` must be one of 'auto'"):
        lightning_stab.WeightInitialization(schemes={"Linear": "xavier"})
    check_choices(lightning_stab.WeightInitialization(schemes={"Linear": "keep"}).options)


SCRIPT = """
from lightning_stab import GradientClipping, GradientMonitor, StepGuard, recommended, watch
from lightning_stab.models import MLPClassifier

GradientClipping("norm", 0.5)
GradientMonitor(statistics=["rms", "cosine"])
recommended(clip={"threshold": 0.5})
GradientClipping("nrom")
StepGuard("skip", on_spike="skp")
GradientMonitor(statistics=["cosin"])
MLPClassifier(activation="rleu")
watch(MLPClassifier(), 3)
"""


@pytest.mark.nightly
def test_mypy_finds_a_misspelt_choice(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
    ]  # with the project's cache, as its own check
    done = subprocess.run([*command, str(script)], cwd=ROOT, capture_output=True, text=True)
    lines = [int(found) for found in re.findall(r"train\.py:(\d+): error", done.stdout)]
    assert lines == [8, 9, 10, 11, 12], done.stdout + done.stderr
    assert "Literal['nrom']\"; expected \"Literal['value', 'norm'" in done.stdout

"""The defaults that the pages state, and those of the sources, are those of the signatures."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import lightning_stab
import lightning_stab.data
import lightning_stab.models
from lightning_stab.functional.clipping import clip_adaptively_
from lightning_stab.functional.gradcheck.check import CheckSettings
from lightning_stab.functional.norm_history import PercentileHistory, ZScoreHistory
from lightning_stab.functional.spikes import SpikeDetector

DOCS = Path(__file__).parents[2] / "docs"
WORDS = {"on": True, "off": (False, None), "none": (None, (), []), "any": "any"}


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def stated(page, column=-1, part=0):
    """Return each argument of a page's table of defaults, with the text of its cell."""
    table = page.partition("| default")[2].split("\n\n")[0]
    for row in table.splitlines()[2:]:
        cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
        values = cells[column].split(" / ")
        numbers = values[min(part, len(values) - 1)].split(", ")
        names = re.findall(r"`(\w+)`", cells[0])
        yield from zip(names, numbers if len(numbers) == len(names) else [""] * 9, strict=False)


def agrees(text, default):
    """Say whether a text names a default; None where it is no word or number."""
    word = text.strip("`").split(" ")[0]
    if word in WORDS:
        known = WORDS[word] if isinstance(WORDS[word], tuple) else (WORDS[word],)
        return default in known
    try:
        return float(word) == default
    except ValueError:
        return word == default if text.startswith("`") and "'" not in text else None


PAGES = {
    "MLPClassifier": ("models.md", lightning_stab.models.MLPClassifier, 0, 10),
    "ConvClassifier": ("models.md", lightning_stab.models.ConvClassifier, 1, 11),
    "BestWeightsEarlyStopping": (
        "best_weights_early_stopping.md", lightning_stab.BestWeightsEarlyStopping, 0, 9),
    "WeightInitialization": (
        "weight_initialization.md", lightning_stab.WeightInitialization, 0, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_table_states_the_defaults(name):
    page, function, part, least = PAGES[name]
    own, checked = defaults(function), 0
    for argument, text in stated((DOCS / page).read_text(), part=part):
        found = agrees(text, own[argument]) if argument in own else None
        assert found is not False, (argument, text, own[argument])
        checked += found is True
    assert checked >= least


@pytest.mark.parametrize(
    ("page", "module"), [("models.md", lightning_stab.models), ("data.md", lightning_stab.data)]
)
def test_the_calls_that_a_page_shows_are_those_of_the_defaults(page, module):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    calls = [n for block in blocks for n in ast.walk(ast.parse(block)) if isinstance(n, ast.Call)]
    own = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in module.__all__]
    assert {call.func.id for call in own} == set(module.__all__)
    for call in own:
        known = defaults(getattr(module, call.func.id))
        given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        assert given == {name: known[name] for name in given}


@pytest.mark.parametrize("name", lightning_stab.data.__all__)
def test_data_are_read_in_the_process_itself_unless_asked(name):
    assert defaults(getattr(lightning_stab.data, name))["num_workers"] == 0


@pytest.mark.parametrize(
    ("function", "published"),
    [
        (ZScoreHistory, {"threshold": 2.5, "decay": 0.97, "warmup": 25}),  # ZClip, section 3
        (PercentileHistory, {"threshold": 10.0, "warmup": 1}),  # AutoClip, figure 2
        (clip_adaptively_, {"threshold": 0.01, "weight_floor": 1e-3}),  # AGC, section 4
        (CheckSettings, {"tolerance": 1e-7, "num_directions": 2, "coordinates": None, "seed": 0}),
    ],
)
def test_the_defaults_are_those_of_the_source_or_of_the_docstring(function, published):
    own = defaults(function)
    assert {name: own[name] for name in published} == published


def test_a_spike_is_judged_by_at_least_half_of_its_window():
    own = defaults(SpikeDetector)
    assert own["minimum"] * 2 == own["window"]
    assert own["jump"] == own["factor"] == 0.0  # these conditions are asked for

"""Runs side by side: the settings that divide them, and the first curve that tells them apart."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.run_folders import FINDING, falling

from lightning_stab.reporting.causes import Causes
from lightning_stab.reporting.compare import (
    Judged,
    answer,
    comparison_page,
    comparison_text,
    differences,
    first_difference,
    judged,
    settings,
    short_names,
)
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Series

ALARM = {**FINDING, "step": 1200}


def series(values, steps=None):
    values = np.asarray(values, float)
    return Series(
        np.arange(len(values)) if steps is None else np.asarray(steps), values, len(values)
    )


def one(name, failed=False, config="", about=None, facts=None, **curves):
    made = {tag.replace("__", "/"): v if isinstance(v, Series) else series(v)
            for tag, v in curves.items()}  # fmt: skip
    run = Run(Path(name), made, facts=facts or {}, config=config, about=about or {})
    return Judged(run, name, Causes((ALARM,) if failed else (), (), (), ()))


def told(text):
    return html.unescape(re.sub(r"<[^>]+>", "", text))


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a/version_0", "runs/b/version_0"], ["a", "b"]),
        (["x/a", "x/a", "x/a"], ["a", "a (2)", "a (3)"]),
        (["x/a"], ["x/a"]),
        (["x/a/1", "x/b"], ["a/1", "b"]),
        (["a", "x/a"], ["a", "x/a"]),
        ([], []),
    ],
)
def test_short_names(folders, names):
    assert short_names(folders) == names


def test_settings_are_flat_with_the_classes_of_lists_in_their_paths():
    config = """
model:
  lr: 0.1
  none: null
  empty: []
  object: !!python/object:os.system {a: 1}
  list: !any [1, 2]
  word: !what text
trainer:
  callbacks:
  - class_path: lightning_stab.StepGuard
    init_args: {window: 3}
  - 7
"""
    run = Run(Path("x"), {}, config=config, about={"versions": {"torch": "2"}, "trainer": None})
    assert settings(run) == {
        "model.lr": "0.1", "model.object.a": "1", "model.list.0": "1", "model.list.1": "2",
        "model.word": "text",
        "trainer.callbacks.StepGuard.class_path": "lightning_stab.StepGuard",
        "trainer.callbacks.StepGuard.init_args.window": "3", "trainer.callbacks.1": "7",
        "versions.torch": "2",
    }  # fmt: skip
    assert settings(replace(run, config="a: [b", about={})) == {"configuration": "a: [b"}


def test_only_what_differs_is_a_difference():
    runs = [one("a", config="lr: 1\nseed: 3\nx: 5"), one("b", config="lr: 2\nseed: 3")]
    assert differences(runs) == {"lr": ["1", "2"], "x": ["5", ""]}


def test_what_two_sources_say_alike_is_one_row():
    settings_of = [{"optimizer": "Adam", "lr": 1}, {"optimizer": "SGD", "lr": 3}]
    config = "model: {optimizer: %s, lr: %d}"
    runs = [
        one("a", config=config % ("adam", 1), about={"settings": settings_of[0]}),
        one("b", config=config % ("sgd", 2), about={"settings": settings_of[1]}),
    ]
    rows = {"model.optimizer": ["adam", "sgd"], "model.lr": ["1", "2"], "settings.lr": ["1", "3"]}
    assert differences(runs) == rows


def apart(bad, good, **more):
    return first_difference([one("a", True, y=bad, **more), one("b", y=good, **more)])


def test_runs_are_told_apart_in_decades_where_all_is_positive():
    found = apart([1.0, 1.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0])  # 0.48 decades
    assert (found.tag, found.step, found.failing, found.good) == ("y", 2, (3.0, 3.0), (1.0, 1.0))
    assert apart([1.0, 1.9, 1.9, 1.9], [1.0] * 4) is None  # 0.28
    below = apart([1.0, 0.1, 0.1], [1.0, 1.0, 1.0])
    assert (below.step, below.failing) == (1, (0.1, 0.1))


def test_other_curves_are_told_apart_by_their_whole_range():
    # the values range over 10: three tenths of it are enough
    assert apart([0.0, -5.0, -1.9, -1.9], [0.0, 5.0, 1.2, 1.2]).step == 1
    assert apart([0.0, -5.0, -1.4, -1.4], [0.0, 5.0, 1.5, 1.5]) is None  # 0.29
    assert apart([0.0, 1.0, 0.3, 0.3], [0.0] * 4).step == 1  # three tenths, not more


def test_groups_have_to_stay_apart_for_two_moments_and_to_the_end():
    assert apart([1.0, 1.0, 9.0], [1.0, 1.0, 1.0]) is None
    assert apart([1.0, 9.0, 9.0], [1.0, 1.0, 1.0]).step == 1
    assert apart([9.0, 9.0, 9.0, 1.0], [1.0] * 4) is None
    assert apart([9.0, 1.0, 9.0, 9.0], [1.0] * 4).step == 2
    assert apart([9.0, 9.0, 9.0], [1.0] * 3).step == 0
    assert apart([9.0, 9.0], [1.0, 1.0]) is None  # too few points to tell


def test_every_failing_run_has_to_lie_beyond_every_good_one():
    bad = [one(f"bad{i}", True, y=[1.0, v, v, v]) for i, v in enumerate((8.0, 4.0))]
    good = [one(f"good{i}", y=[1.0, v, v, v]) for i, v in enumerate((1.0, 1.5))]
    found = first_difference([*bad, *good])
    assert (found.step, found.failing, found.good) == (1, (4.0, 8.0), (1.0, 1.5))
    between = one("between", y=[1.0, 5.0, 5.0, 5.0])
    assert first_difference([*bad, *good, between]) is None
    assert first_difference(bad) is first_difference(good) is None


def test_curves_of_other_steps_are_compared_where_both_are():
    bad = series([1.0, 1.0, 9.0, 9.0], [0, 10, 20, 30])
    good = series([1.0, 1.0, 1.0, 1.0, 1.0], [5, 12, 18, 24, 30])
    assert apart(bad, good).step == 20
    assert apart(series([9.0] * 3, [0, 1, 2]), series([1.0] * 3, [2, 3, 4])) is None


def test_the_earliest_and_then_the_clearest_curve_is_named():
    early, late = [1.0, 9.0, 9.0, 9.0], [1.0, 1.0, 9.0, 9.0]
    flat = [1.0] * 4
    pair = [one("a", True, late=late, early=early), one("b", late=flat, early=flat)]
    assert first_difference(pair).tag == "early"
    far = [one("a", True, a=early, b=[1.0, 99.0, 99.0, 99.0]), one("b", a=flat, b=flat)]
    assert first_difference(far).tag == "b"
    signed = [one("a", True, a=[0.0, -1.0, -1.0], b=[0.0, -3.0, -3.0]),
              one("b", a=[0.0, 1.0, 1.0], b=[0.0, -1.0, -1.0])]  # fmt: skip
    assert first_difference(signed).tag == "a"


def test_facts_take_part_and_what_is_no_cause_does_not():
    facts = [{"learnt": series(v)} for v in ([9.0] * 3, [1.0] * 3)]
    pair = [one("a", True, facts=facts[0], epoch=[9.0] * 3, stopping__wait=[9.0] * 3),
            one("b", facts=facts[1], epoch=[1.0] * 3, stopping__wait=[1.0] * 3)]  # fmt: skip
    assert first_difference(pair).tag == "diagnosis/learnt"
    figure = comparison_page(pair).partition("<b>diagnosis/learnt</b>")[2].partition("</figure>")[0]
    assert figure.count('class="line ') == 2
    page = comparison_page([one("a", acc=[1.0, 2.0]), one("b", facts={"acc": series([5.0, 6.0])})])
    assert page.count('class="line ') == 1  # a fact of the same name is another curve


def test_the_answer_is_a_few_sentences():
    bad = one("bad", True, "lr: 1\nseed: 1", y=[1.0, 9.0, 9.0, 9.0])
    good = one("good", False, "lr: 2\nseed: 1", y=[1.0] * 4)
    also = one("also", False, "lr: 2\nseed: 2", y=[1.0, 1.2, 1.2, 1.2])
    said = answer([bad, good, also])
    assert (said.state, said.plain) == ("error", "1 of 3 runs failed")
    assert told(said.text) == (
        "Failed: bad. What was set differently in them alone: lr. The first curve that tells them"
        " apart is y, from step 1 on: 9 in those that failed, 1 to 1.2 in the others."
    )
    quiet = answer([good, also])
    assert (quiet.state, quiet.plain, quiet.text) == ("ok", "No run failed", "1 settings differ.")
    assert answer([good, good]).text == "No setting differs."
    alike = answer([replace(bad, run=good.run), good])
    assert "No curve that all of them have tells the two groups apart." in alike.text
    assert "No curve" not in answer([bad, bad]).text


def test_the_text_lists_each_runs_settings():
    pair = [one("bad", True, "lr: 1\nx: 2"), one("good", False, "lr: 2")]
    assert comparison_text(pair).splitlines()[2:] == [
        "  lr: bad: 1; good: 2", "  x: bad: 2; good: -",
    ]  # fmt: skip


def test_the_page_has_the_dividing_settings_first_and_every_runs_findings():
    curves = {"train_loss": falling()}
    pair = [
        one("bad", True, "seed: 1\nlr: 1", **curves),
        one("good", False, "seed: 1\nlr: 2", **curves),
        one("fine", False, "seed: 2\nlr: 2", **curves, grad_norm__total=[1.0]),
    ]
    page = comparison_page(pair)
    rows = re.findall(r"<tr( class=divides)?><th>(\w+)<td>(\d)<td>(\d)<td>(\d)", page)
    assert rows == [(" class=divides", "lr", "1", "2", "2"), ("", "seed", "1", "1", "2")]
    assert re.findall(r'<th class="(\w+)">(.) (\w+)', page)[:3] == [
        ("blue", "✖", "bad"), ("orange", "✔", "good"), ("green", "✔", "fine"),
    ]  # fmt: skip
    assert "<th>Vanishing gradient<td>step 1,200<td><td>" in page
    assert page.count("<li><b>") == 3
    charts = re.findall(r"<figcaption><b>([\w/]+)</b>", page)
    assert charts == ["train_loss", "grad_norm/total"]
    figure = page.partition("<b>train_loss</b>")[2].partition("</figure>")[0]
    assert figure.count('class="line ') == 3
    assert "No setting that was saved differs" in comparison_page(pair[:1])


def test_at_most_twelve_curves_are_drawn():
    many = {f"val_m{i}": [0.1, 0.2] for i in range(15)}
    assert comparison_page([one("a", **many), one("b", **many)]).count("<figure") == 12


def test_runs_are_judged_by_their_own_curves():
    sick = Run(Path("r/a"), {"train_loss": series(np.geomspace(1, 1e6, 40))})
    well = Run(Path("r/b"), {"train_loss": series(falling())})
    broken = replace(well, folder=Path("r/c"), about={"ended": "exception"})
    assert [(each.name, each.failed) for each in judged([sick, well, broken])] == [
        ("a", True), ("b", False), ("c", True),
    ]  # fmt: skip

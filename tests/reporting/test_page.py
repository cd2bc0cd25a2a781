"""The page: a verdict, a card for each cause, everything escaped, nothing from elsewhere."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.run_folders import FINDING, falling, write_curves, write_packed, write_record

from lightning_stab.reporting import read_run, report_page
from lightning_stab.reporting.page import LARGEST
from lightning_stab.reporting.sections import about
from lightning_stab.reporting.text import cure, number

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>`</style>\u202e'
VOID = {"meta", "img", "br"}
OPTIONAL = {"tr", "td", "th", "li", "p"}  # whose end tags HTML leaves out


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.ids, self.open = [], [], {}, []
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids[dict(attrs).get("id")] = self.getpos()
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in OPTIONAL:
            assert self.open.pop() == tag


def page_of(folder):
    return report_page(read_run(folder))


def verdict(page):
    found = re.search(r'<div id="verdict" class="(\w+)">(.*?)</div></div>', page, re.DOTALL)
    return found[1], re.sub(r"<[^>]+>", "", found[2])


def sick(folder):
    write_curves(folder, {"train_loss": falling(), "val_loss": falling(6), "val_acc": [0.1, 0.9]})
    layers = {f"net.{i}": 10.0 ** (i - 9) for i in range(10)}
    rows = [(s, {f"grad_norm/{n}": v for n, v in layers.items()}) for s in range(0, 60, 5)]
    write_packed(folder, rows, suffix=".g")
    (folder / "findings.json").write_text(json.dumps({"findings": [{**FINDING, "since": 2}]}))
    return folder


def test_a_sick_run_says_what_is_wrong_where_since_when_and_what_to_do(tmp_path):
    page = page_of(sick(tmp_path))
    state, text = verdict(page)
    assert state == "error"
    assert "Vanishing gradient in net.0, since step 2" in text
    assert "WeightInitialization" in text
    assert page.count('<article class="card error">') == 1
    assert "class_path: lightning_stab.WeightInitialization" in page
    assert "10<sup>9.3</sup>" in page


def test_a_healthy_run_says_so(tmp_path):
    write_curves(tmp_path, {"train_loss": falling(), "val_accuracy": [0.2, 0.97]})
    (tmp_path / "findings.json").write_text('{"findings": []}')
    state, text = verdict(page_of(tmp_path))
    assert state == "ok"
    assert "fell from 2 to" in text
    assert "0.97" in text
    assert "found nothing wrong" in text


def test_without_a_doctor_the_page_does_not_promise_what_nobody_looked_for(tmp_path):
    write_curves(tmp_path, {"train_loss": falling()})
    text = verdict(page_of(tmp_path))[1]
    assert "Healthy by its curves" in text
    assert "No TrainingDoctor looked further" in text


@pytest.mark.parametrize("curves", [{"weights/size": [1.0, 2.0]}, {}])
def test_without_a_loss_there_is_no_judgement(tmp_path, curves):
    write_curves(tmp_path, curves)
    assert verdict(page_of(tmp_path))[0] == "unknown"


def test_an_exception_is_in_the_verdict(tmp_path):
    write_curves(tmp_path, {"train_loss": falling()})
    record = {"ended": "exception", "failure": "ValueError: the batch is empty"}
    write_record(tmp_path, "stability_report/run", record)
    state, text = verdict(page_of(tmp_path))
    assert state == "error"
    assert "the batch is empty" in text


def test_a_withdrawn_finding_has_no_card(tmp_path):
    write_curves(tmp_path, {"train_loss": falling()})
    write_record(tmp_path, "diagnosis/findings", [{**FINDING, "state": "raised"}], step=5)
    withdrawn = {**FINDING, "state": "withdrawn", "withdrawn_at": 9, "explained_by": "labels"}
    write_record(tmp_path, "diagnosis/findings", [withdrawn], step=9)
    page = page_of(tmp_path)
    assert "Wrong or unlearnable labels</b> explains it" in page
    assert "<span>step 9</span>" in page
    assert verdict(page)[0] == "ok"
    assert "was withdrawn" in page


def test_what_an_alarm_explains_has_no_card_of_its_own(tmp_path):
    write_curves(tmp_path, {"train_loss": np.geomspace(1, 1e9, 60)})
    (tmp_path / "findings.json").write_text(json.dumps({"findings": [FINDING]}))
    page = page_of(tmp_path)
    assert page.count('<article class="card') == 1
    assert "Diverging loss" in page  # among what happened when


def hostile(folder):
    layers = {f"grad_norm/{HOSTILE}{i}": [1.0, float("nan"), 1e-30] for i in range(3)}
    write_curves(folder, {f"{HOSTILE}loss": [float("inf"), 1, 1e38] * 9, **layers})
    finding = {**FINDING, "id": HOSTILE, "message": HOSTILE, "layers": [HOSTILE, "a" * 5000]}
    finding |= {"advice": [HOSTILE, f"Add `StepGuard(on_spike={HOSTILE!r})`"], "source": HOSTILE}
    finding["evidence"] = {HOSTILE: {"value": HOSTILE, "threshold": HOSTILE, "name": HOSTILE}}
    (folder / "findings.json").write_text(json.dumps({"findings": [finding]}))
    (folder / "config.yaml").write_text(f"model: {HOSTILE}\n")
    (folder / "hparams.yaml").write_text(HOSTILE)
    about = {"ended": HOSTILE, "failure": HOSTILE, "callbacks": [[HOSTILE, HOSTILE], 3]}
    about |= {"versions": {HOSTILE: HOSTILE}, "hardware": [1], "trainer": HOSTILE}
    write_record(folder, "stability_report/run", about)
    write_record(folder, "gradient_check/text_summary", HOSTILE)
    table = f"| {HOSTILE} | signal after |\n|---|---|\n| {HOSTILE} | nan |"
    write_record(folder, "weight_initialization/text_summary", table)
    return folder


def test_everything_from_outside_is_escaped(tmp_path):
    page = page_of(hostile(tmp_path / "<b onclick=x>"))
    elements = Page(page)
    assert elements.tags.count("script") == 1
    assert {tag for tag, *_ in elements.attributes if tag == "img"} <= {"img"}
    names = {name for _, name, _ in elements.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "\u202e" not in page
    assert "alert(1)" in page  # as text


@pytest.mark.parametrize("make", [sick, hostile])
def test_nothing_comes_from_elsewhere(make, tmp_path):
    elements = Page(page_of(make(tmp_path)))
    assert elements.open == []
    links = [v for _, n, v in elements.attributes if n in ("src", "href", "action", "data")]
    assert all(link.startswith("data:image/png") for link in links)
    assert "http-equiv" in {name for _, name, _ in elements.attributes}
    style = re.search(r"<style>(.*?)</style>", elements.text, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_data_of_charts_is_json_that_javascript_reads(tmp_path):
    elements = Page(page_of(hostile(tmp_path)))
    charts = [v for _, name, v in elements.attributes if name in ("data-chart", "data-heat")]
    assert len(charts) > 2
    for text in charts:
        json.loads(text, parse_constant=pytest.fail)


def test_a_page_of_many_curves_is_small(tmp_path):
    tags = [f"grad_norm/layers.{i}" for i in range(120)]
    rows = [(s, dict.fromkeys(tags, 1.0 + s % 7)) for s in range(0, 100_000, 1000)]
    write_packed(tmp_path, rows)
    write_curves(tmp_path, {"train_loss": falling(1500)}, suffix="x")
    assert len(page_of(tmp_path).encode()) < LARGEST


LARGE = """
import pathlib, resource, sys, time
start = time.process_time()
sys.argv = ["lightning-stab", "report", "."]
from _lightning_stab import main
try:
    main()
except SystemExit:
    pass
status = pathlib.Path("/proc/self/status")  # `getrusage` counts what the parent had used, too
if status.exists():
    peak = int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e3
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print("MEASURED", time.process_time() - start, peak, pathlib.Path("report.html").stat().st_size)
"""


@pytest.mark.nightly
@pytest.mark.full
def test_100_000_steps_of_500_tags(tmp_path):
    tags = [f"grad_norm/layers.{i}" for i in range(499)]
    rows = ((s, dict.fromkeys(tags, 1.0 + s % 7)) for s in range(0, 100_000, 50))
    write_packed(tmp_path, rows)
    write_curves(tmp_path, {"train_loss": zip(range(0, 100_000, 50), falling(2000), strict=True)},
                 suffix="x")  # fmt: skip
    command = [sys.executable, "-c", LARGE]
    root = str(Path(__file__).parents[2])
    printed = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    ).stdout
    seconds, megabytes, size = map(float, printed.partition("MEASURED")[2].split())
    assert seconds < 15  # of CPU, the start of Python and torch among them
    assert megabytes < 500
    assert size < LARGEST


def test_a_cure_is_yaml_that_names_the_callback():
    advice = ["Train longer.", "Add `GradientClipping(rule='history', threshold=2.5)`."]
    text = cure(advice, ("GradientClipping",))
    assert "class_path: lightning_stab.GradientClipping" in text
    assert "threshold: 2.5" in text
    assert cure(["Add `os.system('x')`, or `Other(a=1)`, or `f(`."], ("GradientClipping",)) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(10347056855685.0, "1.03·10¹³"), (0.0, "0"), (-0.5, "-0.5"), (None, "not finite")],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_what_is_known_of_a_run_and_nothing_else_stands_below():
    def shown(callbacks=None, **known):
        given = {} if callbacks is None else {"callbacks": callbacks}
        run = SimpleNamespace(about={**given, **known}, began=None, config="", notes=())
        return about(run)

    for nothing in (None, [], "a text", {"a": 1}):
        assert "<table" not in shown(nothing)
    page = shown([["A", "did it."], ["B"], "C", ["D", "did <that>."]])
    assert page.count("<tr>") == 2
    assert "<code>A</code><td>Did it." in page or "<code>A</code><td>did it." in page
    assert "&lt;that&gt;" in page
    assert shown(versions={"torch": "2"}, hardware={"cpu": "x"}).count("<tr>") == 2

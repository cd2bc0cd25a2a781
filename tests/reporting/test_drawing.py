"""What a page draws, read back from its SVG, its picture and its words, beside values by hand."""

import base64
import html
import json
import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from helpers.run_folders import FINDING, falling

from lightning_stab.diagnosis.facts import MEANINGS
from lightning_stab.reporting.cards import cards, marks_of
from lightning_stab.reporting.causes import Causes
from lightning_stab.reporting.chart import Axis, Line, Mark, chart, steps_axis, value_axis
from lightning_stab.reporting.depth import layer_states, natural, picture, sample, strip
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.sections import (
    depth,
    gradients_and_updates,
    initialization,
    layer_lines,
    loss_and_metrics,
    rate_and_precision,
    tiles,
)
from lightning_stab.reporting.series import Series, continued, thin
from lightning_stab.reporting.text import duration, layers, name, number
from lightning_stab.reporting.timeline import event_list, events_of, lanes, skipped_steps

NOTHING = Causes((), (), (), ())
nan, inf = np.nan, np.inf


def series(values, steps=None):
    values = np.asarray(values, float)
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    return Series(steps, values, len(values))


def run_of(about=None, texts=None, facts=None, restarts=(), **curves):
    made = {tag.replace("__", "/").replace("_dot_", "."): series(v) for tag, v in curves.items()}
    return Run(None, made, facts or {}, texts or {}, about=about or {}, restarts=restarts)


def plain(text):
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def path(text, of="line"):
    """Return the points of the first path of a class, as (pen, x, y)."""
    found = re.search(rf'<path class="{of}[^"]*"[^>]* d="([^"]*)"', text)[1]
    return [(p, float(x), float(y)) for p, x, y in re.findall(r"([ML])([\d.-]+) ([\d.-]+)", found)]


# --- axes and lines: a drawing is 1000 wide and 200 high


def test_a_line_goes_through_its_points_and_breaks_where_a_value_is_not_finite():
    drawn = chart("t", [Line("a", series([0.0, 5.0, nan, 10.0]))], steps_axis(3))
    # values from 0 to 10.6: a twentieth more than the largest, and 0 belongs to it
    tops = [200 * (1 - v / 10.6) for v in (0, 5, 10)]
    expected = [("M", 0.0, tops[0]), ("L", 333.3, tops[1]), ("M", 1000.0, tops[2])]
    for found, wanted in zip(path(drawn), expected, strict=True):
        assert found == (wanted[0], *(pytest.approx(v, abs=0.06) for v in wanted[1:]))
    bad = re.search(r'class="nonfinite" x="([\d.]+)" y="0" width="([\d.]+)"', drawn)
    assert [float(v) for v in bad.groups()] == [666.7, 4.0]
    about = json.loads(html.unescape(re.search(r'data-chart="([^"]*)"', drawn)[1]))
    assert about["x"] == [0.0, 3.0]
    assert about["y"] == pytest.approx([0.0, 10.6])
    assert about["lines"] == [{"n": "a", "c": "blue", "s": [0, 1, 2, 3], "v": [0, 5, None, 10]}]


def test_a_stretch_that_is_not_finite_is_marked_from_its_first_to_its_last_step():
    drawn = chart("t", [Line("a", series([1.0, nan, 2.0, inf, 3.0]))], steps_axis(4))
    found = re.search(r'class="nonfinite" x="([\d.]+)" y="0" width="([\d.]+)"', drawn).groups()
    assert [float(v) for v in found] == [250.0, 500.0]


def test_one_point_is_a_dot_and_a_line_without_points_is_left_out():
    drawn = chart("t", [Line("a", series([2.0])), Line("b", series([]))], steps_axis(9))
    assert drawn.count('class="line') == 1
    assert 'class="line blue dot"' in drawn
    assert "dot" not in chart("t", [Line("a", series([2.0, 1.0]))], steps_axis(9))


@pytest.mark.parametrize(
    ("values", "low", "high", "is_log"),
    [
        ([2.0, 4.0], 1.88, 4.12, False),  # 6 % more at both ends
        ([1.0, 4.0], 0.0, 4.18, False),  # 0 is near
        ([1.6, 4.0], 1.456, 4.144, False),  # two fifths of the largest: 0 is far
        ([3.0, 3.0], 2.82, 3.18, False),
        ([0.0, 0.0], -1.0, 1.0, False),
        ([-2.0, 8.0], -2.6, 8.6, False),
        ([1.0, 30.0], 0.0, 31.74, False),  # exactly 30 times: still linear
        ([1.0, 1000.0], -0.15, 3.15, True),
        ([], 0.0, 1.0, False),
        ([nan, inf], 0.0, 1.0, False),
    ],
)
def test_the_range_of_an_axis(values, low, high, is_log):
    axis = value_axis([Line("a", series(values))])
    assert (axis.low, axis.high, axis.is_log) == (
        pytest.approx(low), pytest.approx(high), is_log,
    )  # fmt: skip


def test_a_logarithmic_axis_can_be_asked_for_and_has_a_least_width():
    axis = value_axis([Line("a", series([10.0, 10.0]))], log=True)
    assert (axis.low, axis.high, axis.is_log) == (pytest.approx(0.95), pytest.approx(1.05), True)
    assert not value_axis([Line("a", series([1.0, 1000.0]))], log=False).is_log
    assert not value_axis([Line("a", series([-1.0, 0.0]))], log=True).is_log  # nothing positive
    assert value_axis([Line("a", series([1.0]))], [9.0]).high > 9


def test_places_on_an_axis():
    assert Axis(2.0, 6.0).place([2, 3, 6]).tolist() == [0.0, 0.25, 1.0]
    assert Axis(2.0, 6.0).place([-99, 99]).tolist() == [-0.5, 1.5]  # far outside, still drawable
    log = Axis(-1.0, 3.0, True)
    assert log.place([0.1, 1.0, 1000.0]).tolist() == pytest.approx([0.0, 0.25, 1.0])
    assert log.place(0.0) == pytest.approx(0.0)  # no logarithm: the low end


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis(0, 10), ["0", "2", "4", "6", "8", "10"]),
        (Axis(0, 184), ["0", "50", "100", "150"]),
        (Axis(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Axis(0, 2_000), ["0", "500", "1,000", "1,500", "2,000"]),
        (Axis(0, 2e6), ["0", "5·10⁵", "10⁶", "1.5·10⁶", "2·10⁶"]),
        (Axis(-3, 2, True), ["0.01", "1", "100"]),
        (Axis(-3, 4, True), ["0.01", "1", "100", "10,000"]),
        (Axis(-9, 0, True), ["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰"]),
        (Axis(-4, -2, True), ["10⁻⁴", "10⁻³", "10⁻²"]),
        (Axis(0.0, 1.0, True), ["1", "2", "5", "10"]),
        (Axis(0.35, 0.65, True), ["2.5", "3", "3.5", "4"]),
    ],
)
def test_the_labels_of_an_axis(axis, labels):
    assert [text for _, text in axis.ticks()] == labels
    places = [place for place, _ in axis.ticks()]
    assert places == sorted(places)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)


def test_the_grid_stands_at_the_labels():
    drawn = chart("t", [Line("a", series([0.0, 10.0]))], steps_axis(1), log=False)
    grid = re.search(r'class="grid" d="([^"]*)"', drawn)[1]
    assert [float(y) for y in re.findall(r"M0 ([\d.]+)H1000", grid)] == pytest.approx(
        [200 * (1 - v / 10.6) for v in (0, 2.5, 5, 7.5, 10)], abs=0.06
    )
    along = re.findall(r'left:([\d.]+)%">([\d.]+)</span>', drawn)
    assert along == [(f"{20 * i:.2f}", f"{0.2 * i:.1g}") for i in range(6)]
    top = re.search(r'<div class="y"><span style="top:([\d.]+)px">0<', drawn)[1]
    assert float(top) == 200.0


def test_a_threshold_a_band_and_marks_stand_where_they_belong():
    line = Line("a", series([0.0, 10.0]))
    drawn = chart(
        "t", [line], steps_axis(50), threshold=(5.3, "limit"), band=(2.12, 4.24, "usual"),
        marks=[Mark(20, "1", "Dead", "warning")],
    )  # fmt: skip
    assert 'class="threshold" d="M0 100.0H1000"' in drawn
    box = re.search(r'class="band" x="0" width="1000" y="([\d.]+)" height="([\d.]+)"', drawn)
    assert [float(v) for v in box.groups()] == [120.0, 40.0]
    assert '<i class="mark warning" style="left:40.00%" data-x="20" title="Dead">1</i>' in drawn
    tops = [int(t) for t in re.findall(r'class="label [^"]*" style="top:(\d+)px"', drawn)]
    # the line's end, the threshold and the band's middle
    assert tops == [11, 100, 140]
    assert "limit <b>5.3</b>" in drawn
    assert value_axis([line], [20.0]).high > 20


def test_names_that_would_meet_are_moved_apart():
    def tops(*ends):
        lines = [Line(f"l{i}", series([0.0, 10.0, end])) for i, end in enumerate(ends)]
        drawn = chart("t", lines, steps_axis(2))
        return [int(t) for t in re.findall(r'class="label [^"]*" style="top:(\d+)px"', drawn)]

    assert tops(0, 10) == [200, 11]
    assert tops(5, 5) == [106, 121]  # the second by a label's height
    assert tops(0, 0, 0) == [170, 185, 200]  # moved up from the lower edge


def test_names_stand_beside_the_lines_that_have_labels():
    lines = layer_lines({f"l{i}": series([1.0]) for i in range(10)})
    assert [line.colour for line in lines] == [f"s{i}" for i in range(10)]
    assert [line.labelled for line in lines] == [True, *[False] * 8, True]
    assert layer_lines({"only": series([1.0])})[0].colour == "s0"
    assert chart("t", lines, steps_axis(1)).count('class="label ') == 2
    assert Line("a", series([1.0])).labelled


# --- curves


def test_thinning_by_hand():
    steps, values = thin(np.arange(9)[:, None], np.array([[5.0, 1, 9, 2, 7, nan, 3, 4, 8]]).T, 4)
    assert steps[:, 0].tolist() == [1, 2, 5, 6, 8]
    np.testing.assert_array_equal(values[:, 0], [1, 9, nan, 3, 8])
    short = np.arange(4)[:, None]
    assert thin(short, short, 4)[0] is short


def test_a_curve_of_exactly_the_limit_is_not_thinned():
    assert len(series(np.zeros(400)).thinned(400)) == 400
    assert len(series(np.zeros(401)).thinned(400)) < 300
    assert len(series(np.sin(np.arange(4000.0))).thinned(400)) == pytest.approx(400, abs=25)


def test_a_restart_replaces_from_its_first_step_on():
    both = continued(series([1, 1, 1], [0, 5, 9]), series([2, 2], [5, 12]))
    assert (both.steps.tolist(), both.values.tolist()) == ([0, 5, 12], [1, 2, 2])
    assert both.num_logged == 5
    empty = series([])
    assert continued(empty, both) is both
    assert continued(both, empty) is both


def test_the_first_value_that_is_not_finite():
    assert series([1.0, inf, nan], [3, 6, 9]).first_nonfinite == 6
    assert series([1.0]).first_nonfinite is None


# --- words and numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "0.001"), (9.99e-4, "9.99·10⁻⁴"), (99_900.0, "99,900"), (1e5, "10⁵"),
        (999.6, "1,000"), (999.4, "999"), (-2e-7, "-2·10⁻⁷"), (True, "1"), ("x<", "x&lt;"),
    ],
)  # fmt: skip
def test_numbers_by_hand(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.4, "59.4 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min")],
)
def test_durations_by_hand(seconds, text):
    assert duration(seconds) == text


def test_long_names_and_lists_are_cut():
    assert name("a" * 120) == "a" * 120
    assert name("a" * 60 + "b" * 61) == "a" * 60 + "…" + "b" * 60
    assert plain(layers(["a", "b", "c"])) == "a, b, c"
    assert plain(layers(["a", "b", "c", "d", "e"])) == "a, b, c and 2 more"
    assert plain(layers(["a", "b", "c"], 2)) == "a, b and 1 more"


def test_layers_are_ordered_by_their_numbers():
    names = ["l.10.w", "l.2.w", "a", "l.1.w"]
    assert sorted(names, key=natural) == ["a", "l.1.w", "l.2.w", "l.10.w"]


# --- what happened when


def happened(run, causes=NOTHING):
    return [(e.step, e.kind, plain(e.text)) for e in events_of(run, causes)]


def test_everything_that_happened_is_told_in_its_order():
    run = run_of(
        {"ended": "exception", "failure": "ValueError: no"},
        {"weight_initialization": [(0, "")], "gradient_check": [(0, "")]},
        restarts=(6,),
        guard__skipped=[0, 1, 1, 2, 2, 2, 2, 3, 4, 5],
        guard__rewound=[0, 0, 0, 0, 1],
        precision__skipped=[1],
        val_acc=[0.1, 0.9, 0.3],
        lr__group0=[0.1, 0.1, 0.06, 0.05, 0.04, 0.4],
    )
    assert happened(run) == [
        (0, "skip", "1 step skipped by the loss scaler of mixed precision: 0."),
        (0, "done", "The weights were initialised."),
        (0, "done", "The gradients were checked."),
        (1, "skip", "5 steps skipped by StepGuard: 1, 3, 7, 8, ...."),
        (1, "best", "val_acc at its best: 0.9."),
        (3, "rate", "lr/group0 from 0.1 to 0.05, in 2 such changes to 0.4."),
        (4, "skip", "1 step at which StepGuard went back to an earlier snapshot: 4."),
        (6, "restart", "The run was continued from a checkpoint."),
        (9, "error", "Ended by an exception: ValueError: no"),
    ]
    assert skipped_steps(run) == [0, 1, 3, 7, 8, 9]
    assert event_list([]) == ""
    assert event_list(events_of(run, NOTHING)).count("<li ") == 9


@pytest.mark.parametrize(
    ("curves", "events"),
    [
        ({"guard__skipped": [0, 1, 2, 3, 4]}, ["4 steps skipped by StepGuard: 1, 2, 3, 4."]),
        ({"guard__skipped": [0, 0]}, []),
        ({"lr": [0.1, 0.051]}, []),  # less than a halving
        ({"lr": [0.1, 0.2]}, ["lr from 0.1 to 0.2."]),
        ({"lr": [0.1]}, []),
        ({"lr": [0.0, 0.1, 0.2]}, ["lr from 0.1 to 0.2."]),  # a warm-up from 0
        ({"lr": [0.1, 0.0, 0.1]}, []),
        ({"val_loss": [3.0, 1.0, 2.0]}, ["val_loss at its best: 1."]),
        ({"val_loss": [3.0]}, []),
        ({"val_acc": [0.1, 0.1]}, []),  # it never moved
        ({"val_acc": [0.4, 0.2], "val_loss": [3.0, 1.0]}, ["val_acc at its best: 0.4."]),
    ],
)
def test_what_is_worth_a_line_among_the_events(curves, events):
    assert [text for _, _, text in happened(run_of(**curves))] == events


def test_findings_are_among_the_events():
    causes = Causes(
        ({**FINDING, "step": 7, "since": 6},),
        ({**FINDING, "id": "plateau", "step": 3, "message": "It stands."},),
        (
            {**FINDING, "id": "diverged", "step": 9, "message": "It rose."},
            {**FINDING, "id": "loss-spikes", "step": 5, "message": "It jumped."},
        ),
        (
            {**FINDING, "id": "dead-units", "step": 2, "since": 1},
            {**FINDING, "id": "metric", "withdrawn_at": 8, "explained_by": "bad-initialization"},
        ),
    )
    assert happened(run_of(), causes) == [
        (2, "info", "Dead units, of step 1, was withdrawn: it no longer held."),
        (3, "info", "Plateau. It stands."),
        (5, "info", "Loss spikes. It jumped."),
        (6, "error", "1 Vanishing gradient in net.0. The gradient shrinks by 109.3."),
        (8, "info", "Doubtful metric, of step 5, was withdrawn: Bad initialisation explains it."),
        (9, "info", "Diverging loss (follows from 1). It rose."),
    ]
    assert [(m.step, m.text, m.title, m.severity) for m in marks_of(causes)] == [
        (6, "1", "Vanishing gradient", "error")
    ]


def test_lanes_have_a_tick_a_step_and_the_clipped_fraction():
    run = run_of(
        restarts=(5,), guard__skipped=[0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2], clip__fraction=[0.0, 0.5]
    )
    drawn = lanes(run, steps_axis(10))
    assert 'd="M100.0 0V10M400.0 0V10"' in drawn
    assert 'd="M500.0 0V10"' in drawn
    boxes = re.findall(r'class="clipped" x="([\d.]+)" width="([\d.]+)" height="10" opacity="(.*?)"',
                       drawn)  # fmt: skip
    assert boxes == [("0.0", "2.0", "0.00"), ("0.0", "100.0", "0.50")]
    assert "<span>25%</span>" in drawn
    assert lanes(run_of(clip__fraction=[0.0, 0.0]), steps_axis(10)) == ""


# --- layers


def test_the_state_of_each_layer_at_the_end():
    run = run_of(
        grad_norm__total=[1.0],
        grad_norm__a=[1.0, 1e-4], grad_norm__b=[1.0, nan], grad_norm__c=[1.0, 0.0],
        grad_norm__d=[1.0, 1e5], grad_norm__e=[1.0, 2.0], grad_norm__f=[1.0, 9.0],
        dead_fraction__a=[0.0, 0.5], dead_fraction__e=[0.0, 0.49], saturated_fraction__e=[0.5],
    )  # fmt: skip
    states = {state.name: state for state in layer_states(run)}
    assert {n: s.faults for n, s in states.items()} == {
        "a": ("tiny gradient", "dead units"), "b": ("not finite",), "c": ("no gradient",),
        "d": ("large gradient",), "e": ("saturated",), "f": (),
    }  # fmt: skip
    drawn = strip(list(states.values()))
    assert re.findall(r'<i class="(\w+)" title="[^"]*">(.*?)</i>', drawn) == [
        ("bad", "↓D"), ("bad", "N"), ("bad", "0"), ("bad", "↑"), ("bad", "S"), ("good", ""),
    ]  # fmt: skip
    assert "a: tiny gradient, dead units (gradient 10⁻⁴, dead 50%)" in drawn
    assert "f: nothing unusual (gradient 9)" in drawn


@pytest.mark.parametrize(
    ("norm", "faults"),
    [(1e-3, ()), (0.99e-3, ("tiny gradient",)), (1e3, ()), (1.01e3, ("large gradient",))],
)
def test_a_gradient_is_marked_beyond_three_decades_from_the_last_hidden_layer(norm, faults):
    run = run_of(grad_norm__a=[norm], grad_norm__b=[1.0], grad_norm__c=[5.0])
    assert layer_states(run)[0].faults == faults


def test_an_activation_belongs_to_the_only_layer_of_its_block():
    layers_ = {"grad_norm/net.0.linear": series([1.0]), "grad_norm/net.1.linear": series([1.0])}
    run = Run(None, {**layers_, "dead_fraction/net.0.act": series([0.7])})
    assert [s.dead for s in layer_states(run)] == [0.7, pytest.approx(nan, nan_ok=True)]
    both = {"grad_norm/net.0": series([1.0]), "grad_norm/net.1": series([1.0])}
    run = Run(None, {**both, "dead_fraction/net.act": series([0.7])})  # whose it is, nobody knows
    assert all(np.isnan(s.dead) for s in layer_states(run))


def pixels(drawn):
    """Return the colours of a picture, [rows, columns, 4], by the PNG's own format."""
    data = base64.b64decode(re.search(r"base64,([^\"]+)", drawn)[1])
    columns, rows = struct.unpack(">II", data[16:24])
    at, body = 8, b""
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, part = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (check,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert check == zlib.crc32(kind + part)
        body += part if kind == b"IDAT" else b""
        at += 12 + size
    lines = np.frombuffer(zlib.decompress(body), np.uint8).reshape(rows, 4 * columns + 1)
    assert not lines[:, 0].any()  # no filter
    return lines[:, 1:].reshape(rows, columns, 4)


def test_a_picture_has_a_row_a_layer_and_a_colour_a_value():
    layers_ = {"a": series([0.01, 0.01]), "b": series([1.0, 0.1]), "c": series([nan, 0.0])}
    drawn = picture("Heat", layers_, Axis(0.0, 1.0), log=True)
    found = pixels(drawn)
    assert found.shape == (3, 160, 4)
    assert found[0, 0].tolist() == found[0, -1].tolist() == [0, 34, 78, 255]  # the smallest
    assert found[1, 0].tolist() == [254, 232, 56, 255]  # the largest
    half = [(102 + 148) // 2, (105 + 142) // 2, (112 + 119) // 2, 255]
    assert found[1, -1].tolist() == pytest.approx(half, abs=1)  # half way, in logarithms
    assert found[2, 0].tolist() == [213, 94, 0, 255]  # not finite
    assert found[2, -1].tolist() == [0, 34, 78, 255]  # a zero: the darkest
    assert "10⁻²<i" in drawn
    assert "</i>10⁰" in drawn
    assert 'style="height:54px"' in drawn  # 18 pixels a row
    assert 'style="top:9.0px" title="a"' in drawn


def test_a_picture_of_fractions_goes_from_0_to_1_and_is_empty_before_the_first_value():
    layers_ = {"a": series([1.0], [5]), "b": series([0.5])}
    drawn = picture("Dead", layers_, Axis(0.0, 10.0), log=False)
    found = pixels(drawn)
    assert found[0, 0].tolist()[3] == 0
    assert found[0, -1].tolist() == [120, 40, 0, 255]
    assert found[1, -1].tolist() == [230, 159, 0, 255]
    assert "0%<i" in drawn
    assert "</i>100%" in drawn


def test_of_very_deep_nets_every_nth_layer_is_drawn():
    layers_ = {f"l{i}": series([1.0]) for i in range(401)}
    drawn = picture("t", layers_, Axis(0.0, 1.0), log=True)
    assert len(pixels(drawn)) == 134  # every third, so that at most 200 are drawn
    assert len(pixels(picture("t", dict(list(layers_.items())[:200]), Axis(0, 1), log=True))) == 200
    assert f'style="height:{3 * 134}px"' in drawn


def test_a_column_shows_the_latest_value_at_its_end():
    found = sample(series([1.0, 2.0, inf], [2, 5, 9]), Axis(0.0, 10.0), 5)
    np.testing.assert_array_equal(found, [1.0, 1.0, 2.0, 2.0, inf])
    np.testing.assert_array_equal(sample(series([1.0], [3]), Axis(0.0, 4.0), 2), [nan, 1.0])


# --- sections


def test_the_tiles_say_what_one_looks_for_first():
    run = run_of(
        train_loss=[2.0, 1.0, nan], val_loss=[3.0, 0.5], val_acc=[0.1, 0.8],
        guard__skipped=[0.0, 1.0, 2.0], clip__fraction=[0.0, 0.5, 1.0, nan],
    )  # fmt: skip
    run = Run(None, run.series, seconds=90.0)
    assert "<b>1,200</b><span>steps" in tiles(replace(run, about={"steps": 1200}))
    assert "<b>3</b><span>last" in tiles(replace(run, about={"steps": "<b>"}))
    found = re.findall(r"<div><b>(.*?)</b><span>(.*?)</span></div>", tiles(run))
    assert found == [
        ("1", "train_loss"), ("0.5", "val_loss"), ("0.8", "val_acc"), ("3", "last logged step"),
        ("1 min 30 s", "time"), ("2", "steps skipped"), ("50%", "clipped"),
    ]  # fmt: skip
    few = re.findall(r"<span>(.*?)</span>", tiles(run_of(train_loss=[1.0])))
    assert few == ["train_loss", "last logged step"]


def test_metrics_of_one_name_share_a_chart_and_the_rest_is_counted():
    tags = {f"val_m{i}_acc": [0.1, 0.2] for i in range(9)}
    run = run_of(train_loss=falling(), train_f1=[0.1, 0.2], val_f1=[0.2, 0.3], **tags)
    drawn = loss_and_metrics(run, Axis(0, 60), ())
    assert re.findall(r"<figcaption><b>(.*?)</b>", drawn) == [
        "Loss", "f1", *[f"m{i}_acc" for i in range(7)],
    ]  # fmt: skip
    assert "2 more metrics were logged" in drawn
    assert "more metrics" not in loss_and_metrics(run_of(val_f1=[0.1, 0.2]), Axis(0, 1), ())


def test_fractions_are_drawn_where_a_layer_passes_a_tenth():
    steps = Axis(0.0, 2.0)
    assert "never more than 10% in any layer" in depth(run_of(dead_fraction__a=[0.0, 0.1]), steps)
    assert "Dead units by layer" in depth(run_of(dead_fraction__a=[0.0, 0.11]), steps)
    assert "Saturated entries by layer" in depth(run_of(saturated_fraction__a=[0.2]), steps)


def test_gradient_norm_before_and_after_clipping_and_the_usual_ratios():
    drawn = gradients_and_updates(
        run_of(grad_norm__total=[1.0, 2.0], clip__norm_after=[1.0, 1.0],
               update_ratio__a=[1e-3, 1e-5], update_ratio__b=[1e-3, 1e-1]), Axis(0, 1), ()
    )  # fmt: skip
    assert "before clipping" in drawn
    assert "after clipping" in drawn
    # decades -5.2 to -0.8 on 200 pixels: the usual 1e-4 to 1e-2
    box = re.search(r'class="band" x="0" width="1000" y="([\d.]+)" height="([\d.]+)"', drawn)
    assert [float(v) for v in box.groups()] == pytest.approx(
        [200 * 1.2 / 4.4, 200 * 2 / 4.4], abs=0.06
    )
    alone = gradients_and_updates(run_of(clip__norm_before=[1.0, 2.0]), Axis(0, 1), ())
    assert ">total<" in alone
    assert "after" not in alone


def test_a_rate_that_never_changes_is_a_sentence():
    drawn = rate_and_precision(run_of(lr__group0=[0.1, 0.1]), Axis(0, 1), ())
    assert drawn == "<p><code>lr/group0</code> was 0.1 in every step.</p>"
    assert lanes(run_of(lr__group0=[0.1, 0.1]), steps_axis(10)) == ""


def test_a_rate_that_changes_has_a_lane_from_0_to_its_highest():
    drawn = lanes(run_of(lr__group0=[0.2, 0.1]), steps_axis(10))
    assert 'd="M0.0 10L0.0 0.00L100.0 5.00L100.0 10Z"' in drawn
    assert "0.1 at the end" in drawn


def test_an_axis_without_a_value_has_no_numbers():
    drawn = chart("Loss", [Line("loss", series([nan, nan]))], steps_axis(10))
    assert '<div class="y"></div>' in drawn
    assert '<div class="y"><span' in chart("Loss", [Line("loss", series([1, nan]))], steps_axis(10))


def test_each_groups_learning_rate_and_the_loss_scale():
    drawn = rate_and_precision(
        run_of(lr__group0=[0.1, 0.2], lr__group1=[0.1, 0.1], precision__scale=[8.0, 16.0]),
        Axis(0, 1), (),
    )  # fmt: skip
    assert re.findall(r"<figcaption><b>(.*?)</b>", drawn) == [
        "Learning rate", "Loss scale of mixed precision",
    ]  # fmt: skip
    assert drawn.count('class="line ') == 3


def test_the_table_of_the_initialisation_is_drawn_before_and_after():
    rows = [(f"net.{i}", 0.1 / 2**i, 1.0, 1e-3, 1e-2) for i in range(3)]
    head = "| weight | signal before | signal after | gradient before | gradient after |\n"
    table = head + "|---|---|---|---|---|\n"
    table += "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    drawn = initialization(Run(None, {}, texts={"weight_initialization": [(0, table)]}))
    about = [json.loads(html.unescape(t)) for t in re.findall(r'data-chart="([^"]*)"', drawn)]
    assert [[line["v"] for line in each["lines"]] for each in about] == [
        [[0.1, 0.05, 0.025], [1, 1, 1]], [[1e-3] * 3, [1e-2] * 3],
    ]  # fmt: skip
    assert about[0]["lines"][0]["s"] == [1, 2, 3]
    assert "All 3 weights" in drawn
    assert drawn.count("<tr>") == 4
    assert initialization(Run(None, {})) == ""


# --- cards


def card(finding, run):
    return cards(run, Causes((finding,), (), (), ()), steps_axis(10))


def test_a_card_shows_the_evidence_that_broke_its_threshold():
    finding = {**FINDING, "evidence": {
        "spikes": {"value": 3.0, "sign": ">", "threshold": 2.0, "name": "many_spikes"},
        "learnt": {"value": 0.5, "sign": "is", "threshold": 1.0, "name": "other"},
    }}  # fmt: skip
    drawn = card(finding, run_of(train_loss=falling(11)))
    row = f"<th>{MEANINGS['spikes']}<td>3<td>above 2 <code>many_spikes</code>"
    assert row in html.unescape(drawn)
    assert "learnt" not in drawn
    assert "<b>Loss</b>" in drawn
    assert "since step 5" in drawn
    assert "found at" not in drawn
    assert "since step 2, found at step 5" in card({**finding, "since": 2}, run_of())
    assert "from the start" in card({**finding, "step": 0, "layers": []}, run_of())
    flag = {"value": 1.0, "sign": ">", "threshold": 0.5, "name": "flag_set"}
    assert "evidence" not in card({**finding, "evidence": {"spikes": flag}}, run_of())
    own = {"evidence": {"<b>": {"value": 1.0, "threshold": 0.5}}}
    assert "<th>&lt;b&gt;<td>1<td>" in card({**finding, **own}, run_of())
    assert "the whole run" in card({**finding, "layers": []}, run_of())


def test_a_card_of_layers_draws_these_with_the_threshold():
    evidence = {"dead_fraction": {"value": 0.9, "sign": ">", "threshold": 0.5, "name": "dead"}}
    fractions = {f"dead_fraction/n.{i}": series([0.1, 0.9]) for i in range(12)}
    run = Run(None, fractions)
    drawn = card({**FINDING, "layers": ["n.10", "n.2"], "evidence": evidence}, run)
    about = json.loads(html.unescape(re.search(r'data-chart="([^"]*)"', drawn)[1]))
    assert [(line["n"], line["c"]) for line in about["lines"]] == [("n.2", "s0"), ("n.10", "s2")]
    assert "threshold <b>0.5</b>" in drawn
    every = card({**FINDING, "layers": ["gone"], "evidence": evidence}, run)
    about = json.loads(html.unescape(re.search(r'data-chart="([^"]*)"', every)[1]))
    assert [line["n"] for line in about["lines"]] == [f"n.{i}" for i in range(5)]


@pytest.mark.parametrize(("points", "drawn"), [(2, False), (3, True)])
def test_a_fact_is_drawn_from_three_points_on(points, drawn):
    evidence = {"rate": {"value": 1.0, "sign": "<", "threshold": 2.0}}
    run = Run(None, {}, {"rate": series([1.0] * points)})
    assert ("<b>Rate</b>" in card({**FINDING, "evidence": evidence}, run)) == drawn


def test_the_gradient_over_depth_at_the_finding_and_at_the_end():
    curves = {f"preactivation_grad/l{i}": series([1.0, 10.0**-i, 0.0], [0, 4, 8]) for i in range(3)}
    run = Run(None, {**curves, "train_loss": series(np.ones(10))})
    drawn = card({**FINDING, "step": 4}, run)
    about = json.loads(html.unescape(re.search(r'data-chart="([^"]*)"', drawn)[1]))
    assert [(line["n"], line["s"], line["v"]) for line in about["lines"]] == [
        ("step 4", [1, 2, 3], [1, 0.1, 0.01]), ("step 9", [1, 2, 3], [None] * 3),
    ]  # fmt: skip
    assert (about["x"], about["log"]) == ([1.0, 3.0], True)
    assert "threshold <b>10⁻⁷</b>" in drawn  # of the last hidden layer's 0.1, 10^-6


@pytest.mark.parametrize(("losses", "heading"), [([nan, nan], "Gradient norm"), ([1, nan], "Loss")])
def test_values_that_are_not_finite_are_drawn_up_to_where_they_begin(losses, heading):
    run = Run(None, {"train_loss": series(losses), "grad_norm/total": series([1.0, 1e9, nan])})
    assert f"<b>{heading}</b>" in card({**FINDING, "id": "non-finite", "evidence": {}}, run)


def test_what_is_worth_knowing_is_one_list():
    remark = {**FINDING, "id": "plateau", "severity": "info", "step": 1200}
    drawn = cards(run_of(), Causes((), (remark, {**remark, "advice": []}), (), ()), steps_axis(1))
    assert drawn.count("<article") == 1
    assert drawn.count("<li>") == 2
    assert "(step 1,200)" in drawn
    assert drawn.count("class=do") == 1


@pytest.mark.parametrize(("layers_", "labels"), [(2, ["1", "1.2", "1.4", "1.6", "1.8", "2"]),
                                                 (5, ["1", "2", "3", "4", "5"])])  # fmt: skip
def test_the_last_layer_has_its_number_on_the_axis_of_depth(layers_, labels):
    table = "| weight | signal before |\n|---|---|\n" + "| w | 0.1 |\n" * layers_
    drawn = initialization(Run(None, {}, texts={"weight_initialization": [(0, table)]}))
    axis = re.search(r'<div class="x">(.*?)<em>layer, from first to last</em>', drawn)[1]
    assert re.findall(r">([\d.]+)</span>", axis) == labels

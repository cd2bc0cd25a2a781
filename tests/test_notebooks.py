"""What a notebook shows of findings, checks and prescriptions: as text, escaped."""

import html
import re
from html.parser import HTMLParser

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_stab import check_gradients
from lightning_stab.diagnosis import Finding
from lightning_stab.prescription import CureRecord, Prescription

HOSTILE = '<script>alert("x")</script> & [b]'


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def finding(message=HOSTILE, layers=("a", "b", "c", "d", "e"), **more):
    return Finding("plateau", "warning", 40, layers, {}, message, ("Do this.", message), **more)


def test_a_finding_says_what_where_since_when_and_what_to_do():
    shown = Tags(finding(since=7, state="confirmed")._repr_html_())
    head = "warning: plateau in a, b, c and 2 more, since step 7 (confirmed)"
    assert shown.text == f"{head}{HOSTILE}Do this.{HOSTILE}"
    assert set(shown.tags) == {"p", "b", "br", "ol", "li"}


@settings(max_examples=20)
@given(st.text())
def test_no_text_from_outside_becomes_a_tag(text):
    shown = Tags(finding(text, layers=(text,))._repr_html_())
    assert set(shown.tags) == {"p", "b", "br", "ol", "li"}


def test_a_gradient_check_shows_its_table():
    module = nn.Linear(2, 1)
    report = check_gradients(module, torch.ones(3, 2), lambda net, x: net(x).square().mean())
    shown = Tags(report._repr_html_())
    assert shown.tags == ["pre"]
    assert shown.text == str(report)


def test_a_prescription_shows_its_table_in_colours():
    cure = CureRecord("clip", "spikes", HOSTILE, None, (), "no better", 2.0, 2.0, 0.1, 40)
    given = Prescription((cure,), (finding(),), 2.5, 40, "val_loss", "min", 2.0, False)
    shown = given._repr_html_()
    assert "script" not in Tags(shown).tags
    words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", shown)))
    assert given.sentence in words

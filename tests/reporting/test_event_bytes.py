"""The bytes of an event: which summaries are plain scalars, and where their numbers stand."""

import struct

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

from lightning_stab.reporting.event_files import _layout, _plain_event, _varint


def summary(**values):
    items = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Summary(value=items)


def test_of_plain_scalars_the_place_of_each_number_is_known():
    long = "t" * 300  # whose length takes two bytes
    data = summary(a=1.5, **{long: -2.0, "c/d": 0.0}).SerializeToString()
    tags, offsets = _layout(data)
    assert tags == ["a", long, "c/d"]
    assert [struct.unpack_from("<f", data, at)[0] for at in offsets] == [1.5, -2.0, 0.0]
    assert _layout(b"") == ([], [])


def test_anything_else_in_a_summary_is_left_to_the_parser():
    plain = summary(a=1.0).SerializeToString()
    twice = Summary(value=[Summary.Value(tag="a", simple_value=1.0)] * 2)
    named = Summary(value=[Summary.Value(node_name="n", simple_value=1.0)])
    other = Summary(value=[Summary.Value(tag="a", histo=HistogramProto(num=1))])
    bare = Summary(value=[Summary.Value(simple_value=1.0)])
    noted = summary(a=1.0)
    noted.value[0].metadata.display_name = "A"
    for each in (twice, named, other, bare, noted):
        assert _layout(each.SerializeToString()) is None
    for data in (plain[:-1], plain + b"\x12", b"\x0a\x01\x0a", b"\x0a\x7f" + plain[2:]):
        assert _layout(data) is None


def test_an_event_of_a_summary_alone_gives_its_time_and_step():
    content = summary(a=1.0)
    for step in (0, 1, 127, 128, 70_000):
        record = Event(wall_time=12.5, step=step, summary=content).SerializeToString()
        assert _plain_event(record) == (12.5, step, content.SerializeToString())
    for event in (
        Event(step=3, summary=content),
        Event(wall_time=1.0, file_version="brain.Event:2"),
        Event(wall_time=1.0, step=3, graph_def=b"x"),
    ):
        assert _plain_event(event.SerializeToString()) is None
    whole = Event(wall_time=1.0, step=3, summary=content).SerializeToString()
    assert _plain_event(whole + b"\x00") is None


@pytest.mark.parametrize(
    ("data", "number", "end"),
    [(b"\x00", 0, 1), (b"\x7f", 127, 1), (b"\x80\x01", 128, 2), (b"\xac\x02\x05", 300, 2),
     (b"\x80", 0, 1)],
)  # fmt: skip
def test_numbers_of_variable_length(data, number, end):
    assert _varint(data, 0) == (number, end)
    assert _varint(b"xx" + data, 2) == (number, end + 2)

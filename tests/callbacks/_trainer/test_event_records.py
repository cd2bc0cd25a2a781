"""Records of event files: the bytes that TensorBoard itself would write, and nothing lost."""

import math
import tracemalloc
from functools import partial, wraps
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow as tensorboards
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

from lightning_stab.callbacks._trainer import event_records as records
from lightning_stab.reporting.event_files import read_event_file

NUMBERS = st.floats(width=64)
TAGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
SCALARS = st.dictionaries(TAGS, NUMBERS, max_size=6)


@given(st.binary(max_size=3 * records.BLOCK))
def test_the_checksum_is_tensorboards(data):
    assert records.crc32c(data) == tensorboards.crc32c(data)


SIZES = [blocks * records.BLOCK + more for blocks in (1, 2, 20) for more in (-5, -4, -3, 0, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_the_checksum_of_whole_blocks(size):
    data = bytes(7 * i % 256 for i in range(size))
    assert records.crc32c(data) == tensorboards.crc32c(data)


class File:
    def __init__(self):
        self.content = b""

    def write(self, data):
        self.content += data


@given(st.binary(max_size=600))
def test_a_record_is_tensorboards(data):
    own, theirs = File(), File()
    records._write(own, data)
    RecordWriter(theirs).write(data)
    assert own.content == theirs.content


@given(SCALARS, TAGS)
def test_a_summary_is_protobufs(values, start):
    made = records.packed_summary(values, start)
    expected = [start + tag for tag in values]
    assert [each.tag for each in made.value] == expected
    for each, value in zip(made.value, values.values(), strict=True):
        plain = Summary.Value(simple_value=value).simple_value
        assert same(each.simple_value, plain)
    parts = [Summary.Value(tag=each.tag, simple_value=each.simple_value) for each in made.value]
    assert made.SerializeToString() == Summary(value=parts).SerializeToString()


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


EVENTS = [(3, {"a": 1.0, "b": 2.0}), (4, {"a": 1.5, "b": math.inf}), (9, {"c": -1.0})]


def written(folder, write):
    with SummaryWriter(folder) as writer:
        write(writer)
    (path,) = folder.glob("events*")
    return path


def test_events_of_several_steps_are_read_as_those_that_were_written_one_by_one(tmp_path):
    def together(writer):
        writer.add_scalar("before", 0.5, 1)
        records.write_scalars(writer._get_file_writer(), EVENTS, "run-")
        writer.add_scalar("after", 0.5, 10)
        writer.flush()
        records.write_scalars(writer._get_file_writer(), EVENTS[:1], "run-")

    def one_by_one(writer):
        writer.add_scalar("before", 0.5, 1)
        for step, values in EVENTS:
            value = [Summary.Value(tag=f"run-{t}", simple_value=v) for t, v in values.items()]
            writer._get_file_writer().add_summary(Summary(value=value), step)
        writer.add_scalar("after", 0.5, 10)
        value = [Summary.Value(tag=f"run-{t}", simple_value=v) for t, v in EVENTS[0][1].items()]
        writer._get_file_writer().add_summary(Summary(value=value), EVENTS[0][0])

    paths = [written(tmp_path / "a", together), written(tmp_path / "b", one_by_one)]
    contents = [list(tensorboard_events(path)) for path in paths]
    for own, theirs in zip(*contents, strict=True):
        assert own.wall_time == pytest.approx(theirs.wall_time, abs=60.0)
        own.wall_time = theirs.wall_time
        if own.WhichOneof("what") == "summary":  # the first event names the version
            assert own.SerializeToString() == theirs.SerializeToString()
    found = read_event_file(paths[0])
    assert not found.is_cut
    assert found.scalars["run-a"].steps.tolist() == [3, 4, 3]


def tensorboard_events(path):
    """Yield a file's events by TensorBoard's own reader, which verifies each checksum."""
    reader = tensorboards.PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except tensorboards.errors.OutOfRangeError:
            return
        yield Event.FromString(reader.record())


def test_a_writer_is_quickened_once_and_every_record_of_it_is_fast(tmp_path, monkeypatch):
    with SummaryWriter(tmp_path) as writer:
        files = writer._get_file_writer()
        assert records.quicken(files)
        first = files.event_writer._async_writer._writer.write
        assert records.quicken(files)
        assert files.event_writer._async_writer._writer.write is first
        made = []
        monkeypatch.setattr(records, "crc32c", lambda data: made.append(data) or 0)
        writer.add_scalar("anything", 1.0, 1)
        writer.flush()
        assert any(b"anything" in data for data in made)


def test_a_large_record_takes_little_memory():
    data = bytes(range(256)) * 2**14  # 4 MiB
    records.crc32c(b"")  # the tables are made once
    tracemalloc.start()
    found = records.crc32c(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(data)
    assert found == 0x74922500


def listened(seen, original):
    @wraps(original)
    def method(self, *args, **kwargs):
        seen.append(args)
        return original(self, *args, **kwargs)

    return method


@pytest.mark.parametrize(("kind", "name"), [
    (FileWriter, "add_summary"), (FileWriter, "add_event"), (EventFileWriter, "add_event"),
])  # fmt: skip
@pytest.mark.parametrize("on_class", [True, False])
def test_who_listens_to_a_writer_hears_each_event(kind, name, on_class, tmp_path, monkeypatch):
    """As `mlflow.pytorch.autolog` does."""
    seen = []
    with SummaryWriter(tmp_path) as writer:
        files = writer._get_file_writer()
        owner = files if kind is FileWriter else files.event_writer
        heard = listened(seen, vars(kind)[name])
        place = (kind, name, heard) if on_class else (owner, name, partial(heard, owner))
        monkeypatch.setattr(*place)
        records.write_scalars(files, EVENTS)
    assert len(seen) == len(EVENTS)
    assert sorted(read_event_file(next(tmp_path.glob("events*"))).scalars) == ["a", "b", "c"]


def test_a_subclass_of_the_file_writer_hears_each_event(tmp_path):
    seen = []

    class Listening(FileWriter):
        def add_summary(self, summary, *args, **kwargs):
            seen.append(summary)
            super().add_summary(summary, *args, **kwargs)

    files = Listening(str(tmp_path))
    records.write_scalars(files, EVENTS)
    files.close()
    assert len(seen) == len(EVENTS)


def test_where_a_number_does_not_stand_last_a_summary_is_built_value_by_value(monkeypatch):
    monkeypatch.setattr(records, "_layout", lambda tags: None)
    made = records.packed_summary({"a": 1.0, "b": torch.tensor([2.0])}, "run-")
    assert [(v.tag, v.simple_value) for v in made.value] == [("run-a", 1.0), ("run-b", 2.0)]


@pytest.mark.parametrize("value", [
    2, True, np.float32(2.0), torch.tensor([2.0]),
    torch.tensor(2.0, dtype=torch.bfloat16),
])  # fmt: skip
def test_a_scalar_of_any_kind_is_written_as_its_number(value):
    (found,) = records.packed_summary({"a": value}).value
    assert found.simple_value == float(value)


class Writer:
    """A file writer of another make, which is left as it is."""

    def __init__(self, **parts):
        self.written = []
        vars(self).update(parts)

    def add_summary(self, summary, step):
        self.written.append((step, [value.tag for value in summary.value]))


class OtherRecords(RecordWriter):
    def write(self, data):
        raise AssertionError("not called")


def patched(file):
    made = RecordWriter(file)
    made.write = partial(print)  # somebody else has put a function of theirs there
    return made


@pytest.mark.parametrize("other", [
    {},
    {"event_writer": SimpleNamespace()},
    {"event_writer": SimpleNamespace(_async_writer=SimpleNamespace())},
    {"event_writer": SimpleNamespace(_async_writer=SimpleNamespace(_writer=OtherRecords(File())))},
    {"event_writer": SimpleNamespace(_async_writer=SimpleNamespace(_writer=patched(File())))},
])  # fmt: skip
def test_where_the_writer_is_another_nothing_is_changed_and_nothing_lost(other):
    writer = Writer(**other)
    asynchronous = getattr(other.get("event_writer"), "_async_writer", None)
    before = dict(vars(getattr(asynchronous, "_writer", SimpleNamespace())))
    assert not records.quicken(writer)
    assert vars(getattr(asynchronous, "_writer", SimpleNamespace())) == before
    records.write_scalars(writer, EVENTS)
    assert writer.written == [(3, ["a", "b"]), (4, ["a", "b"]), (9, ["c"])]

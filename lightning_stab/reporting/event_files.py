"""TensorBoard's event files, read in bulk.

TensorBoard's own loader checks every byte in Python (70 s for 2.5 million packed values), and
parsing each record takes 14 s. Runs log the same tags again and again: the records differ only in
step, time and the numbers, so a record that matches the one before is read as one array (1 s).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_stab.reporting.series import Collected, Series, joined

SHORT = 256  # bytes of a summary up to which parsing it is as fast as comparing it
HEAD, FOOT = 12, 4  # bytes before a record: its length and a checksum; after it: a checksum
LARGEST = 1 << 30  # bytes of a record; a longer one is a broken length
_TIME, _STEP, _SUMMARY, _TAG, _VALUE, _ITEM = 0x09, 0x10, 0x2A, 0x0A, 0x15, 0x0A


@dataclass
class Events:
    """What one event file holds.

    Attributes:
        scalars: curves by tag.
        texts: by tag, (step, text) in the order in which they were written.
        plugins: by tag of a text, the plugin for which it was written.
        began: the time of the first record, in seconds since 1970; None for an empty file.
        ended: that of the last one.
        is_cut: whether the file ends within a record, or holds one that cannot be read.
    """

    scalars: dict[str, Series] = field(default_factory=dict)
    texts: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    began: float | None = None
    ended: float | None = None
    is_cut: bool = False


def read_event_file(path: Path) -> Events:
    """Return what an event file holds, up to where it can be read."""
    reader = _Reader()
    with path.open("rb", buffering=1 << 20) as file:
        for record in _records(file, reader.found):
            if not reader.take(record):
                reader.found.is_cut = True
                break
    return reader.finish()


def _records(file: Any, found: Events) -> Iterator[bytes]:
    while head := file.read(HEAD):
        size = struct.unpack("<Q", head[:8])[0] if len(head) == HEAD else LARGEST + 1
        record = file.read(size + FOOT) if size <= LARGEST else b""
        if len(record) < size + FOOT:
            found.is_cut = True
            return
        yield record[:size]


class _Layout(Collected):
    """Summaries that differ in their numbers only."""

    def __init__(self, summary: bytes, tags: list[str], offsets: list[int]) -> None:
        super().__init__(tags)
        self._where = (np.array(offsets)[:, None] + np.arange(4)).ravel()
        self._fixed = self.split(summary)[1]

    def split(self, summary: bytes) -> tuple[Any, bytes]:
        """Return the numbers, and the bytes with zeros in their places."""
        row = np.frombuffer(summary, np.uint8).copy()
        values = row[self._where].view("<f4")
        row[self._where] = 0
        return values, row.tobytes()

    def take(self, step: int, summary: bytes) -> bool:
        """Add the numbers, if the summary has this layout."""
        values, fixed = self.split(summary)
        if fixed != self._fixed:
            return False
        self.add(step, values)
        return True


class _Reader:
    def __init__(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._parse = Event.FromString
        self._layouts: dict[int, list[_Layout]] = {}
        self._single: dict[str, Collected] = {}
        self.found = Events()

    def take(self, record: bytes) -> bool:
        """Read one record; say whether it could be read."""
        plain = _plain_event(record) if len(record) > SHORT else None
        if plain is not None and self._take_packed(*plain):
            return True
        try:
            event = self._parse(record)
        except Exception:  # protobuf's own errors differ between its versions
            return False
        self._note_time(event.wall_time)
        for value in event.summary.value:
            self._take_value(event.step, value)
        return True

    def finish(self) -> Events:
        """Return what was read, with each tag's parts joined."""
        parts: dict[str, list[Series]] = {}
        groups = [*self._single.values(), *(b for each in self._layouts.values() for b in each)]
        for group in groups:
            for tag, series in group.series().items():
                parts.setdefault(tag, []).append(series)
        self.found.scalars = {tag: joined(each) for tag, each in parts.items()}
        return self.found

    def _take_packed(self, time: float, step: int, summary: bytes) -> bool:
        known = self._layouts.setdefault(len(summary), [])
        if not any(layout.take(step, summary) for layout in known):
            parsed = _layout(summary)
            if parsed is None:
                return False
            known.insert(0, _Layout(summary, *parsed))
            known[0].take(step, summary)
        self._note_time(time)
        return True

    def _take_value(self, step: int, value: Any) -> None:
        kind = value.WhichOneof("value")
        if kind == "simple_value":
            self._add(value.tag, step, value.simple_value)
        elif kind == "tensor":
            plugin = value.metadata.plugin_data.plugin_name
            if plugin:
                self.found.plugins.setdefault(value.tag, plugin)
            if value.tensor.string_val:
                text = value.tensor.string_val[0].decode(errors="replace")
                self.found.texts.setdefault(value.tag, []).append((step, text))
            elif self.found.plugins.get(value.tag) == "scalars":
                from tensorboard.util.tensor_util import make_ndarray

                self._add(value.tag, step, float(make_ndarray(value.tensor)))

    def _add(self, tag: str, step: int, number: float) -> None:
        if tag not in self._single:
            self._single[tag] = Collected([tag])
        self._single[tag].add(step, number)

    def _note_time(self, time: float) -> None:
        self.found.began = time if self.found.began is None else self.found.began
        self.found.ended = time


def _plain_event(record: bytes) -> tuple[float, int, bytes] | None:
    """Return time, step and summary of a record that holds nothing else."""
    if record[0] != _TIME:
        return None
    (time,) = struct.unpack_from("<d", record, 1)
    step, place = 0, 9
    if record[place] == _STEP:
        step, place = _varint(record, place + 1)
    if record[place] != _SUMMARY:
        return None
    size, place = _varint(record, place + 1)
    return (time, step, record[place:]) if place + size == len(record) else None


def _layout(summary: bytes) -> tuple[list[str], list[int]] | None:
    """Return the tags of a summary of plain scalars, and where each number stands."""
    tags, offsets, place = [], [], 0
    while place < len(summary):
        if summary[place] != _ITEM:
            return None
        size, place = _varint(summary, place + 1)
        end = place + size
        if size < 2 or end > len(summary) or summary[place] != _TAG:
            return None
        length, place = _varint(summary, place + 1)
        if place + length + 5 != end or summary[place + length] != _VALUE:
            return None
        tags.append(summary[place : place + length].decode(errors="replace"))
        offsets.append(place + length + 1)
        place = end
    return (tags, offsets) if len(set(tags)) == len(tags) else None


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    number = shift = 0
    while place < len(data):
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    return number, place

"""Records of TensorBoard's event files, made in a few array operations.

TensorBoard computes the checksum of each record byte by byte in Python, in a thread, but under the
lock of the interpreter that the training needs: 0.2 ms for 1,000 bytes, the norms of 26 layers. It
is the XOR of what each byte adds by its value and place (7 us). And the events of a run differ in
their numbers only: the first one is built value by value, and the next are copies of its bytes in
which the numbers are replaced.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

BLOCK = 256  # bytes that are added up together, by a table of 256 KiB
AT_ONCE = 256  # blocks that are looked up at once, which takes 12 bytes for each of theirs
_POLYNOMIAL, _ONES = 0x82F63B78, 0xFFFFFFFF  # Castagnoli's, lowest bit first; a full register
_START = b"Td\x1fd"  # fills the register, which begins full, from an empty one
_ANY = 1.1  # a number whose bytes are not 0
_MASK = 0xA282EAD8  # added to a record's checksum, so that it can be checksummed again


class Records(bytes):
    """Records with their checksums, ready for the file."""


def write_scalars(
    file_writer: Any, events: Iterable[tuple[int, Mapping[str, float]]], start: str = ""
) -> None:
    """Write the scalars of some steps, one event each, each tag after ``start``.

    Where the file writer of the ``SummaryWriter`` is as TensorBoard makes it, they go to its
    thread together: to hand over a record, and to open the file for it, takes longer than to make
    it. Where somebody listens to its methods, they are called for each event.
    """
    made = [(step, packed_summary(values, start)) for step, values in events]
    if not quicken(file_writer) or not _is_untouched(file_writer) or len(made) < 2:
        for step, summary in made:
            file_writer.add_summary(summary, step)
        return
    from tensorboard.compat.proto.event_pb2 import Event

    now = time.time()
    contents = (Event(wall_time=now, step=step, summary=each) for step, each in made)
    records = (_record(content.SerializeToString()) for content in contents)
    file_writer.event_writer._async_writer.write(Records(b"".join(records)))


def packed_summary(values: Mapping[str, float], start: str = "") -> Any:
    """Return a ``Summary`` of scalars, each tag after ``start``.

    Example:
        >>> [(each.tag, each.simple_value) for each in packed_summary({"a": 1.0, "b": 0.5}).value]
        [('a', 1.0), ('b', 0.5)]
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    layout = _layout((start, *values))
    if layout is None:
        pairs = ((start + tag, float(value)) for tag, value in values.items())
        return Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in pairs])
    content = layout[0].copy()
    with np.errstate(over="ignore"):  # infinite in single precision
        numbers = np.array([float(v) for v in values.values()], np.float64).astype("<f4")
    content[layout[1]] = numbers.view(np.uint8).reshape(-1, 4)
    return Summary.FromString(content.tobytes())


def quicken(file_writer: Any) -> bool:
    """Have a ``SummaryWriter``'s file writer take fast checksums; its file stays the same.

    Returns:
        False where it is not as TensorBoard makes it, and so was left as it is.
    """
    queue = getattr(getattr(file_writer, "event_writer", None), "_async_writer", None)
    records = getattr(queue, "_writer", None)
    if records is None:
        return False
    if "write" in vars(records):
        return getattr(vars(records)["write"], "func", None) is _write
    from tensorboard.summary.writer.record_writer import RecordWriter

    if type(records) is not RecordWriter or not hasattr(records, "_writer"):
        return False
    records.write = partial(_write, records._writer)
    return True


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'

    Source: RFC 3720, appendix B.4.
    """
    added, (first, second, third, fourth) = _tables()
    values = np.frombuffer(bytes(-(len(data) + 4) % BLOCK) + _START + data, np.uint8)
    blocks, places = values.reshape(-1, BLOCK), np.arange(0, 256 * BLOCK, 256)
    register = 0
    for start in range(0, len(blocks), AT_ONCE):
        sums = np.bitwise_xor.reduce(added[blocks[start : start + AT_ONCE] + places], axis=1)
        for block in sums.tolist():
            low, high = first[register & 255] ^ second[register >> 8 & 255], register >> 16
            register = low ^ third[high & 255] ^ fourth[high >> 8] ^ block
    return register ^ _ONES


def _is_untouched(file_writer: Any) -> bool:
    """Say whether the methods on an event's way are the libraries' own, whom nobody has wrapped."""
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from torch.utils.tensorboard.writer import FileWriter

    for kind, writer in ((FileWriter, file_writer), (EventFileWriter, file_writer.event_writer)):
        methods = [vars(kind).get(n) for n in ("__init__", "add_event", "add_summary")]
        codes = [getattr(method, "__code__", None) for method in methods if method is not None]
        files = {getattr(code, "co_filename", None) for code in codes}
        is_own = {"add_event", "add_summary"}.isdisjoint(vars(writer)) and len(files) == 1
        if type(writer) is not kind or not is_own:
            return False
    return True


@lru_cache(maxsize=64)
def _layout(tags: tuple[str, ...]) -> tuple[Any, Any] | None:
    """Return the bytes of a summary of start and tags, and the places of each number's four.

    None where a number does not stand last in its part, as protobuf has it.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    start, *own = tags
    values = (Summary.Value(tag=start + tag, simple_value=_ANY) for tag in own)
    parts = [Summary(value=[value]).SerializeToString() for value in values]
    if not all(part.endswith(struct.pack("<f", _ANY)) for part in parts):
        return None
    ends = np.cumsum([len(part) for part in parts], dtype=np.intp)  # the number stands last
    return np.frombuffer(b"".join(parts), np.uint8), ends[:, None] + np.arange(-4, 0)


def _write(file: Any, data: bytes) -> None:
    """Write a record, or several that are ready."""
    file.write(bytes(data) if type(data) is Records else _record(data))


def _record(data: bytes) -> bytes:
    """Return a record: its length, the content, and the checksum of each."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & _ONES)


@lru_cache(maxsize=1)
def _tables() -> tuple[Any, list[list[int]]]:
    """Return what a byte adds by place and value, and the register's bytes after a block."""
    one: Any = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = one >> 1 ^ one % 2 * np.uint32(_POLYNOMIAL)
    followed = [one]  # by so many bytes of 0
    for _ in range(1, BLOCK):
        followed.append(followed[-1] >> 8 ^ one[followed[-1] & 255])
    added = np.concatenate(followed[::-1])
    return added, [added[256 * place :][:256].tolist() for place in range(4)]

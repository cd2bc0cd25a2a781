"""Records of TensorBoard's event files, made in a few array operations.

TensorBoard computes the checksum of each record byte by byte in Python, for which the training has
to wait: 0.2 ms for 1,000 bytes, the norms of 26 layers. It is the XOR of what each byte adds by its
value and place (7 us). And the events of a run differ in their numbers only: so one is built value
by value, and the others are copies of it with other numbers.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

BLOCK = 256  # bytes that are added up at once, by a table of 256 KiB
_POLYNOMIAL, _ONES = 0x82F63B78, 0xFFFFFFFF  # Castagnoli's, lowest bit first; a full register
_START = b"Td\x1fd"  # fills the register, which begins full, from an empty one
_MASK = 0xA282EAD8  # added to a record's checksum, so that it can be checksummed again


class Records(bytes):
    """Records with their checksums, ready for the file."""


def write_scalars(
    file_writer: Any, events: Iterable[tuple[int, Mapping[str, float]]], start: str = ""
) -> None:
    """Write the scalars of some steps, one event each, each tag after ``start``.

    Where the file writer of the ``SummaryWriter`` is as TensorBoard makes it, they go to its
    thread together: to hand over a record, and to open the file for it, takes longer than to make
    it.
    """
    made = [(step, packed_summary(values, start)) for step, values in events]
    if not quicken(file_writer) or len(made) < 2:
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

    content, places = _layout((start, *values))
    content = content.copy()
    with np.errstate(over="ignore"):  # infinite in single precision
        numbers = np.array(list(values.values()), np.float64).astype("<f4")
    content[places] = numbers.view(np.uint8).reshape(-1, 4)
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
    places = values.reshape(-1, BLOCK) + np.arange(0, 256 * BLOCK, 256)
    register = 0
    for block in np.bitwise_xor.reduce(added[places], axis=1).tolist():
        low, high = first[register & 255] ^ second[register >> 8 & 255], register >> 16
        register = low ^ third[high & 255] ^ fourth[high >> 8] ^ block
    return register ^ _ONES


@lru_cache(maxsize=64)
def _layout(tags: tuple[str, ...]) -> tuple[Any, Any]:
    """Return the bytes of a summary, and the places of each number's four; of start and tags."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    start, *own = tags
    values = (Summary.Value(tag=start + tag, simple_value=0.0) for tag in own)
    parts = [Summary(value=[value]).SerializeToString() for value in values]
    ends = np.cumsum([len(part) for part in parts], dtype=np.intp)  # the number stands last
    return np.frombuffer(b"".join(parts), np.uint8), ends[:, None] + np.arange(-4, 0)


def _write(file: Any, data: bytes) -> None:
    """Write a record, or several that are ready."""
    file.write(data if type(data) is Records else _record(data))


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

"""A reader of IDX files, the format in which MNIST is published.

Layout, big-endian: two zero bytes; the type of the values (8: unsigned byte); the number of
dimensions; each dimension as four bytes; the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from lightning_stab.errors import DatasetError

UNSIGNED_BYTE = 8
GZIP_START = b"\x1f\x8b"


def find_idx(folder: Path, stem: str, num_dimensions: int) -> Path:
    """Return the file of ``stem``, under either of its two customary names, plain or ``.gz``.

    Raises:
        DatasetError: if there is none.
    """
    names = [f"{stem}{joint}idx{num_dimensions}-ubyte" for joint in "-."]
    for name in [name + ending for name in names for ending in ("", ".gz")]:
        if (folder / name).is_file():
            return folder / name
    problem = "is no folder" if not folder.is_dir() else f"has no file {names[0]} or {names[0]}.gz"
    raise DatasetError(
        f"`data_dir` {str(folder)!r} {problem}. Put the four MNIST files into that folder: "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte, each plain or with .gz."
    )


def read_idx(path: Path, num_dimensions: int) -> Tensor:
    """Return the unsigned bytes of an IDX file, plain or gzip-compressed, in the header's shape.

    Raises:
        DatasetError: if the file cannot be read, its header is not that of ``num_dimensions``
            dimensions of unsigned bytes, or its length is not what the header says.
    """
    content = _content(path)
    magic = bytes([0, 0, UNSIGNED_BYTE, num_dimensions])
    header_length = 4 + 4 * num_dimensions
    if content[:4] != magic:
        raise DatasetError(
            f"{str(path)!r} is not an IDX file of {num_dimensions}-dimensional unsigned bytes: it "
            f"must start with {magic.hex(' ')}, got {content[:4].hex(' ') or 'nothing'}. "
            "Fetch it again."
        )
    if len(content) < header_length:
        raise DatasetError(
            f"{str(path)!r} ends within its header of {header_length} bytes, after {len(content)}. "
            "Fetch it again."
        )
    shape = struct.unpack(f">{num_dimensions}I", content[4:header_length])
    expected, got = header_length + math.prod(shape), len(content)
    if got != expected:
        raise DatasetError(
            f"{str(path)!r} is {'truncated' if got < expected else 'too long'}: its header "
            f"promises {expected} bytes (shape {shape}), got {got}. Fetch it again."
        )
    if not math.prod(shape):
        raise DatasetError(f"{str(path)!r} is empty: its header says shape {shape}.")
    values = torch.frombuffer(bytearray(content[header_length:]), dtype=torch.uint8)
    return values.reshape(shape)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == GZIP_START else content
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{str(path)!r} cannot be read: {error}. Fetch it again.") from error

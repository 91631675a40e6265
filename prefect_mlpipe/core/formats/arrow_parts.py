"""Where the large buffers of an Arrow IPC file lie.

Knows the layout of Arrow's messages, as far as it says where their buffers are: so the hash of a
column that entered the digest of a table serves the checksum of its file too. pyarrow reads the
same fields, and keeps them to itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np

from prefect_mlpipe.core.formats.base import Bytes, Chunks, Part

ALONE_ABOVE = 1 << 16  # smaller buffers are joined with what stands around them

_MAGIC = 8  # bytes
_CONTINUED = 0xFFFFFFFF
_DICTIONARY, _RECORDS = 2, 3

Span: TypeAlias = tuple[int, int]


def parts_of(chunks: Iterable[Bytes]) -> list[Part]:
    """Make parts of what pyarrow wrote: metadata as `bytes`, the buffers of columns as views."""
    parts: list[Part] = []
    between: list[Bytes] = []
    for chunk in chunks:
        if isinstance(chunk, memoryview) and chunk.nbytes >= ALONE_ABOVE:
            parts += [Chunks(between), chunk] if between else [chunk]
            between = []
        else:
            between.append(chunk)
    return [*parts, Chunks(between)] if between else parts


def split(data: memoryview) -> list[memoryview]:
    """Find the parts in a file that may be damaged: then they are others, or one."""
    parts: list[memoryview] = []
    at = 0
    try:
        for start, end in _large_buffers(data):
            if not at <= start <= end <= len(data):
                return [data]
            parts += [data[at:start]] if at < start else []
            parts.append(data[start:end])
            at = end
    except (struct.error, ValueError):
        return [data]
    return [*parts, data[at:]] if at < len(data) else parts


def _large_buffers(data: memoryview) -> Iterator[Span]:
    at = _MAGIC
    while True:
        mark, size = struct.unpack_from("<Ii", data, at)
        if mark != _CONTINUED or size <= 0:
            return
        body = at + 8 + size
        message = _Table.root(data[at + 8 : body])
        kind, length = message.number(1, "<B"), message.number(3, "<q")
        if length < 0:
            return
        if kind in (_DICTIONARY, _RECORDS):
            columns = message.table(2) if kind == _RECORDS else message.table(2).table(1)
            for offset, width in columns.pairs(2):
                if width >= ALONE_ABOVE:
                    yield body + offset, body + offset + width
        at = body + length


class _Table:
    """One table of a flatbuffer: numbers and other tables by the number of the field."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]

    @classmethod
    def root(cls, data: memoryview) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def number(self, field: int, layout: str) -> int:
        at = self._place(field)
        return int(struct.unpack_from(layout, self._data, at)[0]) if at else 0

    def table(self, field: int) -> _Table:
        return _Table(self._data, self._target(field))

    def pairs(self, field: int) -> list[Span]:
        """A list of structs that are two numbers of 64 bits."""
        at = self._target(field)
        count = struct.unpack_from("<I", self._data, at)[0]
        found = np.frombuffer(self._data, "<i8", 2 * count, at + 4) if count else np.zeros(0, "i8")
        return [(int(first), int(second)) for first, second in found.reshape(-1, 2)]

    def _target(self, field: int) -> int:
        at = self._place(field)
        if not at:
            raise ValueError(f"no field {field}")
        return at + int(struct.unpack_from("<I", self._data, at)[0])

    def _place(self, field: int) -> int:
        """Where a field lies, 0 where it has its default."""
        width = struct.unpack_from("<H", self._data, self._fields)[0]
        if 4 + 2 * field >= width:
            return 0
        offset = struct.unpack_from("<H", self._data, self._fields + 4 + 2 * field)[0]
        return self._at + int(offset) if offset else 0

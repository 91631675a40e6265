"""Arrow tables as Arrow IPC files, and what the formats of pandas and polars share with it.

Knows pyarrow only. Loading maps the file: the columns are views of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
from typing_extensions import override

from prefect_mlpipe.core.formats import arrow_parts
from prefect_mlpipe.core.formats.base import Bytes, Format, Part

_EXACT: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_null,
    pa.types.is_primitive,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
    pa.types.is_decimal,
)
_NESTED: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_struct,
)
_WASTE = 1 << 16  # bytes
_VIEW_ALONE = 12  # longer strings stand outside their view


class ArrowFile(Format):
    """An Arrow IPC file whose large buffers are parts of their own."""

    suffix, maps = ".arrow", True

    @override
    def split(self, data: memoryview) -> list[memoryview]:
        return arrow_parts.split(data)


class Arrow(ArrowFile):
    """Tables of pyarrow. How they are cut into chunks is not kept."""

    name = "arrow"

    @override
    def accepts(self, value: object) -> bool:
        return isinstance(value, pa.Table) and type(value) is pa.Table and value.num_columns > 0

    @override
    def exact(self, value: object) -> bool:
        assert isinstance(value, pa.Table)
        return all(map(_is_exact, value.schema.types))

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, pa.Table)
        table = without_waste(value)
        return ipc_file(table.schema, table.to_batches())

    @override
    def load(self, data: memoryview) -> object:
        return table_in(data)


def _is_exact(kind: pa.DataType) -> bool:
    if any(is_kind(kind) for is_kind in _NESTED):
        return all(_is_exact(kind.field(at).type) for at in range(kind.num_fields))
    return any(is_kind(kind) for is_kind in _EXACT)


def table_in(data: memoryview) -> pa.Table:
    """Read an Arrow IPC file; the columns are views of it."""
    return pa.ipc.open_file(pa.py_buffer(data)).read_all()


def ipc_file(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[Part]:
    """Lay out an Arrow IPC file without copying the columns."""
    sink = _Collector()
    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return arrow_parts.parts_of(map(_octets, sink.chunks))


def without_waste(table: pa.Table) -> pa.Table:
    """Copy views of strings that use little of their buffers: they are written with all of them.

    A few rows of a large table would else be as large a file.
    """
    for at, column in enumerate(table.columns):
        if is_view(column.type) and _is_wasteful(column):
            wide = pa.large_string() if pa.types.is_string_view(column.type) else pa.large_binary()
            compact = column.cast(wide).cast(column.type)
            table = table.set_column(at, table.schema.field(at), compact)
    return table


def is_view(kind: pa.DataType) -> bool:
    """Tell whether strings of this type are views of buffers."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _is_wasteful(column: pa.ChunkedArray) -> bool:
    used = written = 0
    for chunk in column.chunks:
        _, views, *texts = chunk.buffers()
        each = np.frombuffer(views, np.int32).reshape(-1, 4)
        lengths = each[chunk.offset : chunk.offset + len(chunk), 0]
        used += int(lengths.sum(where=lengths > _VIEW_ALONE, dtype=np.int64))
        written += sum(text.size for text in texts)
    return written > used + used // 8 + _WASTE


class _Collector:
    """A file that keeps the very buffers that are written to it."""

    closed = False

    def __init__(self) -> None:
        self.chunks: list[Bytes] = []

    def write(self, chunk: Bytes) -> int:
        self.chunks.append(chunk)
        return len(chunk)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _octets(chunk: Bytes) -> Bytes:
    return chunk if isinstance(chunk, bytes) else memoryview(chunk).cast("B")

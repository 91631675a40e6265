"""Arrow tables as Arrow IPC files, and what the formats of pandas and polars share with it.

Knows pyarrow only. Loading maps the file: the columns are views of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
from typing_extensions import override

from prefect_mlpipe.core.formats.base import Bytes, Chunks, Format, Part

_FLAT: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_primitive,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_decimal,
)


class Arrow(Format):
    """Tables of pyarrow. How they are cut into chunks is not kept."""

    name, suffix, maps = "arrow", ".arrow", True

    @override
    def accepts(self, value: object) -> bool:
        return isinstance(value, pa.Table) and type(value) is pa.Table and value.num_columns > 0

    @override
    def exact(self, value: object) -> bool:
        assert isinstance(value, pa.Table)
        return all(any(is_kind(type_) for is_kind in _FLAT) for type_ in value.schema.types)

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, pa.Table)
        return (ipc_file(value.schema, value.to_batches()),)

    @override
    def load(self, data: memoryview) -> object:
        return pa.ipc.open_file(pa.py_buffer(data)).read_all()


def ipc_file(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Chunks:
    """Lay out an Arrow IPC file without copying the columns."""
    sink = _Collector()
    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return Chunks(map(_octets, sink.chunks))


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

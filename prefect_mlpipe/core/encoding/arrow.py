"""Encode Arrow arrays, tables and types.

Knows the layout of every Arrow type that has buffers of its own. Knows nothing of pandas or polars;
they hand their Arrow columns here. Imported only once such a value turns up.

Worth arguing: content is read from the buffers, never through Python objects, but normalised first:
chunks are joined, offsets start at 0, validity is a bit for each row and only where a row is null,
and what lies under a null is 0. So a slice of a larger table equals the same table built alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch, as_leaf
from prefect_mlpipe.core.encoding.pieces import Piece, count, octets, packed, record, scalar, text

# A chunked array with more than 2 GiB in one column of 32-bit offsets cannot be joined.
_WIDER: Final = {
    pa.string(): pa.large_string(),
    pa.binary(): pa.large_binary(),
    pa.string_view(): pa.large_string(),
    pa.binary_view(): pa.large_binary(),
}


def find(kind: type) -> Handler | None:
    """Return how a type of pyarrow is encoded, if it has content of its own."""
    for base, handler in _HANDLERS.items():
        if issubclass(kind, base):
            return handler
    return None


def column(encoder: Encoder, values: pa.Array | pa.ChunkedArray) -> list[Piece]:
    """Encode the elements of an array; the caller encodes its type."""
    if isinstance(values, pa.ChunkedArray):
        values = _joined(values)
    return _content(encoder, values)


def _joined(values: pa.ChunkedArray) -> pa.Array:
    if kinds.is_dictionary(values.type) and values.num_chunks > 1:
        values = values.unify_dictionaries()
    if values.num_chunks == 1:
        return values.chunk(0)
    wider = _WIDER.get(values.type)
    joined = (values.cast(wider) if wider else values).combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def _content(encoder: Encoder, array: pa.Array) -> list[Piece]:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _content(encoder, array.storage)
    if kinds.is_null(kind) or (len(array) == 0 and not kinds.is_dictionary(kind)):
        return [count(len(array))]
    for accepts, encode in _LAYOUTS:
        if accepts(kind):
            return encode(encoder, array)
    if kinds.is_union(kind):
        return [encoder.encode(array.type_codes), encoder.encode(array.to_pylist())]
    return [encoder.encode(array.to_pylist())]


def _invalid(array: pa.Array) -> Any:
    """Return which rows are null, or `None` where none is."""
    if array.null_count == 0:
        return None
    return array.is_null().to_numpy(zero_copy_only=False)


def _validity(encoder: Encoder, invalid: Any) -> bytes:
    if invalid is None:
        return octets(encoder.buffers, b"")
    return octets(encoder.buffers, np.packbits(invalid))


def _fixed(encoder: Encoder, array: pa.Array) -> list[Piece]:
    width = array.type.bit_width // 8
    buffer = array.buffers()[1]
    rows = np.frombuffer(buffer, dtype=np.uint8)[
        array.offset * width : (array.offset + len(array)) * width
    ]
    invalid = _invalid(array)
    if invalid is not None:
        rows = rows.reshape(len(array), width).copy()
        rows[invalid] = 0
        rows = rows.reshape(-1)
    return [count(len(array)), _validity(encoder, invalid), octets(encoder.buffers, rows)]


def _boolean(encoder: Encoder, array: pa.Array) -> list[Piece]:
    bits = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    rows = np.unpackbits(bits, bitorder="little")[array.offset : array.offset + len(array)]
    invalid = _invalid(array)
    if invalid is not None:
        rows = np.where(invalid, 0, rows).astype(np.uint8)
    packed_rows = octets(encoder.buffers, np.packbits(rows))
    return [count(len(array)), _validity(encoder, invalid), packed_rows]


def _text(encoder: Encoder, array: pa.Array) -> list[Piece]:
    array = array.cast(_WIDER.get(array.type, array.type))
    invalid = _invalid(array)
    if invalid is not None:
        array = pc.fill_null(array, "" if kinds.is_large_string(array.type) else b"")
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    rows = np.frombuffer(data or b"", dtype=np.uint8)[places[0] : places[-1]]
    return [
        count(len(array)),
        _validity(encoder, invalid),
        octets(encoder.buffers, np.diff(places)),
        octets(encoder.buffers, rows),
    ]


def _nested(encoder: Encoder, array: pa.Array, *parts: pa.Array) -> list[Piece]:
    inner = [piece for part in parts for piece in _content(encoder, part)]
    return [count(len(array)), _validity(encoder, _invalid(array)), *inner]


def _list(encoder: Encoder, array: pa.Array) -> list[Piece]:
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    return _nested(encoder, array, lengths, array.flatten())


def _map(encoder: Encoder, array: pa.Array) -> list[Piece]:
    offsets = array.offsets.to_numpy().astype(np.int64)
    lengths = np.diff(offsets)
    invalid = _invalid(array)
    if invalid is not None and lengths[invalid].any():
        array = pa.array(array.to_pylist(), type=array.type)
        offsets = array.offsets.to_numpy().astype(np.int64)
        lengths = np.diff(offsets)
    span = slice(int(offsets[0]), int(offsets[-1]))
    return _nested(encoder, array, pa.array(lengths), array.keys[span], array.items[span])


def _struct(encoder: Encoder, array: pa.Array) -> list[Piece]:
    return _nested(encoder, array, *array.flatten())


def _dictionary(encoder: Encoder, array: pa.Array) -> list[Piece]:
    # The order of the dictionary shows: pandas makes it the order of the categories.
    return _nested(encoder, array, array.indices, array.dictionary)


def _run_ends(encoder: Encoder, array: pa.Array) -> list[Piece]:
    return _content(encoder, pc.run_end_decode(array))


def _is_text(kind: pa.DataType) -> bool:
    return kind in _WIDER or kind in (pa.large_string(), pa.large_binary())


def _is_list(kind: pa.DataType) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(
        kinds.is_primitive(kind) or kinds.is_decimal(kind) or kinds.is_fixed_size_binary(kind)
    )


_Layout: TypeAlias = tuple[
    Callable[[pa.DataType], bool], Callable[[Encoder, pa.Array], list[Piece]]
]
_LAYOUTS: Final[tuple[_Layout, ...]] = (
    (kinds.is_boolean, _boolean),
    (_is_text, _text),
    (kinds.is_dictionary, _dictionary),
    (_is_fixed, _fixed),
    (_is_list, _list),
    (kinds.is_map, _map),
    (kinds.is_struct, _struct),
    (kinds.is_run_end_encoded, _run_ends),
)


def type_of(kind: pa.DataType) -> bytes:
    """Encode an Arrow type with the names, nullability and types of its fields."""
    fields = [kind.field(at) for at in range(kind.num_fields)]
    inner = [
        packed("field", text(f.name), scalar(f.nullable), type_of(f.type), *_metadata(f.metadata))
        for f in fields
    ]
    if isinstance(kind, pa.BaseExtensionType):
        inner.append(type_of(kind.storage_type))
    if isinstance(kind, pa.ExtensionType):
        inner.append(scalar(kind.__arrow_ext_serialize__()))
    return packed("arrow.type", text(str(kind)), *inner)


def _field(field: pa.Field) -> bytes:
    return packed(
        "arrow.field",
        text(field.name),
        type_of(field.type),
        scalar(field.nullable),
        *_metadata(field.metadata),
    )


def _metadata(metadata: dict[bytes, bytes] | None) -> list[bytes]:
    return [scalar(each) for pair in (metadata or {}).items() for each in pair]


def schema(value: pa.Schema) -> bytes:
    """Encode names, types and metadata of columns."""
    fields = [_field(field) for field in value]
    return packed("arrow.schema", count(len(fields)), *fields, *_metadata(value.metadata))


def _array(encoder: Encoder, value: Any) -> Sequence[Piece]:
    kind = "chunked" if isinstance(value, pa.ChunkedArray) else "array"
    return record(f"arrow.{kind}", type_of(value.type), *column(encoder, value))


def _table(encoder: Encoder, value: Any) -> Sequence[Piece]:
    kind = "table" if isinstance(value, pa.Table) else "batch"
    columns = [piece for each in value.columns for piece in column(encoder, each)]
    return record(f"arrow.{kind}", schema(value.schema), count(value.num_rows), *columns)


def _scalar(encoder: Encoder, value: pa.Scalar) -> Sequence[Piece]:
    array = pa.array([value.as_py()], type=value.type)
    return record("arrow.scalar", type_of(value.type), *column(encoder, array))


def _buffer(encoder: Encoder, value: pa.Buffer) -> bytes:
    return packed("arrow.buffer", octets(encoder.buffers, value))


_HANDLERS: Final[dict[type, Handler]] = {
    pa.Array: as_branch(_array),
    pa.ChunkedArray: as_branch(_array),
    pa.Table: as_branch(_table),
    pa.RecordBatch: as_branch(_table),
    pa.Scalar: as_branch(_scalar),
    pa.Schema: as_leaf(lambda encoder, value: schema(value)),
    pa.Field: as_leaf(lambda encoder, value: _field(value)),
    pa.DataType: as_leaf(lambda encoder, value: type_of(value)),
    pa.Buffer: as_leaf(
        lambda encoder, value: packed("arrow.buffer", octets(encoder.buffers, value))
    ),
}

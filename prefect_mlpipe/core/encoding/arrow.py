"""Encode Arrow arrays, tables and types.

Knows the layout of every Arrow type that has buffers of its own. Knows nothing of pandas or polars;
they hand their Arrow columns here. Imported only once such a value turns up.

Worth arguing: content is read from the buffers, never through Python objects, but normalised first:
chunks count as joined, offsets start at 0, validity is a bit for each row and only where a row is
null, and what lies under a null is 0. So a slice of a larger table equals the same one built alone.

What must be normalised is taken block by block, so that no second copy of a column is made; what
lies as it counts is hashed where it is, once for the digest and for whoever stores it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from prefect_mlpipe.core.encoding.encode import Encoder, Handler, as_branch, as_leaf
from prefect_mlpipe.core.encoding.pieces import (
    Piece,
    Stream,
    count,
    octets,
    packed,
    record,
    scalar,
    text,
)

_BLOCK_BYTES: Final = 1 << 22
_BLOCK_ROWS: Final = 1 << 18
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
    if isinstance(values, pa.Array):
        return _content(encoder, values)
    flat = _flat(values.type)
    if flat is None or values.num_chunks == 1 or len(values) == 0:
        return _content(encoder, _joined(values))
    return flat(encoder, values)


def _joined(values: pa.ChunkedArray) -> pa.Array:
    if kinds.is_dictionary(values.type) and values.num_chunks > 1:
        values = values.unify_dictionaries()
    if values.num_chunks == 1:
        return values.chunk(0)
    joined = values.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def _content(encoder: Encoder, array: pa.Array) -> list[Piece]:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _content(encoder, array.storage)
    if kinds.is_null(kind) or (len(array) == 0 and not kinds.is_dictionary(kind)):
        return [count(len(array))]
    flat = _flat(kind)
    if flat is not None:
        return flat(encoder, pa.chunked_array([array]))
    for accepts, encode in _LAYOUTS:
        if accepts(kind):
            return encode(encoder, array)
    if kinds.is_union(kind):
        return [encoder.encode(array.type_codes), encoder.encode(array.to_pylist())]
    return [encoder.encode(array.to_pylist())]


def _blocks(values: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Rows in blocks, each one array; all but the last have a multiple of 8 rows."""
    rows = _BLOCK_BYTES * len(values) // max(1, values.nbytes)
    rows = max(8, min(rows, _BLOCK_ROWS) & ~7)
    for at in range(0, len(values), rows):
        block = values.slice(at, rows)
        yield block.chunk(0) if block.num_chunks == 1 else block.combine_chunks()


def _as_it_lies(values: pa.ChunkedArray) -> pa.Array | None:
    """The only chunk of a column in which no row is null."""
    return values.chunk(0) if values.num_chunks == 1 and not values.null_count else None


def _invalid(array: pa.Array) -> Any:
    """Return which rows are null, or `None` where none is."""
    if array.null_count == 0:
        return None
    return array.is_null().to_numpy(zero_copy_only=False)


def _validity(values: pa.ChunkedArray | pa.Array) -> bytes:
    bits = Stream()
    if values.null_count:
        chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
        for block in _blocks(chunked):
            bits.add(np.packbits(block.is_null().to_numpy(zero_copy_only=False)))
    return bits.octets()


def _fixed(encoder: Encoder, values: pa.ChunkedArray) -> list[Piece]:
    header: list[Piece] = [count(len(values)), _validity(values)]
    whole = _as_it_lies(values)
    if whole is not None:
        return [*header, octets(encoder.buffers, _rows(whole))]
    elements = Stream()
    for block in _blocks(values):
        rows, invalid = _rows(block), _invalid(block)
        if invalid is not None:
            rows = rows.reshape(len(block), -1).copy()
            rows[invalid] = 0
        elements.add(rows)
    return [*header, elements.octets()]


def _rows(array: pa.Array) -> Any:
    """The bytes of an array whose elements have one width."""
    width = array.type.bit_width // 8
    first = array.offset * width
    buffer = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    return buffer[first : first + len(array) * width]


def _boolean(encoder: Encoder, values: pa.ChunkedArray) -> list[Piece]:
    elements = Stream()
    for block in _blocks(values):
        bits = np.frombuffer(block.buffers()[1], dtype=np.uint8)
        first, last = block.offset, block.offset + len(block)
        unpacked = np.unpackbits(bits[first // 8 : last // 8 + 1], bitorder="little")
        rows = unpacked[first % 8 : first % 8 + len(block)]
        invalid = _invalid(block)
        if invalid is not None:
            rows = np.where(invalid, 0, rows).astype(np.uint8)
        elements.add(np.packbits(rows))
    return [count(len(values)), _validity(values), elements.octets()]


def _text(encoder: Encoder, values: pa.ChunkedArray) -> list[Piece]:
    lengths, data = Stream(), Stream()
    whole = _as_it_lies(values)
    lies = whole is not None and not _is_view(values.type)
    for block in _blocks(values):
        if not lies:
            block = _compact(block)
        places = _places(block)
        lengths.add(np.diff(places).astype(np.int64, copy=False))
        if not lies:
            data.add(_letters(block, places))
    letters = data.octets()
    if lies:
        letters = octets(encoder.buffers, _letters(whole, _places(whole)))
    return [count(len(values)), _validity(values), lengths.octets(), letters]


def _compact(block: pa.Array) -> pa.Array:
    """Strings one after the other, and nothing under a null."""
    wide = block.cast(_WIDER.get(block.type, block.type))
    if wide.null_count:
        wide = pc.fill_null(wide, "" if kinds.is_large_string(wide.type) else b"")
    return wide


def _places(array: pa.Array) -> Any:
    """Where each string begins in the bytes of all, and where the last one ends."""
    wide = kinds.is_large_string(array.type) or kinds.is_large_binary(array.type)
    places = np.frombuffer(array.buffers()[1], dtype=np.int64 if wide else np.int32)
    return places[array.offset : array.offset + len(array) + 1]


def _letters(array: pa.Array, places: Any) -> Any:
    data = np.frombuffer(array.buffers()[2] or b"", dtype=np.uint8)
    return data[places[0] : places[-1]]


def _nested(encoder: Encoder, array: pa.Array, *parts: pa.Array) -> list[Piece]:
    inner = [piece for part in parts for piece in _content(encoder, part)]
    return [count(len(array)), _validity(array), *inner]


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


def _is_view(kind: pa.DataType) -> bool:
    return bool(kinds.is_string_view(kind) or kinds.is_binary_view(kind))


_Flat: TypeAlias = Callable[[Encoder, pa.ChunkedArray], list[Piece]]
_FLAT: Final[tuple[tuple[Callable[[pa.DataType], bool], _Flat], ...]] = (
    (kinds.is_boolean, _boolean),
    (_is_text, _text),
    (_is_fixed, _fixed),
)


def _flat(kind: pa.DataType) -> _Flat | None:
    """How a column without columns inside is encoded, whatever its chunks."""
    return next((encode for accepts, encode in _FLAT if accepts(kind)), None)


_Layout: TypeAlias = tuple[
    Callable[[pa.DataType], bool], Callable[[Encoder, pa.Array], list[Piece]]
]
_LAYOUTS: Final[tuple[_Layout, ...]] = (
    (kinds.is_dictionary, _dictionary),
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

"""Encode pandas and polars frames, series and indexes.

Knows how their columns are held. Knows nothing of files or formats. Imported only once such a value
turns up.

Worth arguing: a frame counts by labels, index, dtypes, elements, `attrs` and the frequency of its
index; how pandas blocks its columns, and where a level of a MultiIndex came from, does not count.
The class of an index does: `df.index.start` works on a RangeIndex only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from prefect_mlpipe.core.encoding import arrays, arrow
from prefect_mlpipe.core.encoding.encode import Branch, Encoder, Handler, as_branch
from prefect_mlpipe.core.encoding.pieces import (
    Piece,
    Stream,
    bounded,
    count,
    packed,
    record,
    scalar,
    text,
)

_BLOCK_ROWS: Final = 1 << 20


def find(kind: type) -> Handler | None:
    """Return how a type of pandas or polars is encoded, if it has content of its own."""
    for library, table in (("pandas", _PANDAS), ("polars", _POLARS)):
        module = sys.modules.get(library)
        for path, encode in table.items() if module else ():
            base = _reach(module, path)
            if base is not None and issubclass(kind, base):
                return as_branch(encode)
    return None


def _reach(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def _frame(encoder: Encoder, frame: Any) -> Sequence[Piece]:
    labels, index = encoder.encode(frame.columns), encoder.encode(frame.index)
    columns = [encoder.encode(series.array) for _, series in frame.items()]
    kind = encoder.encode(type(frame))
    return record("pandas.frame", kind, labels, index, *_extras(encoder, frame), *columns)


def _series(encoder: Encoder, series: Any) -> Sequence[Piece]:
    kind, name = encoder.encode(type(series)), encoder.encode(series.name)
    index, values = encoder.encode(series.index), encoder.encode(series.array)
    return record("pandas.series", kind, name, index, values, *_extras(encoder, series))


def _extras(encoder: Encoder, value: Any) -> list[Piece]:
    own = {name: getattr(value, name, None) for name in value._metadata if name != "_name"}
    flags = value.flags.allows_duplicate_labels
    return [encoder.encode(value.attrs or None), encoder.encode(own or None), scalar(flags)]


def _range_index(encoder: Encoder, index: Any) -> Sequence[Piece]:
    bounds = map(scalar, (index.start, index.stop, index.step))
    return record("pandas.range", encoder.encode(index.name), *bounds)


def _multi_index(encoder: Encoder, index: Any) -> Sequence[Piece]:
    used = index.remove_unused_levels()
    names = encoder.encode(list(index.names))
    # The order within a level shows: it is the order of `unstack()`.
    levels = [encoder.encode(level.array) for level in used.levels]
    codes = [encoder.encode(np.asarray(code, dtype=np.int64)) for code in used.codes]
    return record("pandas.multi", count(len(index)), names, *levels, *codes)


def _index(encoder: Encoder, index: Any) -> Sequence[Piece]:
    freq = scalar(getattr(index, "freqstr", None))
    kind, name = encoder.encode(type(index)), encoder.encode(index.name)
    rules = getattr(getattr(index, "freq", None), "holidays", None)  # not in its name
    extras = [encoder.encode([rules, index.freq.weekmask])] if rules is not None else []
    return record("pandas.index", kind, name, freq, *extras, encoder.encode(index.array))


def _numpy_array(encoder: Encoder, values: Any) -> Sequence[Piece]:
    return record("pandas.array", encoder.encode(values.to_numpy()))


def _time_array(encoder: Encoder, values: Any) -> Sequence[Piece]:
    zone = encoder.encode(getattr(values.dtype, "tz", None))  # two may have one name
    return record("pandas.times", text(str(values.dtype)), zone, encoder.encode(values.asi8))


def _masked_array(encoder: Encoder, values: Any) -> Sequence[Piece]:
    data, mask = values._data, values._mask
    known = _without_leftovers(data, mask) if mask.any() else encoder.encode(data)
    return record("pandas.masked", text(str(values.dtype)), known, encoder.encode(mask))


def _without_leftovers(data: Any, mask: Any) -> bytes:
    """Encode an array as if there were zeros under the mask.

    What lies there is left over from how the values were computed.
    """
    elements = Stream()
    for at in range(0, len(data), _BLOCK_ROWS):
        block = data[at : at + _BLOCK_ROWS].copy()
        block[mask[at : at + _BLOCK_ROWS]] = 0
        elements.add(block)
    header = (arrays.dtype(data.dtype), scalar(data.shape))
    return bounded(packed("numpy.ndarray", *header, elements.octets()))


def _arrow_array(encoder: Encoder, values: Any) -> Sequence[Piece]:
    encoder.reach.append("pyarrow")
    column = values.__arrow_array__()
    return record("pandas.arrow", arrow.type_of(column.type), *arrow.column(encoder, column))


def _string_array(encoder: Encoder, values: Any) -> Sequence[Piece]:
    kind = text(f"{values.dtype.storage} {values.dtype.na_value!r}")
    if values.dtype.storage == "python":
        return record("pandas.strings", kind, encoder.encode(values.to_numpy()))
    encoder.reach.append("pyarrow")
    return record("pandas.strings", kind, *arrow.column(encoder, values.__arrow_array__()))


def _categorical(encoder: Encoder, values: Any) -> Sequence[Piece]:
    categories, codes = encoder.encode(values.categories), encoder.encode(values.codes)
    return record("pandas.categorical", scalar(bool(values.ordered)), categories, codes)


def _timestamp(encoder: Encoder, value: Any) -> Sequence[Piece]:
    zone = encoder.encode(value.tzinfo)
    # `value` is always in nanoseconds, which a timestamp of the year 5000 does not fit.
    ticks = scalar(int(value.asm8.view("i8")))
    return record("pandas.timestamp", ticks, text(value.unit), zone, scalar(value.fold))


def _timedelta(encoder: Encoder, value: Any) -> Sequence[Piece]:
    return record("pandas.timedelta", scalar(int(value.asm8.view("i8"))), text(value.unit))


def _missing(encoder: Encoder, value: Any) -> Sequence[Piece]:
    return record("pandas.missing", text(type(value).__name__))


def _dtype(encoder: Encoder, value: Any) -> Sequence[Piece]:
    kind = text(type(value).__name__)
    if hasattr(value, "categories"):
        known = encoder.encode(value.categories)
        return record("pandas.dtype", kind, known, scalar(value.ordered))
    if hasattr(value, "pyarrow_dtype"):
        return record("pandas.dtype", kind, arrow.type_of(value.pyarrow_dtype))
    zone = encoder.encode(getattr(value, "tz", None))
    return record("pandas.dtype", kind, zone, text(f"{value!r} {getattr(value, 'storage', '')}"))


def _polars_frame(encoder: Encoder, frame: Any) -> Sequence[Piece]:
    columns = [encoder.encode(series) for series in frame.get_columns()]
    return record("polars.frame", encoder.encode(type(frame)), count(frame.height), *columns)


def _polars_series(encoder: Encoder, series: Any) -> Sequence[Piece]:
    kind = encoder.encode(type(series))
    header = (kind, text(series.name), text(repr(series.dtype)))
    if series.dtype.base_type().__name__ == "Object":
        return record("polars.series", *header, encoder.encode(series.to_list()))
    try:
        column = _polars_column(series)
    except pa.ArrowInvalid:  # pyarrow has no such type, as integers of 128 bits
        return record("polars.series", *header, encoder.encode(series.to_list()))
    return record("polars.series", *header, *arrow.column(encoder, column))


def _polars_column(series: Any) -> Any:
    """Give a column as it lies; what holds others is made one array."""
    unnamed = series.alias("")  # with a zero in its name, polars would panic
    if series.dtype.is_nested() or series.dtype.base_type().__name__ in ("Categorical", "Enum"):
        return unnamed.to_arrow()
    newest = sys.modules["polars"].CompatLevel.newest()  # strings as they lie, not a copy of them
    chunks = [chunk.to_arrow(compat_level=newest) for chunk in unnamed.get_chunks()]
    return pa.chunked_array(chunks) if len(chunks) > 1 else chunks[0]


def _polars_lazy(encoder: Encoder, frame: Any) -> Sequence[Piece]:
    raise encoder.refuse(frame, "a lazy frame is a plan, not data; collect() it")


_PANDAS: Final[dict[str, Branch]] = {
    "DataFrame": _frame,
    "Series": _series,
    "RangeIndex": _range_index,
    "MultiIndex": _multi_index,
    "Index": _index,
    "Categorical": _categorical,
    "arrays.NumpyExtensionArray": _numpy_array,
    "arrays.StringArray": _string_array,
    "arrays.ArrowStringArray": _string_array,
    "arrays.ArrowExtensionArray": _arrow_array,
    "arrays.DatetimeArray": _time_array,
    "arrays.TimedeltaArray": _time_array,
    "arrays.PeriodArray": _time_array,
    "arrays.IntegerArray": _masked_array,
    "arrays.FloatingArray": _masked_array,
    "arrays.BooleanArray": _masked_array,
    "Timestamp": _timestamp,
    "Timedelta": _timedelta,
    "_libs.tslibs.nattype.NaTType": _missing,
    "_libs.missing.NAType": _missing,
    "api.extensions.ExtensionDtype": _dtype,
}

_POLARS: Final[dict[str, Branch]] = {
    "DataFrame": _polars_frame,
    "Series": _polars_series,
    "LazyFrame": _polars_lazy,
}

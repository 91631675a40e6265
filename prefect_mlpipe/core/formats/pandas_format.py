"""Frames and series of pandas as Arrow IPC files that pandas, pyarrow and polars open.

Knows pandas and pyarrow. What Arrow cannot say exactly (objects, intervals, a MultiIndex, a
frequency) is left to pickle: `accepts` lists what is known to come back, not what is not.

pyarrow's own conversion turns NaN into null and copies whole frames into blocks that cannot be
written to the map. So columns are laid out by hand, each as the buffer that it is in memory, and on
loading columns of one type become one block over the map again.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
from typing_extensions import override

from prefect_mlpipe.core.formats.arrow_format import ArrowFile, ipc_file
from prefect_mlpipe.core.formats.base import Part, is_json

_KEY = b"prefect_mlpipe"
_NUMBERS = frozenset("iufb")
_TIMES = frozenset("mM")
_UNITS = ("[s]", "[ms]", "[us]", "[ns]")
_STR = pd.StringDtype(na_value=np.nan)

Json: TypeAlias = Any
Labels: TypeAlias = Any  # an index; the stubs of pandas know too little of them


class Pandas(ArrowFile):
    """Frames and series whose columns, labels and index Arrow can hold."""

    name = "pandas"

    @override
    def accepts(self, value: object) -> bool:
        if type(value) is pd.Series:
            return _is_name(value.name) and _fits(value.to_frame())
        return type(value) is pd.DataFrame and _fits(value)

    @override
    def exact(self, value: object) -> bool:
        assert isinstance(value, (pd.DataFrame, pd.Series))
        frame = value if isinstance(value, pd.DataFrame) else value.to_frame()
        dtypes = [*frame.dtypes, frame.index.dtype]
        return all(
            isinstance(dtype, np.dtype) or dtype == _STR or str(dtype) in _MASKED
            for dtype in dtypes
        )

    @override
    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, (pd.DataFrame, pd.Series))
        frame = value if isinstance(value, pd.DataFrame) else value.to_frame()
        with_index = type(frame.index) is not pd.RangeIndex
        columns: list[Any] = [frame.iloc[:, at].array for at in range(frame.shape[1])]
        columns += [frame.index.array] if with_index else []
        foreign = pa.Schema.from_pandas(frame, preserve_index=None)
        arrays = [_to_arrow(column) for column in columns]
        fields = [
            pa.field(name, array.type) for name, array in zip(foreign.names, arrays, strict=True)
        ]
        ours = {
            "version": 1,
            "series": isinstance(value, pd.Series),
            "name": value.name if isinstance(value, pd.Series) else None,
            "labels": _labels(frame.columns),
            "index": [frame.index.name, None if with_index else _range(frame.index)],
            "dtypes": [_dtype(column.dtype) for column in columns],
            "attrs": frame.attrs,
        }
        schema = pa.schema(fields, {**foreign.metadata, _KEY: orjson.dumps(ours)})
        return ipc_file(schema, [pa.RecordBatch.from_arrays(arrays, schema=schema)])

    @override
    def load(self, data: memoryview) -> object:
        batch = pa.ipc.open_file(pa.py_buffer(data)).get_batch(0)
        ours = orjson.loads(batch.schema.metadata[_KEY])
        reader = _Reader(batch, ours["dtypes"], data)
        name, bounds = ours["index"]
        count = batch.num_columns - (bounds is None)
        if bounds is None:
            index: Labels = reader.index(count, name)
        else:
            index = pd.RangeIndex(*bounds).rename(name)
        if ours["series"]:
            found: Any = pd.Series(reader.column(0), index=index, name=ours["name"], copy=False)
        else:
            found = reader.frame(count, index)
            found.columns = _index_of_labels(ours["labels"])
        found.attrs = ours["attrs"]
        return found


class _Reader:
    """Makes columns from a batch whose buffers lie in `data`."""

    def __init__(self, batch: pa.RecordBatch, dtypes: list[Json], data: memoryview) -> None:
        self._batch, self._dtypes, self._data = batch, dtypes, data
        self._base = pa.py_buffer(data).address

    def frame(self, count: int, index: Labels) -> pd.DataFrame:
        """Columns that are neighbours of one type become one block."""
        pieces: list[pd.DataFrame] = []
        for _, group in itertools.groupby(range(count), self._kind):
            at = list(group)
            block = self._block(at)
            if block is not None:
                pieces.append(pd.DataFrame(block.T, index=index, copy=False))
                continue
            for number in at:
                column = pd.Series(self.column(number), index=index, copy=False)
                pieces.append(column.to_frame())
        if not pieces:
            return pd.DataFrame(index=index)
        return pieces[0] if len(pieces) == 1 else pd.concat(pieces, axis=1)

    def index(self, at: int, name: str | None) -> Labels:
        return pd.Index(self.column(at), name=name, copy=False)

    def column(self, at: int) -> Any:
        """A writable NumPy array over the map, or an extension array."""
        dtype = self._dtypes[at]
        array = self._batch.column(at)
        if isinstance(dtype, dict):
            return _categorical(array, dtype)
        if isinstance(_parsed(dtype), pd.DatetimeTZDtype):
            instants: Labels = pd.DatetimeIndex(self._flat(at), tz="UTC")  # type: ignore[arg-type]
            return instants.tz_convert(_parsed(dtype).tz).array
        if _is_masked_number(_parsed(dtype)):
            missing = np.array(array.is_null().to_numpy(zero_copy_only=False))
            return _parsed(dtype).construct_array_type()(self._flat(at), missing)
        if not isinstance(_parsed(dtype), np.dtype):
            return _parsed(dtype).__from_arrow__(array)
        flat = self._flat(at)
        return np.array(array.to_numpy(zero_copy_only=False)) if flat is None else flat

    def _kind(self, at: int) -> object:
        """Equal for neighbours that may share a block."""
        dtype = self._dtypes[at]
        shared = isinstance(dtype, str) and isinstance(_parsed(dtype), np.dtype) and dtype != "|b1"
        return dtype if shared else at

    def _flat(self, at: int) -> np.ndarray[Any, Any] | None:
        """A column's data as it lies in `data`; `None` for the bits of a boolean column."""
        dtype = _parsed(self._dtypes[at])
        if isinstance(dtype, pd.DatetimeTZDtype):
            dtype = np.dtype(f"M8[{dtype.unit}]")
        elif _is_masked_number(dtype):
            dtype = dtype.numpy_dtype
        chunk = self._batch.column(at)
        if dtype.kind == "b" or len(chunk) == 0:
            return np.empty(0, dtype) if len(chunk) == 0 else None
        buffer = chunk.buffers()[1]
        offset = buffer.address - self._base
        if 0 <= offset <= len(self._data) - buffer.size:
            return np.frombuffer(self._data, dtype, len(chunk), offset)
        return np.frombuffer(buffer, dtype, len(chunk)).copy()

    def _block(self, at: list[int]) -> np.ndarray[Any, Any] | None:
        """Several columns as one array, if they lie at equal distances."""
        rows = [self._flat(number) for number in at] if len(at) > 1 else []
        if not rows or any(row is None or not row.size for row in rows):
            return None
        starts = np.array([row.ctypes.data for row in rows if row is not None])
        steps = np.diff(starts)
        first = rows[0]
        assert first is not None
        if (steps != steps[0]).any() or steps[0] < first.nbytes:
            return None
        offset = int(starts[0]) - self._base
        if not 0 <= offset < len(self._data):
            return None
        strides = (int(steps[0]), first.itemsize)
        return np.ndarray((len(at), len(first)), first.dtype, self._data, offset, strides)


def _fits(frame: pd.DataFrame) -> bool:
    if not frame.flags.allows_duplicate_labels or not is_json(frame.attrs):
        return False
    return (
        _fit_labels(frame.columns)
        and _fits_index(frame.index)
        and all(map(_fits_dtype, frame.dtypes))
    )


def _fit_labels(labels: Labels) -> bool:
    if not _is_name(labels.name):
        return False
    if type(labels) is pd.RangeIndex:
        return True
    plain = type(labels) is pd.Index and (labels.dtype == object or _is_str(labels.dtype))
    return (
        plain
        and labels.is_unique
        and all(type(name) is str for name in labels)
        and is_json(list(labels))
    )


def _fits_index(index: Labels) -> bool:
    if not _is_name(index.name):
        return False
    if type(index) is pd.RangeIndex:
        return True
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        return index.freq is None and _fits_dtype(index.dtype)
    return type(index) is pd.Index and _fits_dtype(index.dtype)


def _fits_dtype(dtype: object) -> bool:
    if isinstance(dtype, np.dtype):
        if dtype.kind in _TIMES:
            return dtype.isnative and dtype.name.endswith(_UNITS)
        return dtype.kind in _NUMBERS and dtype.isnative and dtype.itemsize <= 8
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
        return (
            type(categories) is pd.Index
            and categories.name is None
            and _fits_dtype(categories.dtype)
        )
    if isinstance(dtype, pd.StringDtype):
        return dtype.storage == "pyarrow"
    if isinstance(dtype, pd.DatetimeTZDtype):
        try:
            again = pd.DatetimeTZDtype.construct_from_string(str(dtype))
        except TypeError:  # a zone that no name leads to
            return False
        return again == dtype and type(again.tz) is type(dtype.tz)
    return isinstance(dtype, pd.api.extensions.ExtensionDtype) and str(dtype) in _MASKED


_MASKED = frozenset(
    {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
    | {"Float32", "Float64", "boolean"}
)


def _is_masked_number(dtype: object) -> bool:
    return str(dtype) in _MASKED and str(dtype) != "boolean"


def _is_str(dtype: object) -> bool:
    return isinstance(dtype, pd.StringDtype) and dtype == _STR and dtype.storage == _STR.storage


def _is_name(name: Hashable) -> bool:
    return name is None or (type(name) is str and is_json(name))


def _to_arrow(column: Any) -> pa.Array:
    if isinstance(column.dtype, np.dtype):
        return _from_numpy(np.ascontiguousarray(column.to_numpy()))
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _from_categorical(column)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        instants = column.tz_convert("UTC").tz_localize(None).to_numpy()
        return _from_numpy(instants).view(pa.timestamp(column.dtype.unit, str(column.dtype.tz)))
    if _is_masked_number(column.dtype):
        return _over(np.ascontiguousarray(column._data), column._mask)
    array = pa.array(column)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _from_numpy(values: np.ndarray[Any, Any]) -> pa.Array:
    """Wrap the buffer as it is: NaN stays NaN, and what is under NaT stays there."""
    if values.dtype.kind == "b":
        return pa.array(values)
    return _over(values, np.isnat(values) if values.dtype.kind in _TIMES else None)


def _over(values: np.ndarray[Any, Any], missing: np.ndarray[Any, Any] | None) -> pa.Array:
    validity = None
    if missing is not None and missing.any():
        validity = pa.array(~missing).buffers()[1]
    buffer = pa.py_buffer(values.view(np.uint8))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [validity, buffer])


def _from_categorical(column: Any) -> pa.Array:
    codes = pa.array(column.codes, mask=column.codes < 0)
    categories = _to_arrow(column.categories.array)
    return pa.DictionaryArray.from_arrays(codes, categories, ordered=bool(column.ordered))


def _categorical(array: pa.Array, described: dict[str, Json]) -> pd.Categorical:
    dtype = _parsed(described["categories"])
    values = array.dictionary
    if isinstance(dtype, np.dtype):
        raw = values.to_numpy(zero_copy_only=False)
        categories = pd.Index(raw.astype(dtype, copy=False))
    else:
        categories = pd.Index(dtype.__from_arrow__(values))
    codes = array.indices.fill_null(-1).to_numpy()
    kind = pd.CategoricalDtype(categories, described["ordered"])
    return pd.Categorical.from_codes(codes.copy(), dtype=kind)


def _dtype(dtype: Any) -> Json:
    """A dtype as JSON."""
    if isinstance(dtype, np.dtype):
        return "object" if dtype.hasobject else dtype.str
    if isinstance(dtype, pd.CategoricalDtype):
        return {"categories": _dtype(dtype.categories.dtype), "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.StringDtype):
        return "str" if dtype == _STR else "string"
    return str(dtype)


def _parsed(text: str) -> Any:
    """The dtype that `_dtype` wrote as a string."""
    if text == "str":
        return _STR
    if text == "string":
        return pd.StringDtype("pyarrow")
    return pd.api.types.pandas_dtype(text)


def _labels(labels: Labels) -> Json:
    if type(labels) is pd.RangeIndex:
        return {"name": labels.name, "range": _range(labels)}
    return {"name": labels.name, "dtype": _dtype(labels.dtype), "labels": list(labels)}


def _index_of_labels(described: dict[str, Json]) -> Labels:
    if "range" in described:
        return pd.RangeIndex(*described["range"]).rename(described["name"])
    return pd.Index(described["labels"], dtype=_parsed(described["dtype"]), name=described["name"])


def _range(index: Labels) -> list[int]:
    assert isinstance(index, pd.RangeIndex)
    return [index.start, index.stop, index.step]

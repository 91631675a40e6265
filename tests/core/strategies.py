"""Values of all kinds that have a format, for hypothesis."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(codec=None), max_size=20),
    st.binary(max_size=20),
)
hashable = st.one_of(scalars, st.tuples(scalars, scalars), st.frozensets(st.integers(), max_size=3))
plain = st.recursive(
    scalars | st.complex_numbers() | st.dates() | st.datetimes() | st.decimals() | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
    ),
    max_leaves=12,
)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)
dtypes = st.one_of(
    st_numpy.scalar_dtypes(),
    st_numpy.byte_string_dtypes(),
    st_numpy.unicode_string_dtypes(),
    st_numpy.array_dtypes(),
)
arrays = dtypes.flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=0, min_side=0))
)


def series_of(dtype: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[pd.Series[Any]]:
    return st.lists(values, max_size=6).map(lambda items: pd.Series(items, dtype=dtype))


NAMES = st.one_of(st.none(), st.text(max_size=5))
int64 = st.integers(-(2**63), 2**63 - 1)
columns = st.one_of(
    series_of("int64", int64),
    series_of("uint8", st.integers(0, 255)),
    series_of("float64", st.floats()),
    series_of("float32", st.floats(width=32)),
    series_of("bool", st.booleans()),
    series_of("str", st.none() | st.text(max_size=5)),
    series_of("string", st.none() | st.text(max_size=5)),
    series_of("object", scalars),
    series_of("Int64", st.none() | int64),
    series_of("boolean", st.none() | st.booleans()),
    series_of("category", st.none() | st.sampled_from(["a", "b"])),
    series_of("datetime64[ns]", st.none() | int64.map(lambda ns: np.datetime64(ns, "ns"))),
    series_of("timedelta64[s]", st.none() | st.integers(-1000, 1000)),
    series_of(
        "datetime64[us, Europe/Paris]",
        st.none()
        | st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2030, 1, 1)).map(
            lambda at: at.replace(tzinfo=datetime.UTC)
        ),
    ),
)
indexes = st.one_of(
    st.builds(lambda name: lambda n: pd.RangeIndex(3, 3 + 2 * n, 2, name=name), NAMES),
    st.builds(lambda name: lambda n: pd.Index(range(n), name=name).astype("int64"), NAMES),
    st.builds(lambda name: lambda n: pd.Index([f"r{i}" for i in range(n)], name=name), NAMES),
    st.just(lambda n: pd.date_range("2020", periods=n)),
    st.just(lambda n: pd.DatetimeIndex(list(pd.date_range("2020", periods=n)), freq=None)),
    st.just(lambda n: pd.MultiIndex.from_product([range(n), ["a"]])),
)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    drawn = draw(st.lists(columns, max_size=5))
    rows = min(map(len, drawn), default=draw(st.integers(0, 3)))
    names = draw(
        st.lists(st.text(max_size=4), min_size=len(drawn), max_size=len(drawn), unique=True)
        | st.just(list(range(len(drawn))))
    )
    table = {name: column.iloc[:rows] for name, column in zip(names, drawn, strict=True)}
    frame = pd.DataFrame(table, index=pd.RangeIndex(rows))
    frame.index = draw(indexes)(rows)
    frame.attrs = draw(st.just({}) | st.dictionaries(st.text(), scalars, max_size=1))
    return frame


def laid_out(array: Any, how: int) -> Any:
    """The same elements, lying in memory in another way."""
    if how == 0 or array.ndim == 0:
        return array
    if how == 1:
        return np.asfortranarray(array)
    if how == 2:
        return array[::-1]
    return np.repeat(array, 2, axis=0)[::2]


ARROW_TYPES = st.sampled_from(
    [
        pa.int8(),
        pa.uint64(),
        pa.float32(),
        pa.bool_(),
        pa.string(),
        pa.large_binary(),
        pa.decimal128(12, 2),
        pa.timestamp("us", "Europe/Paris"),
        pa.duration("s"),
        pa.date32(),
        pa.list_(pa.int16()),
        pa.list_(pa.int8(), 2),
        pa.struct([("x", pa.int8()), ("y", pa.string())]),
        pa.map_(pa.string(), pa.int8()),
        pa.dictionary(pa.int8(), pa.string()),
        pa.null(),
    ]
)
_ARROW_ITEMS: dict[str, st.SearchStrategy[Any]] = {
    "int8": st.integers(-128, 127),
    "uint64": st.integers(0, 2**64 - 1),
    "float": st.floats(width=32),
    "bool": st.booleans(),
    "string": st.text(max_size=4),
    "large_binary": st.binary(max_size=4),
    "decimal128(12, 2)": st.decimals(-1000, 1000, places=2),
    "timestamp[us, tz=Europe/Paris]": st.integers(-(10**15), 10**15),
    "duration[s]": st.integers(-1000, 1000),
    "date32[day]": st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)),
    "list<item: int16>": st.lists(st.integers(-5, 5), max_size=3),
    "fixed_size_list<item: int8>[2]": st.lists(st.integers(0, 5), min_size=2, max_size=2),
    "struct<x: int8, y: string>": st.fixed_dictionaries(
        {"x": st.none() | st.integers(0, 5), "y": st.text(max_size=3)}
    ),
    "map<string, int8>": st.dictionaries(st.text(max_size=2), st.integers(0, 5), max_size=3).map(
        lambda table: list(table.items())
    ),
    "dictionary<values=string, indices=int8, ordered=0>": st.sampled_from("abc"),
    "null": st.none(),
}


@st.composite
def arrow_columns(draw: st.DrawFn, rows: int) -> pa.ChunkedArray:
    """A column of an Arrow type, cut out of a longer one, in one chunk or two."""
    kind = draw(ARROW_TYPES)
    items = st.none() | _ARROW_ITEMS[str(kind)]
    whole = pa.array(draw(st.lists(items, min_size=rows + 2, max_size=rows + 2)), kind)
    cut = draw(st.integers(0, rows))
    return pa.chunked_array([whole.slice(1, cut), whole.slice(1 + cut, rows - cut)], kind)


@st.composite
def arrow_tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 4))
    names = draw(st.lists(st.text(max_size=3), max_size=4, unique=True))
    table = pa.table({name: draw(arrow_columns(rows)) for name in names})
    return table.replace_schema_metadata(draw(st.none() | st.just({"who": "me", "a": "b"})))


@st.composite
def polars_frames(draw: st.DrawFn) -> Any:
    rows = draw(st.integers(0, 4))
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        pl.Int8: st.integers(-128, 127),
        pl.Int128: st.integers(-(2**100), 2**100),
        pl.Float64: st.floats(),
        pl.String: st.text(max_size=4),
        pl.Boolean: st.booleans(),
        pl.Categorical: st.sampled_from("abc"),
        pl.Enum(["a", "b"]): st.sampled_from("ab"),
        pl.Datetime("us", "UTC"): st.datetimes(datetime.datetime(1990, 1, 1)),
        pl.List(pl.Int64): st.lists(st.integers(-9, 9), max_size=3),
        pl.Struct({"x": pl.Int8}): st.fixed_dictionaries({"x": st.integers(0, 9)}),
    }
    found = []
    for name in draw(st.lists(st.text(max_size=3), max_size=4, unique=True)):
        kind = draw(st.sampled_from(list(kinds)))
        items = draw(st.lists(st.none() | kinds[kind], min_size=rows, max_size=rows))
        found.append(pl.Series(name, items, dtype=kind))
    return pl.DataFrame(found)


@dataclasses.dataclass
class Model:
    weights: Any
    settings: Any = None


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x: Any) -> None:
        self.x = x


class Point(NamedTuple):
    x: Any
    y: Any = 0


any_array = st.builds(laid_out, arrays, st.integers(0, 3))
masked = st.builds(
    lambda values, bits: np.ma.array(values, mask=[bits >> at & 1 for at in range(len(values))]),
    st.lists(st.integers(-9, 9), max_size=5),
    st.integers(0, 31),
)
errors = st.builds(
    lambda kind, *arguments: kind(*arguments),
    st.sampled_from([ValueError, KeyError, Exception]),
    plain,
)


def linked(error: BaseException, cause: BaseException | None, note: str) -> BaseException:
    error.__cause__ = cause
    error.add_note(note)
    return error


parts = st.one_of(plain, any_array, errors)
objects = st.one_of(
    st.builds(Model, parts, plain),
    st.builds(Slotted, parts),
    st.builds(Point, parts, plain),
    st.builds(functools.partial, st.just(Model), parts),
    st.builds(collections.deque, st.lists(scalars, max_size=3), st.integers(3, 5)),
    st.builds(collections.OrderedDict, st.dictionaries(hashable, scalars, max_size=3)),
    st.builds(linked, errors, st.none() | errors, st.text(max_size=3)),
    st.builds(np.random.default_rng, st.integers(0, 99)),
    st.lists(parts, max_size=3),
    masked,
)
tables = st.one_of(frames(), columns, arrow_tables(), polars_frames())
values = st.one_of(st.text(), st.binary(), plain, json_like, any_array, tables, objects)

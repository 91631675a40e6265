"""Values whose digests must never change, on no Python and no machine."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import functools
import json
import operator
import pathlib
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import scipy.sparse as sp
import xarray as xr
from PIL import Image

TIME = datetime.datetime(2024, 3, 31, 2, 30, 1, 5)
PARIS = zoneinfo.ZoneInfo("Europe/Paris")
ARRAY = np.arange(6, dtype=np.int64).reshape(2, 3)
STRUCT = np.array([(1, 2.0)], dtype=[("a", "i1"), ("b", "f8")])


def golden_values() -> dict[str, Any]:
    """Values whose digests must never change, on no Python and no machine."""
    return {
        "none": None,
        "true": True,
        "one": 1,
        "one as float": 1.0,
        "minus zero": -0.0,
        "text": "é",
        "bytes": b"\x00",
        "big": 2**100,
        "complex": 1 + 2j,
        "list": [1, [2, None]],
        "tuple": (1, "a"),
        "dict": {"a": 1, "b": [2.5]},
        "set": {1, "a", (2, 3)},
        "frozenset": frozenset("abc"),
        "nested": {"a": [{1, 2}, (b"x", 1.5)], ("k", 1): {"x": None}},
        "long text": "x" * 100_000,
        "long bytes": b"x" * 100_000,
        "ordered": collections.OrderedDict(a=1),
        "deque": collections.deque([1, 2], maxlen=3),
        "counter": collections.Counter("aab"),
        "decimal": decimal.Decimal("1.50"),
        "fraction": fractions.Fraction(1, 3),
        "uuid": uuid.UUID(int=5),
        "datetime": TIME,
        "zoned": TIME.replace(tzinfo=PARIS),
        "utc": TIME.replace(tzinfo=datetime.UTC),
        "timedelta": datetime.timedelta(1, 2, 3),
        "date": TIME.date(),
        "range": range(1, 9, 2),
        "path": pathlib.PurePosixPath("a/b"),
        "pattern": re.compile("a+", re.I),
        "error": ValueError("a", 1),
        "int class": int,
        "function of the library": json.dumps,
        "array": ARRAY,
        "column order": np.asfortranarray(ARRAY),
        "floats": np.linspace(0, 1, 1000),
        "zero-dimensional": np.array(1.5),
        "numpy scalar": np.float32(1.5),
        "struct": STRUCT,
        "strings": np.array(["a", "bb"]),
        "objects": np.array([1, "a", None], dtype=object),
        "arrow table": pa.table({"a": [1, None], "s": ["x", None], "l": [[1, 2], None]}),
        "cycle": cycle(),
        "partial": functools.partial(max, 1, key=len),
        **more_of_python(),
        **more_arrays(),
        **tables(),
        **arrow_values(),
    }


def more_of_python() -> dict[str, Any]:
    chained = ValueError("a")
    chained.__cause__ = KeyError("b")
    return {
        "not a number": float("nan"),
        "ellipsis": ...,
        "not implemented": NotImplemented,
        "surrogate": "\ud800",
        "bytearray": bytearray(b"ab"),
        "memoryview": memoryview(b"abcd").cast("H"),
        "array of bytes": array.array("d", [1.5]),
        "slice": slice(1, None, 2),
        "default dict": collections.defaultdict(list, a=[1]),
        "chain map": collections.ChainMap({"a": 1}, {"b": 2}),
        "read-only dict": types.MappingProxyType({"a": 1}),
        "namespace": types.SimpleNamespace(b=1, a=2),
        "time": TIME.time(),
        "time of a zone": TIME.time().replace(tzinfo=datetime.UTC),
        "named offset": datetime.timezone(datetime.timedelta(hours=1), "CET"),
        "windows path": pathlib.PureWindowsPath("a/b"),
        "pattern of bytes": re.compile(b"a"),
        "generic": list[int],
        "getter": operator.itemgetter(1, 2),
        "caused error": chained,
        "group of errors": ExceptionGroup("g", [ValueError(1), KeyError(2)]),
        "deep": deep(3000),
    }


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def more_arrays() -> dict[str, Any]:
    return {
        "big-endian": ARRAY.astype(">i4"),
        "empty": np.zeros((0, 2)),
        "masked": np.ma.array([1, 2], mask=[0, 1]),
        "hard mask": np.ma.array([1, 2], mask=[0, 1], hard_mask=True),
        "dates": np.array(["2024-01-01", "NaT"], "M8[D]"),
        "complex array": np.array([1 + 2j]),
        "strings of variable width": np.array(["a", "bb"], np.dtypes.StringDType()),
        "aligned": np.zeros(1, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        "record": np.zeros(1, np.dtype((np.record, [("a", "i1")]))),
        "metadata": np.zeros(1, np.dtype("f8", metadata={"unit": "m"})),
        "dtype": np.dtype(">i2"),
        "ufunc": np.sin,
        "generator": np.random.default_rng(1),
        "csr": sp.csr_array(ARRAY),
        "coo": sp.coo_array(ARRAY),
        "dok": sp.dok_array(ARRAY),
        "lil": sp.lil_array(ARRAY),
        "dia": sp.dia_array(ARRAY),
        "bsr": sp.bsr_array(ARRAY),
    }


def tables() -> dict[str, Any]:
    days = pd.date_range("2024-01-01", periods=2, tz="Europe/Paris")
    frame = pd.DataFrame(
        {
            "int": [1, 2],
            "float": [1.5, None],
            "str": ["a", None],
            "object": pd.Series([1, "a"], dtype=object),
            "time": days,
            "nullable": pd.array([1, None], "Int64"),
            "category": pd.Categorical(["a", "b"], ordered=True),
            "arrow": pd.array([1, None], "int32[pyarrow]"),
            "period": pd.period_range("2024", periods=2, freq="M"),
            "interval": pd.interval_range(0, 2),
        }
    )
    return {
        "frame": frame,
        "frame with attributes": frame[["int"]].set_flags(allows_duplicate_labels=False),
        "series": frame["str"],
        "range index": frame.index,
        "time index": pd.DatetimeIndex(days),
        "multi index": pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", "y"]),
        "timestamp": days[0],
        "pandas timedelta": pd.Timedelta(1, "s"),
        "missing": [pd.NA, pd.NaT],
        "pandas dtype": pd.CategoricalDtype(["a"]),
        "polars frame": pl.DataFrame({"a": [1, None], "s": ["x", None], "l": [[1], None]}),
        "polars series": pl.Series("a", ["x", "y"], pl.Enum(["x", "y"])),
        "dataset": xr.Dataset({"t": ("x", [1.0, 2.0])}, {"x": [10, 20]}, {"unit": "m"}),
        "image": Image.new("RGB", (2, 2), "red"),
    }


def arrow_values() -> dict[str, Any]:
    words = pa.array(["a", None, "b"])
    return {
        "arrow array": words,
        "arrow chunks": pa.chunked_array([["a"], ["b"]]),
        "arrow batch": pa.record_batch({"a": [1]}),
        "arrow dictionary": words.dictionary_encode(),
        "arrow struct": pa.array([{"a": 1}, None]),
        "arrow map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
        "arrow bits": pa.array([True, None]),
        "arrow decimal": pa.array([decimal.Decimal("1.50")]),
        "arrow times": pa.array([TIME], pa.timestamp("us", "UTC")),
        "arrow scalar": pa.scalar(1, pa.int8()),
        "arrow schema": pa.schema([pa.field("a", pa.int8(), metadata={"unit": "m"})]),
        "arrow type": pa.list_(pa.int8()),
        "arrow buffer": pa.py_buffer(b"ab"),
    }


def cycle() -> list[object]:
    inner: dict[str, object] = {"k": 1}
    outer: list[object] = [1, inner]
    inner["outer"] = outer
    return outer


class A:
    def __init__(self, x: object) -> None:
        self.x = x


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def plus(n: int) -> Callable[[int], int]:
    return lambda x: x + n


def with_own_types() -> dict[str, Any]:
    """Values whose digests hold for one Python: code counts."""
    return {"function": plus(3), "objects": [A({1, "a"}), Colour.RED, A(frozenset("abc"))]}

"""Values whose digests must never change, on no Python and no machine."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import functools
import json
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

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

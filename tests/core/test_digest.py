"""Which values have the same digest, and which must not."""

from __future__ import annotations

import collections
import copy
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import operator
import pathlib
import pickle
import re
import types
import uuid
import zoneinfo
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from prefect_mlpipe.core.digest import Buffers, digest, digest_and_owners, owners
from tests.core.golden.values import ARRAY, PARIS, STRUCT, TIME, A, Colour, golden_values, plus


class B:
    def __init__(self, x: object) -> None:
        self.x = x


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x: object) -> None:
        self.x = x


class Point(NamedTuple):
    x: int
    y: int


class Other(NamedTuple):
    x: int
    y: int


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Data:
    x: object


@dataclasses.dataclass
class SameData:
    x: object


class Model(pydantic.BaseModel):
    k: int = 1


class MyInt(int):
    pass


class MyList(list):  # type: ignore[type-arg]
    pass


class MyDict(dict):  # type: ignore[type-arg]
    pass


class MySet(set):  # type: ignore[type-arg]
    pass


class MyArray(np.ndarray):  # type: ignore[type-arg]
    pass


def nan_with(bits: int) -> float:
    return float(np.array([0x7FF8000000000000 | bits], dtype=np.uint64).view(np.float64)[0])


def frame(**changes: Any) -> pd.DataFrame:
    columns = {"a": [1, 2, 3], "b": [1.5, 2.5, None], "c": ["x", "y", None], **changes}
    return pd.DataFrame(columns)


DATES = pd.date_range("2024-01-01", periods=3)

BIG_ENDIAN = ARRAY.astype(">i8")

# Every two of a row must differ.
DIFFERENT: dict[str, list[Any]] = {
    "scalars": [
        0,
        False,
        0.0,
        -0.0,
        0j,
        "",
        b"",
        None,
        "None",
        1,
        True,
        1.0,
        1 + 0j,
        "1",
        b"1",
        2**31,
        2**63,
        -(2**63),
        10**40,
        "a",
        "A",
        b"a",
        bytearray(b"a"),
        memoryview(b"a"),
        ...,
        NotImplemented,
        float("inf"),
        nan_with(0),
        nan_with(1),
        "\ud800",
        "é",
        "e\u0301",
        MyInt(1),
        np.int64(1),
        np.int32(1),
        np.float64(1),
        np.bool_(True),
        np.str_("1"),
        decimal.Decimal(1),
        decimal.Decimal("1.0"),
        fractions.Fraction(1),
        Level.LOW,
        np.array(1),
        np.array(True),
    ],
    "containers": [
        [1, 2],
        (1, 2),
        {1, 2},
        frozenset({1, 2}),
        {1: 2},
        [[1], 2],
        [1, [2]],
        [[1, 2]],
        [(1, 2)],
        collections.deque([1, 2]),
        collections.deque([1, 2], maxlen=2),
        MyList([1, 2]),
        Point(1, 2),
        Other(1, 2),
        collections.OrderedDict([(1, 2)]),
        MyDict({1: 2}),
        {"1": 2},
        {1: 2.0},
        collections.Counter({1: 2}),
        collections.defaultdict(int, {1: 2}),
        collections.defaultdict(list, {1: 2}),
        {1: None},
        {},
        [],
        (),
        set(),
        [None],
        [[]],
        [()],
        MySet({1, 2}),
        range(1, 3),
        [1, 2, 2],
        [True, 2],
        types.MappingProxyType({1: 2}),
        types.SimpleNamespace(a=1),
        {"a": 1},
        iter_free := [1, 2, 3],
        slice(1, 2),
        slice(1, 2, None).indices(3),
    ],
    "nested": [[[1, 2], 3], [1, [2, 3]], [[1], [2, 3]], [1, 2, 3], [[1, 2, 3]], ([1, 2], 3)],
    "10n order of a dict": [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
    "10p nested": [{"k": [1]}, {"k": [True]}, {"k": [1.0]}, {"k": ["1"]}, {"k": (1,)}],
    "long": ["x" * 5000, b"x" * 5000, "x" * 5001, ["x" * 5000], bytearray(b"x" * 5000)],
    "times": [
        TIME,
        TIME.replace(fold=1),
        TIME.replace(tzinfo=PARIS),
        TIME.replace(tzinfo=datetime.UTC),
        TIME.replace(tzinfo=zoneinfo.ZoneInfo("UTC")),
        TIME.date(),
        TIME.time(),
        datetime.timedelta(1),
        datetime.timedelta(seconds=1),
        TIME.isoformat(),
        pd.Timestamp(TIME),
        pd.Timestamp(TIME).as_unit("s"),
        pd.Timestamp(TIME, tz="UTC"),
        pd.NaT,
        pd.NA,
        pd.Timedelta(1, "D"),
        np.datetime64(TIME),
        np.timedelta64(1, "D"),
        datetime.UTC,
        datetime.timezone(datetime.timedelta(0), "Z"),
    ],
    "others": [
        re.compile("a"),
        re.compile("a", re.I),
        re.compile(b"a"),
        uuid.UUID(int=1),
        pathlib.Path("a"),
        pathlib.PurePosixPath("a"),
        "a",
        Colour.RED,
        Colour.BLUE,
        Flags.A,
        Flags.B,
        Flags.A | Flags.B,
        Flags(0),
        ValueError("a"),
        TypeError("a"),
        ValueError("b"),
        int,
        str,
        A,
        B,
        len,
        max,
        np.sin,
        np.cos,
        operator.itemgetter(1),
        operator.itemgetter(2),
        json,
        re,
        np.dtype("i4"),
        np.dtype("i8"),
    ],
    "objects": [
        A(1),
        B(1),
        A(2),
        A(None),
        Data(1),
        SameData(1),
        Data(2),
        Slotted(1),
        Slotted(2),
        Model(),
        Model(k=1),
        Model(k=2),
        object(),
        [A(1)],
        {"x": 1},
    ],
    "functions": [
        plus(1),
        plus(2),
        lambda x: x + 1,
        lambda x: x - 1,
        lambda y: y + 1,
        functools.partial(pow, 2),
        functools.partial(pow, 3),
        functools.partial(plus, 2),
        functools.partial(plus, n=2),
        A(1).__init__,
        [].append,
        [1].append,
        "a".upper,
        "b".upper,
        str.upper,
        dict.fromkeys,
    ],
    "10v-w arrays": [
        ARRAY,
        ARRAY.astype(np.int32),
        ARRAY.astype(np.float64),
        ARRAY.reshape(3, 2),
        ARRAY.ravel(),
        BIG_ENDIAN,
        ARRAY.view("m8[s]"),
        ARRAY.view("M8[s]"),
        ARRAY.view("M8[ms]"),
        ARRAY.tolist(),
        ARRAY.astype(object),
        ARRAY.astype(str),
        np.ma.array(ARRAY),
        np.ma.array(ARRAY, mask=ARRAY > 3),
        ARRAY.view(MyArray),
        ARRAY[:, :2],
        np.zeros(0),
        np.zeros((0, 1)),
        np.zeros(0, int),
        STRUCT,
        STRUCT.astype([("a", "i1"), ("c", "f8")]),
        STRUCT.astype([("a", "i2"), ("b", "f8")]),
        STRUCT.astype(np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.matrix(ARRAY),
        np.zeros(()),
        np.array(["a", "b"], dtype=object),
        np.array(["a", "b"]),
        np.array([b"a", b"b"]),
        np.array([0.0]),
        np.array([-0.0]),
        np.array([np.nan]),
        sp.csr_matrix(ARRAY),
        sp.csr_array(ARRAY),
        sp.csc_matrix(ARRAY),
        sp.coo_matrix(ARRAY),
    ],
    "10a-g frames": [
        frame(),
        frame(a=[1, 2, 4]),
        frame().astype({"a": "int32"}),
        frame().astype({"a": "float64"}),
        frame().astype({"a": "Int64"}),
        frame().rename(columns={"a": "z"}),
        frame()[["b", "a", "c"]],
        frame().set_index("a"),
        frame().set_index("a", drop=False),
        frame().iloc[::-1],
        frame().set_axis([1, 2, 3]),
        frame().rename_axis("i"),
        frame().rename_axis(columns="i"),
        frame().astype({"c": "category"}),
        frame().astype({"c": object}),
        frame().iloc[:2],
        frame()[["a"]],
        frame()["a"],
        frame()["a"].rename("z"),
        frame()["a"].array,
        frame(c=["x", "y", ""]),
        frame(a=DATES),
        frame(a=DATES.tz_localize("UTC")),
        frame(a=DATES.tz_localize("Europe/Paris")),
        frame(a=DATES.as_unit("s")),
        frame(a=pd.Categorical([1, 2, 3])),
        frame(a=pd.Categorical([1, 2, 3], ordered=True)),
        frame(a=pd.Categorical([1, 2, 3], categories=[3, 2, 1])),
        frame().convert_dtypes(dtype_backend="pyarrow"),
        frame(a=pd.array([1, 2, None])),
        frame(a=pd.array([True, False, None])),
        frame().set_index(["a", "c"]),
        frame().set_index(["c", "a"]),
        frame().set_index(DATES),
        frame().set_index(DATES._with_freq(None)),
        frame().columns,
        frame().index,
        frame().values,
        frame(a=pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3])),
        frame(a=pd.arrays.SparseArray([0, 0, 1])),
        frame(a=pd.period_range("2024", periods=3, freq="M")),
        frame(a=pd.period_range("2024", periods=3, freq="D")),
        pd.DataFrame(),
        pd.DataFrame(index=[1]),
        pd.DataFrame(columns=["a"]),
        pd.concat([frame(), frame()], axis=1),
    ],
    "arrow": [
        pa.array([1, 2, None]),
        pa.array([1, 2, 0]),
        pa.array([1, 2]),
        pa.array([1, 2, None], pa.int32()),
        pa.chunked_array([[1, 2, None]]),
        pa.array(["a", "b", None]),
        pa.array(["ab", "", None]),
        pa.array(["a", "b", ""]),
        pa.array(["a", "b", None], pa.large_string()),
        pa.array([b"a", b"b", None]),
        pa.array([True, False, None]),
        pa.array([[1], [2, 3], None]),
        pa.array([[1, 2], [3], None]),
        pa.array([[1], [2, 3], []]),
        pa.array([{"a": 1}, {"a": None}, None]),
        pa.array([{"a": 1}, None, {"a": None}]),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.table({"a": [1, 2]}),
        pa.table({"b": [1, 2]}),
        pa.table({"a": [1, 2]}).replace_schema_metadata({"k": "v"}),
        pa.record_batch({"a": [1, 2]}),
        pa.array([None, None, None]),
        pa.array([None, None]),
        pa.int64(),
        pa.int32(),
        pa.scalar(1),
        pa.scalar(2),
        pa.array([[(1, 2)]], pa.map_(pa.int64(), pa.int64())),
        pa.array([[(1, 3)]], pa.map_(pa.int64(), pa.int64())),
        pa.array([decimal.Decimal("1.0")]),
        pa.array([datetime.date(2024, 1, 1)]),
        pa.array([TIME]),
        pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
        pa.array(["a", "b", None], pa.string_view()),
    ],
}


@pytest.mark.parametrize("row", DIFFERENT)
def test_values_that_differ_have_digests_that_differ(row: str) -> None:
    values = DIFFERENT[row]
    seen: dict[str, object] = {}
    for value in values:
        key = digest(value)
        same = seen.setdefault(key, value)
        known = same is value or (type(same) is type(value) and repr(same) == repr(value))
        assert known, f"{same!r} and {value!r}"


def rebuilt_strings() -> pd.DataFrame:
    halves = [
        pd.DataFrame({"c": [c], "n": [n]}) for c, n in (("lo" + "ng", 1), ("".join("short"), 2))
    ]
    return pd.concat(halves, ignore_index=True)


class Everything:
    """Equal values that were made in different ways."""

    def __init__(self, tmp: Path) -> None:
        np.save(tmp / "a.npy", ARRAY)
        big = np.random.default_rng(0).normal(size=(3000, 1000))
        wide = pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=list("abcd"))
        long = pd.DataFrame(
            {"a": range(10), "s": [str(i) for i in range(10)], "n": [None, "x"] * 5}
        )
        table = pa.table(
            {"a": [1, 2, None, 4], "s": ["a", None, "ccc", ""], "l": [[1], None, [], [2, 3]]}
        )
        multi = pd.DataFrame({"a": ["x", "y", "z"], "b": [1, 2, 3], "v": [1, 2, 3]}).set_index(
            ["a", "b"]
        )
        masked = pd.array([1, None, 3], dtype="Int64")
        dirty = pd.array([1, 99, 3], dtype="Int64")
        dirty[1] = None
        holes = np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True))
        garbage = np.frombuffer(b"\x01" * 32, dtype=holes.dtype).copy()
        garbage["a"], garbage["b"] = 0, 0
        shared = [1]
        self.pairs: list[tuple[Any, Any]] = [
            ({1, "a", None, (2, 3)}, {(2, 3), None, "a", 1}),
            (frozenset("abcdef"), frozenset("fedcba")),
            (ARRAY, np.asfortranarray(ARRAY)),
            (ARRAY, np.load(tmp / "a.npy", mmap_mode="r")),
            (ARRAY, np.arange(12).reshape(2, 6)[:, ::2] // 2),
            (ARRAY[::-1], ARRAY[::-1].copy()),
            (big, np.asfortranarray(big)),
            (big.T, np.ascontiguousarray(big.T)),
            (ARRAY.astype(object), np.asfortranarray(ARRAY.astype(object))),
            (holes, garbage),
            ([shared, shared], [[1], [1]]),
            (frame(), frame().copy()),
            (frame(), pd.concat([frame().iloc[:1], frame().iloc[1:]])),
            (
                frame(),
                pd.DataFrame({"c": ["x", "y", None], "b": [1.5, 2.5, None], "a": [1, 2, 3]})[
                    ["a", "b", "c"]
                ],
            ),
            (rebuilt_strings(), pd.DataFrame({"c": ["long", "short"], "n": [1, 2]})),
            (wide, pd.concat([wide[["a", "b"]], wide[["c", "d"]]], axis=1)),
            (wide, pd.DataFrame({c: wide[c].copy() for c in wide})),
            (wide, pd.DataFrame(np.asfortranarray(wide.to_numpy()), columns=list("abcd"))),
            (
                long.iloc[2:5].reset_index(drop=True),
                pd.DataFrame({"a": [2, 3, 4], "s": ["2", "3", "4"], "n": [None, "x", None]}),
            ),
            (
                long.convert_dtypes(dtype_backend="pyarrow").iloc[3:6].reset_index(drop=True),
                long.iloc[3:6].reset_index(drop=True).convert_dtypes(dtype_backend="pyarrow"),
            ),
            (
                multi.iloc[1:],
                pd.DataFrame({"a": ["y", "z"], "b": [2, 3], "v": [2, 3]}).set_index(["a", "b"]),
            ),
            (masked, dirty),
            (table, pa.concat_tables([table.slice(0, 1), table.slice(1)])),
            (
                table.slice(1, 2),
                pa.table(
                    {
                        "a": [2, None],
                        "s": [None, "ccc"],
                        "l": pa.array([None, []], pa.list_(pa.int64())),
                    }
                ),
            ),
            (pa.array([True, False, None, True]).slice(1), pa.array([False, None, True])),
            (pa.chunked_array([[1], [2]]), pa.chunked_array([[1, 2]])),
            (pa.array(["a", "b"]).slice(2), pa.array([], pa.string())),
            (sp.csr_matrix(ARRAY), sp.csr_matrix(np.asfortranarray(ARRAY))),
            (Data([1, {2}]), copy.deepcopy(Data([1, {2}]))),
            (MySet("abc"), MySet("cba")),
            (np.float64(1.5), np.array([1.5])[0]),
            (
                LogisticRegression().fit([[0], [1]], [0, 1]),
                pickle.loads(pickle.dumps(LogisticRegression().fit([[0], [1]], [0, 1]))),
            ),
        ]


def test_values_that_are_equal_have_equal_digests(tmp_path: Path) -> None:
    for one, other in Everything(tmp_path).pairs:
        assert digest(one) == digest(other), f"{one!r}"


@pytest.mark.parametrize("row", DIFFERENT)
def test_a_pickle_keeps_the_digest(row: str) -> None:
    for value in DIFFERENT[row]:
        if value is BIG_ENDIAN:
            continue  # numpy pickles it as little-endian
        try:
            copied = pickle.loads(pickle.dumps(value))
        except (TypeError, AttributeError, pickle.PicklingError):
            continue
        assert digest(copied) == digest(value), repr(value)


def test_11_one_element_in_the_middle_of_a_large_array_counts() -> None:
    array = np.zeros(4_000_000)
    before = digest(array)
    array[2_000_000] = np.nextafter(0, 1)
    assert digest(array) != before


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
HASHABLE = SCALARS | st.tuples(SCALARS, SCALARS) | st.frozensets(SCALARS, max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=8,
)


def exact(value: Any) -> object:
    """Return something that is equal for values of equal type and content, and only for those."""
    kind = type(value).__name__
    if isinstance(value, float):
        return (kind, value.hex(), str(np.float64(value).view(np.uint64)))
    if isinstance(value, (list, tuple)):
        return (kind, [exact(item) for item in value])
    if isinstance(value, dict):
        return (kind, [(exact(key), exact(item)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return (kind, sorted(map(repr, map(exact, value))))
    return (kind, value)


@settings(max_examples=80, deadline=None)
@given(VALUES, VALUES)
def test_digests_agree_exactly_when_type_and_content_do(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (exact(one) == exact(other))


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_a_deep_copy_and_a_pickle_have_the_same_digest(value: Any) -> None:
    assert (
        digest(value) == digest(copy.deepcopy(value)) == digest(pickle.loads(pickle.dumps(value)))
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.none() | st.text(max_size=5), max_size=12), st.data())
def test_a_slice_of_an_arrow_column_has_the_digest_of_the_column_alone(
    items: list[str | None], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(items)))
    stop = data.draw(st.integers(start, len(items)))
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        column = pa.array(items, kind)
        assert digest(column.slice(start, stop - start)) == digest(
            pa.array(items[start:stop], kind)
        )


GOLDEN = Path(__file__).parent / "golden" / "digests.json"


def test_golden_digests_hold() -> None:
    found = {name: digest(value) for name, value in golden_values().items()}
    assert found == json.loads(GOLDEN.read_text())


def test_owners_are_the_distributions_of_types_at_any_depth() -> None:
    assert owners([1, "a", {"k": (None,)}]) == frozenset()
    assert owners({"deep": [A(np.zeros(3))]}) == {"numpy"}
    assert owners([LogisticRegression()]) == {"scikit-learn"}
    assert "pandas" in owners(frame())
    assert digest_and_owners([np.zeros(3)]) == (digest([np.zeros(3)]), {"numpy"})


def test_a_buffer_is_hashed_once_for_digest_and_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).normal(size=400_000)
    buffers = Buffers()
    before = digest(array, buffers=buffers)
    known = buffers.hash(array.view(np.uint8).data)
    monkeypatch.setattr("prefect_mlpipe.core.encoding.pieces.blake3", None)
    assert buffers.hash(array.view(np.uint8).data) == known
    monkeypatch.undo()
    assert digest(array) == before


def test_attributes_set_in_another_order_or_cached_do_not_count() -> None:
    class Lazy:
        def __init__(self, names: str) -> None:
            for name in names:
                setattr(self, name, 1)

        @functools.cached_property
        def total(self) -> int:
            return 1

    one, other = Lazy("ab"), Lazy("ba")
    before = digest(one)
    assert one.total == 1
    assert digest(one) == digest(other) == before


def test_secrets_are_left_out() -> None:
    class Login(pydantic.BaseModel):
        user: str
        password: pydantic.SecretStr

    def login(user: str, password: str) -> Login:
        return Login(user=user, password=pydantic.SecretStr(password))

    assert digest(login("a", "x")) == digest(login("a", "y"))
    assert digest(login("a", "x")) != digest(login("b", "x"))


def test_a_type_may_say_what_counts() -> None:
    class Custom:
        def __init__(self, kept: int, left_out: object) -> None:
            self.kept, self.left_out = kept, left_out

        def __mlpipe_digest__(self) -> object:
            return self.kept

    assert digest(Custom(1, object())) == digest(Custom(1, 5))
    assert digest(Custom(1, 5)) != digest(Custom(2, 5))


def test_an_exception_counts_the_same_whatever_libraries_have_registered_for_it() -> None:
    class Strict(Exception):
        pass

    plain = digest(Strict("a", 1))
    copyreg.pickle(Strict, lambda error: (Strict, ("registered", *error.args)))
    try:
        assert digest(Strict("a", 1)) == plain
    finally:
        del copyreg.dispatch_table[Strict]

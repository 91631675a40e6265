"""Every format gives back the value that it took, other programs open it, and nobody shares it."""

from __future__ import annotations

import datetime
import decimal
import fractions
import io
import itertools
import json
import pickle
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.formats import registry
from prefect_mlpipe.core.formats.base import Chunks, Format, Part, flattened, is_json
from prefect_mlpipe.core.formats.pickles import Pickle
from prefect_mlpipe.core.formats.plain import is_plain
from prefect_mlpipe.core.formats.registry import format_named, formats_for, register_format
from prefect_mlpipe.core.store import Store
from tests.core.formatting import dumped, name_of_format, round_trip
from tests.core.strategies import NAMES, arrays, columns, frames, json_like, plain

# --- every format keeps every value that it says it keeps ----------------------------------------


@given(plain)
def test_plain_values_come_back_as_they_are(value: object) -> None:
    again = round_trip(value)
    assert digest(again) == digest(value)
    assert type(again) is type(value)


@given(json_like)
def test_what_json_takes_comes_back_as_it_is(value: object) -> None:
    if is_json(value):
        assert digest(json.loads(json.dumps(value))) == digest(value)
    assert digest(round_trip(value)) == digest(value)


@given(arrays)
def test_arrays_come_back_as_they_are(value: np.ndarray[Any, Any]) -> None:
    again = round_trip(value)
    assert digest(again) == digest(value)
    assert again.dtype == value.dtype
    assert again.shape == value.shape
    assert again.flags.writeable or again.size == 0


@given(arrays, st.randoms(use_true_random=False))
def test_however_an_array_lies_in_memory_it_comes_back(
    value: np.ndarray[Any, Any], random: Any
) -> None:
    axes = list(range(value.ndim))
    random.shuffle(axes)
    turned = np.flip(value) if value.ndim else value
    for view in (value.T, np.asfortranarray(value), value.transpose(axes), turned):
        assert digest(round_trip(view)) == digest(view)


@given(frames())
def test_frames_come_back_as_they_are(frame: pd.DataFrame) -> None:
    again = round_trip(frame)
    assert digest(again) == digest(frame)
    pd.testing.assert_frame_equal(again, frame, check_exact=True, check_freq=True)


@given(columns, NAMES | st.integers(), st.booleans())
def test_series_come_back_as_they_are(series: pd.Series[Any], name: object, reverse: bool) -> None:
    series = series.rename(name)[:: -1 if reverse else 1]
    again = round_trip(series)
    assert digest(again) == digest(series)
    pd.testing.assert_series_equal(again, series, check_exact=True)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1, None], "s": ["x", None], "l": [[1], None]}, metadata={"who": "me"}),
        pa.table({"d": pa.array(["a", "b", "a"]).dictionary_encode()}),
        pa.concat_tables([pa.table({"a": [1, 2]}), pa.table({"a": [3]})]),
        pa.table({"a": range(10)}).slice(3, 4),
        pa.table({"a": pa.array([], pa.decimal128(10, 2))}),
        pa.table({}),
        pa.concat_tables(
            [pa.table({"d": pa.array([name]).dictionary_encode()}) for name in ("a", "b")]
        ),
    ],
)
def test_arrow_tables_come_back_as_they_are(table: pa.Table, tmp_path: Path) -> None:
    store = Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))
    again = store.get(store.put(table))
    assert again.equals(table, check_metadata=True)
    assert digest(again) == digest(table)


def test_every_kind_of_nan_is_kept() -> None:
    bits = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000001], "u8")
    values = bits.view("f8")
    for value in (values, pd.DataFrame({"a": values}), pd.Series(values)):
        again = np.asarray(round_trip(value)).reshape(-1)
        assert (again.view("u8") == bits).all()


def test_frames_of_polars_come_back_as_they_are(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    categories = pl.Series(["u", "v", "u"]).cast(pl.Categorical)
    frame = pl.DataFrame({"a": [1.5, None, 2.0], "l": [[1], None, []], "c": categories})
    store = Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))
    stored = store.put(frame)
    assert stored.format == "polars"
    assert store.get(stored).equals(frame)


def test_a_frame_of_polars_may_have_a_zero_in_the_name_of_a_column(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame([pl.Series("a\0", [1, 2])])
    store = Store(str(tmp_path))
    assert store.get(store.put(frame)).equals(frame)


# --- which format takes what ---------------------------------------------------------------------

BIG = 10**30


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "json"),
        (1.5, "json"),
        ([1, {"a": [True, None, "é"]}], "json"),
        (2**64 - 1, "json"),
        (-(2**63), "json"),
        (2**64, "pickle"),
        (BIG, "pickle"),
        (float("nan"), "pickle"),
        ([1.0, float("inf")], "pickle"),
        ((1, 2), "pickle"),
        ([(1, 2)], "pickle"),
        ({1: 2}, "pickle"),
        ({"a": {1: 2}}, "pickle"),
        ("\ud800", "pickle"),
        (["\ud800"], "pickle"),
        ({"\ud800": 1}, "pickle"),
        (OrderedDict(a=1), "pickle"),
        ("text", "text"),
        (b"bytes", "bytes"),
        (bytearray(b"bytes"), "pickle"),
        (np.float64(0.5), "pickle"),
        (np.arange(3), "npy"),
        (np.array([object()]), "pickle"),
        (np.array(["a"], np.dtypes.StringDType()), "pickle"),
        (np.ma.masked_array([1, 2], [True, False]), "pickle"),
        (np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)), "pickle"),
        (np.zeros(2, np.dtype([("é", "i1")])), "pickle"),
        (np.zeros(2, np.dtype("f8", metadata={"a": 1})), "pickle"),
        (pd.DataFrame({"a": [1]}), "pandas"),
        (pd.DataFrame({"a": [{}]}), "pickle"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "pickle"),
        (pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False), "pickle"),
        (pd.Index([1]), "pickle"),
        (pa.table({"a": [1]}), "arrow"),
    ],
)
def test_each_value_goes_to_the_format_that_keeps_it(value: object, name: str) -> None:
    assert name_of_format(value) == name
    assert digest(round_trip(value)) == digest(value)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [Text("a"), [Text("a")], {Text("a"): 1}])
def test_subclasses_are_not_taken_for_what_they_derive_from(value: object) -> None:
    assert name_of_format(value) == "pickle"
    assert digest(round_trip(value)) == digest(value)


def test_what_is_nested_too_deeply_for_json_is_pickled() -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    assert name_of_format(value) == "pickle"
    assert round_trip(value) == value


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, [2.0, {"a": {3}}]), True),
        ([np.arange(3), decimal.Decimal(1), fractions.Fraction(1, 2), uuid.UUID(int=1)], True),
        ([np.float32(1)], True),
        ([datetime.date(2020, 1, 1), datetime.timedelta(1)], True),
        ([datetime.datetime(2020, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))], False),
        ([np.array([object()])], False),
        (Point(1, 2), False),
        ([object()], False),
    ],
)
def test_only_values_of_well_known_types_are_stored_without_a_look(
    value: object, plain: bool
) -> None:
    assert is_plain(value) is plain


# --- other programs open the files ---------------------------------------------------------------


def test_numpy_opens_our_arrays(tmp_path: Path) -> None:
    for value in (np.arange(12).reshape(3, 4), np.asfortranarray(np.arange(12).reshape(3, 4))):
        (tmp_path / "x.npy").write_bytes(dumped(value)[1])
        again = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert (again == value).all()
        assert again.flags.f_contiguous == value.flags.f_contiguous


def test_numpy_arrays_are_laid_out_as_numpy_does() -> None:
    for value in (np.arange(12.0), np.array(3), np.zeros((0, 2)), np.array(["a"])):
        stream = io.BytesIO()
        np.save(stream, value)
        assert dumped(value)[1] == stream.getvalue()


def test_pandas_and_pyarrow_open_our_frames(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "a": [1.5, np.nan],
            "s": ["x", None],
            "t": pd.to_datetime(["2020", None]),
            "z": pd.to_datetime(["2020", None]).tz_localize("Europe/Paris"),
            "c": pd.Categorical(["u", None]),
            "b": [True, False],
        },
        index=pd.Index(["k", "l"], name="key"),
    )
    format, data = dumped(frame)
    assert format.name == "pandas"
    (tmp_path / "x.arrow").write_bytes(data)
    pd.testing.assert_frame_equal(pd.read_feather(tmp_path / "x.arrow"), frame)
    table = pa.ipc.open_file(tmp_path / "x.arrow").read_all()
    assert table["t"].to_pylist() == [datetime.datetime(2020, 1, 1), None]
    assert table["z"].null_count == 1


def test_pickle_opens_our_pickles(tmp_path: Path) -> None:
    value = {"a": np.arange(10_000), "b": [np.arange(5000.0), "text"], "c": np.arange(3)}
    format, data = dumped(value)
    again = pickle.loads(data)
    assert digest(again) == digest(value)
    assert format.split(memoryview(data))[1].nbytes == 80_000


# --- readers get their own, and buffers are not copied -------------------------------------------


def addresses(parts: Sequence[Part]) -> set[int]:
    found = [np.frombuffer(chunk, "u1") for chunk in flattened(parts) if len(chunk)]
    return {chunk.ctypes.data for chunk in found}


def test_large_buffers_are_handed_over_as_they_lie() -> None:
    array = np.arange(10_000.0)
    frame = pd.DataFrame({"a": np.arange(10_000.0), "b": np.arange(10_000)})
    for value, buffers in (
        (array, [array]),
        ({"x": [array]}, [array]),
        (frame, [frame["a"].to_numpy(), frame["b"].to_numpy()]),
        (np.asfortranarray(np.ones((100, 100))), []),
    ):
        format = next(format for format in formats_for(value) if format.accepts(value))
        assert {buffer.ctypes.data for buffer in buffers} <= addresses(format.dump(value))


def test_loaded_arrays_are_views_of_the_data_and_can_be_written() -> None:
    for value in (np.arange(10_000.0), {"x": np.arange(10_000.0)}):
        format, data = dumped(value)
        own = bytearray(data)
        again: Any = format.load(memoryview(own))
        array = again["x"] if isinstance(again, dict) else again
        array[7] = -1.0
        assert bytes(own) != data
        assert array.ctypes.data % 8 == 0


def test_buffers_are_aligned_wherever_they_stand() -> None:
    for sizes in itertools.product((4096, 4097, 5000, 4159), repeat=3):
        value = [np.zeros(size, "u1") for size in sizes]
        data = dumped(value)[1]
        at = 0
        for number, part in enumerate(Pickle().split(memoryview(data))):
            assert number % 2 == 0 or at % 64 == 0
            at += part.nbytes


def test_columns_of_one_type_come_back_as_one_block_over_the_data() -> None:
    frame = pd.DataFrame({f"c{number}": np.arange(1000.0) for number in range(20)})
    format, data = dumped(frame)
    own = bytearray(data)
    again: Any = format.load(memoryview(own))
    base = np.frombuffer(own, "u1").ctypes.data
    first = again["c0"].to_numpy()
    assert base <= first.ctypes.data < base + len(own)
    assert np.shares_memory(again["c0"].to_numpy(), again["c1"].to_numpy()[:0]) is False
    assert len({again[name].to_numpy().base is None for name in again}) == 1


@given(frames())
def test_every_cell_of_a_loaded_frame_can_be_written(frame: pd.DataFrame) -> None:
    again = round_trip(frame)
    for row, column in itertools.product(range(len(frame)), range(frame.shape[1])):
        again.iloc[row, column] = frame.iloc[0, column]


# --- parts ---------------------------------------------------------------------------------------


@given(plain | arrays | st.lists(arrays, max_size=3) | frames())
def test_a_format_finds_its_parts_again(value: object) -> None:
    format = next(format for format in formats_for(value) if format.accepts(value))
    parts = format.parts(value)
    data = b"".join(flattened(parts))
    joined = [b"".join(part) if isinstance(part, Chunks) else bytes(part) for part in parts]
    assert [bytes(part) for part in format.split(memoryview(data))] == joined


@given(st.binary(max_size=300), st.sampled_from(["npy", "pickle", "json", "pandas", "text"]))
def test_splitting_never_trusts_the_bytes(data: bytes, name: str) -> None:
    format = format_named(name)
    assert format is not None
    for start in (b"", dumped([np.zeros(5000)])[1][:200], dumped(np.zeros(3))[1][:20]):
        parts = format.split(memoryview(start + data))
        assert sum(part.nbytes for part in parts) <= len(start + data)


# --- formats of users ----------------------------------------------------------------------------


class Image:
    def __init__(self, pixels: bytes) -> None:
        self.pixels = pixels


class Pgm(Format):
    name, suffix = "pgm", ".pgm"
    forgets = False

    def accepts(self, value: object) -> bool:
        return isinstance(value, Image)

    def dump(self, value: object) -> Sequence[Part]:
        assert isinstance(value, Image)
        return (b"P5", value.pixels)

    def load(self, data: memoryview) -> object:
        return Image(b"" if self.forgets else bytes(data[2:]))


@pytest.fixture
def pgm() -> Iterator[Pgm]:
    format = Pgm()
    register_format(format)
    yield format
    registry._of_users.remove(format)
    del registry._by_name["pgm"]


def test_a_format_of_a_user_takes_its_values(pgm: Pgm, tmp_path: Path) -> None:
    store = Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))
    stored = store.put(Image(b"12" * 5000))
    assert stored.format == "pgm"
    path = store.local_path(stored)
    assert path is not None
    assert path.endswith(".pgm")
    assert store.get(stored).pixels == b"12" * 5000
    assert store.put(3).format == "json"


def test_a_format_that_does_not_keep_a_value_is_passed_over(pgm: Pgm, tmp_path: Path) -> None:
    pgm.forgets = True
    store = Store(tmp_path / "s", cache_folder=str(tmp_path / "c"))
    stored = store.put(Image(b"12"))
    assert stored.format == "pickle"
    assert store.get(stored).pixels == b"12"


def test_the_name_of_a_format_is_taken_once(pgm: Pgm) -> None:
    register_format(Pgm())
    registry._of_users.insert(0, pgm)
    registry._of_users[:] = [pgm]

    class Other(Pgm): ...

    with pytest.raises(ValueError, match="pgm"):
        register_format(Other())

"""What a reader gets is what was returned: in the first run as later, here as elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.store import Store
from tests.core.seen import seen
from tests.core.strategies import Model, values

QUICK = settings(max_examples=60, deadline=None)
CONTENTS = st.dictionaries(
    st.sampled_from(["a.csv", "b", "sub/c.bin", "sub/deeper/d"]), st.binary(max_size=9), min_size=1
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("round-trip")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def stores(place: Path) -> Callable[[str], tuple[Store, Store]]:
    """A store, and the same store as another machine opens it."""

    def opened(kind: str) -> tuple[Store, Store]:
        url = f"memory://{place.name}" if kind == "remote" else str(place / "store")
        here, elsewhere = (str(place / f"{kind}-{name}") for name in ("here", "elsewhere"))
        return Store(url, cache_folder=here), Store(url, cache_folder=elsewhere)

    return opened


def same_for_readers(value: Any, store: Store, elsewhere: Store) -> str:
    """Store a value, read it in all ways, and give the name of its format."""
    text, identity = seen(value), digest(value)
    stored = store.put(value)
    assert stored.digest == identity
    for reader in (store, store, elsewhere):
        again: Any = reader.get(stored)
        assert type(again) is type(value)
        assert seen(again) == text
        assert digest(again) == identity
        assert reader.put(again).digest == identity
    assert seen(value) == text, "storing it changed it"
    return stored.format


@QUICK
@given(st.data(), st.sampled_from(["local", "remote"]))
def test_a_reader_gets_the_very_value_in_every_format(
    place: Path, stores: Callable[[str], tuple[Store, Store]], data: st.DataObject, kind: str
) -> None:
    value = data.draw(values | CONTENTS.map(lambda contents: written(place, contents)))
    same_for_readers(value, *stores(kind))


_numbers = itertools.count()


def written(place: Path, contents: dict[str, bytes]) -> Any:
    """A file, a folder, or an object that holds both."""
    folder = place / str(next(_numbers)) / "data"
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    file = File(folder / next(iter(contents)))
    return [file, Folder(folder), Model(file, [Folder(folder)])][len(contents) % 3]


FORMATS = {
    "json": {"a": [1, 2.5, None]},
    "text": "a text",
    "bytes": b"some bytes",
    "pickle": Model({1, 2}, [np.arange(3)]),
    "npy": np.arange(6).reshape(2, 3),
    "pandas": pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
    "arrow": pa.table({"a": [1, None]}),
    "polars": pl.DataFrame({"a": [1.5, None]}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_its_values(
    name: str, stores: Callable[[str], tuple[Store, Store]]
) -> None:
    for kind in ("local", "remote"):
        assert same_for_readers(FORMATS[name], *stores(kind)) == name


def test_files_and_folders_are_among_those_values(
    place: Path, stores: Callable[[str], tuple[Store, Store]]
) -> None:
    both = [
        written(place, dict.fromkeys(names, b"x")) for names in (["a.csv", "b", "c"], ["a.csv"])
    ]
    assert {same_for_readers(each, *stores("local")) for each in both} == {"file", "folder"}


VALUE: list[Any] = []
SEEN: list[tuple[str, object]] = []


@step
def make(number: int) -> Any:
    return VALUE[number]


def look(value: Any) -> str:
    flags = str(value.flags) if isinstance(value, np.ndarray) else None
    SEEN.append((seen(value), flags))
    return seen(value)


first, second = (step(look, name="look", version=version) for version in "12")


@pipeline
def one(number: int) -> str:
    return first(make.with_options(ignore=[f"{__name__}.VALUE"])(number))


@pipeline
def two(number: int) -> str:
    return second(make.with_options(ignore=[f"{__name__}.VALUE"])(number))


@settings(max_examples=8, deadline=None)
@given(value=values)
def test_a_step_sees_in_the_first_run_what_it_sees_in_a_later_one(place: Path, value: Any) -> None:
    VALUE.append(value)
    number = len(VALUE) - 1
    for run in (one, two):
        assert run.with_options(store=str(place / "runs")).local(number) == seen(value)
    assert len(SEEN) == 2 * len(VALUE)
    assert SEEN[-1] == SEEN[-2]

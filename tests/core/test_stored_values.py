from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from prefect_mlpipe.core.digest import Buffers, digest
from prefect_mlpipe.core.formats.base import Unstorable
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import ValueDamaged, ValueMissing
from tests.core.stores import (
    LARGE,
    flip,
    flip_keeping_times,
    forced,
    path_of,
    python,
    reopened,
)

SMALL = {"a": [1, 2.5, None]}
VALUES: list[Any] = [
    SMALL,
    (1, {2: 3}),
    "text" * 5000,
    b"bytes" * 500_000,
    LARGE,
    [LARGE, {"x": np.arange(3)}],
    pd.DataFrame({"a": np.arange(100_000), "s": ["x"] * 100_000}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_in_this_process_and_in_another_and_elsewhere(
    store: Store, value: Any
) -> None:
    stored = store.put(value)
    assert stored.digest == digest(value)
    for reader in (store, reopened(store), reopened(store, "elsewhere")):
        assert digest(reader.get(stored)) == stored.digest
        assert reader.has(stored)
        reader.check(stored)


def test_small_values_stand_in_their_reference(store: Store) -> None:
    stored = store.put(SMALL)
    assert stored.inline == orjson.dumps(SMALL)
    assert store.local_path(stored) is None
    assert store.put(b"x" * 4096).inline is not None
    assert store.put(b"x" * 4097).inline is None


def test_a_reference_says_what_it_refers_to(local: Store) -> None:
    stored = local.put(LARGE)
    assert stored.type == "numpy.ndarray"
    assert stored.format == "npy"
    assert stored.size == os.stat(path_of(local, stored)).st_size
    assert stored.owners == ("numpy",)
    assert local.put(1).type == "int"
    assert local.put(1).owners == ()
    assert StoredValue.from_json(json.loads(json.dumps(stored.to_json()))) == stored


def test_equal_values_have_one_file_and_different_ones_have_two(local: Store) -> None:
    first, second = local.put(LARGE), local.put(LARGE.copy())
    assert first == second
    assert local.put(LARGE + 1).checksum != first.checksum
    assert len(list((Path(local.url) / "values").glob("*/*"))) == 2


def test_a_value_that_is_stored_again_is_not_written_again(local: Store) -> None:
    stored = local.put(LARGE)
    before = os.stat(path_of(local, stored))
    local.put(LARGE)
    reopened(local).put(LARGE)
    assert os.stat(path_of(local, stored)) == before


def test_every_reader_has_its_own(store: Store) -> None:
    for value in (LARGE, np.arange(10.0), [LARGE]):
        stored = store.put(value)
        first, second = store.get(stored), store.get(stored)
        for array in (first, first[0]) if isinstance(first, list) else (first,):
            if isinstance(array, np.ndarray):
                array[:] = -1
        assert digest(second) == digest(store.get(stored)) == stored.digest
        store.check(stored)


def test_writing_into_a_loaded_frame_changes_nothing_for_others(store: Store) -> None:
    stored = store.put(pd.DataFrame({"a": np.arange(100_000.0), "b": np.arange(100_000.0)}))
    first, second = store.get(stored), store.get(stored)
    first.loc[:, "a"] = 0.0
    first.iloc[3, 1] = 0.0
    first["c"] = 1
    assert digest(second) == stored.digest
    store.check(stored)


def test_what_was_stored_does_not_follow_the_original(store: Store) -> None:
    value = LARGE.copy()
    stored = store.put(value)
    value[:] = 0
    assert digest(store.get(stored)) == stored.digest == digest(LARGE)


def test_stored_files_are_read_only_and_other_programs_open_them(local: Store) -> None:
    path = path_of(local, local.put(LARGE))
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert (np.load(path, mmap_mode="r") == LARGE).all()
    text = path_of(local, local.put("text" * 5000))
    assert (text.suffix, text.read_text()) == (".txt", "text" * 5000)


def test_buffers_that_were_hashed_for_the_digest_are_not_hashed_again(local: Store) -> None:
    value = np.arange(1_000_000.0)

    class Counting(Buffers):
        hashed: list[int] = []  # noqa: RUF012

        def hash(self, buffer: Any) -> bytes:
            before = len(self._seen)
            found = super().hash(buffer)
            self.hashed += [memoryview(buffer).nbytes] * (len(self._seen) - before)
            return found

    for item in (value, [value]):
        buffers = Counting()
        buffers.hashed = []
        local.put(item, buffers=buffers)
        assert buffers.hashed == [value.nbytes]


@dataclass
class Model:
    weights: Any


class Forgetful:
    def __init__(self) -> None:
        self.kept, self.dropped = 1, 2

    def __getstate__(self) -> dict[str, int]:
        return {"kept": self.kept}


class Unreadable:
    def __reduce__(self) -> Any:
        return json.loads, ("this is no json",)


class Restless:
    """Counts another digest each time it is read back."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def __setstate__(self, state: dict[str, int]) -> None:
        self.count = state["count"] + 1


def test_objects_are_stored_if_reading_them_back_gives_the_same(store: Store) -> None:
    stored = store.put(Model(LARGE))
    assert digest(store.get(stored)) == stored.digest


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Restless(), "another value"),
        (Unreadable(), "not read back"),
        (Path("x"), "File"),
        ([Path("x")], "File"),
        ((item for item in ()), "generator"),
        (threading.Lock(), "lock"),
        (Model(threading.Lock()), "lock"),
    ],
)
def test_what_cannot_be_stored_and_read_back_is_refused(
    store: Store, value: object, why: str
) -> None:
    with pytest.raises(Unstorable, match=why):
        store.put(value)


def test_trying_an_object_out_never_writes_into_the_original(store: Store) -> None:
    class Zeroing:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __setstate__(self, state: dict[str, Any]) -> None:
            state["array"][:] = 0
            self.__dict__.update(state)

    array = LARGE.copy()
    with pytest.raises(Unstorable):
        store.put(Zeroing(array))
    assert (array == LARGE).all()


MEASURE = """
import resource, sys
import numpy as np
from prefect_mlpipe.core.store import Store

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

store = Store(sys.argv[1], cache_folder=sys.argv[1] + "-cache")
store.put(np.arange(300_000.0))
value = np.ones(100 << 17)
before = peak()
stored = store.put(value)
print((peak() - before) / value.nbytes)
del value
before = peak()
store.get(stored)[::512].sum()
print((peak() - before) / stored.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in the kilobytes of Linux")
def test_storing_or_loading_an_array_takes_no_second_array(tmp_path: Path) -> None:
    put, get = map(float, python(MEASURE, tmp_path / "store").split())
    assert put < 0.15
    assert get < 0.15


# --- damage --------------------------------------------------------------------------------------


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "flipped with the old times": flip_keeping_times,
    "truncated": lambda path: os.truncate(path, 5000),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
}


@pytest.mark.parametrize("value", [LARGE, "text" * 5000, [LARGE]], ids=["npy", "text", "pickle"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_told_and_mended(local: Store, damage: str, value: Any) -> None:
    stored = local.put(value)
    local.get(stored)
    path = path_of(local, stored)
    time.sleep(0.02)
    forced(DAMAGE[damage], path)
    for reader in (local, reopened(local)):
        with pytest.raises(ValueDamaged) as caught:
            reader.get(stored)
        assert str(path) in str(caught.value)
        with pytest.raises(ValueDamaged):
            reader.check(stored)
    local.put(value)
    assert digest(local.get(stored)) == stored.digest


def test_a_value_that_is_gone_is_missing_and_can_be_stored_again(store: Store) -> None:
    stored = store.put(LARGE)
    elsewhere = reopened(store, "elsewhere")
    name = f"values/{stored.checksum[:2]}/{stored.checksum}.npy"
    store._backend.delete(name)
    assert not elsewhere.has(stored)
    with pytest.raises(ValueMissing) as caught:
        elsewhere.get(stored)
    assert stored.checksum in str(caught.value)
    elsewhere.put(LARGE)
    assert digest(reopened(store, "third").get(stored)) == stored.digest


def test_damage_in_a_remote_store_is_found_and_mended(remote: Store) -> None:
    stored = remote.put(LARGE)
    name = f"values/{stored.checksum[:2]}/{stored.checksum}.npy"
    data = remote._backend.read(name)
    assert data is not None
    remote._backend.replace(name, data[:-1] + b"!")
    elsewhere = reopened(remote, "elsewhere")
    with pytest.raises(ValueDamaged) as caught:
        elsewhere.get(stored)
    assert f"{remote.url}/{name}" in str(caught.value)
    with pytest.raises(ValueMissing):
        elsewhere.get(stored)
    elsewhere.put(LARGE)
    assert digest(elsewhere.get(stored)) == stored.digest
    assert digest(reopened(remote, "third").get(stored)) == stored.digest


def test_damaged_copies_of_a_remote_store_are_fetched_again(remote: Store) -> None:
    stored = remote.put(LARGE)
    elsewhere = reopened(remote, "elsewhere")
    elsewhere.get(stored)
    forced(flip, path_of(elsewhere, stored))
    assert digest(elsewhere.get(stored)) == stored.digest


def test_an_inline_value_is_checked_too(local: Store) -> None:
    stored = local.put(SMALL)
    with pytest.raises(ValueDamaged):
        local.get(stored._replace(inline=b"[]"))


def test_sound_bytes_that_do_not_load_here_count_as_damaged(local: Store) -> None:
    stored = local.put((1, 2))
    with pytest.raises(ValueDamaged, match="JSONDecodeError"):
        local.get(stored._replace(format="json"))
    with pytest.raises(ValueDamaged, match="no format 'other'"):
        local.get(stored._replace(format="other"))

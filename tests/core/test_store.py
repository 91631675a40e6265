from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import pytest

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.places import backends
from prefect_mlpipe.core.places.backends import LocalBackend
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.storing import records as records_module
from prefect_mlpipe.errors import StoreUnavailable
from tests.core.stores import (
    LARGE,
    a_record,
    creates_once,
    python,
    reopened,
)

# --- records -------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(store: Store) -> None:
    record = a_record(accuracy=0.5)
    assert store.records.write(record) == record
    assert reopened(store).records.read(record.key) == record
    assert store.records.read("00" * 32) is None


def test_the_first_record_of_a_key_stands(store: Store) -> None:
    first, second = a_record(number=1), a_record(number=2)
    store.records.write(first)
    assert reopened(store).records.write(second) == first
    assert store.records.read(first.key) == first


def test_a_record_is_replaced_on_purpose(store: Store) -> None:
    first, second = a_record(number=1), a_record(number=2)
    store.records.write(first)
    assert store.records.write(second, replace=True) == second
    assert store.records.read(first.key) == second


def test_many_records_are_read_together(store: Store) -> None:
    keys = [f"{number:064x}" for number in range(10)]
    for key in keys[:7]:
        store.records.write(a_record(key))
    assert sorted(store.records.read_many(keys)) == keys[:7]
    assert store.records.read_many([]) == {}


def test_many_records_of_a_remote_store_are_one_call(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{number:064x}" for number in range(10)]
    for key in keys:
        remote.records.write(a_record(key))
    files = fsspec.filesystem("memory")
    counting = Mock(wraps=files.cat)
    monkeypatch.setattr(files, "cat", counting)
    assert len(remote.records.read_many(keys)) == 10
    assert counting.call_count == 1


def record_path(store: Store, key: str) -> Path:
    return Path(store.url, "records", key[:2], key)


TEARS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: os.urandom(100),
    "one digit": lambda data: data.replace(b"12.5", b"13.5"),
    "no json": lambda data: data[:90] + b"x" + data[91:],
}


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_record_is_never_believed_and_is_written_anew(
    local: Store, tear: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = a_record()
    local.records.write(record)
    path = record_path(local, record.key)
    path.write_bytes(TEARS[tear](path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert local.records.read(record.key) is None
        assert local.records.read_many([record.key]) == {}
    assert record.key in caplog.text
    second = a_record(number=2)
    assert local.records.write(second) == second
    assert local.records.read(record.key) == second


def test_a_record_under_another_key_is_not_believed(local: Store) -> None:
    record = a_record()
    local.records.write(record)
    other = "ab" + "00" * 31
    os.link(record_path(local, record.key), record_path(local, other))
    assert local.records.read(other) is None


def test_a_record_that_is_just_being_written_is_waited_for(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = a_record()
    local.records.write(record)
    path = record_path(local, record.key)
    data = path.read_bytes()
    path.write_bytes(data[:10])
    monkeypatch.setattr(records_module.time, "sleep", lambda seconds: path.write_bytes(data))
    assert local.records.read(record.key) == record


def test_a_writer_whose_unfinished_record_was_replaced_adopts_the_other(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = a_record(number=1), a_record(number=2)
    local.put(1)
    original = backends._write_all

    def slow(handle: int, data: Any) -> None:
        monkeypatch.setattr(backends, "_write_all", original)
        reopened(local).records.write(second)
        original(handle, data)

    monkeypatch.setattr(backends, "_write_all", slow)
    assert local.records.write(first) == second
    assert local.records.read(first.key) == second


def test_records_can_be_read_with_any_json_reader(local: Store) -> None:
    record = a_record(accuracy=0.5)
    local.records.write(record)
    document = json.loads(record_path(local, record.key).read_text())
    assert document["content"]["metrics"] == {"accuracy": 0.5}


# --- code, latest manifests, runs ----------------------------------------------------------------


def test_code_is_kept_by_its_digest(store: Store) -> None:
    store.codes.write("c" * 64, {"helpers.clean": "1"})
    store.codes.write("c" * 64, {"helpers.clean": "1"})
    assert reopened(store).codes.read("c" * 64) == {"helpers.clean": "1"}
    assert store.codes.read("d" * 64) is None


def test_the_latest_manifest_of_a_function_is_the_last_written(store: Store) -> None:
    store.latest.write("pkg.mod.train.<locals>.f", {"a": 1})
    store.latest.write("pkg.mod.train.<locals>.f", {"a": 2})
    assert reopened(store).latest.read("pkg.mod.train.<locals>.f") == {"a": 2}
    assert store.latest.read("pkg.mod.other") is None


def test_runs_are_listed_newest_first(store: Store) -> None:
    for number, started in (("one", 100.0), ("three", 300.5), ("two", 200.0)):
        store.runs.write("digits", number, {"id": number}, started=started)
    again = reopened(store)
    assert again.runs.ids("digits") == ["three", "two", "one"]
    assert again.runs.read("digits", "two") == {"id": "two"}
    assert again.runs.last("digits") == {"id": "three"}


def test_a_run_that_is_written_again_is_replaced(store: Store) -> None:
    for _ in range(2):
        store.runs.write("digits", "one", {"state": "running"}, started=5.0)
    store.runs.write("digits", "one", {"state": "failed"})
    reopened(store).runs.write("digits", "one", {"state": "completed"})
    assert store.runs.ids("digits") == ["one"]
    assert store.runs.last("digits") == {"state": "completed"}


def test_runs_without_a_start_are_ordered_by_their_first_write(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        monkeypatch.setattr(records_module.time, "time", lambda now=number: 1000.0 + now)
        local.runs.write("digits", f"run{number}", {"number": number})
    assert local.runs.ids("digits") == ["run2", "run1", "run0"]


def test_there_may_be_no_runs(store: Store) -> None:
    assert store.runs.ids("digits") == []
    assert store.runs.last("digits") is None
    assert store.runs.read("digits", "one") is None


def test_the_last_run_is_found_without_listing(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        local.runs.write("digits", str(number), {"n": number}, started=float(number))
    again = reopened(local)
    monkeypatch.setattr(LocalBackend, "list", None)
    assert again.runs.last("digits") == {"n": 2}


def test_the_last_run_is_found_even_if_the_pointer_is_wrong(local: Store) -> None:
    local.runs.write("digits", "one", {"n": 1}, started=1.0)
    (Path(local.url) / "runs" / "digits" / "last").write_text("gone.json")
    assert local.runs.last("digits") == {"n": 1}


NAMES = ["digits", "a/b", "../../up", ".", "..", "", "ä ö", "a*b?[c]", "a%2Fb", "CON", "x" * 500]


def test_any_name_is_one_folder_of_its_own(local: Store) -> None:
    for number, name in enumerate(NAMES):
        local.runs.write(name, "one/../id", {"n": number}, started=1.0)
        local.latest.write(name, {"n": number})
    for number, name in enumerate(NAMES):
        assert local.runs.ids(name) == ["one/../id"]
        assert local.runs.read(name, "one/../id") == {"n": number}
        assert local.latest.read(name) == {"n": number}
    outside = {"cache", "store"}
    assert set(os.listdir(Path(local.url).parent)) <= outside


def test_a_damaged_document_is_not_used(local: Store, caplog: pytest.LogCaptureFixture) -> None:
    local.latest.write("f", {"a": 1})
    (Path(local.url) / "latest" / "f.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert local.latest.read("f") is None
    assert "damaged" in caplog.text


# --- the store itself ----------------------------------------------------------------------------


def test_making_and_reading_a_store_touches_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", cache_folder=str(tmp_path / "cache"))
    assert store.records.read("ab" * 32) is None
    assert store.runs.ids("digits") == []
    assert os.listdir(tmp_path) == []


def test_a_store_says_what_it_is(local: Store) -> None:
    local.put(1)
    assert (Path(local.url) / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172")
    assert (Path(local.url) / "format").read_text() == "prefect-mlpipe store 1\n"


@pytest.mark.parametrize(
    ("layout", "advice"),
    [("prefect-mlpipe store 2\n", "Upgrade"), ("something else", "another place")],
)
def test_a_layout_of_another_release_is_refused(store: Store, layout: str, advice: str) -> None:
    store._backend.replace("format", layout.encode())
    for action in (lambda: store.records.read("ab" * 32), lambda: store.put(1)):
        with pytest.raises(StoreUnavailable, match=advice) as caught:
            action()
        assert store.url in str(caught.value)


def test_a_store_below_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store", cache_folder=str(tmp_path / "cache"))
    actions: list[Callable[[], object]] = [
        lambda: store.put(1),
        lambda: store.records.write(a_record()),
        lambda: store.runs.write("p", "r", {}),
        lambda: store.records.read("ab" * 32),
    ]
    for action in actions:
        with pytest.raises(StoreUnavailable, match="NotADirectoryError") as caught:
            action()
        assert str(tmp_path / "file" / "store") in str(caught.value)


def test_a_full_disk_leaves_nothing_torn(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    local.put(1)
    original = os.write

    def full(handle: int, data: Any) -> int:
        original(handle, bytes(data)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for action in (lambda: local.put(LARGE), lambda: local.records.write(a_record())):
        with pytest.raises(StoreUnavailable, match="No space left") as caught:
            action()
        assert "Free some space" in caught.value.advice
    monkeypatch.undo()
    assert local.records.read("ab" * 32) is None
    assert list((Path(local.url) / "values").rglob("*.*")) == []


def test_a_store_travels_with_its_options_and_does_not_show_them(tmp_path: Path) -> None:
    store = Store("memory://x", cache_folder=str(tmp_path), secret="hunter2")
    again = pickle.loads(pickle.dumps(store))
    assert (again.url, again._options, again._cache_folder) == (
        "memory://x",
        {"secret": "hunter2"},
        str(tmp_path),
    )
    assert "hunter2" not in repr(store)


@pytest.mark.parametrize("protocol", ["file", "local"])
def test_a_file_url_is_a_local_store(tmp_path: Path, protocol: str) -> None:
    store = Store(f"{protocol}://{tmp_path}/store", cache_folder=str(tmp_path / "cache"))
    assert store.is_local
    store.put(LARGE)
    assert (tmp_path / "store" / "values").is_dir()


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/store", cache_folder=str(tmp_path / "cache")).put(1)
    assert (tmp_path / "store" / "format").exists()


# --- many at once --------------------------------------------------------------------------------


def test_threads_share_a_store(store: Store) -> None:
    def work(number: int) -> tuple[str, str, str]:
        value = LARGE + number % 4
        stored = store.put(value)
        record = store.records.write(a_record(f"{number % 4:064x}", number))
        standing = store.records.read(record.key)
        assert standing is not None
        return stored.digest, digest(store.get(stored)), str(standing.provenance["run"])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(32)))
    assert all(written == read for written, read, _ in results)
    if creates_once(store):  # else the last one stands, which is as right
        assert len({run for _, _, run in results}) == 4


RACE = """
import os, sys
import numpy as np
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.store import Store

def work(number):
    store = Store(sys.argv[1], cache_folder=sys.argv[1] + "-cache")
    for key in range(20):
        stored = store.put(np.full(10 ** (3 + key % 4), key * 1.0))
        fields = {"": stored}
        record = Record(f"{key:064x}", {}, stored.digest, fields, 0, 0, {}, {"by": number})
        standing = store.records.write(record)
        assert store.get(standing.fields[""])[0] == key
        os.write(1, f"{key} {standing.provenance['by']}\\n".encode())

children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        try:
            work(number)
            os._exit(0)
        finally:
            os._exit(1)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


def test_of_several_processes_that_write_one_key_all_adopt_one_record(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    adopted: dict[int, set[int]] = {}
    for line in python(RACE, url).splitlines():
        key, by = map(int, line.split())
        adopted.setdefault(key, set()).add(by)
    assert sorted(adopted) == list(range(20))
    assert all(len(writers) == 1 for writers in adopted.values())
    store = Store(url, cache_folder=url + "-cache")
    for key, writers in adopted.items():
        record = store.records.read(f"{key:064x}")
        assert record is not None
        assert {record.provenance["by"]} == writers
        store.check(record.fields[""])
    assert not list(Path(url).rglob(".tmp-*"))

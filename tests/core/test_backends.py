from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from prefect_mlpipe.core.places.backends import Backend, LocalBackend, unavailable
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.errors import StoreUnavailable
from tests.s3 import S3


@pytest.fixture(params=["local", "memory", "file", "rclone", "moto"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "local":
        yield LocalBackend(str(tmp_path / "store"))
    elif request.param == "file":
        yield RemoteBackend(f"file://{tmp_path}/store")
    elif request.param in ("rclone", "moto"):
        server = request.getfixturevalue(request.param)
        assert isinstance(server, S3)
        yield RemoteBackend(f"{server.make_bucket()}/a store", **server.options)
    else:
        yield RemoteBackend(f"memory://{tmp_path.name}")
        fsspec.filesystem("memory").store.clear()


def test_what_is_written_is_read(backend: Backend) -> None:
    backend.replace("records/ab/abc", b"one")
    assert backend.read("records/ab/abc") == b"one"
    assert backend.exists("records/ab/abc")


def test_the_last_replacement_stands(backend: Backend) -> None:
    backend.replace("a/b", b"one")
    backend.replace("a/b", b"two")
    assert backend.read("a/b") == b"two"


def test_what_is_not_there_reads_as_none(backend: Backend) -> None:
    assert backend.read("a/b") is None
    assert not backend.exists("a/b")
    assert backend.read_many(["a/b", "c"]) == {}


def test_only_the_first_creation_of_a_name_stands(backend: Backend) -> None:
    assert backend.create("a/b", b"one")
    assert not backend.create("a/b", b"two")
    assert backend.read("a/b") == b"one"


def test_many_names_are_read_in_one_call(backend: Backend) -> None:
    for number in range(5):
        backend.replace(f"a/{number}", str(number).encode())
    names = [f"a/{number}" for number in range(7)]
    assert backend.read_many(names) == {f"a/{n}": str(n).encode() for n in range(5)}


def test_a_single_name_can_be_read_as_many(backend: Backend) -> None:
    backend.replace("a/b", b"one")
    assert backend.read_many(["a/b"]) == {"a/b": b"one"}
    assert backend.read_many([]) == {}


def test_deleting_twice_is_no_error(backend: Backend) -> None:
    backend.replace("a/b", b"one")
    backend.delete("a/b")
    backend.delete("a/b")
    assert backend.read("a/b") is None


def test_a_listing_names_everything_below_a_folder_and_nothing_beside_it(
    backend: Backend,
) -> None:
    for name in ("runs/p/1", "runs/p/q/2", "runs/pp/3", "other"):
        backend.replace(name, b"123")
    entries = sorted(backend.list("runs/p"))
    assert [(entry.name, entry.size) for entry in entries] == [("runs/p/1", 3), ("runs/p/q/2", 3)]
    assert all(entry.modified > 0 for entry in entries)


def test_a_folder_that_is_not_there_lists_as_empty(backend: Backend) -> None:
    assert list(backend.list("runs/p")) == []


def test_names_with_wildcards_are_names(backend: Backend) -> None:
    backend.replace("a/x[1]*?.csv", b"one")
    backend.replace("a/x1.csv", b"two")
    assert backend.read("a/x[1]*?.csv") == b"one"


def test_syncing_is_always_allowed(backend: Backend) -> None:
    backend.sync()
    backend.replace("a/b", b"one")
    backend.sync()
    backend.sync()


def test_many_new_files_are_flushed_at_once(tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path))
    for number in range(100):
        backend.replace(f"a/{number}", b"1")
    backend.sync()


def test_files_that_are_gone_do_not_disturb_a_sync(tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path))
    backend.replace("a/b", b"1")
    backend.delete("a/b")
    backend.sync()


def test_large_and_small_parts_come_in_order(tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path))
    parts = [b"a", b"b" * 70_000, memoryview(b"c"), b"", b"d" * 65_535, b"e" * 65_536, b"f"]
    facts = backend.write("x/y", lambda: parts)
    assert backend.read("x/y") == b"".join(parts)
    assert stat.S_IMODE(facts.st_mode) == 0o444


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path))
    backend.replace("a/b", b"one")

    def fail() -> None:
        with backend.writing("a/b") as (handle, _):
            os.write(handle, b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert backend.read("a/b") == b"one"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path))

    def fail() -> None:
        with backend.writing_folder("a/b") as folder:
            Path(folder, "x").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path / "a") == []


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path))
    for text in ("one", "two"):
        with backend.writing_folder("a/b") as folder:
            Path(folder, text).write_text(text)
    assert os.listdir(tmp_path / "a/b") == ["two"]
    assert os.listdir(tmp_path / "a") == ["b"]


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path))
    with backend.writing("a/b"), backend.writing_folder("a/c") as folder:
        Path(folder, "x").write_text("half")
        assert list(backend.list("a")) == []


@pytest.mark.parametrize(
    "operation",
    [
        lambda backend: backend.create("a/b", b""),
        lambda backend: backend.replace("a/b", b""),
        lambda backend: backend.read("a/b"),
        lambda backend: list(backend.list("a")),
    ],
)
def test_a_store_below_a_file_is_refused_with_the_system_s_words(
    tmp_path: Path, operation: Callable[[Backend], object]
) -> None:
    (tmp_path / "file").write_text("")
    backend = LocalBackend(str(tmp_path / "file" / "store"))
    with pytest.raises(StoreUnavailable) as caught:
        operation(backend)
    assert str(tmp_path / "file" / "store") in str(caught.value)
    assert "Not a directory" in str(caught.value)
    assert "is a file" in caught.value.advice
    assert isinstance(caught.value.__cause__, OSError)


def test_each_common_failure_has_its_own_advice() -> None:
    said = {
        unavailable("s", "writing", OSError(code, os.strerror(code))).advice
        for code in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EIO)
    }
    assert len(said) == 5


def test_an_unknown_protocol_is_said_plainly() -> None:
    with pytest.raises(StoreUnavailable, match="nosuch"):
        RemoteBackend("nosuch://bucket").read("a")


def test_options_of_a_remote_store_are_not_printed() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        RemoteBackend("nosuch://bucket", secret="hunter2").read("a")
    assert "hunter2" not in str(caught.value)

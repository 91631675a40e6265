from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prefect_mlpipe.core.places.stat_index import StatIndex
from prefect_mlpipe.deploy.changes import Seen, change, suspects
from prefect_mlpipe.deploy.places import Place, place_of
from prefect_mlpipe.deploy.watches import Watch
from prefect_mlpipe.errors import InputChanged, MissingFile
from tests.s3 import S3, counted_requests

HOUR_NS = 3600 * 10**9


def place(uri: str | Path, *, ahead_ns: int = HOUR_NS, **options: object) -> Place:
    """A place whose index, by its clock, finds every file settled."""
    index = StatIndex(clock_ns=lambda: time.time_ns() + ahead_ns)
    return place_of(Watch(name="test", uri=str(uri), **options), index)  # type: ignore[arg-type]


def names(place: Place) -> set[str]:
    look = place.look()
    assert look is not None
    return set(look)


def seen(place: Place) -> dict[str, Seen]:
    return {name: place.read(name, state) for name, state in (place.look() or {}).items()}


def changed(place: Place, known: dict[str, Seen]) -> dict[str, str]:
    """What a watcher would tell: name → kind."""
    found = {
        name: change(known, name, None if state is None else place.read(name, state))
        for name, state in suspects(known, place.look() or {}).items()
    }
    return {name: one.kind for name, one in found.items() if one is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    for name in ("a.csv", "deep/b.csv", "deep/er/c.txt", "2026/d.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def bucket() -> str:
    files = fsspec.filesystem("memory")
    files.store.clear()
    for name in ("a.csv", "deep/b.csv", "deep/er/c.txt", "2026/d.csv"):
        files.pipe_file(f"/raw/{name}", name.encode())
    files.pipe_file("/rawer/x.csv", b"not of this folder")
    return "memory://raw/"


@pytest.fixture
def on_rclone(rclone: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    return filled(rclone, monkeypatch)


@pytest.fixture
def on_moto(moto: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    return filled(moto, monkeypatch)


def filled(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    s3.use(monkeypatch)
    root = s3.make_bucket()
    for name in ("raw/a.csv", "raw/deep/b.csv", "raw/deep/er/c.txt", "raw/2026/d.csv"):
        s3.files.pipe_file(f"{root}/{name}", name.removeprefix("raw/").encode())
    s3.files.pipe_file(f"{root}/rawer/x.csv", b"not of this folder")
    return f"{root}/raw/"


@pytest.fixture(params=["folder", "bucket", "on_rclone", "on_moto"])
def uri(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_files_in_sub_folders_count(uri: str) -> None:
    assert names(place(uri)) == {"a.csv", "deep/b.csv", "deep/er/c.txt", "2026/d.csv"}


def test_files_in_sub_folders_do_not_count_if_so_asked(uri: str) -> None:
    assert names(place(uri, recursive=False)) == {"a.csv"}


def test_a_pattern_says_how_names_end(uri: str) -> None:
    assert names(place(uri, pattern="*.csv")) == {"a.csv", "deep/b.csv", "2026/d.csv"}
    assert names(place(uri, pattern="20*/*.csv")) == {"2026/d.csv"}


def test_one_file_can_be_watched(uri: str) -> None:
    one = place(f"{uri.rstrip('/')}/deep/b.csv")
    assert names(one) == {""}
    assert one.path("") == f"{uri.rstrip('/')}/deep/b.csv"
    assert one.read("", (one.look() or {})[""]).content


def test_paths_are_whole(uri: str) -> None:
    assert place(uri).path("deep/b.csv") == f"{uri.rstrip('/')}/deep/b.csv"


def test_the_same_bytes_written_again_are_no_change_and_others_are(uri: str) -> None:
    watched = place(uri)
    known = seen(watched)
    assert changed(watched, known) == {}
    with fsspec.open(f"{uri.rstrip('/')}/a.csv", "wb") as file:
        file.write(b"a.csv")
    assert changed(watched, known) == {}
    with fsspec.open(f"{uri.rstrip('/')}/a.csv", "wb") as file:
        file.write(b"b.csv")
    assert changed(watched, known) == {"a.csv": "modified"}


def test_a_touched_file_is_no_change(folder: Path) -> None:
    watched = place(folder)
    known = seen(watched)
    os.utime(folder / "a.csv")
    assert changed(watched, known) == {}


def test_one_byte_changed_with_size_and_time_kept_is_a_change(folder: Path) -> None:
    watched = place(folder)
    known = seen(watched)
    facts = (folder / "a.csv").stat()
    (folder / "a.csv").write_text("A.csv")
    os.utime(folder / "a.csv", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert changed(watched, known) == {"a.csv": "modified"}


def test_a_state_that_a_later_write_may_leave_as_it_is_is_not_trusted(folder: Path) -> None:
    watched = place(folder, ahead_ns=0)
    (folder / "a.csv").write_text("new")
    assert watched.read("a.csv", (watched.look() or {})["a.csv"]).state == ""


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    assert place(tmp_path / "later").look() is None
    assert place(tmp_path).look() == {}


@pytest.mark.parametrize("uri", ["folder", "bucket"], indirect=True)  # S3 is not read
def test_a_file_that_is_gone_when_it_is_read_is_missing(uri: str) -> None:
    watched = place(uri)
    state = (watched.look() or {})["a.csv"]
    files, path = fsspec.url_to_fs(f"{uri.rstrip('/')}/a.csv")
    files.rm(path)
    with pytest.raises(MissingFile):
        watched.read("a.csv", state)


def test_a_remote_file_that_is_written_while_it_is_read_is_left_for_later(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = place(bucket)
    state = (watched.look() or {})["a.csv"]
    files = fsspec.filesystem("memory")
    opened = files.open

    def open_and_write(*args: Any, **options: Any) -> Any:
        file = opened(*args, **options)
        monkeypatch.undo()
        files.pipe_file("/raw/a.csv", b"longer than before")
        return file

    monkeypatch.setattr(type(files), "open", lambda _, *args, **options: open_and_write(*args))
    with pytest.raises(InputChanged):
        watched.read("a.csv", state)


def test_links_to_nothing_pipes_and_empty_folders_are_passed_over(folder: Path) -> None:
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    assert names(place(folder)) == {"a.csv", "deep/b.csv", "deep/er/c.txt", "2026/d.csv"}


def test_a_checksum_in_the_listing_spares_the_reading(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    found = {"/raw/a.csv": {"name": "/raw/a.csv", "type": "file", "size": 5, "ETag": '"abc"'}}
    monkeypatch.setattr(type(files), "find", lambda *_, **__: found)
    monkeypatch.setattr(type(files), "open", lambda *_, **__: pytest.fail("read"))
    assert {one.content for one in seen(place(bucket)).values()} == {'sum ETag="abc" size=5'}


def test_a_look_at_s3_is_one_request_and_reading_none(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = place(filled(s3, monkeypatch))
    watched.look()
    with counted_requests() as requests:
        assert len(seen(watched)) == 4
    assert len(requests) == 1


def test_a_bucket_that_is_not_there_yet_is_not_an_empty_one(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.use(monkeypatch)
    assert place("s3://no-such-bucket/raw").look() is None

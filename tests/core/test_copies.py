from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.files import File
from prefect_mlpipe.core.places import copies
from prefect_mlpipe.core.places.copies import GRACE_S, Room
from prefect_mlpipe.core.store import Store
from tests.core.stores import LARGE, reopened
from tests.s3 import counted_requests

NOW = 1_000_000_000.0


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """What a test sets is forgotten."""
    before = copies._limit_bytes
    yield
    copies.use_limit(before)
    copies._rooms.clear()


def value(folder: Path, name: str, size: int, used: float) -> Path:
    path = folder / "values" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (used, used))
    return path


def given(folder: Path, name: str, size: int, used: float) -> Path:
    path = folder / "urls" / name[:2] / name / "data.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * size)
    os.utime(path.parent, (used, used))
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix)


def room(folder: Path, limit: int) -> Room:
    return Room(str(folder), limit, clock=lambda: NOW)


def test_values_that_were_not_used_for_longest_go_until_the_new_one_fits(tmp_path: Path) -> None:
    for number in range(6):
        value(tmp_path, f"{number}.npy", 100, NOW + number)
    room(tmp_path, 650).make(100)
    assert left(tmp_path) == [f"{number}.npy" for number in (1, 2, 3, 4, 5)]


def test_what_fits_makes_nothing_go(tmp_path: Path) -> None:
    value(tmp_path, "1.npy", 100, NOW)
    room(tmp_path, 300).make(200)
    assert left(tmp_path) == ["1.npy"]


def test_values_are_kept_to_the_limit_however_lately_they_were_used(tmp_path: Path) -> None:
    here = room(tmp_path, 1000)
    for number in range(50):
        here.make(90)
        value(tmp_path, f"{number}.npy", 90, NOW)
        assert len(left(tmp_path)) * 90 <= 1000
    assert len(left(tmp_path)) > 5


def test_what_a_step_was_given_stays_for_a_day_and_this_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given(tmp_path, "old", 100, NOW - GRACE_S - 1)
    given(tmp_path, "new", 100, NOW - GRACE_S + 1)
    value(tmp_path, "1.npy", 100, NOW)
    with caplog.at_level(logging.WARNING):
        room(tmp_path, 50).make(10)
    assert left(tmp_path) == ["data.csv"]
    assert (tmp_path / "urls" / "ne" / "new" / "data.csv").exists()
    assert "the limit is 50" in caplog.text
    assert "PREFECT_MLPIPE_CACHE_SIZE" in caplog.text


def test_giving_a_path_again_lets_it_stay(tmp_path: Path) -> None:
    path = given(tmp_path, "old", 100, NOW - 10 * GRACE_S)
    here = room(tmp_path, 50)
    assert here.give(str(path))
    here.make(10)
    assert path.exists()
    assert not here.give(str(path.parent.parent / "other" / "data.csv"))


def test_a_folder_goes_as_a_whole(tmp_path: Path) -> None:
    path = given(tmp_path, "old", 100, NOW - 10 * GRACE_S)
    (path.parent / "more.csv").write_bytes(b"x" * 100)
    os.utime(path.parent, (1, 1))
    room(tmp_path, 250).make(100)
    assert left(tmp_path) == []
    assert list((tmp_path / "urls" / "ol").iterdir()) == []


def test_a_ledger_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    for number in range(6):
        value(tmp_path, f"{number}.npy", 100, NOW + number)
    (tmp_path / ".room").write_text("nonsense")
    room(tmp_path, 650).make(100)
    assert len(left(tmp_path)) == 5


MAKES = """
import os, sys
from prefect_mlpipe.core.places.copies import Room
folder, name = sys.argv[1:]
for number in range(40):
    Room(folder, 5_000).make(100)
    os.makedirs(f"{folder}/values/{name}", exist_ok=True)
    with open(f"{folder}/values/{name}/{number}.npy", "wb") as file:
        file.write(bytes(100))
"""


def test_processes_share_one_limit(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKES, str(tmp_path), name], env=environment)
        for name in ("aa", "bb")
    ]
    assert [maker.wait() for maker in makers] == [0, 0]
    assert 40 <= len(left(tmp_path)) <= 50


def test_a_second_read_costs_no_request(on_rclone: Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    stored = [on_rclone.put(LARGE), on_rclone.put(File(tmp_path / "a.csv"))]
    elsewhere = reopened(on_rclone, "elsewhere")
    for one in stored:
        elsewhere.get(one)
    with counted_requests() as requests:
        again = [digest(reopened(on_rclone, "elsewhere").get(one)) for one in stored]
    assert again == [one.digest for one in stored]
    assert requests == []


def test_values_larger_than_the_cache_are_stored_and_read(store: Store) -> None:
    copies.use_limit(1000)
    stored = store.put(LARGE)
    for reader in (store, reopened(store, "elsewhere")):
        for _ in range(2):
            assert (np.asarray(reader.get(stored)) == LARGE).all()
        if not store.is_local:
            assert not list(Path(reader._cache_folder).rglob("*.npy"))


def test_a_value_that_goes_while_it_is_used_is_whole(remote: Store) -> None:
    copies.use_limit(LARGE.nbytes * 2)
    stored = [remote.put(LARGE + number) for number in range(4)]
    read = [remote.get(one) for one in stored]
    assert len(list(Path(remote._cache_folder).rglob("*.npy"))) == 1
    for number, array in enumerate(read):
        assert (np.asarray(array) == LARGE + number).all()


def test_files_that_were_given_stay_beside_values_that_go(remote: Store, tmp_path: Path) -> None:
    copies.use_limit(LARGE.nbytes)
    (tmp_path / "a.csv").write_text("1,2")
    file = remote.get(remote.put(File(tmp_path / "a.csv")))
    for number in range(4):
        remote.get(remote.put(LARGE[:-200] + number))
    assert Path(os.fspath(file)).read_text() == "1,2"  # type: ignore[call-overload]

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefect_mlpipe.core.places.stat_index import StatIndex


class Facts:
    def __init__(self, mtime_ns: int, ctime_ns: int) -> None:
        self.st_mtime_ns, self.st_ctime_ns = mtime_ns, ctime_ns


@pytest.mark.parametrize(
    ("facts", "hashed", "settled"),
    [
        (Facts(10, 10), 100_000_009, False),
        (Facts(10, 10), 100_000_011, True),
        (Facts(0, 2_000_000_000), 4_000_000_000, False),
        (Facts(0, 2_000_000_000), 4_500_000_001, True),
        (Facts(9_000_000_000, 10), 1_000_000_000, False),
    ],
)
def test_times_settle_by_the_resolution_of_the_file_system(
    facts: Facts, hashed: int, settled: bool
) -> None:
    assert StatIndex().settled(facts, hashed) is settled  # type: ignore[arg-type]


def test_an_index_that_is_no_database_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "stat-index.sqlite").write_bytes(b"garbage" * 1000)
    first = StatIndex(str(tmp_path / "i"))
    first.put("state", "hash")
    first.close()
    second = StatIndex(str(tmp_path / "i"))
    assert second.get("state") == "hash"
    second.close()


def test_an_index_that_cannot_be_kept_still_works_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    index = StatIndex(str(tmp_path / "file" / "index"))
    with caplog.at_level(logging.WARNING):
        index.put("state", "hash")
        index.put("other", "hash")
    assert index.get("state") == "hash"
    assert len(caplog.records) == 1
    assert str(tmp_path / "file") in caplog.text


def test_an_index_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    index = StatIndex(str(tmp_path / "i"))
    index.put("one", "1")
    other = sqlite3.connect(tmp_path / "i" / "stat-index.sqlite")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO content VALUES ('two', '2')")
    other.commit()
    other.close()
    assert index.get("two") == "2"
    index.close()


def test_several_connections_write_one_index(tmp_path: Path) -> None:
    indexes = [StatIndex(str(tmp_path)) for _ in range(4)]

    def fill(number: int) -> None:
        for item in range(50):
            indexes[number].put(f"{number}-{item}", str(item))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(4)))
    reader = StatIndex(str(tmp_path))
    assert all(reader.get(f"{n}-{i}") == str(i) for n in range(4) for i in range(50))
    for index in (*indexes, reader):
        index.close()

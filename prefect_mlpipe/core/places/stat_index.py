"""What is known of a file's content without reading it again.

Knows nothing of `File`, digests or stores: it maps a state of a file to the hash of its content.

Size and modification time are not enough, since both can be kept while the content changes; the
change time cannot. An entry is trusted only if, when the hashing began, the file's times were older
than the file system's clock can resolve (git calls the others racily clean): a later write within
the same tick would leave the same times.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

MAX_ENTRIES = 500_000
MAX_IN_MEMORY = 100_000
SECOND_NS = 1_000_000_000
COARSE_WINDOW_NS = 2_500_000_000  # file systems that keep whole (FAT: even) seconds
FINE_WINDOW_NS = 100_000_000  # kernels stamp with the timer's tick: 10 ms at most
BUSY_TIMEOUT_S = 5.0
OPEN_AGAIN_S = 0.02

_SCHEMA = """
CREATE TABLE IF NOT EXISTS content (state TEXT PRIMARY KEY, hash TEXT NOT NULL) WITHOUT ROWID
"""


class StatIndex:
    """Remember the hash of a file's content by the file's state.

    Without a folder it lasts as long as the process. A database that cannot be used is said once in
    the log and then left alone: an index only saves time.
    """

    def __init__(
        self, folder: str | None = None, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.folder = folder
        self._clock_ns = clock_ns
        self._memory: dict[str, str] = {}
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._owner = 0
        self._broken = folder is None

    def get(self, state: str) -> str | None:
        """Give the hash that was remembered for a state."""
        found = self._memory.get(state)
        if found is None and not self._broken:
            row = self._run("SELECT hash FROM content WHERE state = ?", state)
            if row:
                found = self._memory[state] = str(row[0])
        return found

    def put(self, state: str, content: str) -> None:
        """Remember a hash for a state. The caller has made sure that the state is settled."""
        if self._memory.get(state) == content:
            return
        if len(self._memory) >= MAX_IN_MEMORY:
            self._memory.clear()
        self._memory[state] = content
        if not self._broken:
            self._run("INSERT OR REPLACE INTO content VALUES (?, ?)", state, content)

    def settled(self, facts: os.stat_result, hashed_ns: int) -> bool:
        """Tell whether a write after the hashing began must have changed the file's times."""
        fine = facts.st_ctime_ns % SECOND_NS != 0
        window = FINE_WINDOW_NS if fine else COARSE_WINDOW_NS
        return max(facts.st_mtime_ns, facts.st_ctime_ns) + window < hashed_ns

    def now_ns(self) -> int:
        """The time by this index's clock."""
        return self._clock_ns()

    def __reduce__(self) -> tuple[type[StatIndex], tuple[str | None]]:
        return StatIndex, (self.folder,)

    def close(self) -> None:
        """Let go of the database; the next use opens it again."""
        with self._lock:
            database, self._database = self._database, None
            if database is not None and self._owner == os.getpid():
                database.close()

    def __del__(self) -> None:
        if self._database is not None and self._owner == os.getpid():
            self._database.close()

    def _run(self, statement: str, *values: str) -> tuple[object, ...] | None:
        with self._lock:
            try:
                found = self._connection().execute(statement, values).fetchone()
            except (sqlite3.Error, OSError) as error:
                self._broken = True
                logger.warning("the stat index in %s is not used: %s", self.folder, error)
                return None
        return found if found is None else tuple(found)

    def _connection(self) -> sqlite3.Connection:
        # A connection must not cross a fork; the child leaves the parent's alone.
        if self._database is None or self._owner != os.getpid():
            self._database, self._owner = self._connect(), os.getpid()
        return self._database

    def _connect(self) -> sqlite3.Connection:
        assert self.folder is not None
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, "stat-index.sqlite")
        try:
            return _opened_in_turn(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            os.unlink(path)  # not a database: an index can be made again
            return _opened(path)


def _opened_in_turn(path: str) -> sqlite3.Connection:
    """Open the database. Several that make it at once collide, whatever the timeout: the change to
    the journal that they share does not wait for a lock."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return _opened(path)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(OPEN_AGAIN_S)


def _opened(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_SCHEMA)
        count = connection.execute("SELECT count(*) FROM content").fetchone()[0]
        if count > MAX_ENTRIES:
            connection.execute("DELETE FROM content")
    except BaseException:
        connection.close()
        raise
    return connection


def state_of(facts: os.stat_result) -> str:
    """What identifies one version of a file on this machine."""
    return f"{facts.st_dev}:{facts.st_ino}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ctime_ns}"

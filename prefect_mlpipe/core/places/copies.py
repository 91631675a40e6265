"""Copies on this machine of what lies elsewhere: where they are kept, how they come, how they go.

Knows nothing of URLs, values or formats. A copy stands under a name that says its content or its
version, so it is never changed, only removed.

    values/3f/3f9c….npy            a value: we map it, and whoever has mapped it keeps it
    values/3f/3f9c…/digits.csv     a stored file or folder, whose path was given to a step
    urls/…, files/…                likewise: remote inputs, files inside values
    .room                          how much all of them take

Worth arguing: what a step was given stays for a day whatever the limit, since the step opens it
when it likes; values are kept to the limit strictly. What was not used for longest goes first.
When a value was last used the file system says, once a day only with `relatime`; when a path was
given away we note ourselves, as the time of its folder.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

logger = logging.getLogger(__name__)

LIMIT_BYTES = 50 << 30
GRACE_S = 24 * 3600.0
SPARE = 16  # share of the limit that is freed beyond what is needed

_folder = os.path.join(os.path.expanduser("~"), ".cache", "prefect-mlpipe")
_limit_bytes = LIMIT_BYTES


def use_folder(folder: str) -> None:
    """Make this process keep copies under `folder` unless it is told otherwise."""
    global _folder
    _folder = folder


def use_limit(limit_bytes: int) -> None:
    """Make this process keep each folder of copies within a size."""
    global _limit_bytes
    _limit_bytes = limit_bytes


def folder() -> str:
    """Where this process keeps copies, and what it remembers of files."""
    return _folder


def path(*names: str) -> str:
    """Where a copy stands."""
    return os.path.join(_folder, "copies", *names)


def install(target: str, fill: Callable[[str], object], *, replace: bool = False) -> None:
    """Make a file or folder beside the target and rename it; another process may be first.

    Args:
        target: as `path` gives it.
        fill: makes the file or folder at the path that it is given.
        replace: put a new folder in the place of one that stands there.
    """
    temporary = f"{os.path.dirname(target)}/.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        fill(temporary)
        room_in(path()).make(_size(temporary))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(temporary):
            if replace or not os.path.isdir(target):
                swap_folder(temporary, target)
        else:
            os.replace(temporary, target)
    finally:
        if os.path.isdir(temporary):
            shutil.rmtree(temporary)
        elif os.path.exists(temporary):
            os.unlink(temporary)


def give(target: str) -> bool:
    """Note that a step is given a path now; `False` if there is none."""
    return room_in(path()).give(target)


def swap_folder(new: str, path: str) -> None:
    """Put a folder in the place of another one, which is gone afterwards."""
    try:
        os.rename(new, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        with suppress(FileNotFoundError):  # another writer may have moved it away first
            os.rename(path, f"{new}.old")
        try:
            os.rename(new, path)
        finally:
            shutil.rmtree(f"{new}.old", ignore_errors=True)


class Room:
    """What a folder of copies may take. Cross-thread and cross-process safe.

    Args:
        folder: holds nothing but copies.
        limit_bytes: what all of them may take together; default: what this process was told.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        folder: str,
        limit_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._own_limit, self._clock = folder, limit_bytes, clock
        self._warned = False

    @property
    def limit(self) -> int:
        """In bytes."""
        return _limit_bytes if self._own_limit is None else self._own_limit

    def make(self, size: int) -> None:
        """Take some bytes for a copy that is about to come; others go until it fits.

        One that then does not come counts until the room is looked at again.
        """
        with self._ledger() as ledger:
            taken = _read_number(ledger)
            if taken is None or taken + size > self.limit:
                taken = self._trim(self.limit - size)
            os.pwrite(ledger, b"%-20d" % (taken + size), 0)

    def give(self, path: str) -> bool:
        """Note that a step is given a path now; `False` if there is none."""
        entry = os.path.join(self._folder, *os.path.relpath(path, self._folder).split("/")[:3])
        now = self._clock()
        try:
            os.utime(entry, (now, now))
        except FileNotFoundError:
            return False
        return os.path.exists(path)

    def _trim(self, within: int) -> int:
        """Remove what was not used for longest until the rest is within a size; gives that."""
        found = sorted(_entries(self._folder))
        taken = sum(entry.size for entry in found)
        goal = max(0, within - self.limit // SPARE) if taken > within else taken
        for entry in found:
            if taken <= goal:
                break
            if entry.given and entry.used > self._clock() - GRACE_S:
                continue
            _remove(entry)
            taken -= entry.size
        if taken > max(0, within) and any(entry.given for entry in found):
            self._warn(taken)
        return taken

    def _warn(self, taken: int) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "copies in %s take %d bytes and more are coming, the limit is %d: files that steps "
                "were given stay for a day (PREFECT_MLPIPE_CACHE_SIZE sets the limit)",
                self._folder,
                taken,
                self.limit,
            )

    @contextmanager
    def _ledger(self) -> Iterator[int]:
        """The file that says what is taken, for one at a time."""
        os.makedirs(self._folder, exist_ok=True)
        handle = os.open(f"{self._folder}/.room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)


_rooms: dict[str, Room] = {}


def room_in(folder: str) -> Room:
    """The room of a folder of copies."""
    return _rooms.setdefault(folder, Room(folder))


class _Entry(NamedTuple):
    """What is removed as one: a value's file, or a folder that was given away."""

    used: float
    size: int
    path: str
    given: bool


def _entries(folder: str) -> Iterator[_Entry]:
    for kind in _subfolders(folder):
        for group in _subfolders(kind.path):
            try:
                found = list(os.scandir(group.path))
            except FileNotFoundError:
                continue
            for one in found:
                with suppress(FileNotFoundError):  # another process removes it
                    yield _entry(one)


def _subfolders(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


def _entry(one: os.DirEntry[str]) -> _Entry:
    facts = one.stat(follow_symlinks=False)
    if one.is_dir(follow_symlinks=False):
        return _Entry(facts.st_mtime, _size(one.path), one.path, True)
    used = max(facts.st_atime, facts.st_mtime)
    # What is half written may be just coming, and what a killed process left is never used again.
    return _Entry(used, facts.st_size, one.path, one.name.startswith(".tmp-"))


def _remove(entry: _Entry) -> None:
    """Remove a file, or a folder at once: never is there half of one."""
    if not entry.given or not os.path.isdir(entry.path):
        with suppress(FileNotFoundError):
            os.unlink(entry.path)
        return
    leaving = f"{os.path.dirname(entry.path)}/.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    with suppress(OSError):  # it went already, or came anew
        os.rename(entry.path, leaving)
        if os.stat(leaving).st_mtime > entry.used:  # it was given away just now
            os.rename(leaving, entry.path)
    shutil.rmtree(leaving, ignore_errors=True)


def _size(path: str) -> int:
    """Of a file, or of all in a folder."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    total = 0
    for here, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(here, name), follow_symlinks=False).st_size
    return total


def _read_number(ledger: int) -> int | None:
    text = os.pread(ledger, 20, 0).strip()
    return int(text) if text.isdigit() else None

"""Copies on this machine of what lies elsewhere: where they are kept, how they come, how they go.

Knows nothing of URLs, values or formats. A copy stands under a name that says its content or its
version, so it is never changed, only removed.

What was used in the last days is not removed even if the limit is passed: a step may be about to
open it. Days, because most systems note the time of a read once a day only.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

logger = logging.getLogger(__name__)

LIMIT_BYTES = 50 << 30
KEEP_S = 48 * 3600.0
LOOK_EVERY = 16  # shares of the limit

_folder = os.path.join(os.path.expanduser("~"), ".cache", "prefect-mlpipe")


def use_folder(folder: str) -> None:
    """Make this process keep copies under `folder` unless it is told otherwise."""
    global _folder
    _folder = folder


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
    limit_of(path()).added(sum(size for _, size, _ in _copies(target)))


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


class Limit:
    """Keeps a folder of copies below a size. Cross-thread and cross-process safe.

    Args:
        folder: holds nothing but copies.
        limit_bytes: what all of them may take together.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        folder: str,
        limit_bytes: int = LIMIT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._limit, self._clock = folder, limit_bytes, clock
        self._added = 0

    def added(self, size: int) -> None:
        """Say that a copy came in; now and then this removes old ones."""
        self._added += size
        if self._added * LOOK_EVERY >= self._limit:
            self._added = 0
            self.trim()

    def trim(self) -> None:
        """Remove the copies that were not used for longest, until the rest is within the limit."""
        found = sorted(_copies(self._folder))
        total = sum(size for _, size, _ in found)
        for used, size, path in found:
            if total <= self._limit or used > self._clock() - KEEP_S:
                break
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue  # another process trims too
            total -= size
        if total > self._limit:
            logger.warning(
                "copies in %s take %d bytes, the limit is %d; all were used in the last days",
                self._folder,
                total,
                self._limit,
            )


_limits: dict[str, Limit] = {}


def limit_of(folder: str) -> Limit:
    """The limit that this process keeps to for a folder of copies."""
    return _limits.setdefault(folder, Limit(folder))


def _copies(folder: str) -> Iterator[tuple[float, int, str]]:
    """When each file was last used, its size and its path; a file stands for itself."""
    if os.path.isfile(folder):
        yield 0.0, os.path.getsize(folder), folder
    for here, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(here, name)
            try:
                facts = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield max(facts.st_atime, facts.st_ctime), facts.st_size, path

"""Bytes under names, and a folder of this machine as the place where they lie.

A name is a relative path with forward slashes (`records/3f/3f9c…`). Knows nothing of values, of
records, or of what the bytes mean; whether they are torn or damaged is for the reader to find out.

Local files do not go through fsspec: three system calls make a record, where fsspec takes many
times as long and writes in place.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from typing_extensions import override

from prefect_mlpipe.core.places.copies import swap_folder
from prefect_mlpipe.errors import StoreUnavailable

Bytes: TypeAlias = bytes | bytearray | memoryview
T = TypeVar("T")

JOIN_BELOW = 1 << 16  # parts below this are gathered into one system call
FSYNC_SINGLY = 32  # more new files than this are flushed by one `syncfs`
REMOVALS = 5  # that often a write begins anew because its folder is gone
READ_ONLY = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH

_ADVICE = {
    errno.ENOSPC: "Free some space there, or choose another place with `store=`.",
    errno.EDQUOT: "Free some of your quota there, or choose another place with `store=`.",
    errno.EACCES: "Change its permissions, or choose a place that you may use with `store=`.",
    errno.EPERM: "Change its permissions, or choose a place that you may use with `store=`.",
    errno.EROFS: "This file system is read-only: choose another place with `store=`.",
    errno.ENOTDIR: "Something in this path is a file: choose a folder with `store=`.",
    errno.EEXIST: "Something in this path is a file, or a link to nothing: choose a folder with "
    "`store=`.",
    errno.EISDIR: "A folder is where a file should be: was something else put into the store?",
}


class Entry(NamedTuple):
    """One name in a listing; `modified` in seconds since the epoch, 0 where it is not known."""

    name: str
    size: int
    modified: float


class Backend(Protocol):
    """What a store needs of the place where its bytes lie."""

    url: str

    def read(self, name: str) -> bytes | None:
        """Give the bytes under a name, `None` where there are none; no bytes if it is no file."""

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Give what there is of these names, none of which has wildcards in it."""

    def create(self, name: str, data: bytes) -> bool:
        """Write unless the name is taken; `False` where it is. Readers may see a torn write."""

    def replace(self, name: str, data: bytes) -> None:
        """Write at once and whole, whatever was there."""

    def exists(self, name: str) -> bool:
        """Tell whether there is something under this name."""

    def delete(self, name: str) -> None:
        """Remove a name; nothing happens where there is none."""

    def list(self, folder: str) -> Iterator[Entry]:
        """Name everything below a folder, at any depth, in no order."""

    def sync(self) -> None:
        """Make what was written so far survive a power cut."""


def unavailable(url: str, operation: str, error: BaseException) -> StoreUnavailable:
    """The error for a store that cannot be used: where, what was tried, what the system said."""
    advice = _ADVICE.get(getattr(error, "errno", None) or 0)
    return StoreUnavailable(
        f"the store {url} cannot be used.",
        {"store": url, "while": operation, "error": f"{type(error).__name__}: {error}"},
        advice or "Check that it can be reached, or choose another place with `store=`.",
    )


class LocalBackend(Backend):
    """A folder on this machine, or on a file system that it mounts."""

    def __init__(self, folder: str, url: str | None = None) -> None:
        self.folder = os.path.abspath(folder)
        self.url = url or self.folder
        self._prefix = self.folder.rstrip("/") + "/"
        self._unsynced: list[str] = []

    def path(self, name: str) -> str:
        """Give the file that has a name."""
        return self._prefix + name

    @override
    def read(self, name: str) -> bytes | None:
        try:
            handle = os.open(self._prefix + name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return b""
            raise unavailable(self.url, f"reading {name}", error) from error
        try:
            data = os.read(handle, 65536)
            if len(data) < 65536:
                return data
            return data + b"".join(iter(lambda: os.read(handle, 1 << 20), b""))
        except IsADirectoryError:
            return b""
        except OSError as error:
            raise unavailable(self.url, f"reading {name}", error) from error
        finally:
            os.close(handle)

    @override
    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        found = ((name, self.read(name)) for name in names)
        return {name: data for name, data in found if data is not None}

    def create(self, name: str, data: bytes) -> bool:
        """As in `Backend`. Cheaper than a rename, but a killed writer leaves a torn file."""
        path = self._prefix + name
        try:
            handle = unless_removed(lambda: self._open_new(path, 0o644))
        except FileExistsError:
            return False
        except OSError as error:
            raise unavailable(self.url, f"writing {name}", error) from error
        try:
            _write_all(handle, data)
            # A writer that took our unfinished file for a torn one has put its own in the place.
            ours = os.fstat(handle).st_nlink > 0
        except OSError as error:
            with suppress(OSError):
                os.unlink(path)
            raise unavailable(self.url, f"writing {name}", error) from error
        finally:
            os.close(handle)
        self.note(path)
        return ours

    @override
    def replace(self, name: str, data: bytes) -> None:
        def write() -> None:
            with self.writing(name) as (handle, _):
                _write_all(handle, data)

        unless_removed(write)

    def write(self, name: str, parts: Callable[[], Iterable[Bytes]]) -> os.stat_result:
        """Write a read-only file from parts, at once and whole. Returns what `stat` says of it."""

        def write() -> os.stat_result:
            kept = -1  # somebody may remove a copy as soon as it is there
            try:
                with self.writing(name) as (handle, _):
                    _write_parts(handle, parts())
                    os.fchmod(handle, READ_ONLY)
                    kept = os.dup(handle)
                return os.fstat(kept)
            finally:
                if kept >= 0:
                    os.close(kept)

        return unless_removed(write)

    @contextmanager
    def writing(self, name: str) -> Iterator[tuple[int, str]]:
        """Open a temporary file beside the name; put it in place when the block ends well.

        Yields its descriptor and its path. Failures of the system become `StoreUnavailable`.
        """
        path = self._prefix + name
        temporary = self.temporary(name)
        try:
            handle = self._open_new(temporary, 0o644)
            try:
                yield handle, temporary
                _put_in_place(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            finally:
                os.close(handle)
        except OSError as error:
            raise unavailable(self.url, f"writing {name}", error) from error
        self.note(path)

    @contextmanager
    def writing_folder(self, name: str) -> Iterator[str]:
        """Make a temporary folder beside the name; put it in place when the block ends well.

        Yields its path. What stands there is replaced.
        """
        path, temporary = self._prefix + name, self.temporary(name)
        try:
            try:
                os.makedirs(temporary)
                yield temporary
                if os.path.lexists(path) and not _is_folder(path):
                    os.unlink(path)
                swap_folder(temporary, path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise unavailable(self.url, f"writing {name}", error) from error

    def temporary(self, name: str) -> str:
        """A path beside the name that no other writer uses. Killed ones leave `.tmp-…`."""
        folder, _, final = (self._prefix + name).rpartition("/")
        return f"{folder}/.tmp-{_process_token()}-{next(_count)}-{final[:40]}"

    def stat(self, name: str) -> os.stat_result | None:
        """Give what the system says of a name's file, `None` where there is none."""
        try:
            return os.stat(self._prefix + name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise unavailable(self.url, f"looking for {name}", error) from error

    def is_file(self, name: str) -> bool:
        """Tell whether a name is that of a file."""
        return os.path.isfile(self._prefix + name)

    @override
    def exists(self, name: str) -> bool:
        return os.path.lexists(self._prefix + name)

    @override
    def delete(self, name: str) -> None:
        try:
            os.unlink(self._prefix + name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable(self.url, f"deleting {name}", error) from error

    @override
    def list(self, folder: str) -> Iterator[Entry]:
        pending = [folder.strip("/")]
        while pending:
            here = pending.pop()
            try:
                with os.scandir(self._prefix + here) as entries:
                    for entry in entries:
                        name = f"{here}/{entry.name}" if here else entry.name
                        if entry.name.startswith(".tmp-"):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(name)
                        else:
                            facts = entry.stat(follow_symlinks=False)
                            yield Entry(name, facts.st_size, facts.st_mtime)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unavailable(self.url, f"listing {here}", error) from error

    def unfinished(self) -> Iterator[Entry]:
        """Name the temporary files and folders that lie here, most left by killed writers."""
        for here, folders, files in os.walk(self.folder):
            for name in [each for each in (*folders, *files) if each.startswith(".tmp-")]:
                with suppress(FileNotFoundError):
                    facts = os.lstat(f"{here}/{name}")
                    place = f"{here}/{name}".removeprefix(self._prefix)
                    yield Entry(place, facts.st_size, facts.st_mtime)
            folders[:] = [each for each in folders if not each.startswith(".tmp-")]

    def sync(self) -> None:
        """As in `Backend`: one by one where there are few, else the whole file system at once."""
        paths, self._unsynced = self._unsynced, []
        if not paths:
            return
        try:
            if len(paths) > FSYNC_SINGLY and _syncfs(self.folder):
                return
            for path in {*paths, *(os.path.dirname(path) for path in paths)}:
                with suppress(FileNotFoundError):
                    _fsync(path)
        except OSError as error:
            raise unavailable(self.url, "flushing to disk", error) from error

    def note(self, path: str) -> None:
        """Have a path that was written otherwise flushed by the next `sync`."""
        if len(self._unsynced) <= FSYNC_SINGLY:
            self._unsynced.append(path)

    def _open_new(self, path: str, mode: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return os.open(path, flags, mode)


def unless_removed(write: Callable[[], T]) -> T:
    """Write anew if folders are removed meanwhile: whoever deletes a store soon comes to an end."""
    for _ in range(REMOVALS):
        try:
            return write()
        except FileNotFoundError:
            continue
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
    return write()


def _put_in_place(temporary: str, path: str) -> None:
    """Rename a file, over a folder too if somebody made one in its place."""
    try:
        os.replace(temporary, path)
    except IsADirectoryError:
        shutil.rmtree(path)
        os.replace(temporary, path)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _write_all(handle: int, data: Bytes) -> None:
    written = os.write(handle, data)
    if written < len(data):
        rest = memoryview(data)
        while written < len(rest):
            written += os.write(handle, rest[written:])


def _write_parts(handle: int, parts: Iterable[Bytes]) -> None:
    """Write parts in order; small ones are gathered, large ones go out without a copy."""
    gathered = bytearray()
    for part in parts:
        if len(part) < JOIN_BELOW:
            gathered += part
            if len(gathered) < JOIN_BELOW:
                continue
            part = b""
        if gathered:
            _write_all(handle, gathered)
            gathered = bytearray()
        if part:
            _write_all(handle, part)
    if gathered:
        _write_all(handle, gathered)


def _fsync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _syncfs(folder: str) -> bool:
    """Flush one whole file system; `False` where the C library does not offer it."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(handle)
    return True


_count = itertools.count()
_token: tuple[int, str] = (0, "")


def _process_token() -> str:
    """A name for this process that holds across machines sharing a folder, and after a fork."""
    global _token
    process = os.getpid()
    if _token[0] != process:
        _token = (process, f"{process}-{secrets.token_hex(4)}")
    return _token[1]

"""Stored values: from an object to checked bytes in the store, and back to an object of one's own.

Knows nothing of records, keys or steps.

The checksum is a hash over the hashes of a value's parts, so that the buffers whose hashes already
entered the digest are not read again. Bytes are checked when this machine first reads them; what is
large and was checked is known again by its state. What is stored again under a checksum is trusted
only if it is sound: storing repairs.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import time
from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from prefect_mlpipe.core.digest import Buffers, digest, digest_and_owners
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.encoding.host_copies import host_copies
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.formats.base import (
    Chunks,
    Format,
    Part,
    Unstorable,
    flattened,
    joined,
)
from prefect_mlpipe.core.formats.pickles import type_name
from prefect_mlpipe.core.formats.registry import format_named, formats_for
from prefect_mlpipe.core.places.backends import READ_ONLY, LocalBackend
from prefect_mlpipe.core.places.copies import room_in
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.storing.devices import lacks_device, no_device
from prefect_mlpipe.core.storing.soundness import Soundness, damaged, lost, unreadable
from prefect_mlpipe.core.storing.stored_files import StoredFiles
from prefect_mlpipe.core.storing.use import NOTED_FROM_S, note_use
from prefect_mlpipe.errors import ValueDamaged

INLINE_UP_TO = 4096  # bytes: these stand in the record itself
HASH_ALONE_BELOW = 1 << 16
MAP_ABOVE = 1 << 18  # smaller files are read: a map costs more than a copy
UPLOAD_ABOVE = 1 << 23  # larger values go to a remote store through a file

_WITHOUT_OWNERS = frozenset({type(None), bool, int, float, str, bytes})
_PARTS = b"prefect-mlpipe bytes 1\n"


class Values:
    """The values of one store.

    Args:
        local: the store's own folder, or the folder of copies of a remote one.
        remote: where the store lies if it is not on this machine.
    """

    def __init__(self, local: LocalBackend, remote: RemoteBackend | None, sound: Soundness) -> None:
        self._local, self._remote, self._sound = local, remote, sound
        self._room = None if remote is None else room_in(local.folder)
        self._files = StoredFiles(local, remote, sound)
        self._uploaded: dict[str, float] = {}  # name → when, by the monotonic clock

    def put(
        self,
        value: object,
        buffers: Buffers | None = None,
        inline: bool = True,
        reach: list[Any] | None = None,
    ) -> StoredValue:
        """Store a value, and give the reference to it.

        Raises:
            Unstorable: it cannot be read back as what it is; says where and why.
            StoreUnavailable: the store cannot be written.
        """
        if isinstance(value, (File, Folder)):
            return self._files.put(value)
        buffers = Buffers() if buffers is None else buffers
        with host_copies():
            identity, owned = _identified(value, buffers, storing=True, reach=reach)
            format, parts = _dumped(value, identity, buffers)
        size = sum(len(buffer) for buffer in flattened(parts))
        checksum = checksum_of(parts, buffers)
        stored = StoredValue(
            identity,
            checksum,
            size,
            type_name(value),
            format.name,
            owned,
            b"".join(flattened(parts)) if inline and size <= INLINE_UP_TO else None,
        )
        if stored.inline is None:
            self._write(stored, format, parts)
        return stored

    def get(self, stored: StoredValue) -> object:
        """Load a value. Each call gives an own one: changing it changes nothing for anyone else.

        Raises:
            ValueMissing: its bytes are gone.
            ValueDamaged: its bytes do not match the checksum, or cannot be read back here.
        NoDevice: it lives on a GPU, and there is none here, or not its library.
        """
        if stored.format in ("file", "folder"):
            return self._files.get(stored)
        format = self._format(stored)
        data = self._fetched(stored, format)
        try:
            return format.load(data)
        except Exception as error:
            if lacks_device(error):
                raise no_device(stored, error) from error
            # Sound bytes that do not load: a class that is gone, another release of a library.
            raise damaged(self._url(stored), stored, f"{type(error).__name__}: {error}") from error

    def has(self, stored: StoredValue) -> bool:
        """Tell whether the bytes are there, without reading them."""
        if stored.inline is not None:
            return True
        name = self.name(stored)
        if stored.format in ("file", "folder"):
            if self._remote is not None:
                return self._remote.exists(self._files.marker(stored))
            return self._local.exists(name)
        if self._remote is not None:
            return self._remote.exists(name)
        facts = self._local.stat(name)
        return facts is not None and facts.st_size == stored.size

    def verify(self, stored: StoredValue) -> None:
        """Read the bytes again and compare the checksum, whatever is remembered of them.

        Raises:
            ValueMissing: they are gone.
            ValueDamaged: they do not match.
        """
        if stored.inline is None:
            self._sound.forget(self._local.path(self.name(stored)))
            if self._remote is not None:
                self._forget_copy(stored)
        if stored.format in ("file", "folder"):
            self._files.get(stored)
        else:
            self._fetched(stored, self._format(stored))

    def _forget_copy(self, stored: StoredValue) -> None:
        """Have a value read from where it lies, and not from this machine."""
        if stored.format in ("file", "folder"):
            self._files.drop_copy(stored)
        else:
            self._drop_copy(stored)

    def local_path(self, stored: StoredValue) -> str | None:
        """The file or folder on this machine, fetched if need be; `None` for an inline value.

        It is read-only and belongs to the store. Open it, but do not change it. The copy of a
        remote value goes when others need its room.
        """
        if stored.inline is not None:
            return None
        if stored.format in ("file", "folder"):
            return self._files.path(stored)
        path = self._local.path(self.name(stored))
        if self._remote is not None and not os.path.exists(path):
            self._fetch(stored, self._remote).close()
        return path

    def _write(self, stored: StoredValue, format: Format, parts: Sequence[Part]) -> None:
        name = self.name(stored)
        path = self._local.path(name)
        if self._remote is None:
            note_use(self._local, name, stored.checksum)
        if self._has_room(stored.size) and not self._stands(stored, format):
            self._make_room(stored.size)
            self._sound.note(
                path, self._local.write(name, lambda: flattened(parts)), stored.checksum
            )
        if self._remote is None or (self._is_fresh(name) and self._remote.exists(name)):
            return
        if stored.size < UPLOAD_ABOVE:
            self._remote.replace(name, b"".join(flattened(parts)))
        else:
            self._remote.upload(name, stored.size, lambda: flattened(parts))
        self._uploaded[name] = time.monotonic()

    def _is_fresh(self, name: str) -> bool:
        """Tell whether this process wrote an object so lately that nobody takes it for old."""
        return time.monotonic() - self._uploaded.get(name, -math.inf) < NOTED_FROM_S

    def _stands(self, stored: StoredValue, format: Format) -> bool:
        """Tell whether sound bytes of this checksum are already on this machine."""
        facts = self._local.stat(self.name(stored))
        if facts is None or facts.st_size != stored.size:
            return False
        path = self._local.path(self.name(stored))
        known = self._sound.checksum(path, facts)
        if known is not None:
            return known == stored.checksum
        try:
            with open(path, "rb", buffering=0) as file:
                data = _mapped(file.fileno(), stored.size, writable=False)
        except OSError:  # what cannot be read is replaced, if the system lets us
            return False
        return _checksum_in(data, format) == stored.checksum

    def _fetched(self, stored: StoredValue, format: Format) -> memoryview:
        """Give checked bytes. A remote value is fetched once more if they are damaged.

        If they are again, the remote object is removed, so that the value is written when it is
        stored again: whoever does that, maybe elsewhere, does not look at what stands there.
        """
        try:
            return self._read(stored, format)
        except ValueDamaged:
            if self._remote is None or stored.inline is not None:
                raise
        self._drop_copy(stored)
        try:
            return self._read(stored, format)
        except ValueDamaged:
            self._drop_copy(stored)
            self._remote.delete(self.name(stored))
            raise

    def _drop_copy(self, stored: StoredValue) -> None:
        name = self.name(stored)
        self._local.delete(name)
        self._sound.forget(self._local.path(name))

    def _read(self, stored: StoredValue, format: Format) -> memoryview:
        """Give checked bytes: writable and private where the format keeps views of them."""
        if stored.inline is not None:
            data = memoryview(bytearray(stored.inline) if format.maps else stored.inline)
            self._check(stored, _checksum_in(data, format))
            return data
        path = self._local.path(self.name(stored))
        try:
            with self._opened(stored) as file:
                facts = os.fstat(file.fileno())
                if facts.st_size != stored.size:
                    raise damaged(path, stored, f"{facts.st_size} bytes instead of {stored.size}")
                if stored.size <= MAP_ABOVE:
                    data = memoryview(bytearray(file.read()))
                else:
                    data = _mapped(file.fileno(), stored.size, writable=format.maps)
        except OSError as error:
            raise unreadable(path, stored, error) from error
        if not self._has_room(stored.size):
            self._local.delete(self.name(stored))  # what is mapped stays with us
        if stored.size <= MAP_ABOVE or self._sound.checksum(path, facts) != stored.checksum:
            self._check(stored, _checksum_in(data, format))
            self._sound.note(path, facts, stored.checksum)
        return data

    def _check(self, stored: StoredValue, found: str) -> None:
        if found != stored.checksum:
            raise damaged(self._url(stored), stored, found)

    def _opened(self, stored: StoredValue) -> io.FileIO:
        try:
            return open(self._local.path(self.name(stored)), "rb", buffering=0)
        except FileNotFoundError as error:
            if self._remote is None:
                raise lost(self._url(stored), stored) from error
        return self._fetch(stored, self._remote)

    def _fetch(self, stored: StoredValue, remote: RemoteBackend) -> io.FileIO:
        """Copy a value to this machine. It comes opened: others may need its room at any moment."""
        name = self.name(stored)
        self._make_room(stored.size)
        with self._local.writing(name) as (_, temporary):
            if not remote.download(name, temporary):
                raise lost(self._url(stored), stored)
            os.chmod(temporary, READ_ONLY)
            return open(temporary, "rb", buffering=0)

    def _has_room(self, size: int) -> bool:
        """Tell whether a copy may stay on this machine."""
        return self._room is None or size <= self._room.limit

    def _make_room(self, size: int) -> None:
        if self._room is not None:
            self._room.make(size)

    def reads(self, stored: StoredValue) -> bool:
        """Tell whether this process has the format of a value."""
        return stored.format in ("file", "folder") or format_named(stored.format) is not None

    def name(self, stored: StoredValue) -> str:
        """The name of its file or folder in the store."""
        if stored.format in ("file", "folder"):
            return self._files.name(stored)
        return f"values/{stored.checksum[:2]}/{stored.checksum}{self._format(stored).suffix}"

    def _url(self, stored: StoredValue) -> str:
        if stored.inline is not None:
            return "in the record"
        return f"{(self._remote or self._local).url}/{self.name(stored)}"

    def _format(self, stored: StoredValue) -> Format:
        format = format_named(stored.format)
        if format is None:
            raise damaged("", stored, f"no format {stored.format!r} is registered here")
        return format


def as_stored(value: object) -> object:
    """Give a value as a reader of the store would get it; nothing is written.

    Raises:
        Unstorable: it cannot be read back as what it is.
    """
    buffers = Buffers()
    identity, _ = _identified(value, buffers)
    format, parts = _dumped(value, identity, buffers)
    return format.load(joined(parts))


def _identified(
    value: object, buffers: Buffers, storing: bool = False, reach: list[Any] | None = None
) -> tuple[str, tuple[str, ...]]:
    """The digest of a value, and the distributions that own the types in it."""
    try:
        if type(value) in _WITHOUT_OWNERS:
            return digest(value, buffers=buffers), ()
        identity, owned = digest_and_owners(value, buffers=buffers, storing=storing, reach=reach)
    except Undigestible as error:
        raise Unstorable(error.path, error.type, error.why) from error
    return identity, tuple(sorted(owned))


def checksum_of(parts: Sequence[Part], buffers: Buffers) -> str:
    """Hash over the lengths and hashes of the parts."""
    pieces = [_PARTS]
    for part in parts:
        size = sum(map(len, part)) if isinstance(part, Chunks) else len(part)
        pieces += [size.to_bytes(8, "little"), _hash_of(part, size, buffers)]
    return blake3(b"".join(pieces)).hexdigest()


def _hash_of(part: Part, size: int, buffers: Buffers) -> bytes:
    if isinstance(part, Chunks):
        hasher = blake3()
        for chunk in part:
            hasher.update(chunk)
        return hasher.digest()
    if size < HASH_ALONE_BELOW:
        return blake3(part).digest()
    return buffers.hash(part)


def _checksum_in(data: memoryview, format: Format) -> str:
    return checksum_of(format.split(data), Buffers())


def _mapped(handle: int, size: int, *, writable: bool) -> memoryview:
    """Map a file; writes to a writable map stay with whoever holds it."""
    access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
    return memoryview(mmap.mmap(handle, size, access=access))


def _dumped(value: object, identity: str, buffers: Buffers) -> tuple[Format, Sequence[Part]]:
    """Turn a value into bytes by the first format that keeps it."""
    why = ""
    for format in formats_for(value):
        if not format.accepts(value):
            continue
        try:
            parts = format.parts(value)
        except Unstorable:
            raise
        except Exception as error:
            # A library's own writer met what it cannot write; the next format may.
            why = f"it cannot be stored as {format.name} ({type(error).__name__}: {error})"
            continue
        why = "" if format.exact(value) else _lost_by(format, parts, identity, buffers)
        if not why:
            return format, parts
    raise Unstorable("", type_name(value), why)


def _lost_by(format: Format, parts: Sequence[Part], identity: str, buffers: Buffers) -> str:
    """Read a value back before it is stored; empty if it is still the same, else what is wrong."""
    try:
        again = digest(format.rehearse(parts), buffers=buffers)
    except Exception as error:
        # Objects raise what they like when they are read back.
        return f"it can be stored but not read back ({type(error).__name__}: {error})"
    return "" if again == identity else "reading it back gives another value"

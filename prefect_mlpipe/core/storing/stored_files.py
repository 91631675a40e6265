"""Files and folders in the store: read-only copies of the user's, under their own names.

Knows nothing of formats, records or steps.

A copy never shares storage with the original, except where the file system clones blocks and parts
them at the first write. A hard link would be cheaper, and would let the user's next write into the
original change what is stored.

A file is stored as a folder of one. Permissions, owners and times are not part of the value.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil

import orjson
from blake3 import blake3

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.files import File, Folder, hash_of, hash_open, missing, walk
from prefect_mlpipe.core.places.backends import (
    READ_ONLY,
    LocalBackend,
    unavailable,
    unless_removed,
)
from prefect_mlpipe.core.places.copies import room_in
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.storing.soundness import Soundness, damaged, lost, unreadable
from prefect_mlpipe.core.storing.use import note_use
from prefect_mlpipe.errors import InputChanged, InputError, MissingFile

_KINDS = {"file": b"prefect-mlpipe file 1\n", "folder": b"prefect-mlpipe folder 1\n"}
_CLONE = 0x40049409  # ioctl FICLONE
_COPY_AT_ONCE = 1 << 30
_NOT_HERE = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EPERM}

Contents = list[tuple[str, str]]  # relative names and hashes; an empty folder has the hash ""


class StoredFiles:
    """The files and folders of one store. Cross-thread and cross-process safe."""

    def __init__(self, local: LocalBackend, remote: RemoteBackend | None, sound: Soundness) -> None:
        self._local, self._remote, self._sound = local, remote, sound
        self._room = None if remote is None else room_in(local.folder)

    def put(self, place: File | Folder) -> StoredValue:
        """Copy a file or folder into the store.

        Raises:
            MissingFile: it is not there.
            InputChanged: it is being written.
        """
        source = os.fspath(place)
        contents = self._seen(source, place)
        format = "file" if isinstance(place, File) else "folder"
        stored = StoredValue(
            digest(place),
            _checksum(format, contents),
            sum(_size(source, place, name) for name, content in contents if content),
            type(place).__name__,
            format,
            name=place.name,
        )
        if self._remote is None:
            note_use(self._local, self.name(stored), stored.checksum)
        if not (self._stands(stored) and self._is_given(stored)):
            unless_removed(lambda: self._copy_in(stored, place, source, contents))
        if self._remote is not None:
            self._upload(stored, contents)
        return stored

    def get(self, stored: StoredValue) -> File | Folder:
        """Give the store's own copy, after its content was checked. It must not be written."""
        path = self.path(stored)
        found = self._found(stored)
        if found != stored.checksum and self._remote is not None:
            self.drop_copy(stored)
            path = self.path(stored)
            found = self._found(stored)
        if found is None:
            raise lost(path, stored)
        if found != stored.checksum:
            raise damaged(path, stored, found)
        return File(path) if stored.format == "file" else Folder(path)

    def path(self, stored: StoredValue) -> str:
        """The copy on this machine, fetched if need be."""
        root = self.name(stored)
        if self._remote is not None and not self._is_given(stored):
            self._fetch(stored, self._remote)
        path = self._local.path(root)
        return f"{path}/{stored.name}" if stored.format == "file" else path

    def name(self, stored: StoredValue) -> str:
        """The folder in the store."""
        return f"values/{stored.checksum[:2]}/{stored.checksum}"

    def marker(self, stored: StoredValue) -> str:
        """What a remote store holds when all files of the folder are there: their names."""
        return f"{self.name(stored)}.names.json"

    def _seen(self, source: str, place: File | Folder) -> Contents:
        if isinstance(place, Folder):
            return [
                (name, "" if empty else hash_of(f"{source}/{name}", lambda: missing(place)))
                for name, empty in walk(source, lambda: missing(place))
            ]
        return [(place.name, hash_of(source, lambda: missing(place)))]

    def _found(self, stored: StoredValue) -> str | None:
        try:
            return self._checksum_at(stored)
        except OSError as error:
            raise unreadable(self._local.path(self.name(stored)), stored, error) from error

    def _is_given(self, stored: StoredValue) -> bool:
        """Note that a step gets the copy now; `False` if it is gone."""
        return self._room is None or self._room.give(self._local.path(self.name(stored)))

    def _stands(self, stored: StoredValue) -> bool:
        try:
            return self._checksum_at(stored) == stored.checksum
        except OSError:  # what cannot be read is replaced, if the system lets us
            return False

    def _checksum_at(self, stored: StoredValue) -> str | None:
        """Hash what is on this machine, reading only what changed since it was last read."""
        root = self._local.path(self.name(stored))
        try:
            items = walk(root, lambda: MissingFile(root))
            contents = [
                (name, "" if empty else self._checked(f"{root}/{name}")) for name, empty in items
            ]
        except FileNotFoundError:
            return None
        except InputError as error:
            return error.sentence
        return _checksum(stored.format, contents) if contents or stored.size == 0 else None

    def _checked(self, path: str) -> str:
        with open(path, "rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            content = self._sound.checksum(path, facts)
            if content is None:
                content = hash_open(file.fileno())
                self._sound.note(path, facts, content)
            return content

    def _copy_in(
        self, stored: StoredValue, place: File | Folder, source: str, contents: Contents
    ) -> None:
        self._make_room(stored)
        with self._local.writing_folder(self.name(stored)) as temporary:
            for name, content in contents:
                inside = f"{temporary}/{name}"
                if not content:
                    os.makedirs(inside)
                    continue
                original = source if isinstance(place, File) else f"{source}/{name}"
                os.makedirs(os.path.dirname(inside), exist_ok=True)
                _copy(original, inside)
                self._local.note(f"{self._local.path(self.name(stored))}/{name}")
        found = self._found(stored)
        if found is None:
            gone = FileNotFoundError(errno.ENOENT, "it was removed at once")
            raise unavailable(self._local.url, f"writing {self.name(stored)}", gone) from gone
        if found != stored.checksum:
            raise InputChanged(
                f"'{place.path}' was written while it was being stored.",
                {"path": source},
                "Wait until it is complete before the step returns it.",
            )

    def drop_copy(self, stored: StoredValue) -> None:
        """Remove the copy on this machine."""
        with self._local.writing_folder(self.name(stored)):
            pass  # an empty folder takes its place
        os.rmdir(self._local.path(self.name(stored)))

    def _upload(self, stored: StoredValue, contents: Contents) -> None:
        assert self._remote is not None
        root = self.name(stored)
        for name, content in contents:
            if content:
                self._remote.upload_file(f"{self._local.path(root)}/{name}", f"{root}/{name}")
        self._remote.replace(self.marker(stored), orjson.dumps(contents))

    def _fetch(self, stored: StoredValue, remote: RemoteBackend) -> None:
        root = self.name(stored)
        names = remote.read(self.marker(stored))
        if names is None:
            raise lost(f"{remote.url}/{root}", stored)
        contents = _parsed(names)
        if contents is None or _checksum(stored.format, contents) != stored.checksum:
            raise damaged(f"{remote.url}/{self.marker(stored)}", stored, "other names or hashes")
        self._make_room(stored)
        with self._local.writing_folder(root) as temporary:
            for name, content in contents:
                inside = f"{temporary}/{name}"
                os.makedirs(os.path.dirname(inside) if content else inside, exist_ok=True)
                if content and not remote.download(f"{root}/{name}", inside):
                    raise lost(f"{remote.url}/{root}/{name}", stored)
                if content:
                    os.chmod(inside, READ_ONLY)

    def _make_room(self, stored: StoredValue) -> None:
        if self._room is not None:
            self._room.make(stored.size)


def _checksum(format: str, contents: Contents) -> str:
    pieces = [_KINDS[format]]
    for name, content in contents:
        encoded = os.fsencode(name)
        pieces += [len(encoded).to_bytes(8, "little"), encoded, content.encode() or b"-" * 64]
    return blake3(b"".join(pieces)).hexdigest()


def _parsed(names: bytes) -> Contents | None:
    try:
        return [(str(name), str(content)) for name, content in orjson.loads(names)]
    except (ValueError, TypeError):
        return None


def _size(source: str, place: File | Folder, name: str) -> int:
    try:
        return os.stat(source if isinstance(place, File) else f"{source}/{name}").st_size
    except FileNotFoundError as error:
        raise missing(place) from error


def _copy(original: str, target: str) -> None:
    """Copy a file's content: cloned where the file system can, else within the kernel."""
    with open(original, "rb", buffering=0) as source, open(target, "xb", buffering=0) as copy:
        if not (_cloned(source.fileno(), copy.fileno()) or _copied(source.fileno(), copy.fileno())):
            os.lseek(source.fileno(), 0, os.SEEK_SET)
            os.ftruncate(copy.fileno(), 0)
            os.lseek(copy.fileno(), 0, os.SEEK_SET)
            shutil.copyfileobj(source, copy, 1 << 20)
        os.fchmod(copy.fileno(), READ_ONLY)


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def _copied(source: int, target: int) -> bool:
    if not hasattr(os, "copy_file_range"):  # Linux has it
        return False
    try:
        while os.copy_file_range(source, target, _COPY_AT_ONCE):
            pass
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    # Some file systems copy nothing and say so with no error.
    return os.fstat(target).st_size == os.fstat(source).st_size

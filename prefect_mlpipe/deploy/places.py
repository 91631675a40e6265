"""A watched place, as a look at it: names, states, and the content behind a state.

Knows nothing of what was seen before. `look` reads no content.

A local file counts by its content. A remote one counts by the checksum that its listing gives
(S3's ETag, Google's md5 or crc32c), so that a look at a million objects is one listing; where
there is none, it is read whenever its version or time is another one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Protocol

from blake3 import blake3

from prefect_mlpipe.core.files import hash_of, walk
from prefect_mlpipe.core.places.remote_backend import opened
from prefect_mlpipe.core.places.stat_index import StatIndex, state_of
from prefect_mlpipe.deploy.changes import Seen
from prefect_mlpipe.deploy.watches import Watch
from prefect_mlpipe.errors import InputChanged, MissingFile

WALKS = 3  # a folder that is deleted during a walk ends it
CHUNK = 1 << 20

_CHECKSUMS = ("ETag", "md5Hash", "crc32c", "Content-MD5")
_VERSIONS = (
    *("VersionId", "version_id", "generation", "etag"),
    *("LastModified", "last_modified", "mtime", "created", "updated"),
)
_SUM = "sum "


class Place(Protocol):
    """What a watcher needs of a place."""

    def look(self) -> dict[str, str] | None:
        """States by relative name; the place itself, if it is a file, is ''. `None`: not there."""

    def read(self, name: str, state: str) -> Seen:
        """The content of a file that had a state.

        Raises:
            MissingFile: it is gone.
            InputChanged: it is being written.
        """

    def path(self, name: str) -> str:
        """The path or URL of a file."""


def place_of(watch: Watch, index: StatIndex) -> Place:
    """The place that is to be watched."""
    return RemotePlace(watch) if "://" in watch.uri else LocalPlace(watch, index)


class _Named:
    """What both kinds of place know from the watch."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._root = watch.uri.rstrip("/") or "/"

    def path(self, name: str) -> str:
        """The path or URL of a file."""
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def _wanted(self, name: str) -> bool:
        pattern = self._watch.pattern
        return pattern is None or PurePosixPath(name or self._root).match(pattern)


class LocalPlace(_Named, Place):
    """A folder or file of this machine. Links are followed."""

    def __init__(self, watch: Watch, index: StatIndex) -> None:
        super().__init__(watch)
        self._index = index

    def look(self) -> dict[str, str] | None:
        """As in `Place`."""
        try:
            facts = os.stat(self._root)
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(facts.st_mode):
            return {"": state_of(facts)} if self._wanted("") else {}
        found = {}
        for name in filter(self._wanted, self._names()):
            try:
                facts = os.stat(self.path(name))
            except FileNotFoundError:  # gone since, or a link to nothing
                continue
            if stat.S_ISREG(facts.st_mode):
                found[name] = state_of(facts)
        return found

    def _names(self) -> list[str]:
        if not self._watch.recursive:
            return os.listdir(self._root)
        for left in reversed(range(WALKS)):
            try:
                items = walk(self._root, lambda: _gone(self._root))
                return [item.name for item in items if not item.is_empty_folder]
            except MissingFile:
                if not left:
                    raise
        raise AssertionError("the last walk returned or raised")

    def read(self, name: str, state: str) -> Seen:
        """As in `Place`. The state is kept only if a later write must change it."""
        path = self.path(name)
        content = hash_of(path, lambda: _gone(path), self._index)
        return Seen(state if self._index.get(state) == content else "", content)


class RemotePlace(_Named, Place):
    """Whatever fsspec has a file system for."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._opened: tuple[Any, str] | None = None

    def look(self) -> dict[str, str] | None:
        """As in `Place`; one listing."""
        files, root = self._open()
        files.invalidate_cache()
        try:
            found = files.find(root, maxdepth=None if self._watch.recursive else 1, detail=True)
        except FileNotFoundError:
            return None
        return {name: _state(facts) for name, facts in _relative(found, root) if self._wanted(name)}

    def read(self, name: str, state: str) -> Seen:
        """As in `Place`; without reading where the listing gave a checksum."""
        if state.startswith(_SUM):
            return Seen(state, state)
        files, root = self._open()
        path = f"{root}/{name}" if name else root
        hasher = blake3()
        try:
            before = _state(files.info(path))
            with files.open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    hasher.update(chunk)
            after = _state(files.info(path))
        except FileNotFoundError as error:
            raise _gone(self.path(name)) from error
        if after != before:
            raise InputChanged(f"'{self.path(name)}' is being written while it is read.")
        return Seen(state, hasher.hexdigest())

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            files, root = opened(self._watch.uri)
            self._opened = files, root.rstrip("/")
        return self._opened


def _relative(found: dict[str, dict[str, Any]], root: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, facts in found.items():
        if path == root and facts.get("type") == "file":
            yield "", facts
        elif path.startswith(f"{root}/") and path != f"{root}/":
            yield path[len(root) + 1 :], facts


def _state(facts: dict[str, Any]) -> str:
    """The checksum if there is one, else all that changes with a new version; else nothing."""
    for name in _CHECKSUMS:
        if facts.get(name):
            return f"{_SUM}{name}={facts[name]} size={facts.get('size')}"
    versions = [f"{name}={facts[name]}" for name in _VERSIONS if facts.get(name)]
    return " ".join([*versions, f"size={facts.get('size')}"]) if versions else ""


def _gone(path: str) -> MissingFile:
    return MissingFile(f"there is no '{path}' any more.")

"""Files and folders as values: their content is what counts, not where they lie.

Knows nothing of stores, steps or formats. A `File` counts by its content and final name, a `Folder`
by the relative names and contents in it.

Content is read with `read`, not through a memory map: a file that somebody truncates while it is
hashed gives an error here, where a map would kill the process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from blake3 import blake3
from pydantic_core import core_schema

from prefect_mlpipe.core.places import remote_files
from prefect_mlpipe.core.places.stat_index import StatIndex, state_of
from prefect_mlpipe.errors import InputChanged, InputError, MissingFile

CHUNK = 1 << 20
ATTEMPTS = 3

P = TypeVar("P", bound="_Place")

_index = StatIndex()


def use_stat_index(index: StatIndex) -> None:
    """Make this process remember file contents in `index`; until then it does so in memory."""
    global _index
    _index = index


def stat_index() -> StatIndex:
    """The index that this process uses."""
    return _index


class _Place:
    """What `File` and `Folder` share: a path or URL, kept as given and resolved at use."""

    __slots__ = ("path",)

    path: str
    _format = "path"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given: object = path.path if isinstance(path, _Place) else os.fspath(path)
        if not isinstance(given, str) or not given:
            raise TypeError(f"{type(self).__name__} takes a path or a URL, not {path!r}")
        local = given.removeprefix("file://") if given.startswith("file://") else given
        object.__setattr__(self, "path", local)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed; make another one")

    @property
    def name(self) -> str:
        """The final name."""
        if self.is_url:
            return self.path.rstrip("/").rpartition("/")[2]
        return os.path.basename(os.path.abspath(self.path)) or self.path

    @property
    def is_url(self) -> bool:
        """Tell whether this lies behind fsspec and not on this machine."""
        return "://" in self.path

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.path == self.path

    def __hash__(self) -> int:
        return hash((type(self), self.path))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path,)

    @classmethod
    def _validated(cls: type[P], value: object) -> P:
        if isinstance(value, cls):
            return value
        if isinstance(value, _Place) or not isinstance(value, (str, os.PathLike)) or not value:
            raise ValueError(f"a {cls.__name__} takes a path or a URL, not {value!r}")
        return cls(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        return core_schema.no_info_plain_validator_function(
            cls._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, str]:
        return {"type": "string", "format": cls._format}


class File(_Place, os.PathLike[str]):
    """A file whose content is the value. Give it to `open`, `pandas.read_csv` and the like.

    File("data/digits.csv")          # relative to where the process works, when it is used
    File("s3://raw/digits.csv")      # any fsspec URL: copied to this machine at first use

    It counts by content and final name: moving it elsewhere changes nothing, writing it does.
    Making one looks at nothing; a path that does not exist is an error when the content is needed.
    """

    __slots__ = ()
    _format = "file-path"

    def __fspath__(self) -> str:
        return remote_files.fetched_file(self.path) if self.is_url else self.path

    def __mlpipe_digest__(self) -> tuple[object, ...]:
        _note(self)
        return "file", self.name, self.content()

    def content(self) -> str:
        """Hash of the content, 64 hex digits; reads the file only where it may have changed."""
        if self.is_url:
            return _remembered(remote_files.file_state(self.path), self.__fspath__)
        return hash_of(self.path, lambda: missing(self))


class Folder(_Place, os.PathLike[str]):
    """A folder whose content is the value: relative names, and what is in the files.

    Folder("data/images")
    Folder("s3://raw/images/")

    Its own name and place do not count, nor do times, owners and permissions. Links are followed.
    """

    __slots__ = ()
    _format = "directory-path"

    def __fspath__(self) -> str:
        return remote_files.fetched_folder(self.path) if self.is_url else self.path

    def __mlpipe_digest__(self) -> tuple[object, ...]:
        _note(self)
        return "folder", tuple(self.contents())

    def contents(self) -> Iterator[tuple[str, str]]:
        """Relative names in order, each with the hash of its file; empty for an empty folder."""
        if self.is_url:
            for name, state in remote_files.folder_states(self.path).items():
                yield name, _remembered(state, lambda name=name: f"{self.__fspath__()}/{name}")  # type: ignore[misc]
            return
        root = self.path
        for item in walk(root, lambda: missing(self)):
            at = os.path.join(root, item.name)
            yield item.name, "" if item.is_empty_folder else hash_of(at, lambda: missing(self))


class noting_files:
    """Notes every file and folder that is digested in this block, with its state before that.

    However deep it lies in whatever object: `with noting_files() as states: ...` gives file →
    `fingerprint_state`. What a step read is what was digested only if the state is still the same
    after the step.
    """

    def __enter__(self) -> dict[File | Folder, object]:
        states: dict[File | Folder, object] = {}
        self._token = _noted.set(states)
        return states

    def __exit__(self, *_: object) -> None:
        _noted.reset(self._token)


_noted: ContextVar[dict[File | Folder, object] | None] = ContextVar("noted files", default=None)


def _note(place: File | Folder) -> None:
    states = _noted.get()
    if states is not None and place not in states:
        states[place] = fingerprint_state(place)


class Item(NamedTuple):
    """One thing in a folder, by its relative name with forward slashes."""

    name: str
    is_empty_folder: bool


def walk(root: str, absent: Callable[[], MissingFile]) -> list[Item]:
    """Name the files and empty folders below a folder, sorted. Links are followed."""
    found: list[Item] = []
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        here, above = pending.pop()
        try:
            facts = os.stat(os.path.join(root, here))
            entries = list(os.scandir(os.path.join(root, here)))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise absent() from error
        inode = (facts.st_dev, facts.st_ino)
        if inode in above:
            raise InputError(f"the folder '{root}' contains itself, at '{here}'.")
        if not entries and here:
            found.append(Item(here, True))
        for entry in entries:
            name = f"{here}/{entry.name}" if here else entry.name
            if entry.is_dir():
                pending.append((name, above | {inode}))
            else:
                found.append(Item(name, False))
    return sorted(found)


def fingerprint_state(place: File | Folder) -> object:
    """Take a snapshot that differs if the content may have changed in between. Reads no content.

    Compare one from before a step ran with one from after it. `None` where there is nothing.
    """
    if place.is_url:
        if isinstance(place, File):
            return remote_files.file_state(place.path)
        return remote_files.folder_states(place.path)
    try:
        if isinstance(place, File):
            return state_of(os.stat(place.path))
        items = walk(place.path, lambda: missing(place))
        return {item: state_of(os.stat(os.path.join(place.path, item.name))) for item in items}
    except FileNotFoundError:
        return None


def missing(place: File | Folder) -> MissingFile:
    """The error for a path that is not there, or is not what it is said to be."""
    kind, other = ("file", "folder") if isinstance(place, File) else ("folder", "file")
    path = os.path.abspath(place.path)
    if os.path.exists(path):
        way = "Folder" if kind == "file" else "File"
        return MissingFile(
            f"'{place.path}' is a {other}, not a {kind}.",
            {"path": path},
            f"Pass {way}({place.path!r}).",
        )
    return MissingFile(
        f"there is no {kind} '{place.path}'.",
        {"path": path, "working folder": os.getcwd()},
        f"Pass the path of a {kind} that exists, or str(path) if the name is all that is meant.",
    )


def hash_of(path: str, absent: Callable[[], Exception], index: StatIndex | None = None) -> str:
    """Hash a local file's content, 64 hex digits, or take it from the index if nothing changed.

    Raises:
        MissingFile: as `absent` says it.
        InputChanged: the file was being written all the time.
    """
    index = index or _index
    try:
        with open(path, "rb", buffering=0) as file:
            for _ in range(ATTEMPTS):
                before = os.fstat(file.fileno())
                if not stat.S_ISREG(before.st_mode):
                    raise InputError(f"'{path}' is neither a file nor a folder.")
                state = state_of(before)
                known = index.get(state)
                if known is not None:
                    return known
                began = index.now_ns()
                content = hash_open(file.fileno())
                if state_of(os.fstat(file.fileno())) == state:
                    if index.settled(before, began):
                        index.put(state, content)
                    return content
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise absent() from error
    raise InputChanged(
        f"'{path}' is being written while it is read.",
        {"path": os.path.abspath(path), "attempts": ATTEMPTS},
        "Wait until it is complete, or give a copy that nobody writes.",
    )


def hash_open(handle: int) -> str:
    """Hash what an open file holds, from its start."""
    hasher = blake3()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with open(handle, "rb", buffering=0, closefd=False) as file:
        file.seek(0)
        while count := file.readinto(buffer):
            hasher.update(view[:count])
    return hasher.hexdigest()


def _remembered(state: str, path: Callable[[], str]) -> str:
    """Hash a remote file by its version, downloading it only where that version is new."""
    known = _index.get(state)
    if known is None:
        with open(path(), "rb", buffering=0) as file:
            known = hash_open(file.fileno())
        _index.put(state, known)
    return known

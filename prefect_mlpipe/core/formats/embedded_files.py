"""Files and folders inside other values: their content goes with the value.

Knows `File` and `Folder` and how pickle asks an object to describe itself. A list of files, or a
dataclass that holds one, is stored with what is in the files; whoever loads it gets files of that
name and content on the own machine.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from prefect_mlpipe.core.files import File, Folder, hash_of, missing, walk
from prefect_mlpipe.core.places import copies

MAP_ABOVE = 1 << 20
READ_ONLY = 0o444


def described(place: File | Folder) -> tuple[Any, ...]:
    """What pickle writes in the place of a file: its name and its content."""
    path = os.fspath(place)
    if isinstance(place, File):
        return restored, ("file", place.name, [("", _content(path, place))])
    contents = [
        (name, None if empty else _content(f"{path}/{name}", place))
        for name, empty in walk(path, lambda: missing(place))
    ]
    return restored, ("folder", place.name, contents)


def restored(kind: str, name: str, contents: Sequence[tuple[str, Any]]) -> File | Folder:
    """Make files on this machine from a stored description, unless they are there."""
    hasher = blake3(kind.encode())
    for inside, content in contents:
        hasher.update(blake3(os.fsencode(inside)).digest())
        hasher.update(b"-" if content is None else blake3(content).digest())
    version = hasher.hexdigest()
    target = copies.path("files", version[:2], version, name)
    if not (copies.give(target) and _stands(target, kind, contents)):
        copies.install(target, lambda temporary: _write(temporary, kind, contents), replace=True)
    return File(target) if kind == "file" else Folder(target)


def _content(path: str, place: File | Folder) -> pickle.PickleBuffer:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < MAP_ABOVE:
                return pickle.PickleBuffer(file.read())
            return pickle.PickleBuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise missing(place) from error


def _stands(target: str, kind: str, contents: Sequence[tuple[str, Any]]) -> bool:
    """Tell whether the files are there and nobody has changed them."""
    try:
        for inside, content in contents:
            path = f"{target}/{inside}" if kind == "folder" else target
            if content is None:
                if not os.path.isdir(path):
                    return False
            elif hash_of(path, FileNotFoundError) != blake3(content).hexdigest():
                return False
    except FileNotFoundError:
        return False
    return os.path.exists(target)


def _write(temporary: str, kind: str, contents: Sequence[tuple[str, Any]]) -> None:
    if kind == "folder":
        os.makedirs(temporary)
    for inside, content in contents:
        path = f"{temporary}/{inside}" if kind == "folder" else temporary
        if content is None:
            os.makedirs(path)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)
        os.chmod(path, READ_ONLY)

"""Paths in arguments: one that exists is a file, whose content counts.

Knows files and folders, and the containers that a path may lie in. Knows nothing of steps.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import PurePath
from typing import Any

from prefect_mlpipe.core.encoding.pieces import SCALARS
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.nested import items_in, refilled
from prefect_mlpipe.engine.references import Reference
from prefect_mlpipe.errors import MissingFile


def with_files(value: Any) -> Any:
    """Return a value with every path inside it that exists turned into a `File` or `Folder`.

    Looks into lists, tuples, dicts and dataclasses.

    Raises:
        MissingFile: a path does not exist.
    """
    kind = type(value)
    if kind in SCALARS or not _holds_path(value):
        return value
    if isinstance(value, PurePath):
        return as_file(value)
    if kind is list:
        return [with_files(item) for item in value]
    if isinstance(value, tuple):
        return refilled(value, map(with_files, value)) if kind is not Reference else value
    if kind is dict:
        return {name: with_files(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        adopted = copy.copy(value)
        for item in dataclasses.fields(value):  # past __setattr__: the dataclass may be frozen
            object.__setattr__(adopted, item.name, with_files(getattr(value, item.name)))
        return adopted
    return value


def _holds_path(value: Any) -> bool:
    return any(isinstance(item, PurePath) for item in items_in(value, fields=True))


def as_file(path: PurePath) -> File | Folder:
    """Return what a path that exists is.

    Raises:
        MissingFile: it does not exist.
    """
    if os.path.isdir(path):
        return Folder(path)
    if os.path.exists(path):
        return File(path)
    raise MissingFile(
        "A path does not exist.",
        {"path": path, "looked in": os.getcwd()},
        "Correct the path, or pass str(path) if only the name is meant.",
    )

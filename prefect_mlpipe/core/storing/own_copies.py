"""Copies of values in memory, for readers that may change them.

Knows how the store would write a value; reads and writes nothing.

Worth arguing: a deep copy is asked for first, since it keeps files, shared objects and what cannot
be pickled. But `copy` believes every `__deepcopy__`, forgets the cause of an exception and shares
the objects in a table. So it counts only if it has the digest of the original; else the value goes
the way that stored values go.
"""

from __future__ import annotations

import copy
from pathlib import PurePath
from typing import Any, Final

from prefect_mlpipe.core.digest import digest
from prefect_mlpipe.core.encoding.encode import Undigestible
from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.formats.base import Unstorable
from prefect_mlpipe.core.formats.plain import is_plain
from prefect_mlpipe.core.storing.stored_values import as_stored

_IMMUTABLE: Final = frozenset({int, float, bool, str, bytes, complex, type(None)})
_PLACES: Final = (PurePath, File, Folder)


def own_copy(value: Any) -> Any:
    """Give an equal value that can be changed without changing this one.

    What has no content, as a lock, can be neither copied nor compared: it is given itself.
    """
    kind = type(value)
    if kind in _IMMUTABLE or isinstance(value, _PLACES):
        return value
    if kind.__module__.partition(".")[0] == "pandas":
        return _as_stored(value)
    try:
        copied = copy.deepcopy(value)
    except Exception:  # objects raise what they like when they are asked to be copied
        return _as_stored(value)
    if copied is value or is_plain(value) or _are_same(value, copied):
        return copied
    return _as_stored(value)


def _are_same(value: Any, copied: Any) -> bool:
    try:
        return digest(value) == digest(copied)
    except Undigestible:  # it is left out of the key
        return True


def _as_stored(value: Any) -> Any:
    try:
        return as_stored(value)
    except Unstorable:
        return value

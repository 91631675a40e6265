"""Claims: leases of many keys by one file, instead of by one for each.

Knows files and the tokens of runs. Knows nothing of whether a run lives.

    leases/claims/<token>.<number>    keys that a run computes together, one a line, and a last one

Two files can have the same key. So who claims looks afterwards whether somebody else has a key as
well: of two that claim one at the same time, at least one sees the other, and who sees the other
gives up. A file is written before it is looked, has its final content from then on, and is removed
when none of its keys is needed any more.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Set
from contextlib import suppress
from typing import Final

_END: Final = "."  # no key


class Claims:
    """The claims of one run, and a view of those of others.

    Args:
        folder: where the files are.
        own: tokens of this run; it may grow.
    """

    def __init__(self, folder: str, own: Set[str]) -> None:
        self._folder = folder
        self._own = own
        self._numbers = itertools.count()
        self._file_of: dict[str, str] = {}  # key → the file by which we claim it
        self._left: dict[str, set[str]] = {}  # our file → keys that are still needed
        self._others: dict[str, frozenset[str]] = {}  # file of another → keys

    def __contains__(self, key: str) -> bool:
        """Tell whether we claim a key."""
        return key in self._file_of

    def put(self, token: str, keys: Set[str]) -> None:
        """Claim keys.

        Raises:
            OSError: the file cannot be written.
        """
        path = f"{self._folder}{token}.{next(self._numbers)}"
        try:
            handle = _create(path)
        except FileNotFoundError:
            os.makedirs(self._folder, exist_ok=True)
            handle = _create(path)
        self._left[path] = set(keys)
        self._file_of.update(dict.fromkeys(keys, path))
        try:
            os.write(handle, "\n".join([*keys, _END]).encode())
        finally:
            os.close(handle)

    def give_back(self, key: str) -> bool:
        """Claim a key no longer; `False` where it was not claimed. Thread-safe."""
        path = self._file_of.pop(key, None)
        if path is None:
            return False
        left = self._left[path]
        left.discard(key)
        if not left:  # of several threads at least the last one sees that
            self._left.pop(path, None)
            _remove(path)
        return True

    def close(self) -> None:
        """Claim nothing any more."""
        for path in list(self._left):
            _remove(path)
        self._left.clear()
        self._file_of.clear()

    def of_others(self, keys: Set[str]) -> set[str]:
        """Return those keys that others have claimed."""
        return {key for claimed in self._look().values() for key in claimed & keys}

    def claimant(self, key: str) -> str | None:
        """Return the token of another run that has claimed a key."""
        for path, claimed in self._look().items():
            if key in claimed:
                return _token(path)
        return None

    def remove(self, tokens: Iterable[str]) -> None:
        """Remove the claims of runs that are gone."""
        gone = set(tokens)
        for name in self._names():
            if _token(name) in gone:
                _remove(self._folder + name)

    def tokens(self) -> set[str]:
        """Return the tokens of all runs that claim something."""
        return set(map(_token, self._names()))

    def _look(self) -> dict[str, frozenset[str]]:
        """Read the files of others; those that were read before are as they were."""
        before, self._others = self._others, {}
        for name in self._names():
            if _token(name) in self._own:
                continue
            claimed = before.get(name)
            if claimed is None or _END not in claimed:
                # What is still being written is so by one who will look then, and see us.
                claimed = _read(self._folder + name)
            self._others[name] = claimed
        return self._others

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []


def _token(name: str) -> str:
    return name.rpartition(".")[0]


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def _read(path: str) -> frozenset[str]:
    try:
        with open(path, encoding="ascii") as file:
            return frozenset(file.read().split())
    except FileNotFoundError:  # given back since
        return frozenset()


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)

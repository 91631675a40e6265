"""Which stored bytes are known to match their checksum, and the errors where they do not.

Knows nothing of formats or of how values are hashed.

What this process wrote or checked is known by path and state. What is large is also remembered for
other processes, in the stat index, but only until the machine starts again: a power cut can lose
bytes that were checked in memory before they reached the disk.
"""

from __future__ import annotations

import errno
import functools
import os

from prefect_mlpipe.core.places.backends import unavailable
from prefect_mlpipe.core.places.stat_index import StatIndex, state_of
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.errors import StoreError, ValueDamaged, ValueMissing

SHARE_ABOVE = 1 << 20  # bytes: below, checking again is quicker than asking the index
_BROKEN = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EIO})  # no file, or no disk
SHOWN = 12  # hex digits of a checksum in a message


class Soundness:
    """Remember what files were found to hold. Cross-thread and cross-process safe."""

    def __init__(self, index: StatIndex) -> None:
        self._index = index
        self._known: dict[str, tuple[str, str]] = {}  # path → its state, its checksum then

    def checksum(self, path: str, facts: os.stat_result) -> str | None:
        """Give the checksum that the file in this very state was found to have."""
        state = state_of(facts)
        known = self._known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        if facts.st_size < SHARE_ABOVE:
            return None
        shared = self._index.get(_since_boot(state))
        if shared:
            self._known[path] = (state, shared)
        return shared or None

    def note(self, path: str, facts: os.stat_result, checksum: str) -> None:
        """Remember what the file in this state was found to have."""
        state = state_of(facts)
        self._known[path] = (state, checksum)
        if facts.st_size >= SHARE_ABOVE and self._index.settled(facts, self._index.now_ns()):
            self._index.put(_since_boot(state), checksum)

    def forget(self, path: str) -> None:
        """Have a file, or all files of a folder, read again before they are trusted."""
        inside = path + "/"
        for known in [other for other in list(self._known) if other.startswith(inside)] + [path]:
            self._known.pop(known, None)
            if os.path.isfile(known):
                self._index.put(_since_boot(state_of(os.stat(known))), "")


def damaged(url: str, stored: StoredValue, found: str) -> ValueDamaged:
    """The error for bytes that are not what was stored."""
    facts = {"at": url} if url else {}
    return ValueDamaged(
        f"a stored value of type {stored.type} is damaged; its step will run again.",
        {**facts, "expected": stored.checksum[:SHOWN], "found": _shortened(found)},
        "Nothing to do. If this repeats, look for what else writes into the store.",
    )


def lost(url: str, stored: StoredValue) -> ValueMissing:
    """The error for bytes that are gone."""
    return ValueMissing(
        f"a stored value of type {stored.type} is gone; its step will run again.",
        {"at": url, "expected": stored.checksum[:SHOWN]},
        "Nothing to do. If this repeats, look for what deletes files in the store.",
    )


def unreadable(url: str, stored: StoredValue, error: OSError) -> StoreError:
    """The error for bytes that the system does not give: it says whether they can be made again."""
    if isinstance(error, FileNotFoundError):
        return lost(url, stored)
    if error.errno in _BROKEN:
        return damaged(url, stored, error.strerror or str(error))
    return unavailable(url, f"reading a stored value of type {stored.type}", error)


def _shortened(found: str) -> str:
    return found[:SHOWN] if len(found) == 64 and " " not in found else found


def _since_boot(state: str) -> str:
    return f"sound {_boot()} {state}"


@functools.cache
def _boot() -> str:
    """What changes when the machine starts again; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""

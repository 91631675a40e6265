"""Which keys have moved to another record since copies or packs of records were written.

Knows names in a place. Whoever moves a key says so first, `moved/<key>`; whoever reads records that
lie together leaves out what was moved, and asks for it under its own name.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import threading
from typing import Final

from prefect_mlpipe.core.storing.listing import Listing
from prefect_mlpipe.core.storing.place import Place

FOLDER: Final = "moved"


class Moves:
    """The keys of one store that have moved."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._listing = Listing(place, FOLDER)
        self._own: set[str] = set()
        self._lock = threading.Lock()

    def keys(self, *, fresh: bool = False) -> frozenset[str] | set[str]:
        """Give the keys that have moved.

        Args:
            fresh: whether a remote store is to be asked again.
        """
        with self._lock:
            found = self._listing.names(fresh=fresh)
            return found | self._own if self._own else found

    def note(self, key: str) -> None:
        """Say that another record is about to take the place of the one of a key."""
        self._place.writing().replace(f"{FOLDER}/{key}", b"")
        self._own.add(key)

"""The names in a folder of a store, listed again only where they can have changed.

Knows places. Knows nothing of what the names say.

Of a folder of this machine the system says when it was changed; an entry that came in the same
moment as we looked may not show in that, so such a look is not trusted (git does the same with its
index). Elsewhere a listing costs a request: what was listed is believed until somebody asks for
what is fresh.
"""

from __future__ import annotations

import time
from typing import Final

from prefect_mlpipe.core.places.backends import LocalBackend
from prefect_mlpipe.core.storing.place import Place

_RACY_S: Final = 0.05  # file systems set times by a clock that ticks, some every 10 ms


class Listing:
    """The final names in one folder of a store. Not thread-safe."""

    def __init__(self, place: Place, folder: str) -> None:
        self._place, self._folder = place, folder
        self._names: frozenset[str] = frozenset()
        self._stamp: int | None = None
        self._listed = False

    def names(self, *, fresh: bool) -> frozenset[str]:
        """Give the names; the same object as long as they have not changed.

        Args:
            fresh: whether a remote store is to be asked again.
        """
        backend = self._place.reading()
        stamp = None
        if isinstance(backend, LocalBackend):
            facts = backend.stat(self._folder)
            if facts is None:
                self._stamp, self._names = None, frozenset()
                return self._names
            stamp = facts.st_mtime_ns
            if stamp == self._stamp:
                return self._names
        elif self._listed and not fresh:
            return self._names
        began = time.time()
        found = frozenset(entry.name.rpartition("/")[2] for entry in backend.list(self._folder))
        self._listed = True
        racy = stamp is None or abs(began - stamp / 1e9) < _RACY_S
        self._stamp = None if racy else stamp
        if found != self._names:
            self._names = found
        return self._names

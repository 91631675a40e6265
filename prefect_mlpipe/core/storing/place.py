"""The place of a store: its layout is looked at before the first read, made before the first write.

Knows a backend and the version of the layout. Knows nothing of what lies in the store.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import threading

from prefect_mlpipe.core.places.backends import Backend
from prefect_mlpipe.errors import StoreUnavailable

LAYOUT = 1
CACHEDIR_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# A prefect_mlpipe store: stored values and records, all of which can be computed again.
"""


class Place:
    """A backend, given only after it is known to be a store of ours, or made one."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.url = backend.url
        self._lock = threading.Lock()
        self._read = self._written = self._found = False

    @property
    def is_made(self) -> bool:
        """Tell whether a store is there, as far as was looked."""
        return self._found or self._written

    def reading(self) -> Backend:
        """Give the backend to read from.

        Raises:
            StoreUnavailable: something else lies there, or a layout of a later release.
        """
        if not self._read:
            found = self.backend.read("format")
            if found is not None:
                self._check(found)
            self._found = found is not None
            self._read = True
        return self.backend

    def writing(self) -> Backend:
        """Give the backend to write to; the store is made where there is none.

        Raises:
            StoreUnavailable: as for reading, or it cannot be written.
        """
        if not self._written:
            with self._lock:
                self.reading()
                if not self._found:
                    self.backend.replace("CACHEDIR.TAG", CACHEDIR_TAG)
                    self.backend.replace("format", f"prefect-mlpipe store {LAYOUT}\n".encode())
                self._written = True
        return self.backend

    def _check(self, found: bytes) -> None:
        words = found.split()
        if len(words) == 3 and words[:2] == [b"prefect-mlpipe", b"store"] and words[2].isdigit():
            if int(words[2]) <= LAYOUT:
                return
            advice = "Upgrade prefect_mlpipe, or choose another place with `store=`."
        else:
            advice = "Something else lies there: choose another place with `store=`."
        raise StoreUnavailable(
            f"the store {self.url} has a layout that this prefect_mlpipe does not know.",
            {"store": self.url, "layout": found[:40].decode(errors="replace").strip()},
            advice,
        )

"""What runs in progress have reused, said in the store so that nobody prunes it under them.

Knows documents and the thread that renews leases. Knows nothing of why a record is reused.

A run says so for the first time after some seconds: one that is over before writes nothing. Whoever
prunes looks twice, farther apart than that.
"""

from __future__ import annotations

import time
from typing import Final

from prefect_mlpipe.core.leases.heart import heart
from prefect_mlpipe.core.storing.documents import Documents, quoted

FOLDER: Final = "active"
SAID_WITHIN_S: Final = 12.0  # after its start, a run that still goes on has said what it uses
ALIVE_S: Final = 1800.0  # an older word is that of a run that was killed

_AGAIN_S = 300.0
_CHANGED_S = 30.0


class Active:
    """The records that one run has reused. Thread-safe."""

    expires_s = SAID_WITHIN_S * 5  # the heart beats six times in this

    def __init__(self, documents: Documents, run_id: str) -> None:
        self._documents = documents
        self._name = f"{FOLDER}/{quoted(run_id)}.json"
        self._keys: set[str] = set()
        self._said = 0
        self._when: float | None = None

    def uses(self, key: str) -> None:
        """Note that a record is reused."""
        if not self._keys:
            heart.add(self)
        self._keys.add(key)

    def renew(self) -> None:
        """Say what is used, if that has changed or was said long ago."""
        now = time.monotonic()
        age = float("inf") if self._when is None else now - self._when
        if age > _AGAIN_S or (age > _CHANGED_S and len(self._keys) != self._said):
            keys = sorted(self._keys.copy())
            self._documents.write(self._name, {"keys": keys})
            self._said, self._when = len(keys), now

    def tidy(self) -> None:
        """Nothing can wait."""

    def close(self) -> None:
        """Take the word back: the run has ended, and its manifest says what it used."""
        heart.remove(self)
        if self._when is not None:
            self._documents.place.writing().delete(self._name)

"""One thread that renews the leases of all runs of this process.

Knows nothing of what a lease is. It starts with the first run that has one and ends when there is
none left; a child by fork begins without.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from typing import Protocol

from prefect_mlpipe.errors import StoreUnavailable

logger = logging.getLogger(__name__)

RENEWALS = 6  # within the time in which a lease expires


class Renewed(Protocol):
    """What is to be renewed."""

    expires_s: float

    def renew(self) -> None:
        """Say that it lives."""

    def tidy(self) -> None:
        """Do what could wait."""

    def close(self) -> None:
        """Give everything back."""


class Heart:
    """Renews what is added to it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alive: dict[Renewed, None] = {}
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()

    def add(self, leases: Renewed) -> None:
        """Renew the leases of a run from now on."""
        with self._lock:
            self._alive[leases] = None
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._beat, name="mlpipe-leases", daemon=True
                )
                self._thread.start()

    def remove(self, leases: Renewed) -> None:
        """Let the leases of a run be."""
        with self._lock:
            self._alive.pop(leases, None)

    def wake(self) -> None:
        """Have what could wait done soon."""
        self._woken.set()

    def close(self) -> None:
        """Give everything back: the process ends."""
        for leases in list(self._alive):
            leases.close()

    def _beat(self) -> None:
        due: float | None = None  # a run that is over before that is spared a renewal
        while True:
            with self._lock:
                alive = list(self._alive)
                if not alive:
                    self._thread = None
                    return
            every_s = min(leases.expires_s for leases in alive) / RENEWALS
            now = time.monotonic()
            renewing = due is not None and now >= due
            if due is None or renewing:
                due = now + every_s
            for leases in alive:
                try:
                    leases.tidy()
                    if renewing:
                        leases.renew()
                except (OSError, StoreUnavailable) as error:
                    # The thread serves other runs too; whoever waits for this one sees it expire.
                    logger.warning("a lease could not be renewed: %s", error)
            self._woken.wait(max(0.0, min(every_s, due - time.monotonic())))
            self._woken.clear()


heart = Heart()


def _after_fork() -> None:
    heart.__init__()  # type: ignore[misc]  # its thread and the leases are the parent's


os.register_at_fork(after_in_child=_after_fork)
atexit.register(heart.close)

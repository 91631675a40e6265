"""Leases: who computes the step of a key, so that nobody else computes it at the same time.

Knows keys and processes; nothing of steps or runs but their names, for people.

A lease saves work and guards nothing: whoever loses one still leaves a right record, and the first
record of a key stands. So every doubt is settled towards going on, and a place where leases cannot
be kept is said once and then done without.

How they are kept is told by `local_leases` and `remote_leases`.

No clock is compared with another. A holder is gone if its process is seen to have ended, or if its
presence stayed as it was while somebody watched it for as long as the holder itself had promised to
renew it. A machine that sleeps does not watch, so a laptop that wakes up loses no leases.

All methods are cross-thread and cross-process safe, but `take` is for one thread of a run.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from prefect_mlpipe.core.leases import processes
from prefect_mlpipe.core.leases.heart import heart
from prefect_mlpipe.core.leases.processes import Process

logger = logging.getLogger(__name__)

EXPIRES_S = 30.0  # a holder that was not seen to renew for so long is gone
LOOK_EVERY_S = 0.05  # that often the same holder is looked at


class Holder(NamedTuple):
    """Who has a lease.

    Attributes:
        token: names its presence.
        run: name of the run.
        pipeline: name of the pipeline.
        process: where it runs.
        expires_s: how long after its last renewal it holds nothing any more.
    """

    token: str
    run: str
    pipeline: str
    process: Process
    expires_s: float

    def __str__(self) -> str:
        if not self.token:
            return "another run"
        where = f"host {self.process.host}, process {self.process.pid}"
        return f"run {self.run} of pipeline '{self.pipeline}' ({where})"

    def to_bytes(self) -> bytes:
        """Return what stands in a presence, and in a lease."""
        return orjson.dumps([*self[:3], list(self.process), self.expires_s])

    @classmethod
    def from_bytes(cls, data: bytes) -> Holder:
        """Read what `to_bytes` wrote; a nameless holder where it is torn."""
        try:
            token, run, pipeline, process, expires_s = orjson.loads(data)
            return cls(token, run, pipeline, Process(*process), float(expires_s))
        except (ValueError, TypeError):
            return cls("", "", "", Process("", 0, "", ""), EXPIRES_S)


class Leases(ABC):
    """The leases of one run.

    Args:
        run: name of the run.
        pipeline: name of the pipeline.

    Attributes:
        problem: why leases cannot be kept here, if so; then every one is granted.
    """

    def __init__(self, run: str, pipeline: str) -> None:
        self.problem: str | None = None
        self.expires_s = EXPIRES_S
        self._names = run, pipeline
        self._held: set[str] = set()
        self._pid = os.getpid()
        self._renewed = time.monotonic()
        self._late = False
        self._watched: dict[str, tuple[object, float, float]] = {}

    @abstractmethod
    def take(self, key: str) -> bool:
        """Have the lease of a key from now on; `False` where somebody has it."""

    def take_many(self, keys: Sequence[str]) -> set[str]:
        """Have the leases of keys from now on; return those of which nobody else has it."""
        return {key for key in keys if self.take(key)}

    @abstractmethod
    def holder(self, key: str) -> Holder | None:
        """Say who has the lease of a key; `None` if nobody has it, so that it can be taken.

        The lease of a holder that is gone is removed here.
        """

    @abstractmethod
    def renew(self) -> None:
        """Say that this run lives."""

    @abstractmethod
    def tidy(self) -> None:
        """Do what could wait."""

    @abstractmethod
    def _drop(self, key: str, sure: bool) -> None:
        """Remove a lease of ours; unless sure, only after a look at whose it is."""

    @abstractmethod
    def _leave(self) -> None:
        """Remove every trace of this run."""

    def release(self, key: str) -> None:
        """Give a lease back; nothing happens where it is not held."""
        try:
            self._held.remove(key)
        except KeyError:
            return
        if os.getpid() == self._pid:  # else a child by fork, and it is the parent's
            late = time.monotonic() - self._renewed > self.expires_s / 2
            self._late = self._late or late
            self._drop(key, not self._late)

    def close(self) -> None:
        """Give back everything; the run has ended."""
        heart.remove(self)
        if os.getpid() == self._pid:
            for key in list(self._held):
                self.release(key)
            self._leave()

    def _me(self) -> Holder:
        """Begin to promise to renew."""
        self._renewed = time.monotonic()
        token = f"{self._pid}-{secrets.token_hex(8)}"
        return Holder(token, *self._names, processes.here(), self.expires_s)

    def _note_renewal(self) -> None:
        # One who was stopped for long may have been succeeded, and must look before it removes.
        now = time.monotonic()
        self._late = self._late or now - self._renewed > self.expires_s / 2
        self._renewed = now

    def _is_gone(self, name: str, holder: Holder, sign_of_life: object) -> bool:
        """Tell whether a holder has ended, or was not renewed while we watched."""
        now = time.monotonic()
        before, since, looked = self._watched.get(name, (None, now, 0.0))
        if before != sign_of_life:
            since = now
        elif now - looked < LOOK_EVERY_S:
            return False
        self._watched[name] = (sign_of_life, since, now)
        return now - since > holder.expires_s or processes.has_ended(holder.process)

    def _is_granted(self, key: str) -> bool:
        """Tell whether we may go on though the lease of a key is taken."""
        return key in self._held or self.problem is not None

    def _cannot(self, error: BaseException) -> bool:
        """Go on without leases."""
        if self.problem is None:
            self.problem = f"{type(error).__name__}: {error}"
            logger.info("leases cannot be kept: %s", self.problem)
        return True

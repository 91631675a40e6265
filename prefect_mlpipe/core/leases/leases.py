"""Leases: who computes the step of a key, so that nobody else computes it at the same time.

Knows keys, processes and a store's folder; nothing of steps or runs but their names, for people.

A lease saves work and guards nothing: whoever loses one still leaves a right record, and the first
record of a key stands. So every doubt is settled towards going on, and a place where leases cannot
be kept is said once and then done without.

    leases/<key>              a lease: a hard link to the presence of its holder
    leases/holders/<token>    the presence of a run: who it is, renewed as long as it lives
    leases/claims/<token>.*   many leases of a holder in one, see `core.leases.claims`
    leases/succession         locked by who removes the leases of a holder that is gone

A hard link is made by one system call that fails where the name is taken, on network file systems
too, and one `utime` of the presence renews all leases of a run. Where links are refused a lease is
a file of its own that names the presence.

No clock is compared with another. A holder is gone if its process is seen to have ended, or if its
presence stayed as it was while somebody watched it for as long as the holder itself had promised to
renew it. A machine that sleeps does not watch, so a laptop that wakes up loses no leases.

All methods are cross-thread and cross-process safe, but `take` is for one thread of a run.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import orjson
from typing_extensions import override

from prefect_mlpipe.core.leases import processes
from prefect_mlpipe.core.leases.claims import Claims
from prefect_mlpipe.core.leases.heart import heart
from prefect_mlpipe.core.leases.processes import Process

logger = logging.getLogger(__name__)

EXPIRES_S = 30.0  # a holder that was not seen to renew for so long is gone
LOOK_EVERY_S = 0.05  # that often the same holder is looked at
FORGOTTEN_S = 600.0  # a presence so much older than a new one is removed
MANY = 4  # so many leases are sooner taken in one

_NO_LINKS = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EINVAL}
)
_NO_LOCKS = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL})
_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


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


class LocalLeases(Leases):
    """Leases in a folder."""

    def __init__(self, folder: str, run: str, pipeline: str) -> None:
        super().__init__(run, pipeline)
        self._folder = f"{folder}/leases/"
        self._presence = ""  # made with the first lease
        self._presences: list[str] = []
        self._tokens: set[str] = set()
        self._document = b""
        self._linking = True
        self._claims = Claims(f"{self._folder}claims/", self._tokens)

    @override
    def take(self, key: str) -> bool:
        if key in self._claims:
            return True
        try:
            os.link(self._presence, self._folder + key)
        except FileExistsError:
            return self._is_granted(key)
        except OSError as error:
            return self._take_otherwise(key, error)
        return self._have(key)

    @override
    def take_many(self, keys: Sequence[str]) -> set[str]:
        held = self._held.intersection(keys)
        wanted = set(keys) - held
        if len(wanted) < MANY or self.problem is not None:
            return super().take_many(keys)
        try:
            return held | self._claim(wanted)
        except OSError as error:
            self._cannot(error)
            return set(keys)

    def _claim(self, wanted: set[str]) -> set[str]:
        """Have the leases of keys by one file; return those that are ours by it."""
        while wanted:
            if not (self._presence and os.path.exists(self._presence)):
                self._appear()
            self._claims.put(os.path.basename(self._presence), wanted)
            taken = self._claims.of_others(wanted)
            taken.update(wanted.intersection(os.listdir(self._folder)))
            if not taken:
                self._held |= wanted
                break
            for key in wanted:
                self._claims.give_back(key)
            wanted = wanted - taken
        return wanted

    def _have(self, key: str) -> bool:
        """Keep the link that was made; `False` where another run has claimed the key before."""
        if self._claims.of_others({key}):
            with suppress(FileNotFoundError):
                os.unlink(self._folder + key)
            return False
        self._held.add(key)
        return True

    def _take_otherwise(self, key: str, error: OSError) -> bool:
        """Take a lease where there is no presence yet, it has all its links, or links fail."""
        try:
            if not self._presence or error.errno in (errno.ENOENT, errno.EMLINK):
                self._appear()
            elif error.errno not in _NO_LINKS:
                return self._cannot(error)
            self._place(self._folder + key)
        except FileExistsError:
            return self._is_granted(key)
        except OSError as worse:
            return self._cannot(worse)
        return self._have(key)

    def _place(self, path: str) -> None:
        if self._linking:
            try:
                os.link(self._presence, path)
                return
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            self._linking = False
        _create(path, self._document)

    def _appear(self) -> None:
        """Make a presence, which from now on is renewed."""
        me = self._me()
        document, path = me.to_bytes(), f"{self._folder}holders/{me.token}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _create(path, document)
        self._presence, self._document = path, document
        self._presences.append(path)
        self._tokens.add(me.token)
        heart.add(self)
        self._remove_forgotten(me.token)

    @override
    def holder(self, key: str) -> Holder | None:
        try:
            seen = _look(self._folder + key)
            if seen is None:
                return self._claimant(key)
            holder, facts = seen
            if not self._is_gone(holder.token or key, holder, self._sign_of_life(holder, facts)):
                return holder
            return None if self._succeed(key, holder, facts) else holder
        except FileNotFoundError:
            return None
        except OSError as error:
            self._cannot(error)
            return None

    def _claimant(self, key: str) -> Holder | None:
        """Say who has claimed a key. The claims of one that is gone are removed here."""
        token = self._claims.claimant(key)
        if token is None:
            return None
        seen = _look(f"{self._folder}holders/{token}")
        if seen is None:  # it was taken for gone, or is leaving
            self._claims.remove([token])
            return None
        holder, facts = seen
        if not self._is_gone(token, holder, facts.st_mtime_ns):
            return holder
        with self._succession() as locked:
            if not locked:
                return holder
            again = _look(f"{self._folder}holders/{token}")
            if again is not None and again[1].st_ino == facts.st_ino:
                self._sweep({facts.st_ino}, [], [token])
        return None

    def _sign_of_life(self, holder: Holder, facts: os.stat_result) -> object:
        if facts.st_nlink == 1 and holder.token:  # no link, or the presence was removed
            with suppress(FileNotFoundError):
                facts = os.stat(f"{self._folder}holders/{holder.token}")
        return facts.st_mtime_ns

    def _succeed(self, key: str, holder: Holder, facts: os.stat_result) -> bool:
        """Remove the leases of a holder that is gone; `False` where another is about to."""
        with self._succession() as locked:
            if not locked:
                return False
            again = _look(self._folder + key)
            if again is None:  # somebody was faster, and may have it again before we look
                return True
            if again[0] != holder or again[1].st_ino != facts.st_ino:
                return False
            tokens = [holder.token] if holder.token else []
            self._sweep({facts.st_ino}, [self._folder + key], tokens)
            return True

    def _sweep(self, inodes: set[int], paths: list[str], tokens: list[str]) -> None:
        """Remove presences and all leases that are links to them."""
        with os.scandir(self._folder) as entries:  # before any is removed: numbers are used anew
            links = [entry.path for entry in entries if entry.inode() in inodes]
        holders = [f"{self._folder}holders/{token}" for token in tokens]
        self._claims.remove(tokens)
        for path in dict.fromkeys([*paths, *links, *holders]):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _remove_forgotten(self, own: str) -> None:
        """Remove what runs left that ended without a word."""
        claiming = self._claims.tokens() - self._tokens
        if claiming:  # without a presence nothing holds: it is made before, and goes afterwards
            self._claims.remove(claiming.difference(os.listdir(f"{self._folder}holders/")))
        if self._forgotten(own):
            with self._succession() as locked:
                if locked:
                    gone = self._forgotten(own)  # anew: a number of a file may be another's by now
                    self._sweep(set(gone.values()), [], list(gone))

    def _forgotten(self, own: str) -> dict[str, int]:
        """Token → inode of runs that have ended, as far as that is certain."""
        holders = f"{self._folder}holders/"
        with os.scandir(holders) as entries:
            others = [entry.name for entry in entries if entry.name not in self._tokens]
        if not others:
            return {}
        now = os.stat(holders + own).st_mtime  # by the clock of the file system
        gone = {}
        for token in others:
            seen = _look(holders + token)
            if seen is not None:
                old = now - seen[1].st_mtime > FORGOTTEN_S
                if old or processes.has_ended(seen[0].process):
                    gone[token] = seen[1].st_ino
        return gone

    @contextmanager
    def _succession(self) -> Iterator[bool]:
        """Let one at a time remove leases of others: two would remove each other's new ones."""
        handle = os.open(f"{self._folder}succession", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield _locked(handle)
        finally:
            os.close(handle)

    @override
    def renew(self) -> None:
        for path in list(self._presences):
            with suppress(FileNotFoundError):  # we were taken for gone; the next lease is a new one
                os.utime(path)
        self._note_renewal()

    @override
    def tidy(self) -> None:
        return

    @override
    def _drop(self, key: str, sure: bool) -> None:
        path = self._folder + key
        try:
            if self._claims.give_back(key):
                return
            if not sure:
                seen = _look(path)
                if seen is None or seen[0].token not in self._tokens:
                    return
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            self._cannot(error)

    @override
    def _leave(self) -> None:
        try:
            self._claims.close()
        except OSError as error:
            self._cannot(error)
        for path in self._presences:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._cannot(error)
        self._presences.clear()
        self._presence = ""


def _create(path: str, document: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, document)
    finally:
        os.close(handle)


def _look(path: str) -> tuple[Holder, os.stat_result] | None:
    """Read a lease or a presence. It is opened: on network file systems only that looks anew."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return Holder.from_bytes(os.read(handle, 65536)), os.fstat(handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:  # then two may: it costs work
            return True
        if error.errno in _BUSY:
            return False
        raise
    return True

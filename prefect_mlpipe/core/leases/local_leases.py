"""Leases in a folder, by hard links.

Knows a store's folder. All methods are as in `core.leases.leases`.

    leases/<key>              a lease: a hard link to the presence of its holder
    leases/holders/<token>    the presence of a run: who it is, renewed as long as it lives
    leases/claims/<token>.*   many leases of a holder in one, see `core.leases.claims`
    leases/succession         locked by who removes the leases of a holder that is gone

A hard link is made by one system call that fails where the name is taken, on network file systems
too, and one `utime` of the presence renews all leases of a run. Where links are refused a lease is
a file of its own that names the presence.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from typing_extensions import override

from prefect_mlpipe.core.leases import processes
from prefect_mlpipe.core.leases.claims import Claims
from prefect_mlpipe.core.leases.heart import heart
from prefect_mlpipe.core.leases.leases import Holder, Leases

FORGOTTEN_S = 600.0  # a presence so much older than a new one is removed
MANY = 4  # so many leases are sooner taken in one

_NO_LINKS = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EINVAL}
)
_NO_LOCKS = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL})
_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


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

    def _remove_forgotten(self, own: str | None) -> None:
        """Remove what runs left that ended without a word."""
        claiming = self._claims.tokens() - self._tokens
        if claiming:  # without a presence nothing holds: it is made before, and goes afterwards
            self._claims.remove(claiming.difference(os.listdir(f"{self._folder}holders/")))
        if self._forgotten(own):
            with self._succession() as locked:
                if locked:
                    gone = self._forgotten(own)  # anew: a number of a file may be another's by now
                    self._sweep(set(gone.values()), [], list(gone))

    def _forgotten(self, own: str | None) -> dict[str, int]:
        """Token → inode of runs that have ended, as far as that is certain."""
        holders = f"{self._folder}holders/"
        with os.scandir(holders) as entries:
            others = [entry.name for entry in entries if entry.name not in self._tokens]
        if not others:
            return {}
        # By the clock of the file system, which only a presence of our own tells.
        now = os.stat(holders + own).st_mtime if own is not None else 0.0
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
        if not self._presences:  # no lease was needed: nobody else would look what others left
            with suppress(OSError):  # no folder yet, or one that only others may write
                self._remove_forgotten(None)
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

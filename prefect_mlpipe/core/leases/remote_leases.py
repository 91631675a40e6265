"""Leases in a store that lies elsewhere: small objects that are created once.

Knows a backend. Whether the place honours create-once is found out with the first lease; where it
does not, two runs may both have one: best effort. An object names its holder, whose presence is
written from the first renewal on, so a short run costs no request for it. What nobody waits for,
removing a lease, is left to the thread that renews.

All methods are as in `core.leases.leases`.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

from typing_extensions import override

from prefect_mlpipe.core.leases.heart import heart
from prefect_mlpipe.core.leases.leases import Holder, Leases
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.errors import StoreUnavailable


class RemoteLeases(Leases):
    """Leases in any store, object by object."""

    def __init__(self, backend: RemoteBackend, run: str, pipeline: str) -> None:
        super().__init__(run, pipeline)
        self._backend = backend
        self._me_here: Holder | None = None
        self._document = b""
        self._exclusive = True
        self._beats = 0
        self._dropped: SimpleQueue[tuple[str, bool]] = SimpleQueue()

    @override
    def take(self, key: str) -> bool:
        try:
            self._appear()
            if not self._create(f"leases/{key}"):
                return self._is_granted(key)
        except StoreUnavailable as error:
            return self._cannot(error)
        self._held.add(key)
        return True

    def _appear(self) -> None:
        if self._me_here is None:
            self._me_here = self._me()
            self._document = self._me_here.to_bytes()
            self._exclusive = self._backend.honours_create()
            heart.add(self)

    def _create(self, name: str) -> bool:
        if self._backend.create(name, self._document):
            if self._exclusive:
                return True
        elif not self._exclusive:
            return False
        # Not honoured, the last one has it; honoured, it is ours if the answer to a first try was
        # lost and the second one found what the first had written.
        return self._backend.read(name) == self._document

    @override
    def holder(self, key: str) -> Holder | None:
        try:
            data = self._backend.read(f"leases/{key}")
            if data is None:
                return None
            holder = Holder.from_bytes(data)
            if holder == self._me_here and key not in self._held:
                return None  # given back, and removed at any moment
            presence = self._backend.read(f"leases/holders/{holder.token}")
            if not self._is_gone(holder.token or key, holder, (data, presence)):
                return holder
            if self._backend.read(f"leases/{key}") == data:
                self._backend.delete(f"leases/{key}")
            return None
        except StoreUnavailable as error:
            self._cannot(error)
            return None

    @override
    def renew(self) -> None:
        if self._held and self._me_here is not None:
            self._beats += 1
            name = f"leases/holders/{self._me_here.token}"
            self._backend.replace(name, b"%s %d" % (self._document, self._beats))
        self._note_renewal()

    @override
    def tidy(self) -> None:
        while True:
            try:
                key, sure = self._dropped.get_nowait()
            except Empty:
                return
            name = f"leases/{key}"
            try:
                if sure or self._backend.read(name) == self._document:
                    self._backend.delete(name)
            except StoreUnavailable:
                self._dropped.put((key, sure))  # as long as the run lives its leases do not expire
                raise

    @override
    def _drop(self, key: str, sure: bool) -> None:
        self._dropped.put((key, sure))
        heart.wake()

    @override
    def _leave(self) -> None:
        try:
            self.tidy()
            if self._beats and self._me_here is not None:
                self._backend.delete(f"leases/holders/{self._me_here.token}")
        except StoreUnavailable as error:
            self._cannot(error)

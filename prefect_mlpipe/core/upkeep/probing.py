"""Whether a store can be used from here: read, written, in what time, by whose clock.

Knows the place and how documents are sealed. Makes no store where there is none, and leaves nothing
in one that is there but the mark by which every run asks a remote one whether it honours
create-once.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Final

from prefect_mlpipe.core.places.backends import Backend
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.run_manifests import FOLDER as RUNS
from prefect_mlpipe.core.storing.run_manifests import is_manifest
from prefect_mlpipe.errors import StoreUnavailable

PROBE_BYTES: Final = 4096
SAMPLE: Final = 20  # run manifests whose seals are looked at


@dataclass(frozen=True)
class Probe:
    """What was seen of a store.

    Attributes:
        url: of the store.
        there: whether there is one; if not, nothing else was looked at.
        honours_create: whether of several that create a name only the first one succeeds.
        clock_ahead_s: how far its clock is ahead of ours, as far as more than the answer took.
        seconds: that writing, reading and removing a few KiB took.
        looked_at: of how many run manifests the seals were looked at.
        refused: how many of those are not believed: damaged, or not signed with our key.
    """

    url: str
    there: bool
    honours_create: bool = False
    clock_ahead_s: float = 0.0
    seconds: float = 0.0
    looked_at: int = 0
    refused: int = 0


def probe(documents: Documents) -> Probe:
    """Write something small into a store that is there, look at it, and remove it.

    Raises:
        StoreUnavailable: it cannot be read or written, or gives back something else.
    """
    url = documents.place.url
    backend = documents.place.reading()
    if not documents.place.is_made:
        return Probe(url, there=False)
    name = f"clock/probe-{secrets.token_hex(8)}"
    began, watch = time.time(), time.perf_counter()
    try:
        data = secrets.token_bytes(PROBE_BYTES)
        backend.replace(name, data)
        written = time.time()
        if backend.read(name) != data:
            raise _odd(url, "what was just written is read as something else")
        ahead = _ahead(backend, name, began, written)
        honours = _honours(backend, name)
    finally:
        backend.delete(name)
    if backend.exists(name):
        raise _odd(url, "what was just removed is still there")
    seconds = time.perf_counter() - watch
    looked_at, refused = _sample(documents, backend)
    return Probe(url, True, honours, ahead, seconds, looked_at, refused)


def _ahead(backend: Backend, name: str, began: float, written: float) -> float:
    """Return how far the store's clock is ahead; some tell whole seconds only, so one is free."""
    (modified,) = [entry.modified for entry in backend.list("clock") if entry.name == name]
    if not modified or began - 1 <= modified <= written + 1:
        return 0.0
    return modified - (written if modified > written else began)


def _honours(backend: Backend, name: str) -> bool:
    """Tell whether the name, which is taken, can be created no more."""
    asked = getattr(backend, "honours_create", None)  # a remote one finds out once for itself
    return bool(asked()) if asked is not None else not backend.create(name, b"")


def _sample(documents: Documents, backend: Backend) -> tuple[int, int]:
    every = (entry.name for entry in backend.list(RUNS))
    found = (name for name in every if is_manifest(_last_part(name)))
    names = sorted(found, key=_last_part, reverse=True)[:SAMPLE]
    return len(names), len(names) - len(documents.read_many(names))


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]


def _odd(url: str, what: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store {url} does not keep what it is given.",
        {"store": url, "because": what},
        "Choose another place with `store=`: this one would lose work.",
    )

"""Packs: many records in one object, as a mapped step leaves them.

Knows records and places. A file for each of ten thousand small records costs more than the work
that they stand for, so those of a batch are written together: what git does with its objects, loose
or packed.

    packs/<time>-<digest>.json       a sealed document: what the records share, and a row for each
    pack-keys/<time>-<digest>        the first 8 bytes of their keys, sorted; written last

A pack is never changed. What stands under the own name of a key takes precedence over all packs,
and whoever puts it there says so under `moved/`; of several packs with one key the oldest counts.
Small packs are put together into larger ones, so that there are few to look through however many
were written. The keys alone are read to find out where a record is: eight bytes each. They bear no
seal, for a wrong one leads to a row of another key, which is not taken.

All methods are cross-thread and cross-process safe.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from blake3 import blake3

from prefect_mlpipe.core.places.backends import LocalBackend
from prefect_mlpipe.core.record import HeldCode, Record, StoredValue
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.listing import Listing
from prefect_mlpipe.core.storing.moves import Moves

logger = logging.getLogger(__name__)

FOLDER: Final = "packs"
KEYS: Final = "pack-keys"

WORTH: Final = 8  # records; fewer are written one by one
FULL: Final = 50_000  # records; a pack that has so many is not put together with others
_TIER: Final = 8  # packs of about one size are put together once there are so many
_REMOTE_TIER: Final = 2  # the same where each one costs a request
_LOOKS: Final = 5  # that often packs may go under a reader
_MANY: Final = 16  # keys; from so many on they are looked up all at once

Json = Any


class Packs:
    """The packs of one store."""

    def __init__(self, documents: Documents, moves: Moves) -> None:
        self._documents, self._place, self._moves = documents, documents.place, moves
        self._listing = Listing(documents.place, KEYS)
        self._names: frozenset[str] = frozenset()
        self._packs: list[_Pack] = []  # oldest first
        self._own: dict[str, _Pack] = {}  # of which a listing may not know yet
        self._lock = threading.RLock()

    def read(self, key: str, *, fresh: bool = False) -> Record | None:
        """Give the record of a key, if it lies in a pack and has not moved."""
        return self.read_many([key], fresh=fresh).get(key)

    def read_many(self, keys: Sequence[str], *, fresh: bool = False) -> dict[str, Record]:
        """Give the records that lie in packs and have not moved.

        Args:
            keys: of the records.
            fresh: whether a remote store is to be asked for new packs.
        """
        with self._lock:
            packs = self._look(fresh=fresh)
            if not packs:
                return {}
            moved = self._moves.keys(fresh=fresh)
            wanted = [key for key in keys if key not in moved] if moved else keys
            for _ in range(_LOOKS):
                try:
                    return _found(packs, wanted)
                except _Gone:  # put together with others by somebody else
                    # Of what was removed by hand the keys may be left: those records are not there.
                    packs = [pack for pack in self._look(fresh=True) if pack.is_there()]
            return {}  # they go faster than they can be read

    def has(self, key: str) -> bool:
        """Tell whether there seems to be a record of a key in a pack, without reading it."""
        prefix = _prefix(key)
        with self._lock:
            return any(pack.positions(prefix) for pack in self._look(fresh=False))

    def refused(self, key: str) -> str | None:
        """Say why a pack in which there seems to be a record of a key was not believed."""
        prefix = _prefix(key)
        with self._lock:
            whys = (self._documents.refused.get(pack_name(p.name)) for p in self._holding(prefix))
            return next(filter(None, whys), None)

    def write(self, records: Iterable[Record]) -> None:
        """Write records together."""
        self._write(_packed((record.key, record.to_json()) for record in records))

    def tidy(self) -> None:
        """Put small packs together where there are many of about one size."""
        with self._lock:
            tiers: dict[int, list[_Pack]] = {}
            for pack in self._look(fresh=False):
                if len(pack) < FULL:
                    tiers.setdefault(len(pack).bit_length() // 3, []).append(pack)
            few = _TIER if isinstance(self._place.backend, LocalBackend) else _REMOTE_TIER
            for packs in tiers.values():
                if len(packs) >= few:
                    self._put_together(packs)

    def rewrite(self, name: str, keep: Callable[[str], bool]) -> None:
        """Put a pack in place of another that has fewer of its records, or none."""
        found = self._documents.read(pack_name(name))
        rest = [(k, r) for k, r in documents_in(found or {}) if keep(k)]
        if rest:
            self._write(_packed(rest), name.partition("-")[0])
        self._remove(name)

    def _put_together(self, packs: Sequence[_Pack]) -> None:
        found = {pack.name: self._documents.read(pack_name(pack.name)) for pack in packs}
        whole = {name: document for name, document in found.items() if document is not None}
        if len(whole) > 1:  # what is damaged is left to be repaired
            self._write(_joined(whole.values()), min(whole).partition("-")[0])
            for name in whole:
                self._remove(name)

    def _write(self, document: Mapping[str, Json], stamp: str = "") -> None:
        backend = self._place.writing()
        keys = [row[1] for row in document["rows"]]
        content = orjson.dumps(document)
        stamp = stamp or f"{int(time.time() * 1000):013d}"
        name = f"{stamp}-{blake3(content).hexdigest()[:16]}"
        backend.replace(pack_name(name), self._documents.seal.close(pack_name(name), content))
        backend.replace(keys_name(name), _prefixes(keys).tobytes())
        with self._lock:
            self._own[name] = _Pack(self._documents, name, _prefixes(keys))
            self._names = _UNKNOWN

    def _remove(self, name: str) -> None:
        backend = self._place.writing()
        with self._lock:
            self._own.pop(name, None)
            self._names = _UNKNOWN
        backend.delete(keys_name(name))  # first, so that no reader takes it for whole
        backend.delete(pack_name(name))

    def _holding(self, prefix: int) -> Iterator[_Pack]:
        return (pack for pack in self._packs if pack.positions(prefix))

    def _look(self, *, fresh: bool) -> list[_Pack]:
        """Give the packs that there are, oldest first."""
        names = self._listing.names(fresh=fresh)
        if names is not self._names:
            known = {pack.name: pack for pack in self._packs} | self._own
            unknown = [name for name in names if name not in known]
            data = self._place.backend.read_many([keys_name(name) for name in unknown])
            for name in unknown:
                prefixes = data.get(keys_name(name))
                if prefixes and len(prefixes) % 8 == 0:
                    known[name] = _Pack(self._documents, name, array("Q", prefixes))
            there = (names | self._own.keys()) & known.keys()
            self._packs = [known[name] for name in sorted(there)]
            self._names = names
        return self._packs


_UNKNOWN: Final = frozenset({""})


class _Gone(Exception):
    """A pack is not there any more."""


class _Pack:
    """One pack, of which the records are read once one of them is wanted."""

    def __init__(self, documents: Documents, name: str, prefixes: array[int]) -> None:
        self.name = name
        self.prefixes = prefixes
        self._documents = documents
        self._document: dict[str, Json] | None = None

    def __len__(self) -> int:
        return len(self.prefixes)

    def is_there(self) -> bool:
        """Tell whether its records can be read."""
        return self._document is not None or self._documents.place.backend.exists(
            pack_name(self.name)
        )

    def positions(self, prefix: int) -> range:
        """Give the rows of keys that begin like this."""
        start = stop = bisect_left(self.prefixes, prefix)
        while stop < len(self.prefixes) and self.prefixes[stop] == prefix:
            stop += 1
        return range(start, stop)

    def record(self, key: str, at: int) -> Record | None:
        """Give the record in a row, if its key is this one."""
        document = self._whole()
        rows = document.get("rows", ())
        if at >= len(rows) or rows[at][1] != key:
            return None
        return _record(document["shared"], rows[at])

    def _whole(self) -> dict[str, Json]:
        if self._document is None:
            name = pack_name(self.name)
            data = self._documents.place.backend.read(name)
            if data is None:
                raise _Gone
            self._document = self._documents.opened(name, data) or {}
        return self._document


def _found(packs: Sequence[_Pack], keys: Sequence[str]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    if len(keys) < _MANY:
        for key in keys:
            prefix = _prefix(key)
            each = ((pack, at) for pack in packs for at in pack.positions(prefix))
            records = (pack.record(key, at) for pack, at in each)
            record = next((record for record in records if record is not None), None)
            if record is not None:
                found[key] = record
        return found
    wanted = np.array([_prefix(key) for key in keys], dtype=np.uint64)
    for pack in packs:
        known = np.frombuffer(pack.prefixes, dtype=np.uint64)
        places = np.searchsorted(known, wanted)
        hits = np.flatnonzero(known[np.minimum(places, len(known) - 1)] == wanted)
        for number, place in zip(hits.tolist(), places[hits].tolist(), strict=True):
            key = keys[number]
            if key not in found:
                record = pack.record(key, place)
                if record is not None:
                    found[key] = record
    return found


def _prefix(key: str) -> int:
    return int(key[:16], 16)


def _prefixes(keys: Iterable[str]) -> array[int]:
    return array("Q", map(_prefix, keys))


# The form of a pack: {"shared": [record without what differs], "rows": [[which of the shared, key,
# digest, fields, created, duration, metrics, node, differences of the manifest, code in it], ...]}


def _packed(records: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    """Give the document of a pack, rows in the order of their keys."""
    shared: list[Json] = []
    rows = []
    for key, record in sorted(records, key=lambda each: each[0]):
        manifest, provenance = record["manifest"], record["provenance"]
        origin = {name: value for name, value in provenance.items() if name != "step"}
        for which in reversed(range(len(shared))):
            common = shared[which]
            if common["provenance"] == origin and _is_like(common["manifest"], manifest):
                break
        else:
            which, common = len(shared), {"manifest": manifest, "provenance": origin}
            shared.append(common)
        differences = _differences(common["manifest"], manifest)
        rows.append(
            [
                which,
                key,
                record["digest"],
                record["fields"],
                record["created"],
                record["duration_s"],
                record["metrics"],
                provenance.get("step"),
                differences,
                record.get("held"),
            ]
        )
    return {"shared": shared, "rows": rows}


def _joined(documents: Iterable[Mapping[str, Json]]) -> dict[str, Json]:
    """Give one pack in place of several; of two records of one key the first counts."""
    shared: list[Json] = []
    rows: dict[str, Json] = {}
    for document in documents:
        places = []
        for common in document["shared"]:
            if common not in shared:
                shared.append(common)
            places.append(shared.index(common))
        for row in document["rows"]:
            rows.setdefault(row[1], [places[row[0]], *row[1:]])
    return {"shared": shared, "rows": [rows[key] for key in sorted(rows)]}


def _is_like(one: Mapping[str, Json], other: Mapping[str, Json]) -> bool:
    """Tell whether two manifests are of calls that differ in what they were given at most."""
    return one.keys() == other.keys() and all(
        one.get(name) == other.get(name) for name in ("function", "code", "environment", "reads")
    )


def _differences(shared: Mapping[str, Json], manifest: Mapping[str, Json]) -> dict[str, Json]:
    """Give what of a manifest is not as in the shared one; of a dict, only the values that differ
    if its names are the same."""
    found: dict[str, Json] = {}
    for name, content in manifest.items():
        common = shared[name]
        if content == common:
            continue
        if isinstance(content, Mapping) and content.keys() == common.keys():
            found[name] = {n: each for n, each in content.items() if each != common[n]}
        else:
            found[name] = [content]  # as a whole
    return found


def _manifest(shared: Mapping[str, Json], differences: Mapping[str, Json]) -> dict[str, Json]:
    manifest = dict(shared)
    for name, change in differences.items():
        manifest[name] = change[0] if type(change) is list else {**manifest[name], **change}
    return manifest


def _record_json(shared: Sequence[Json], row: Sequence[Json]) -> dict[str, Json]:
    which, key, digest, fields, created, duration_s, metrics, step, differences, held = row
    common = shared[which]
    provenance = common["provenance"]
    document = {
        "key": key,
        "manifest": _manifest(common["manifest"], differences),
        "digest": digest,
        "fields": fields,
        "created": created,
        "duration_s": duration_s,
        "metrics": metrics,
        "provenance": provenance if step is None else {**provenance, "step": step},
    }
    return document if held is None else {**document, "held": held}


def _record(shared: Sequence[Json], row: Sequence[Json]) -> Record:
    which, key, digest, fields, created, duration_s, metrics, step, differences, held = row
    common = shared[which]
    provenance = common["provenance"]
    return Record(
        key,
        _Manifest(common["manifest"], differences),
        digest,
        {name: StoredValue.from_json(value) for name, value in fields.items()},
        created,
        duration_s,
        metrics,
        provenance if step is None else {**provenance, "step": step},
        None if held is None else HeldCode(*held),
    )


class _Manifest(Mapping[str, Json]):
    """The manifest of one record in a pack, put together once it is read: most never are."""

    __slots__ = ("_differences", "_shared", "_whole")

    def __init__(self, shared: Mapping[str, Json], differences: Mapping[str, Json]) -> None:
        self._shared, self._differences = shared, differences
        self._whole: dict[str, Json] | None = None

    def __getitem__(self, name: str) -> Json:
        return self._dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict())

    def __len__(self) -> int:
        return len(self._shared)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._dict() == dict(other)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._dict(),)

    def _dict(self) -> dict[str, Json]:
        if self._whole is None:
            self._whole = _manifest(self._shared, self._differences)
        return self._whole


def documents_in(document: Mapping[str, Json]) -> Iterator[tuple[str, dict[str, Json]]]:
    """Give key and record as JSON of everything in the document of a pack."""
    shared = document.get("shared", ())
    for row in document.get("rows", ()):
        yield row[1], _record_json(shared, row)


def pack_name(name: str) -> str:
    """The name under which the records of a pack stand."""
    return f"{FOLDER}/{name}.json"


def keys_name(name: str) -> str:
    """The name under which the keys of a pack stand."""
    return f"{KEYS}/{name}"

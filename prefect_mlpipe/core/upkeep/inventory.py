"""What lies in a store, and what refers to what.

Knows the layout of a store and the form of its documents. Decides nothing and removes nothing.

Whatever names a stored value keeps it. So that no kind of document can be forgotten, a reference is
recognised by its form wherever it stands in a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from prefect_mlpipe.core.places.backends import Backend, Entry
from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.storing import (
    packs,
    published_values,
    records,
    run_manifests,
    versions,
)
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.run_manifests import is_manifest

Json = Any

VALUES: Final = "values"
FOLDERS: Final = (
    VALUES,
    "records",
    "packs",
    "pack-keys",
    "segments",
    "moved",
    "runs",
    "pins",
    "published",
    "versions",
    "parameters",
    "active",
    "code",
    "latest",
    "watches",
    "leases",
)

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_CHECKSUM: Final = re.compile(r"values/[0-9a-f]{2}/([0-9a-f]{64})(?![0-9a-f])")
_AT_ONCE = 1000  # documents read in one call


@dataclass
class Held:
    """Everything that lies in a store under one checksum: a file, or the files of a folder."""

    entries: list[Entry] = field(default_factory=list)
    size: int = 0
    modified: float = 0.0
    undated: bool = False

    def add(self, entry: Entry) -> None:
        """Take in one name."""
        self.entries.append(entry)
        self.size += entry.size
        self.modified = max(self.modified, entry.modified)
        self.undated = self.undated or not entry.modified


class Inventory:
    """What a store held when it was looked at.

    Args:
        documents: the store's.
    """

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self.backend: Backend = documents.place.reading()
        self.folders: dict[str, list[Entry]] = {}
        for folder in FOLDERS:  # what else lies there is nobody's business
            self.folders[folder] = list(self.backend.list(folder))

    def entries(self, folder: str) -> list[Entry]:
        """Give what lies in a folder of the store, at any depth."""
        return self.folders.get(folder, [])

    @cached_property
    def values(self) -> dict[str, Held]:
        """Checksum → what lies under it."""
        found: dict[str, Held] = {}
        for entry in self.entries(VALUES):
            checksum = checksum_in(entry.name)
            if checksum is not None:
                found.setdefault(checksum, Held()).add(entry)
        return found

    @cached_property
    def records(self) -> dict[str, dict[str, Json]]:
        """Key → record as JSON; without those that cannot be believed."""
        packed = (found for pack in reversed(self.packs.values()) for found in pack.items())
        loose = self._documents(records.FOLDER)
        return {**dict(packed), **{n.rpartition("/")[2]: each for n, each in loose.items()}}

    @cached_property
    def packs(self) -> dict[str, dict[str, dict[str, Json]]]:
        """Name of a pack, oldest first → key → record as JSON."""
        found = self._documents(packs.FOLDER)
        return {final_name(n): dict(packs.documents_in(found[n])) for n in sorted(found)}

    @cached_property
    def written(self) -> dict[str, float]:
        """Key → when its record was written."""
        when = {final_name(name): at for name, at in self.modified(packs.FOLDER).items()}
        found = {key: when[name] for name, each in reversed(self.packs.items()) for key in each}
        return found | {final_name(n): at for n, at in self.modified(records.FOLDER).items()}

    @cached_property
    def runs(self) -> dict[str, dict[str, Json]]:
        """Name in the store → run manifest."""
        found = self._documents(run_manifests.FOLDER)
        return {n: each for n, each in found.items() if is_manifest(n.rpartition("/")[2])}

    @cached_property
    def published(self) -> dict[str, dict[str, Json]]:
        """Name in the store → version or alias of a published value."""
        return self._documents(published_values.FOLDER)

    @cached_property
    def versions(self) -> dict[str, dict[str, Json]]:
        """Name in the store → frozen version of a pipeline."""
        return self._documents(versions.FOLDER)

    @cached_property
    def parameters(self) -> dict[str, dict[str, Json]]:
        """Name in the store → reference to a parameter."""
        return self._documents("parameters")

    @cached_property
    def active(self) -> dict[str, dict[str, Json]]:
        """Name in the store → what a run in progress has reused."""
        return self._documents("active")

    def modified(self, folder: str) -> dict[str, float]:
        """Name → when it was written, of all that lies in a folder."""
        return {entry.name: entry.modified for entry in self.entries(folder)}

    def _documents(self, folder: str) -> dict[str, dict[str, Json]]:
        names = [entry.name for entry in self.entries(folder)]
        found: dict[str, dict[str, Json]] = {}
        for start in range(0, len(names), _AT_ONCE):
            found |= self.documents.read_many(names[start : start + _AT_ONCE])
        return found


def final_name(name: str) -> str:
    """The last part of a name in a store, as rooms of the store call what stands there."""
    return name.rpartition("/")[2].removesuffix(".json")


def checksum_in(name: str) -> str | None:
    """The checksum in the name of a stored value, of a file in a folder, or of what goes with it;
    `None` in a name that is not of ours.

    `values/3f/3f9c….npy` and `values/3f/3f9c…/digits.csv` both give `3f9c…`.
    """
    found = _CHECKSUM.match(name)
    return found and found[1]


def references(document: Json) -> Iterator[StoredValue]:
    """Find the references to stored values in a document, wherever they stand."""
    waiting = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list):
            found = _reference(each)
            if found is None:
                waiting += each
            elif found.inline is None:
                yield found


def _reference(items: list[Json]) -> StoredValue | None:
    if len(items) != len(StoredValue._fields):
        return None
    digest, checksum, size = items[:3]
    if not (isinstance(digest, str) and isinstance(checksum, str) and isinstance(size, int)):
        return None
    if not (_DIGEST.fullmatch(digest) and _DIGEST.fullmatch(checksum)):
        return None
    return StoredValue.from_json(items)


def digests(document: Json) -> Iterator[str]:
    """Find whatever looks like a digest in a document, names of entries included."""
    waiting = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if _DIGEST.fullmatch(each):
                yield each
        elif isinstance(each, Mapping):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each


def keys_of(run: Mapping[str, Json]) -> Iterator[str]:
    """The keys of the records that a run made or reused."""
    for entry in run["nodes"]:
        if entry["key"]:
            yield entry["key"]
    for items in run.get("items", {}).values():
        yield from filter(None, items["keys"])

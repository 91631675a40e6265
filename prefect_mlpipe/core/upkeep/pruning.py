"""Remove from a store what does not count any more.

Knows what is marked. Safe while runs write: what is younger than a grace time is left alone, by the
clock of the store itself, since a run writes values first and their record then. A run that reuses
a record in the very moment in which it is removed finds its value missing and makes it again.

Removal goes from what refers to what is referred to, so that a prune that is killed leaves nothing
that points to nothing.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, NamedTuple

from prefect_mlpipe.core.places.backends import Entry, LocalBackend
from prefect_mlpipe.core.storing import codes, records, run_manifests, segments
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.use import remove_unused
from prefect_mlpipe.core.telling.describing import size_text
from prefect_mlpipe.core.upkeep.inventory import VALUES, Inventory, keys_of
from prefect_mlpipe.core.upkeep.marking import UNFINISHED_KEPT, Marks, Rules

SHORTEST_GRACE: Final = timedelta(minutes=10)  # writers say that they use a value every two

_CLOCK: Final = "clock"
_AT_ONCE = 1000


@dataclass
class Pruned:
    """What a prune removed, or would remove. `str()` tells it.

    Attributes:
        url: of the store.
        dry_run: whether it only looked.
        counts: `runs`, `records`, `values`, `code`, `unfinished` → how many.
        size_bytes: what these take.
        kept_bytes: what the values take that stay.
        over_bytes: how much more that is than was allowed, because it is pinned, published, used
            by runs that are to stay, or too young.
    """

    url: str
    dry_run: bool
    counts: Counter[str] = field(default_factory=Counter)
    size_bytes: int = 0
    kept_bytes: int = 0
    over_bytes: int = 0

    def __str__(self) -> str:
        what = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items() if count)
        verb = "would free" if self.dry_run else "freed"
        line = f"{self.url}: {verb} {size_text(self.size_bytes)} ({what or 'nothing'})"
        line += f", values of {size_text(self.kept_bytes)} stay"
        if self.over_bytes:
            line += (
                f"\n  {size_text(self.over_bytes)} more than allowed: pinned, published, used by "
                "runs that are to stay, or too young"
            )
        return line


class _Doomed(NamedTuple):
    """Something that goes: its kind, the names under which it lies, and what it takes."""

    kind: str
    names: list[str]
    size: int
    checksum: str = ""


def prune(documents: Documents, rules: Rules, dry_run: bool) -> Pruned:
    """Remove what the rules let go, and what nothing refers to."""
    backend = documents.place.writing()
    backend.replace(_CLOCK, b"")
    inventory = Inventory(documents)
    (clock,) = inventory.entries(_CLOCK)
    marks = Marks(inventory, rules, clock.modified)
    done = Pruned(documents.place.url, dry_run, over_bytes=marks.over_bytes)
    doomed = list(_doomed(inventory, marks))
    for each in doomed:
        if not dry_run and not _removed(inventory, each, marks.before):
            continue
        done.counts[each.kind] += 1
        done.size_bytes += each.size
    gone = sum(each.size for each in doomed if each.kind == "values")
    done.kept_bytes = sum(held.size for held in inventory.values.values()) - gone
    return done


def _doomed(inventory: Inventory, marks: Marks) -> Iterator[_Doomed]:
    """Name what goes, in the order in which it is to go."""
    gone = inventory.records.keys() - marks.keys
    named = {
        run.get("segment")
        for name, run in inventory.runs.items()
        if name in marks.runs and gone.isdisjoint(keys_of(run))
    }
    stays = {
        segments.FOLDER: {segments.segment_name(str(name)) for name in named if name},
        segments.MOVED: {entry.name for entry in _needed_moves(inventory)},
        records.FOLDER: {
            entry.name
            for entry in inventory.entries(records.FOLDER)
            if entry.name.rpartition("/")[2] not in gone
        },
        "latest": _pointing(inventory, marks.keys),
        run_manifests.FOLDER: marks.runs
        | {e.name for e in inventory.entries(run_manifests.FOLDER) if e.name not in inventory.runs},
        codes.FOLDER: {f"{codes.FOLDER}/{digest[:2]}/{digest}" for digest in marks.codes},
    }
    for folder, names in stays.items():
        for entry in inventory.entries(folder):
            if entry.name not in names and _is_old(entry, marks.before):
                yield _Doomed(_KINDS[folder], [entry.name], entry.size)
    for checksum, held in inventory.values.items():
        if checksum not in marks.checksums and not held.undated and held.modified < marks.before:
            yield _Doomed("values", [e.name for e in held.entries], held.size, checksum)
    if isinstance(inventory.backend, LocalBackend):
        for entry in inventory.backend.unfinished():
            if _is_old(entry, marks.before):
                yield _Doomed("unfinished", [entry.name], entry.size)


_KINDS: Final = {
    segments.FOLDER: "records",
    segments.MOVED: "records",
    records.FOLDER: "records",
    "latest": "code",
    run_manifests.FOLDER: "runs",
    codes.FOLDER: "code",
}


def _needed_moves(inventory: Inventory) -> list[Entry]:
    """The moves that a segment may not know of: its run may have begun long before its end."""
    oldest = min((e.modified for e in inventory.entries(segments.FOLDER)), default=float("inf"))
    known_by_all = oldest - UNFINISHED_KEPT.total_seconds()
    return [e for e in inventory.entries(segments.MOVED) if e.modified >= known_by_all]


def _pointing(inventory: Inventory, keys: set[str]) -> set[str]:
    names = [entry.name for entry in inventory.entries("latest")]
    found = inventory.documents.read_many(names)
    return {name for name, document in found.items() if document.get("key") in keys}


def _is_old(entry: Entry, before: float) -> bool:
    return 0 < entry.modified < before


def _removed(inventory: Inventory, doomed: _Doomed, before: float) -> bool:
    """Remove something unless it was written or needed meanwhile; tell whether it is gone."""
    backend = inventory.backend
    if not isinstance(backend, LocalBackend):
        for name in doomed.names:
            backend.delete(name)
        return True
    if doomed.kind == "values":
        return remove_unused(backend, _root(doomed), doomed.checksum, before)
    (name,) = doomed.names
    facts = backend.stat(name)
    if facts is None or facts.st_mtime >= before:
        return False
    if doomed.kind == "unfinished" and not backend.is_file(name):
        shutil.rmtree(backend.path(name), ignore_errors=True)
    else:
        backend.delete(name)
    return True


def _root(doomed: _Doomed) -> str:
    """The file of a value, or the folder that holds all of its files."""
    folder = f"{VALUES}/{doomed.checksum[:2]}/{doomed.checksum}"
    names = [name for name in doomed.names if not name.endswith(".used")]
    return folder if not names or names[0].startswith(f"{folder}/") else names[0]

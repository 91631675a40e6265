"""Remove from a store what does not count any more.

Knows what is marked. Safe while runs write: what is younger than a grace time is left alone, by the
clock of the store itself, since a run writes values first and their record then. What a run reuses
it says within some seconds, so there is a second look farther apart than that, and what anybody has
come to need in between stays. A run that begins in the last moment and reuses what just goes finds
it missing, and makes it again.

Removal goes from what refers to what is referred to, so that a prune that is killed leaves nothing
that points to nothing.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, NamedTuple

from prefect_mlpipe.core.places.backends import Entry, LocalBackend
from prefect_mlpipe.core.storing import (
    active,
    codes,
    moves,
    packs,
    records,
    run_manifests,
    segments,
)
from prefect_mlpipe.core.storing.active import SAID_WITHIN_S
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.storing.packs import Packs
from prefect_mlpipe.core.storing.use import remove_unused
from prefect_mlpipe.core.telling.describing import size_text
from prefect_mlpipe.core.upkeep.inventory import (
    FOLDERS,
    VALUES,
    Inventory,
    final_name,
    keys_of,
    references,
)
from prefect_mlpipe.core.upkeep.marking import UNFINISHED_KEPT, Marks, Rules, keys_in_use
from prefect_mlpipe.errors import StoreUnavailable

SHORTEST_GRACE: Final = timedelta(minutes=10)  # writers say that they use a value every two

SETTLE_S = 1.5 * SAID_WITHIN_S  # between the two looks

_CLOCK_FOLDER: Final = "clock"
_CLOCK: Final = f"{_CLOCK_FOLDER}/now"


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
    """Something that goes: its kind, the names under which it lies, and what it takes.

    Of a pack `keys` say which of its records go; the others stay, in another pack.
    """

    kind: str
    names: list[str]
    size: int
    checksum: str = ""
    keys: frozenset[str] = frozenset()


def prune(documents: Documents, packed: Packs, rules: Rules, dry_run: bool) -> Pruned:
    """Remove what the rules let go, and what nothing refers to."""
    began = time.monotonic()
    now = _now(documents)
    inventory = Inventory(documents)
    marks = Marks(inventory, rules, now)
    done = Pruned(documents.place.url, dry_run, over_bytes=marks.over_bytes)
    doomed = list(_doomed(inventory, marks))
    _refuse_unsigned(documents)
    if doomed and not dry_run:
        time.sleep(max(0.0, SETTLE_S - (time.monotonic() - began)))
        doomed = _still_doomed(doomed, inventory, Inventory(documents), marks)
    for each in doomed:
        if not dry_run and not _removed(inventory, packed, each, marks.before):
            continue
        done.counts[each.kind] += len(each.keys) or 1
        done.size_bytes += each.size
    gone = sum(each.size for each in doomed if each.kind == "values")
    done.kept_bytes = sum(held.size for held in inventory.values.values()) - gone
    return done


def _now(documents: Documents) -> float:
    """The time by the clock of the store."""
    backend = documents.place.writing()
    backend.replace(_CLOCK, b"")
    (clock,) = backend.list(_CLOCK_FOLDER)
    return clock.modified


def _refuse_unsigned(documents: Documents) -> None:
    """Remove nothing where it is not known what is referred to."""
    if documents.unsigned:
        raise StoreUnavailable(
            f"the store {documents.place.url} is not pruned: documents in it are not signed with "
            "the signing key of the settings, and what they refer to may be needed.",
            {"documents": f"{len(documents.unsigned):,}", "one": min(documents.unsigned)},
            "Correct the key; or, if you trust all that is in the store, sign it first: "
            "open_store().sign()",
        )


def _still_doomed(
    doomed: list[_Doomed], first: Inventory, second: Inventory, marks: Marks
) -> list[_Doomed]:
    """Leave out what was written, or has come to be needed, since the first look."""
    before = {n: m for folder in FOLDERS for n, m in first.modified(folder).items()}
    now = {n: m for folder in FOLDERS for n, m in second.modified(folder).items()}
    new = {name for name, modified in now.items() if before.get(name) != modified}
    runs = [run for name, run in second.runs.items() if name in new]
    keys = {key for run in runs for key in keys_of(run)} | keys_in_use(second, marks.now)
    names = {records.record_name(key) for key in keys}
    grown = [n for n in new if n.startswith((f"{records.FOLDER}/", f"{packs.FOLDER}/"))]
    sources = [
        *runs,
        *(second.records[key] for key in keys if key in second.records),
        *(each for name, each in second.published.items() if name in new),
        *(each for name, each in second.versions.items() if name in new),
        *(each for name, each in second.parameters.items() if name in new),
        *second.documents.read_many(grown).values(),
    ]
    needed = {stored.checksum for each in sources for stored in references(each)}
    left = [each._replace(keys=each.keys - keys) if each.keys else each for each in doomed]
    return [
        each
        for each, before in zip(left, doomed, strict=True)
        if each.checksum not in needed
        and names.isdisjoint(each.names)
        and all(name not in new for name in each.names)
        and (each.keys or not before.keys)
    ]


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
        moves.FOLDER: {entry.name for entry in _needed_moves(inventory)},
        records.FOLDER: {
            entry.name
            for entry in inventory.entries(records.FOLDER)
            if entry.name.rpartition("/")[2] not in gone
        },
        "latest": _pointing(inventory, marks.keys),
        run_manifests.FOLDER: marks.runs
        | {e.name for e in inventory.entries(run_manifests.FOLDER) if e.name not in inventory.runs},
        "parameters": marks.parameters,
        active.FOLDER: {
            name
            for name, modified in inventory.modified(active.FOLDER).items()
            if modified >= marks.now - active.ALIVE_S
        },
        codes.FOLDER: {f"{codes.FOLDER}/{digest[:2]}/{digest}" for digest in marks.codes},
    }
    for folder, names in stays.items():
        for entry in inventory.entries(folder):
            if entry.name not in names and _is_old(entry, marks.before):
                yield _Doomed(_KINDS[folder], [entry.name], entry.size)
    yield from _doomed_in_packs(inventory, marks, gone)
    for checksum, held in inventory.values.items():
        if checksum not in marks.checksums and not held.undated and held.modified < marks.before:
            yield _Doomed("values", [e.name for e in held.entries], held.size, checksum)
    if isinstance(inventory.backend, LocalBackend):
        for entry in inventory.backend.unfinished():
            if _is_old(entry, marks.before):
                yield _Doomed("unfinished", [entry.name], entry.size)


def _doomed_in_packs(inventory: Inventory, marks: Marks, gone: Set[str]) -> Iterator[_Doomed]:
    """Name the records in packs that go: with the rules, or since another took their place."""
    loose = {final_name(entry.name) for entry in inventory.entries(records.FOLDER)}
    for entry in inventory.entries(packs.FOLDER):
        held = inventory.packs.get(final_name(entry.name), {}).keys()
        going = frozenset(held & (gone | loose))
        if going and _is_old(entry, marks.before):
            yield _Doomed("records", [entry.name], entry.size * len(going) // len(held), "", going)


_KINDS: Final = {
    segments.FOLDER: "records",
    moves.FOLDER: "records",
    records.FOLDER: "records",
    "latest": "code",
    run_manifests.FOLDER: "runs",
    codes.FOLDER: "code",
    "parameters": "runs",
    active.FOLDER: "unfinished",
}


def _needed_moves(inventory: Inventory) -> list[Entry]:
    """The moves that a pack or a segment may not know of: its run may have begun long before."""
    oldest = min((e.modified for e in inventory.entries(segments.FOLDER)), default=float("inf"))
    known_by_all = oldest - UNFINISHED_KEPT.total_seconds()
    packed = {key for pack in inventory.packs.values() for key in pack}
    return [
        entry
        for entry in inventory.entries(moves.FOLDER)
        if entry.modified >= known_by_all or final_name(entry.name) in packed
    ]


def _pointing(inventory: Inventory, keys: set[str]) -> set[str]:
    names = [entry.name for entry in inventory.entries("latest")]
    found = inventory.documents.read_many(names)
    return {name for name, document in found.items() if document.get("key") in keys}


def _is_old(entry: Entry, before: float) -> bool:
    return 0 < entry.modified < before


def _removed(inventory: Inventory, packed: Packs, doomed: _Doomed, before: float) -> bool:
    """Remove something unless it was written or needed meanwhile; tell whether it is gone."""
    backend = inventory.backend
    if doomed.keys:
        packed.rewrite(final_name(doomed.names[0]), lambda key: key not in doomed.keys)
        return True
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

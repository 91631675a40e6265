"""How much room a store takes, by kind.

Knows the layout; reads no document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.telling.describing import size_text
from prefect_mlpipe.core.upkeep.inventory import VALUES, Inventory

_REST: Final = "other"
_KINDS: Final = {
    VALUES: "values",
    "records": "records",
    "packs": "records",
    "pack-keys": "records",
    "segments": "records",
    "moved": "records",
    "runs": "runs",
    "published": "published",
    "versions": "versions",
    "code": "code",
    "latest": "code",
    "parameters": "runs",
    "pins": "runs",
}


class Room(NamedTuple):
    """How many there are of a kind, and what they take."""

    number: int
    size_bytes: int


@dataclass(frozen=True)
class Usage:
    """What a store takes. `str()` is a table.

    Attributes:
        url: of the store.
        kinds: `values`, `records`, `runs`, `published`, `versions`, `code`, `other` → number and
            bytes.
    """

    url: str
    kinds: Mapping[str, Room]

    @property
    def size_bytes(self) -> int:
        """What all of it takes."""
        return sum(room.size_bytes for room in self.kinds.values())

    def __str__(self) -> str:
        every = Room(sum(room.number for room in self.kinds.values()), self.size_bytes)
        rows = [(kind, room) for kind, room in self.kinds.items() if room.number]
        lines = (
            f"  {kind:<10}{room.number:>12,}  {size_text(room.size_bytes):>10}"
            for kind, room in [*rows, ("all", every)]
        )
        return "\n".join([self.url, *lines])


def usage(documents: Documents) -> Usage:
    """Look at what a store holds now."""
    inventory = Inventory(documents)
    kinds: dict[str, Room] = {kind: Room(0, 0) for kind in dict.fromkeys((*_KINDS.values(), _REST))}
    for folder, entries in inventory.folders.items():
        kind = _KINDS.get(folder, _REST)
        count = len(inventory.values) if folder == VALUES else len(entries)
        size = sum(entry.size for entry in entries)
        kinds[kind] = Room(kinds[kind].number + count, kinds[kind].size_bytes + size)
    return Usage(documents.place.url, kinds)

"""Whether everything in a store is whole: documents by their seals, values by their checksums.

Knows the inventory and how a value is checked. Removes only what it is asked to repair: a thing
that is removed is made again by its step when somebody needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from prefect_mlpipe.core.record import StoredValue
from prefect_mlpipe.core.storing import packs
from prefect_mlpipe.core.storing.documents import Documents
from prefect_mlpipe.core.telling.describing import size_text
from prefect_mlpipe.core.upkeep.inventory import (
    VALUES,
    Inventory,
    checksum_in,
    final_name,
    references,
)
from prefect_mlpipe.errors import ValueDamaged, ValueMissing

_DOCUMENTS: Final = (
    "records",
    "packs",
    "runs",
    "published",
    "versions",
    "code",
    "latest",
    "watches",
    "pins",
)
_MADE_AGAIN: Final = (f"{VALUES}/", "records/", "packs/", "code/", "latest/")  # the rest is not
_SHOWN = 20


class Problem(NamedTuple):
    """One thing in a store that is not as it was written.

    Attributes:
        name: where it lies in the store; of a value, where it should lie.
        found: `damaged`, `missing`, or what is wrong with its signature.
        steps: which steps' records or published values refer to it.
    """

    name: str
    found: str
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        whose = f" (of {', '.join(self.steps[:3])})" if self.steps else ""
        return f"{self.found}: {self.name}{whose}"


@dataclass(frozen=True)
class Verified:
    """What was found. `bool()` says whether all is well, `str()` tells it.

    Attributes:
        documents: how many were looked at.
        values: how many were read.
        size_bytes: how much that was.
        problems: what is not as it was written.
        repaired: whether what was damaged was removed, to be made again.
    """

    documents: int
    values: int
    size_bytes: int
    problems: tuple[Problem, ...]
    repaired: bool

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        size = size_text(self.size_bytes)
        head = f"{self.documents:,} documents and {self.values:,} values ({size})"
        if not self.problems:
            return f"{head}: all sound"
        lines = [f"  {problem}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  … and {len(self.problems) - _SHOWN:,} more")
        done = (
            "what was damaged and can be made again was removed"
            if self.repaired
            else "what is needed is made again then; verify(repair=True) removes what is damaged"
        )
        return "\n".join([f"{head}: {len(self.problems):,} not sound", *lines, f"  {done}"])


def verify(
    documents: Documents,
    reads: Callable[[StoredValue], bool],
    check: Callable[[StoredValue], None],
    name_of: Callable[[StoredValue], str],
    repair: bool,
) -> Verified:
    """Look at every document, and read every value that a record, a published name or a version
    refers to.

    Args:
        documents: the store's.
        reads: tells whether a value can be read here.
        check: reads a value, raises `ValueMissing` or `ValueDamaged`.
        name_of: gives the name under which a value lies.
        repair: remove what is damaged and will be made again.
    """
    inventory = Inventory(documents)
    names = [entry.name for folder in _DOCUMENTS for entry in inventory.entries(folder)]
    problems = _refused(documents, names)
    values = _referred(inventory)
    for stored, steps in values.values():
        if not reads(stored):
            what = f"not read, for want of the format {stored.format!r}"
            problems.append(Problem(f"a value of type {stored.type}", what, steps))
            continue
        try:
            check(stored)
        except ValueMissing:
            problems.append(Problem(name_of(stored), "missing", steps))
        except ValueDamaged:
            problems.append(Problem(name_of(stored), "damaged", steps))
    if repair:
        for problem in problems:
            if problem.found == "damaged" and problem.name.startswith(_MADE_AGAIN):
                _remove(inventory, problem)
    size = sum(stored.size for stored, _ in values.values())
    return Verified(len(names), len(values), size, tuple(problems), repair)


def _refused(documents: Documents, names: list[str]) -> list[Problem]:
    """Open all documents; what is refused is told once, here."""
    found = documents.read_many(names)
    missing = [name for name in names if name not in found]
    return [Problem(name, documents.refused[name]) for name in missing if name in documents.refused]


def _referred(inventory: Inventory) -> dict[str, tuple[StoredValue, tuple[str, ...]]]:
    """Checksum → a value that is referred to, and by which steps."""
    found: dict[str, tuple[StoredValue, tuple[str, ...]]] = {}
    sources: Iterable[tuple[str, object]] = [
        *((str(r["provenance"].get("step")), r["fields"]) for r in inventory.records.values()),
        *((str(each.get("name")), each) for each in inventory.published.values()),
        *((f"version {each.get('name')}", each) for each in inventory.versions.values()),
    ]
    for whose, document in sources:
        for stored in references(document):
            _, steps = found.get(stored.checksum, (stored, ()))
            if whose not in steps:
                steps = (*steps, whose)
            found[stored.checksum] = (stored, steps)
    return found


def _remove(inventory: Inventory, problem: Problem) -> None:
    """Remove a document, or all that lies under the checksum of a value."""
    if problem.name.startswith(f"{packs.FOLDER}/"):
        inventory.backend.delete(packs.keys_name(final_name(problem.name)))
    if not problem.name.startswith(f"{VALUES}/"):
        inventory.backend.delete(problem.name)
        return
    held = inventory.values.get(checksum_in(problem.name) or "")
    for entry in held.entries if held else ():
        inventory.backend.delete(entry.name)

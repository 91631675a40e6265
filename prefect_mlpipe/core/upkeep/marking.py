"""What of a store counts, by the rules that somebody set.

Knows the inventory. Removes nothing.

Firm are pinned runs, the newest runs that are to stay, published values, frozen versions of
pipelines, and whatever these used.
Next come the other runs and records that the rules leave; a value counts if any of all these refers
to it. If the room for values is limited, those that are not firm go by their last use, and with
them the records that would point to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final

from prefect_mlpipe.core.storing.active import ALIVE_S
from prefect_mlpipe.core.storing.active import FOLDER as ACTIVE
from prefect_mlpipe.core.storing.codes import FOLDER as CODE
from prefect_mlpipe.core.storing.run_manifests import pin_name
from prefect_mlpipe.core.upkeep.inventory import Inventory, Json, digests, keys_of, references

UNFINISHED_KEPT: Final = timedelta(days=7)  # what runs left that have yet to begin or be resumed


@dataclass(frozen=True)
class Rules:
    """What may go; of the first two both must hold, if both are given.

    Attributes:
        keep_last: all runs may go but so many of the newest of each pipeline.
        older_than: what was used since may not.
        max_bytes: so much of values may stay.
        grace: what is younger stays, whatever refers to it.
    """

    keep_last: int | None
    older_than: timedelta | None
    max_bytes: int | None
    grace: timedelta

    @property
    def any_run_may_go(self) -> bool:
        """Tell whether runs and records may go, and not only what nothing refers to."""
        return self.keep_last is not None or self.older_than is not None


class Marks:
    """What stays.

    Args:
        inventory: of the store.
        rules: what may go.
        now: the time by the clock of the store.
    """

    def __init__(self, inventory: Inventory, rules: Rules, now: float) -> None:
        self._inventory, self._rules, self.now = inventory, rules, now
        self.before = now - rules.grace.total_seconds()  # what was written later stays
        self._written = inventory.written

    @cached_property
    def runs(self) -> set[str]:
        """Names of the run manifests that stay."""
        every = self._inventory.runs
        if not self._rules.any_run_may_go:
            return set(every)
        since = self._since()
        return {n for n, run in every.items() if n in self._firm_runs or run["started"] >= since}

    @cached_property
    def keys(self) -> set[str]:
        """Keys of the records that stay."""
        gone = self._evicted
        return {
            key
            for key in self._kept_records
            if not gone or gone.isdisjoint(_checksums(self._inventory.records[key]["fields"]))
        }

    @cached_property
    def checksums(self) -> set[str]:
        """Checksums of the values that stay."""
        return self._uses.keys() - self._evicted

    @cached_property
    def codes(self) -> set[str]:
        """Digests of the kept code that stays, with the code that shows parts of it."""
        found: set[str] = set()
        kept = {entry.name.rpartition("/")[2] for entry in self._inventory.entries(CODE)}
        waiting = [*(self._inventory.records[key] for key in self.keys), *self._staying_runs()]
        while waiting:
            new = (kept & set(digests(waiting.pop()))) - found
            found |= new
            names = [f"{CODE}/{digest[:2]}/{digest}" for digest in new]
            waiting += self._inventory.documents.read_many(names).values()
        return found

    @property
    def over_bytes(self) -> int:
        """How much more the values that stay take than they may."""
        limit = self._rules.max_bytes
        return 0 if limit is None else max(0, self._size(self.checksums) - limit)

    def _since(self) -> float:
        older = self._rules.older_than
        return float("inf") if older is None else self.now - older.total_seconds()

    def _staying_runs(self) -> Iterator[dict[str, Json]]:
        return (self._inventory.runs[name] for name in self.runs)

    @cached_property
    def active(self) -> set[str]:
        """Keys of the records that runs in progress have reused."""
        return keys_in_use(self._inventory, self.now)

    @cached_property
    def parameters(self) -> set[str]:
        """Names of the references to parameters that stay: their runs may be still to come."""
        resumable = self.now - UNFINISHED_KEPT.total_seconds()
        written = self._inventory.modified("parameters")
        return {name for name, modified in written.items() if modified >= resumable}

    @cached_property
    def _firm_runs(self) -> set[str]:
        """Names of the runs that are pinned, or among the newest that are to stay."""
        pins = {entry.name for entry in self._inventory.entries("pins")}
        by_pipeline: dict[str, list[str]] = {}
        for name in sorted(self._inventory.runs, reverse=True):
            by_pipeline.setdefault(name.rpartition("/")[0], []).append(name)
        newest = self._rules.keep_last or 0
        return {
            name
            for names in by_pipeline.values()
            for at, name in enumerate(names)
            if at < newest or pin_name(name) in pins
        }

    @cached_property
    def _used(self) -> dict[str, float]:
        """Key → when its record was last made or reused."""
        found = dict(self._written)
        for run in self._inventory.runs.values():
            for key in keys_of(run):
                found[key] = max(found.get(key, 0.0), run["started"])
        return found

    @cached_property
    def _kept_records(self) -> set[str]:
        every = self._inventory.records
        if not self._rules.any_run_may_go:
            return set(every)
        of_runs = {key for run in self._staying_runs() for key in keys_of(run)} | self.active
        of_any = {key for run in self._inventory.runs.values() for key in keys_of(run)}
        resumable = self.now - UNFINISHED_KEPT.total_seconds()
        since = min(self._since(), self.before)
        return {
            key
            for key in every
            if key in of_runs
            or self._used[key] >= since
            or (key not in of_any and self._written[key] >= resumable)
        }

    @cached_property
    def _uses(self) -> dict[str, float]:
        """Checksum of what somebody refers to → when it was last used; infinite if it is firm."""
        inventory, firm = self._inventory, float("inf")
        firm_keys = {key for name in self._firm_runs for key in keys_of(inventory.runs[name])}
        firm_keys |= self.active
        sources: list[tuple[float, Json]] = [
            *((firm, each) for each in inventory.published.values()),
            *((firm, each) for each in inventory.versions.values()),
            *((firm, each) for n, each in inventory.parameters.items() if n in self.parameters),
        ]
        for name in self.runs:
            run = inventory.runs[name]
            sources.append((firm if name in self._firm_runs else run["started"], run))
        for key in self._kept_records:
            used = firm if key in firm_keys else self._used[key]
            sources.append((used, inventory.records[key]["fields"]))
        found: dict[str, float] = {}
        for used, document in sources:
            for checksum in _checksums(document):
                found[checksum] = max(found.get(checksum, 0.0), used)
        return found

    @cached_property
    def _evicted(self) -> set[str]:
        """Checksums of values that go because there is not room for all."""
        found: set[str] = set()
        limit = self._rules.max_bytes
        size = 0 if limit is None else self._size(self._uses)
        for checksum, used in sorted(self._uses.items(), key=lambda item: item[1]):
            held = self._inventory.values.get(checksum)
            if size <= (limit or 0) or used >= self.before:
                break
            if held is not None and held.modified < self.before:
                found.add(checksum)
                size -= held.size
        return found

    def _size(self, checksums: Iterable[str]) -> int:
        held = (self._inventory.values.get(checksum) for checksum in checksums)
        return sum(each.size for each in held if each is not None)


def keys_in_use(inventory: Inventory, now: float) -> set[str]:
    """The keys of the records that runs in progress say that they have reused."""
    written = inventory.modified(ACTIVE)
    alive = [each for n, each in inventory.active.items() if written[n] >= now - ALIVE_S]
    return {key for document in alive for key in document["keys"]}


def _checksums(document: Json) -> Iterator[str]:
    return (stored.checksum for stored in references(document))

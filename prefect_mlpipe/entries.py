"""The steps of a run as its manifest holds them: an entry for each, items of mapped ones packed.

Knows the form of a run manifest. An item that did what was to be expected, as nearly all of ten
thousand do, takes a place in columns and no entry of its own; one that failed, logged or has
metrics has both. Reading makes an entry of either, so nobody else has to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prefect_mlpipe.engine.steprun import StepRun

Json = Any

_PLAIN: Final = frozenset({"ran", "reused"})
_RAN: Final = -1  # in place of a run that something was reused from


def is_plain(run: StepRun) -> bool:
    """Return whether an item of a mapped step needs no entry of its own."""
    if run.state not in _PLAIN or run.record is None or run.adopted or run.error is not None:
        return False
    if run.state == "reused" and run.reasons:
        return False
    logged = run.call is not None and bool(run.call.current.logs)
    return not logged and not run.record.metrics


def columns(items: Sequence[StepRun], earlier: Sequence[str | None]) -> dict[str, Json]:
    """Return what a run manifest says of the items of one mapped step.

    Args:
        items: in order.
        earlier: the key of what each was compared with, or had when it last succeeded.
    """
    origins: dict[str, int] = {}
    reasons: dict[tuple[Any, ...], int] = {}
    keys, seconds, sizes, origin, why, before = [], [], [], [], [], []
    for item, compared in zip(items, earlier, strict=True):
        record = item.record
        reused = item.state == "reused"
        keys.append(None if record is None else record.key)
        seconds.append(0.0 if record is None else record.duration_s)
        sizes.append(0 if record is None else record.size)
        before.append(None if reused or record is None or compared == record.key else compared)
        if reused and record is not None:
            name = str(record.provenance.get("run") or "")
            origin.append(origins.setdefault(name, len(origins)))
        else:
            origin.append(_RAN)
        why.append(reasons.setdefault(item.reasons, len(reasons)))
    return {
        "keys": keys,
        "seconds": seconds,
        "bytes": sizes,
        "origin": origin,
        "origins": [*origins],
        "why": why,
        "reasons": [[list(reason) for reason in each] for each in reasons],
        "earlier": before if any(before) else [],
    }


class Entries(Mapping[str, Mapping[str, Json]]):
    """The entries of a run manifest by name, in order; items follow their mapped step.

    Args:
        document: the run manifest.
    """

    def __init__(self, document: Mapping[str, Json]) -> None:
        self._own: dict[str, Mapping[str, Json]] = {
            entry["name"]: entry for entry in document.get("nodes", ())
        }
        self._columns: Mapping[str, Json] = document.get("items", {})

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        found = self._own.get(name)
        if found is not None:
            return found
        group, at = _place(name)
        packed = self._columns.get(group)
        if packed is None or not 0 <= at < len(packed["keys"]):
            raise KeyError(name)
        return self._entry(group, at, packed)

    def __iter__(self) -> Iterator[str]:
        for name, entry in self._own.items():
            if entry["group"] is None:
                yield name
                yield from (f"{name}[{at}]" for at in range(entry["items"] or 0))

    def __len__(self) -> int:
        return sum(1 + (e["items"] or 0) for e in self._own.values() if e["group"] is None)

    def items_of(self, name: str) -> list[str]:
        """Return the names of the items of a mapped step; of another there are none."""
        return [f"{name}[{at}]" for at in range(self[name]["items"] or 0)]

    def key(self, name: str) -> str | None:
        """Return the key that a step had when it last succeeded."""
        found = self.get(name) if self._own else None
        return None if found is None else found["key"] or found["earlier_key"]

    def _entry(self, group: str, at: int, packed: Mapping[str, Json]) -> dict[str, Json]:
        mapped = self._own[group]
        origin = packed["origin"][at]
        return {
            "name": f"{group}[{at}]",
            "group": group,
            "items": None,
            "state": "ran" if origin == _RAN else "reused",
            "reasons": packed["reasons"][packed["why"][at]],
            "key": packed["keys"][at],
            "earlier_key": packed["earlier"][at] if packed["earlier"] else None,
            "manifest": None,
            "fields": None,  # its record has them
            "reused_from": None if origin == _RAN else packed["origins"][origin] or None,
            "duration_s": packed["seconds"][at],
            "bytes": packed["bytes"][at],
            "started": None,
            "ended": None,
            "metrics": {},
            "logs": [],
            "error": None,
            "cause": None,
            "compute": mapped["compute"],
            "task_run_id": None,
        }


def _place(name: str) -> tuple[str, int]:
    group, _, index = name.removesuffix("]").rpartition("[")
    return (group, int(index)) if name.endswith("]") and index.isdecimal() else ("", -1)

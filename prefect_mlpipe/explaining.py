"""Say what changed between two states of a step, with old and new side by side.

Knows manifests, the code that the store kept, and stored values; these are loaded only here, when
somebody asks. Knows nothing of how a run goes: a plan and a finished run are explained alike.

Worth arguing: an explanation shows what is known and says what is not. It never fails because an
old value was pruned or a class cannot be loaded any more, and it never shows a text that may not
be the one that was loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from prefect_mlpipe.core.manifest import Manifest, Reason, changed_parts, replaced
from prefect_mlpipe.core.record import Record, StoredValue
from prefect_mlpipe.core.store import Store
from prefect_mlpipe.core.telling.describing import (
    MANY,
    Facts,
    content_differences,
    describe,
    differences,
    size_text,
)
from prefect_mlpipe.core.telling.kept_code import KeptCode
from prefect_mlpipe.core.telling.sources import Looks
from prefect_mlpipe.entries import Entries
from prefect_mlpipe.errors import ValueDamaged, ValueMissing

LOADED_UP_TO = 1 << 28  # bytes: what is larger is compared by type and size only
MAX_LINES = 200  # of one diff
MAX_FACTS = 12  # of one value
MAX_PARTS = 20  # pieces of code, values

Values = Mapping[str, StoredValue]

MEANINGS = {
    "first run": "Nothing in this store to compare with: the step is new here.",
    "value missing": "What it had made was needed and is not in the store any more.",
    "value damaged": "What it had made was needed and its bytes did not match their checksum.",
    "expired": "Its record is older than `cache_expiration` allows.",
    "refresh asked": "The run was asked to refresh it, whatever has changed.",
    "cache off": "It runs every time: `cache=False`, or it is annotated `-> None`.",
    "input may change": "A step above runs; if it makes the same value again, this one is reused.",
}
OF_RECORDS = {
    "value missing": "The last run left a record, and it is not in the store any more.",
    "value damaged": "The last run left a record, and it cannot be believed.",
}


class Side(NamedTuple):
    """A step as it was, or as it is now.

    Attributes:
        manifest: what its key is made of.
        code: gives the parts of some code by its digest, `None` where they are not known.
        values: gives what the node or field of a name handed on: place → stored value.
        run: which run saw it, and when; empty for one that is not over.
    """

    manifest: Manifest
    code: Callable[[str], KeptCode | None]
    values: Callable[[str], Values]
    run: str = ""


def side_of(store: Store, manifest: Mapping[str, Any], run: Mapping[str, Any] | None) -> Side:
    """Return a step as a run saw it.

    Args:
        store: where its code is kept.
        manifest: of the step, as JSON.
        run: manifest of the run, whose steps handed on what this one got; `None` if it is gone.
    """
    return Side(
        Manifest.from_json(manifest),
        lambda code: code_in(store, code),
        lambda source: values_in(store, run or {}, source),
    )


def side_of_record(store: Store, record: Record) -> Side:
    """Return a step as the run that left a record saw it."""
    where = record.provenance
    run = store.runs.read(str(where.get("pipeline")), str(where.get("run_id")))
    name = f"run {where.get('run')} of {moment(record.created)}"
    return side_of(store, record.manifest, run)._replace(run=name)


def moment(seconds: float) -> str:
    """Return a point in time as people read it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def code_in(store: Store, code: str) -> KeptCode | None:
    """Return what the store keeps of some code."""
    document = store.codes.read(code) if code else None
    return None if document is None else KeptCode.from_json(document)


def values_in(store: Store, document: Mapping[str, Any], source: str) -> dict[str, StoredValue]:
    """Return what the steps of a run handed on: place → stored value.

    Args:
        store: where the records of the run are.
        document: manifest of the run.
        source: as in `Manifest.sources`: `load`, `split.train`, `load, load#2`.
    """
    entries = Entries(document)
    found: dict[str, StoredValue] = {}
    names = source.split(", ")
    for name in names:
        node, field = (name, None) if name in entries else _parted(name)
        entry = entries.get(node)
        if entry is None:
            continue
        for each in (node, *entries.items_of(node)):
            place = each.removeprefix(node)
            for inner, value in _fields(store, entries[each]).items():
                if field in (None, inner):
                    at = f"{place}.{inner}" if inner and field is None else place
                    found[f"{name}{at}" if len(names) > 1 else at] = value
    return found


def _fields(store: Store, entry: Mapping[str, Any]) -> Mapping[str, StoredValue]:
    """Return what a step left; of an item its record says it."""
    if entry["fields"]:
        return {name: StoredValue.from_json(value) for name, value in entry["fields"].items()}
    record = store.records.read(entry["key"]) if entry["key"] else None
    return {} if record is None else record.fields


def _parted(name: str) -> tuple[str, str | None]:
    node, _, field = name.rpartition(".")
    return node, field


def explanation(
    reasons: Sequence[Reason], before: Side | None, now: Side | None, store: Store
) -> list[str]:
    """Return reasons, and what is behind them.

    Args:
        reasons: why the step runs.
        before: what it is compared with.
        now: as it is now.
        store: where code and values are.
    """
    lines = [] if before is None else [f"  compared with {before.run}:"]
    for reason in reasons:
        lines.append(f"  {reason}")
        if reason.kind in OF_RECORDS and reason.name:
            lines.append(f"    {OF_RECORDS[reason.kind]}")
        elif reason.kind in MEANINGS:
            lines.append(f"    {MEANINGS[reason.kind]}")
    if before is None or now is None:
        return lines
    pair = now.code(now.manifest.code), before.code(before.manifest.code)
    changes = now.manifest.diff(before.manifest, lambda code: _pieces(code, now, before))
    others = [change for change in changes if change not in reasons]
    if others and {reason.kind for reason in reasons} - {"input may change"}:
        lines.append("  Changed since then, too:")
        lines += [f"    {change}" for change in others]
    codes = now.manifest.code, before.manifest.code
    blocks = [
        *(_code_blocks(pair[1], pair[0], store) if codes[0] != codes[1] else ()),
        *_input_blocks(before, now, store),
    ]
    for block in blocks[:MAX_PARTS]:
        lines += ["", *(f"  {line}".rstrip() for line in block)]
    if len(blocks) > MAX_PARTS:
        lines += ["", f"  … and {len(blocks) - MAX_PARTS} more"]
    return lines


# Code


def _pieces(code: str, *sides: Side) -> Mapping[str, str] | None:
    known = (side.code(code) for side in sides)
    return next((found.parts for found in known if found is not None), None)


def _code_blocks(old: KeptCode | None, new: KeptCode | None, store: Store) -> Iterator[list[str]]:
    if old is None or new is None:
        yield ["What the code was is not known any more."]
        return
    places = dict(replaced(new.parts, old.parts))
    for label in changed_parts(new.parts, old.parts):
        was = label if label in old.parts else places.get(label)
        if label not in new.parts:
            yield [f"{label}: no longer reached"]
        elif was is None:
            yield [f"{label}: newly reached", *_added(new.look(label, store.codes.read))]
        else:
            looks = old.look(was, store.codes.read), new.look(label, store.codes.read)
            yield _diffed(was, label, *looks)


def _added(come: Looks | None) -> list[str]:
    source = "" if come is None else come.source or ""
    return [f"  + {line}" for line in _bounded(source.splitlines())]


def _diffed(was: str, label: str, old: Looks | None, new: Looks | None) -> list[str]:
    """Return what changed in one piece of code, below its name."""
    if old is None or new is None:
        return [f"{label}: what it was is not known any more"]
    held = differences(old.values, new.values)
    if list(old.values) == list(new.values) == [""]:
        return [f"{label}: {line}" for line in held] or [f"{label}: content differs"]
    lines = [f"  {line}" for line in _bounded(held, MAX_FACTS)]
    if old.source is not None and new.source is not None:
        pair = old.source.splitlines(), new.source.splitlines()
        diff = difflib.unified_diff(*pair, f"{was}, before", f"{label}, now", lineterm="")
        lines += [f"  {line}" for line in _bounded(list(diff))]
    elif _is_code(old) or _is_code(new):
        sides = [word for word, look in (("old", old), ("new", new)) if look.source is None]
        lines.append(f"  the {' and the '.join(sides)} source is not available")
    return [label, *(lines or ["  content differs"])]


def _is_code(look: Looks) -> bool:
    return look.source is not None or not {"", "type"} & look.values.keys()


def _bounded(lines: Sequence[str], most: int = MAX_LINES) -> list[str]:
    more = [f"… and {len(lines) - most:,} more"] if len(lines) > most else []
    return [*lines[:most], *more]


# Inputs and what is declared to be read


def _input_blocks(before: Side, now: Side, store: Store) -> Iterator[list[str]]:
    old, new = before.manifest, now.manifest
    for name in sorted(new.inputs.keys() & old.inputs.keys()):
        if new.inputs[name] == old.inputs[name]:
            continue
        if name in new.sources and name in old.sources:
            handed = before.values(old.sources[name]), now.values(new.sources[name])
            yield from _handed_on(name, new.sources[name], *handed, store)
            yield from _brought(f"input {name}", before, now, store)
        elif not (name in new.shown and name in old.shown):
            facts = _facts(before, name, store), _facts(now, name, store)
            yield from _described(f"input {name}", before, now, facts, store)
    for name in sorted(new.reads.keys() & old.reads.keys()):
        if new.reads[name] != old.reads[name]:
            place = f"read {name}"
            facts = dict(old.described.get(place, {})), dict(new.described.get(place, {}))
            yield from _described(place, before, now, facts, store)


def _described(
    place: str, before: Side, now: Side, facts: tuple[Facts, Facts], store: Store
) -> Iterator[list[str]]:
    """Compare two descriptions, and the code that came with what is described."""
    head = _head(place)
    if not all(facts):
        yield [f"{head}: what it was is not known any more"]
        return
    code = [*_brought(place, before, now, store)]
    lines = differences(*facts)
    if lines or not code:
        yield _told(head, lines)
    yield from code


def _brought(place: str, before: Side, now: Side, store: Store) -> Iterator[list[str]]:
    """Compare the code that a value brought along then and now."""
    codes = before.manifest.brought.get(place, ""), now.manifest.brought.get(place, "")
    if codes[0] != codes[1] and all(codes):
        for block in _code_blocks(before.code(codes[0]), now.code(codes[1]), store):
            yield [f"{_head(place)}, code {block[0]}", *block[1:]]


def _head(place: str) -> str:
    kind, _, name = place.partition(" ")
    return f"reads {name}" if kind == "read" else place


def _facts(side: Side, name: str, store: Store) -> Facts:
    """Return what is known of an input that is not an output of a step on both sides."""
    manifest = side.manifest
    if name not in manifest.sources:
        return manifest.facts(name)
    values = [*side.values(manifest.sources[name]).values()]
    if len(values) != 1:
        return {}
    found = _load(store, values[0])
    return _known(values[0]) if found is None else describe(found.value)


def _handed_on(
    name: str, source: str, old: Values, new: Values, store: Store
) -> Iterator[list[str]]:
    """Compare what steps above handed on then and now: one value, fields, items or several."""
    head = f"input {name} (from {source})"
    if not old or not new:
        yield [f"{head}: what it was is not known any more"]
        return
    differing = [p for p in new if p in old and old[p].digest != new[p].digest]
    lengths = [f"{len(old)} → {len(new)} values"] if len(old) != len(new) else []
    if len(new) > 1 and differing:
        lengths.append(f"{len(differing)} of {len(new)} values differ")
    if lengths:
        yield [f"{head}: {', '.join(lengths)}"]
    for place in differing[:MAX_PARTS]:
        comma = "" if place[:1] in ".[" else ", "
        named = f"input {name}{comma}{place}" if place else head
        yield _told(named, _between(old[place], new[place], store), new[place].type)


def _between(old: StoredValue, new: StoredValue, store: Store) -> list[str]:
    before, after = _load(store, old), _load(store, new)
    if before is None or after is None:
        return differences(_known(old), _known(new))
    pair = before.value, after.value
    lines = differences(*(describe(value, limit=MANY) for value in pair))
    return lines or content_differences(*pair)


class _Loaded(NamedTuple):
    value: Any


def _load(store: Store, value: StoredValue) -> _Loaded | None:
    """Return a stored value, `None` where it is too large or not to be had any more."""
    if value.size > LOADED_UP_TO:
        return None
    try:
        return _Loaded(store.get(value))
    except (ValueMissing, ValueDamaged):  # pruned, or its class is gone: type and size remain
        return None


def _known(value: StoredValue) -> Facts:
    return {"type": value.type, "size": size_text(value.size)}


def _told(head: str, lines: Sequence[str], kind: str = "") -> list[str]:
    """Return a head and what differs below it; on one line if that is old → new and no more."""
    found = lines or ["content differs"]
    if len(found) == 1 and ": " not in found[0].partition(" → ")[0]:
        return [f"{head}: {found[0]}"]
    return [f"{head}: {kind}".rstrip(": "), *(f"  {line}" for line in _bounded(found, MAX_FACTS))]

"""Documents of another shape than theirs: reported once, and as if they were not there."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from prefect_mlpipe.core import store as store_module
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.store import Store
from tests.core.stores import VALUE, a_record, a_run, reopened, some_code

CODE = "c" * 64
WATCH = {
    "origin": "a",
    "generation": 3,
    "files": {"a.csv": ["1-2", "f" * 64]},
    "outbox": [
        {
            "id": "1",
            "payload": {"uri": "raw", "path": "raw", "changes": [{"path": "a", "kind": "new"}]},
        }
    ],
}
PUBLISHED = {"value": VALUE.to_json()}
RECORD = a_record()


class Kind(NamedTuple):
    """One kind of document: where it lies, what is right, who writes and who reads it."""

    name: str
    right: dict[str, Any]
    write: Callable[[Store, Any], object]
    read: Callable[[Store], object]


KINDS = {
    "code": Kind(
        f"code/cc/{CODE}",
        some_code(clean="1"),
        lambda store, document: store.write_code(CODE, document),
        lambda store: store.read_code(CODE),
    ),
    "latest": Kind(
        "latest/m.f.json",
        {"key": "k"},
        lambda store, document: store.write_latest("m.f", document),
        lambda store: store.read_latest("m.f"),
    ),
    "watch": Kind(
        "watches/raw.json",
        WATCH,
        lambda store, document: store.write_watch("raw", document),
        lambda store: store.read_watch("raw"),
    ),
    "published": Kind(
        "published/digits/versions/1.json",
        PUBLISHED,
        lambda store, document: store.write_published("digits", "1", document),
        lambda store: store.read_published("digits", "latest"),
    ),
    "run": Kind(
        "runs/digits/0000000001000-one.json",
        a_run(),
        lambda store, document: store.write_run("digits", "one", document, started=1.0),
        lambda store: store.read_run("digits", "one"),
    ),
    "last run": Kind(
        "runs/digits/0000000001000-one.json",
        a_run(),
        lambda store, document: store.write_run("digits", "one", document, started=1.0),
        lambda store: store.last_run("digits"),
    ),
    "record": Kind(
        f"records/ab/{RECORD.key}",
        RECORD.to_json(),
        lambda store, document: store.write_record(Record.from_json(document)),
        lambda store: store.read_record(RECORD.key),
    ),
}
WRONG = {"?": [None]}  # has the type of nothing that readers rely on
OPEN = {"parameters", "metrics", "graph", "provenance", "returned"}  # whatever JSON there was


def wrong_shapes(right: Any, open_: Set[str] = OPEN, whole: bool = True) -> Iterator[Any]:
    """A document with one thing in it missing, or of another type."""
    if not isinstance(right, dict | list):
        return
    fixed = whole or len(right) > 1 or "function" in right
    for place in [*right] if isinstance(right, dict) else range(len(right)):
        others = [] if place in open_ else wrong_shapes(right[place], open_, whole=False)
        for other in (5 if place in open_ else WRONG, *others):
            changed = copy.copy(right)
            changed[place] = other
            yield changed
        if fixed:
            changed = copy.copy(right)
            del changed[place]
            yield changed


def spoil(store: Store, kind: Kind, document: Any) -> None:
    if kind.name.startswith("records/"):  # whose checksum is right
        data = store_module._sealed(types.SimpleNamespace(to_json=lambda: document))  # type: ignore[arg-type]
    else:
        data = orjson.dumps(document)
    (Path(store.url) / kind.name).write_bytes(data)


@pytest.mark.parametrize("name", KINDS)
def test_a_document_of_another_shape_is_as_if_it_were_not_there(local: Store, name: str) -> None:
    kind = KINDS[name]
    kind.write(local, kind.right)
    assert kind.read(reopened(local)) is not None
    # Inside the stored values of a record nothing is looked at: its checksum was right.
    free = OPEN | {"fields"} if name == "record" else OPEN
    for wrong in (*wrong_shapes(kind.right, free), None, [], {}, 5, "text"):
        spoil(local, kind, wrong)
        assert kind.read(reopened(local)) is None, wrong
    for torn in (b"", b"{", b"\xff", b"[]garbage"):
        (Path(local.url) / kind.name).write_bytes(torn)
        assert kind.read(reopened(local)) is None, torn


@pytest.mark.parametrize("name", KINDS)
def test_it_is_warned_of_once(local: Store, name: str, caplog: pytest.LogCaptureFixture) -> None:
    kind = KINDS[name]
    kind.write(local, kind.right)
    spoil(local, kind, {})
    again = reopened(local)
    assert [kind.read(again), kind.read(again)] == [None, None]
    assert [record.message.count("damaged and not used") for record in caplog.records] == [1]


@pytest.mark.parametrize("name", KINDS)
def test_it_is_written_anew(local: Store, name: str) -> None:
    kind = KINDS[name]
    kind.write(local, kind.right)
    spoil(local, kind, {})
    again = reopened(local)
    assert kind.read(again) is None
    kind.write(again, kind.right)
    assert kind.read(reopened(local)) is not None


def test_what_nobody_relies_on_may_be_there(local: Store) -> None:
    document = {**a_run(), "weather": "fine"}
    local.write_run("digits", "one", document, started=1.0)
    assert local.last_run("digits") == document


def test_an_older_run_stands_in_for_a_damaged_last_one(local: Store) -> None:
    for number in range(3):
        local.write_run("digits", str(number), a_run(number), started=float(number))
    for path in (Path(local.url) / "runs" / "digits").glob("*-[12].json"):
        path.write_text("{}")
    assert reopened(local).last_run("digits") == a_run(0)

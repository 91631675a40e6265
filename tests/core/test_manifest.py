"""Keys and reasons: one walk, two readers."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_mlpipe.core.manifest import Manifest, Reason, changed_parts, distinct, sentences

BASE = Manifest(
    function="model.train",
    code="c1",
    inputs={"table": "t1", "lr": "l1"},
    reads={"LANG": "r1"},
    version="1",
    environment={"python": "3.11", "pandas": "3.1"},
    shown={"lr": "0.1"},
    sources={"table": "load"},
)


def changed(**fields: Any) -> Manifest:
    return BASE._replace(**fields)


COUNTS: list[tuple[Manifest, str]] = [
    (changed(code="c2"), "code changed: model.train"),
    (changed(version="2"), "version changed: 1 → 2"),
    (changed(version=None), "version changed: 1 → none"),
    (changed(inputs={"table": "t2", "lr": "l1"}), "input 'table' changed (from load)"),
    (
        changed(inputs={"table": "t1", "lr": "l2"}, shown={"lr": "0.2"}),
        "parameter 'lr' changed: 0.1 → 0.2",
    ),
    (changed(inputs={"table": "t1", "lr": "l2"}, shown={}), "parameter 'lr' changed"),
    (changed(inputs={"table": "t1", "lr": "l2"}), "parameter 'lr' changed"),
    (changed(reads={"LANG": "r2"}), "reads changed: LANG"),
    (
        changed(environment={"python": "3.11", "pandas": "3.2"}),
        "environment changed: pandas 3.1 → 3.2",
    ),
    (changed(environment={"python": "3.11"}), "environment changed: pandas 3.1 → absent"),
]


@pytest.mark.parametrize(("manifest", "sentence"), COUNTS)
def test_what_counts_changes_the_key_and_is_said(manifest: Manifest, sentence: str) -> None:
    assert manifest.key() != BASE.key()
    assert [*map(str, manifest.diff(BASE))] == [sentence]


@pytest.mark.parametrize(
    "manifest",
    [
        changed(function="other.train"),
        changed(shown={}),
        changed(sources={}),
        changed(inputs={"lr": "l1", "table": "t1"}),
    ],
)
def test_labels_and_order_do_not_count(manifest: Manifest) -> None:
    assert manifest.key() == BASE.key()
    assert manifest.diff(BASE) == []


def test_neighbouring_fields_cannot_run_into_each_other() -> None:
    one = changed(inputs={"a": "bc"})
    other = changed(inputs={"ab": "c"})
    assert one.key() != other.key()


def test_all_that_changed_is_said_in_one_order() -> None:
    now = changed(code="c2", version="2", inputs={"table": "t2", "lr": "l2"}, shown={})
    assert [reason.kind for reason in now.diff(BASE)] == [
        "code changed",
        "version changed",
        "parameter changed",
        "input changed",
    ]


def test_the_piece_of_code_that_changed_is_named() -> None:
    parts, before = {"train": "1", "clean": "2"}, {"train": "1", "clean": "0"}
    pieces = {"c1": before, "c2": parts}.get
    assert changed(code="c2").diff(BASE, pieces) == [Reason("code changed", "clean")]


def test_a_piece_of_code_that_came_is_named() -> None:
    pieces = {"c1": {"train": "1"}, "c2": {"train": "1", "clean": "2"}}.get
    assert changed(code="c2").diff(BASE, pieces) == [Reason("code changed", "clean")]


@pytest.mark.parametrize(
    ("parts", "before", "names"),
    [
        ({"a.f": "1", "a.g": "2"}, {"a.f": "0", "a.g": "0"}, ["a.f", "a.g"]),
        ({"a.f": "1", "a.new": "2"}, {"a.f": "0"}, ["a.f"]),
        ({"a.f": "1", "b.g": "2"}, {"a.f": "1", "c.g": "0"}, ["b.g"]),
        ({"a.f": "1", "b.g": "2"}, {"a.f": "0", "c.g": "0"}, ["a.f", "b.g"]),
        ({"a.f": "1", "b.g": "2"}, {"a.f": "0", "c.g": "2"}, ["a.f"]),
        ({"a.f": "1", "b.g": "2"}, {"a.f": "1", "c.h": "2"}, ["b.g", "c.h"]),
        ({"a.f": "1"}, {"a.f": "1"}, []),
    ],
)
def test_what_changed_is_named_and_what_follows_from_it_is_not(
    parts: dict[str, str], before: dict[str, str], names: list[str]
) -> None:
    assert changed_parts(parts, before) == names


def test_where_no_piece_can_be_named_the_function_is() -> None:
    assert changed(code="c2").diff(BASE, {"c1": {"a": "1"}, "c2": {"a": "1"}}.get) == [
        Reason("code changed", "model.train")
    ]


def test_many_reasons_are_said_in_a_few_words() -> None:
    reasons = [Reason("code changed", f"helpers.f{number}") for number in range(5)]
    assert sentences(reasons[:2], 3) == ["code changed: helpers.f0", "code changed: helpers.f1"]
    assert sentences(reasons, 1) == ["code changed: helpers.f0", "and 4 more"]
    long = Reason("parameter changed", "text", "a" * 80, "b\n" * 80)
    assert len(sentences([long], 1)[0]) == 110
    assert "\n" not in sentences([long], 1)[0]
    assert distinct([*reasons, *reasons]) == tuple(reasons)
    assert distinct(reasons, 2) == tuple(reasons[:2])


def test_what_describes_an_input_does_not_count() -> None:
    described = changed(described={"input table": {"rows": "3"}})
    assert described.key() == BASE.key()
    assert Manifest.from_json(described.to_json()) == described
    assert "described" not in BASE.to_json()


def given(code: str, **facts: str) -> dict[str, Any]:
    """What is known of an argument that brings code along."""
    return {
        "inputs": {"how": code},
        "sources": {},
        "shown": {},
        "described": {"input how": {"type" if n == "kind" else n: f for n, f in facts.items()}},
        "brought": {"input how": code} if code else {},
    }


PIECES: dict[str, dict[str, str]] = {
    "old": {"m.f": "1", "m.g": "1", "m.C": "1", "m.C.fit": "1"},
    "fit": {"m.f": "1", "m.g": "1", "m.C": "1", "m.C.fit": "2"},
    "all": {"m.f": "2", "m.g": "2", "m.C": "2", "m.C.fit": "2"},
    "more": {"m.f": "1", "m.g": "1", "m.C": "1", "m.C.fit": "1", "m.h": "1"},
}


@pytest.mark.parametrize(
    ("code", "facts", "sentence"),
    [
        ("fit", {"kind": "m.C"}, ": code of m.C.fit"),
        ("fit", {"kind": "m.C", "k": "2"}, ": code of m.C.fit; k: 1 → 2"),
        ("all", {"kind": "m.C"}, ": code of m.C, m.C.fit, m.f and 1 more"),
        ("old", {"kind": "m.C", "k": "2"}, ": k: 1 → 2"),
        ("more", {"kind": "m.C"}, ": code of m.h"),
        ("fit", {"kind": "m.D"}, ": m.C → m.D"),
        ("not kept", {"kind": "m.C"}, ""),
        ("", {"kind": "m.C"}, ""),
    ],
)
def test_what_changed_inside_an_argument_is_named(
    code: str, facts: dict[str, str], sentence: str
) -> None:
    before = changed(**given("old", **{"kind": "m.C", **({"k": "1"} if "k" in facts else {})}))
    now = changed(**given(code, **facts))._replace(inputs={"how": "another"})
    assert [*map(str, now.diff(before, PIECES.get))] == [f"parameter 'how' changed{sentence}"]
    assert "brought" not in BASE.to_json()
    assert Manifest.from_json(now.to_json()) == now


def test_code_beside_outputs_is_named_where_it_changed() -> None:
    before = changed(**given("old", kind="list"))._replace(sources={"how": "train"})
    now = before._replace(inputs={"how": "2"})
    assert [*map(str, now.diff(before, PIECES.get))] == ["input 'how' changed (from train)"]
    now = now._replace(brought={"input how": "fit"})
    assert [*map(str, now.diff(before, PIECES.get))] == ["parameter 'how' changed: code of m.C.fit"]


def test_the_code_of_what_is_declared_to_be_read_is_named() -> None:
    before = changed(brought={"read LANG": "old"})
    now = changed(reads={"LANG": "r2"}, brought={"read LANG": "fit"})
    assert [*map(str, now.diff(before, PIECES.get))] == ["reads changed: LANG (code of m.C.fit)"]


def test_json_gives_the_manifest_back() -> None:
    assert Manifest.from_json(BASE.to_json()) == BASE

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
    assert changed(code="c2").diff(BASE, parts, before) == [Reason("code changed", "clean")]


def test_a_piece_of_code_that_came_is_named() -> None:
    parts, before = {"train": "1", "clean": "2"}, {"train": "1"}
    assert changed(code="c2").diff(BASE, parts, before) == [Reason("code changed", "clean")]


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
    assert changed(code="c2").diff(BASE, {"a": "1"}, {"a": "1"}) == [
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


def test_json_gives_the_manifest_back() -> None:
    assert Manifest.from_json(BASE.to_json()) == BASE

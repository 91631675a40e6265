"""Annotations of functions in functions: they count for nothing, unless something reads them."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_mlpipe.core.code import CodeReader

PLAIN = """
def step(x, tags=()):
    def inner(item: int, *rest: str, by: float = 2) -> list[int]:
        return [item * by + x, rest, tags]
    return inner(x)
"""
OTHER = PLAIN.replace("item: int", "item: dict[str, float]").replace("list[int]", "None")
BARE = (
    PLAIN.replace(": int", "")
    .replace(": str", "")
    .replace(": float", "")
    .replace(" -> list[int]", "")
)
LATER = "from __future__ import annotations\n"
METHOD = """
def step(x):
    class Inner:
        def size(self, by: int) -> int:
            return by * 2
    return Inner().size(x)
"""
DECORATED = """
def reads(function):
    return lambda x: function(x)

def step(x):
    @reads
    def inner(item: int): return item
    return inner(x)
"""
READ = """
import inspect
def step(x):
    def inner(item: int): return item
    return str(inspect.signature(inner))
"""


def digest(source: str) -> str:
    names: dict[str, Any] = {"__name__": "steps"}
    exec(compile(source, "steps.py", "exec", dont_inherit=True), names)
    return CodeReader().read(names["step"]).digest


@pytest.mark.parametrize("future", ["", LATER], ids=["evaluated", "as text"])
@pytest.mark.parametrize("other", [OTHER, BARE], ids=["others", "none"])
def test_annotations_in_a_body_do_not_count(future: str, other: str) -> None:
    assert digest(future + PLAIN) == digest(future + other)


@pytest.mark.parametrize("future", ["", LATER], ids=["evaluated", "as text"])
def test_whether_annotations_are_evaluated_does_not_count(future: str) -> None:
    assert digest(future + PLAIN) == digest(BARE)


@pytest.mark.parametrize("word", ["2", "item *", "rest,", "by:"])
def test_what_stands_beside_annotations_counts(word: str) -> None:
    changed = {"2": "3", "item *": "item -", "rest,": "rest[:1],", "by:": "of:"}[word]
    assert digest(PLAIN) != digest(PLAIN.replace(word, changed))


def test_annotations_of_methods_of_a_nested_class_do_not_count() -> None:
    before = digest(METHOD)
    assert digest(METHOD.replace("int", "float")) == before
    assert digest(METHOD.replace("* 2", "* 3")) != before


@pytest.mark.parametrize("source", [DECORATED, READ], ids=["by a decorator", "by the body"])
def test_annotations_that_may_be_read_count(source: str) -> None:
    assert digest(source) != digest(source.replace("item: int", "item: str"))

"""Values in a few facts, and what differs between two of them."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import SecretStr

from prefect_mlpipe.core.files import File, Folder
from prefect_mlpipe.core.telling.describing import (
    content_differences,
    describe,
    differences,
    in_short,
    shorten,
)


class Kind(enum.Enum):
    SMALL = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Settings:
    lr: float
    token: str = "hunter2"


def between(before: object, after: object) -> list[str]:
    return differences(describe(before), describe(after)) or content_differences(before, after)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (None, "None"),
        (0.1, "0.1"),
        ("a\nb", r"'a\nb'"),
        (Kind.SMALL, "Kind.SMALL"),
        (datetime.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (pd.Timestamp("2026-01-02"), "2026-01-02 00:00:00"),
        (len, "builtins.len"),
        (SecretStr("hunter2"), "***"),
        ("postgres://me:hunter2@host/db", "***"),
    ],
)
def test_what_takes_a_few_words_is_one_fact(value: object, text: str) -> None:
    assert describe(value) == {"": text}


def test_what_is_long_is_cut_and_its_length_told() -> None:
    facts = describe("x" * 1000)
    assert len(facts[""]) == 80
    assert facts[""].endswith("…")
    assert facts["length"] == "1,000"
    assert shorten("a\nb") == "a b"


def test_secrets_are_not_shown_wherever_they_are() -> None:
    value = {"password": "hunter2", "list": [SecretStr("hunter2")], "settings": Settings(0.1)}
    assert "hunter2" not in str(describe(value))
    assert describe("hunter2", "API_KEY") == {"": "***"}
    for name in ("key", "tokenizer", "monkey", "secretary"):
        assert describe("lr", name) == {"": "'lr'"}
    for name in ("DB_PASSWORD", "passwd", "token", "refresh_tokens", "aws_access_key_id", "apiKey"):
        assert describe("lr", name) == {"": "***"}


PAIRS: list[tuple[Any, Any, list[str]]] = [
    (1, 2, ["1 → 2"]),
    (1, True, ["1 → True"]),
    (1, [1], ["1 → list of 1"]),
    ([1], (1,), ["list of 1 → tuple of 1"]),
    ({"a": 1}, {"a": 2}, ["['a']: 1 → 2"]),
    ({"a": 1}, {"a": 1, "b": 2}, ["length: 1 → 2", "['b'] added (2)"]),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ["keys in another order: 'a', 'b' → 'b', 'a'"]),
    ({1, 2}, {1, 3}, ["member 2 removed", "member 3 added"]),
    (Point(1, 2), Point(1, 3), [".y: 2 → 3"]),
    (Settings(0.1), Settings(0.2), [".lr: 0.1 → 0.2"]),
    (np.zeros(3), np.zeros(3, "f4"), ["dtype: float64 → float32"]),
    (np.zeros(30), np.ones(30), ["elements: 30 of 30 differ, the first at 0: 0.0 → 1.0"]),
    (np.float64(1), np.float64(2), ["elements: 1.0 → 2.0"]),
    (pd.Series([1] * 20), pd.Series([2] * 20), ["values: 20 of 20 differ, the first at 0: 1 → 2"]),
    (
        pd.DataFrame({"a": [1.0, None]}),
        pd.DataFrame({"a": [2.0, None]}),
        ["column 'a': 1 of 2 differ, the first at 0: 1.0 → 2.0"],
    ),
    (
        pl.DataFrame({"a": [1, 2]}),
        pl.DataFrame({"a": [1, 3]}),
        ["column 'a': 1 of 2 differ, the first at 1: 2 → 3"],
    ),
    (pl.DataFrame({"a": [1]}), pl.DataFrame({"b": [1]}), ["column 'a' renamed to 'b'"]),
    (pa.table({"a": [1]}), pa.table({"a": [1.0]}), ["column 'a': int64 → double"]),
]


@pytest.mark.parametrize(("before", "after", "lines"), PAIRS)
def test_old_and_new_are_told_fact_by_fact(before: object, after: object, lines: list[str]) -> None:
    assert between(before, after) == lines
    assert differences(describe(before), describe(before)) == []


def test_files_and_folders_are_told_by_name_size_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    one, before = describe(File(tmp_path / "a.csv")), describe(Folder(tmp_path))
    (tmp_path / "a.csv").write_text("22")
    (tmp_path / "b.csv").write_text("22")
    assert differences(one, describe(File(tmp_path / "a.csv"))) == ["size: 1 bytes → 2 bytes"]
    lines = differences(before, describe(Folder(tmp_path)))
    assert lines[0] == "files: 1 → 2"
    assert lines[1].startswith("'a.csv': content ")
    assert lines[2].startswith("'b.csv' added")
    assert describe(File(tmp_path / "none.csv"))["name"] == "none.csv"


class Hostile:
    """Looking at it is not safe."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class HostileDict(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError


def test_what_will_not_be_looked_at_is_told_by_its_type() -> None:
    for value in (Hostile(), HostileDict(a=1), [Hostile()]):
        name = type(value).__qualname__
        assert name in in_short(describe(value))


def test_a_description_ends_though_the_value_does_not() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert len(describe(endless)) < 20
    assert len(describe([*range(10_000)])) == 200

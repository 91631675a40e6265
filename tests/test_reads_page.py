"""The page on what must be declared: its examples do what it says."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prefect_mlpipe import File, pipeline, step
from tests.project import Project

PAGE = (Path(__file__).parent.parent / "docs" / "reads.md").read_text()
README = (Path(__file__).parent.parent / "README.md").read_text()

HEADER = """
import os
import subprocess
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path

import numpy as np

import cleaning
import shop
from prefect_mlpipe import EnvVar, File, Folder, step

"""
SHOP = """
import sqlite3
from contextlib import closing

def query(text):
    with closing(sqlite3.connect("shop.db")) as shop:
        (found,) = shop.execute(text).fetchone()
        return found
"""
EXAMPLES: dict[str, str] = dict(
    re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```\n", PAGE, re.DOTALL)
)


class Case(NamedTuple):
    """How an example is called, what is changed then, and what it gives before and after."""

    arguments: tuple[Any, ...]
    change: Callable[[], object]
    before: Any
    after: Any
    arguments_after: tuple[Any, ...] | None = None


def _write(path: str, text: str) -> Callable[[], object]:
    return lambda: Path(path).write_text(text)


def _set(name: str, value: str) -> Callable[[], object]:
    return lambda: os.environ.update({name: value})


def _execute(*statements: str) -> None:
    with closing(sqlite3.connect("shop.db", isolation_level=None)) as shop:
        for statement in statements:
            shop.execute(statement)


def _insert() -> None:
    _execute("insert into orders values (2)")


def _nothing() -> None:
    """Only the arguments change."""


def _cleaning(strict: str) -> str:
    return f"def strict(text): return text.{strict}()\ndef lenient(text): return text\n"


CASES = {
    "argument": Case((File("text.txt"),), _write("text.txt", "a b c"), 2, 3),
    "file": Case(("new",), _write("vocab.txt", "old new"), False, True),
    "folder": Case((".txt",), _write("words/b.txt", ""), 1, 2),
    "variable": Case(("Ann",), _set("LANGUAGE", "de"), "en: Ann", "de: Ann"),
    "function": Case((" A", "strict"), _write("cleaning.py", _cleaning("lower")), "A", " a"),
    "module": Case((" A", "strict"), _write("cleaning.py", _cleaning("lower")), "A", " a"),
    "chance": Case(
        (3, 0),
        _nothing,
        *(float(np.random.default_rng(seed).normal(size=3).sum()) for seed in (0, 1)),
        (3, 1),
    ),
    "time": Case((2000, date(2026, 1, 1)), _nothing, 26, 27, (2000, date(2027, 1, 1))),
    "expiration": Case(("orders",), _insert, 1, 1),
    "program": Case(("a",), _write("convert.sh", 'echo "$1$1"'), "a\n", "aa\n"),
    "global": Case(([1, 2], 3), _nothing, 6, 7, ([1, 2], 4)),
}


def test_every_example_is_tried() -> None:
    assert CASES.keys() == EXAMPLES.keys()
    assert all(source.count("\n") == 2 for source in EXAMPLES.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_reused_until_what_it_reads_changes(
    name: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.syspath_prepend(project.folder)
    monkeypatch.setenv("LANGUAGE", "en")
    Path("words").mkdir()
    for path, text in {
        "text.txt": "a b",
        "vocab.txt": "old",
        "words/a.txt": "",
        "convert.sh": 'echo "$1"',
    }.items():
        Path(path).write_text(text)
    _execute("create table orders (number)", "insert into orders values (1)")
    case = CASES[name]

    def run(arguments: tuple[Any, ...]) -> tuple[Any, str]:
        source = Path("cleaning.py").read_text() if Path("cleaning.py").exists() else ""
        project.module("cleaning", source or _cleaning("strip"))
        project.module("shop", SHOP)
        made = project.module("example", HEADER + EXAMPLES[name])
        (function,) = [each for each in vars(made).values() if type(each) is type(_example)]

        @pipeline
        def p() -> Any:
            return function(*arguments)

        owned = project.own(p)
        assert owned.plan().warnings == ()
        value = owned.local()
        (result,) = owned.runs.last()
        assert owned.runs.last().warnings == []
        return value, result.state

    assert run(case.arguments) == (case.before, "ran")
    assert run(case.arguments) == (case.before, "reused")
    case.change()
    expected = "reused" if case.after == case.before else "ran"
    assert run(case.arguments_after or case.arguments) == (case.after, expected)


@step
def _example() -> int:
    return 1


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/reads.md)" in README


def test_the_links_of_the_page_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= headings

"""`plan()` warns of what a step reads and does not declare, and says the way out."""

from __future__ import annotations

import os
import random
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_mlpipe import EnvVar, File, Folder, pipeline, step
from prefect_mlpipe.errors import MissingFile
from tests.project import Project


def language() -> str:
    return os.environ["LANG_OF_OURS"]


@pytest.fixture(autouse=True)
def _in_its_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("LANG_OF_OURS", "de")
    Path("vocab.txt").write_text("a b")
    Path("words").mkdir()
    Path("words/more.txt").write_text("c")


def warnings(project: Project, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What the plan of a pipeline of this one step warns of."""
    made: Any = step(**options)(function) if options else step(function)

    @pipeline
    def p() -> Any:
        return made(*args)

    return project.own(p).plan().warnings


def test_a_warning_names_step_helper_what_is_read_and_the_way_out(project: Project) -> None:
    def train(x: int) -> str:
        return language() * x

    said = "reads os.environ['LANG_OF_OURS']; declare it: reads=[EnvVar('LANG_OF_OURS')]"
    assert warnings(project, train, 1) == (f"train → tests.test_lint.language {said}",)


def test_warnings_stand_below_the_table(project: Project) -> None:
    @step
    def train(x: int) -> float:
        return x + random.random()

    @pipeline
    def p() -> Any:
        return train(1), train(2)

    plan = project.own(p).plan()
    assert len(plan.warnings) == 1
    table, _, below = str(plan).partition("p: 2 run")
    assert "train#2" in table
    way_out = "take a seed as a parameter"
    assert below.endswith(f"\n! train draws from random.random without a seed; {way_out}")


def reads_variable(x: int) -> str:
    return os.environ["LANG_OF_OURS"]


def reads_some_variable(x: str) -> str:
    return os.environ[x]


def reads_file(x: int) -> str:
    return Path("vocab.txt").read_text()


def reads_clock(x: int) -> float:
    return time.time()


def reads_folder(x: int) -> str:
    return os.getcwd()


def asks_program(x: int) -> bytes:
    return subprocess.check_output(["true"])


def loads_code(x: str) -> Any:
    return __import__(x)


def draws(x: int) -> float:
    return random.random()


def draws_seeded(x: int) -> float:
    random.seed(x)
    np.random.seed(x)
    return random.random() + np.random.rand()


def draws_unseeded_beside(x: int) -> float:
    np.random.seed(x)
    return float(np.random.default_rng().normal())


def names_itself(x: int) -> str:
    return str(uuid.uuid4())


def seeds_in_helper(x: int) -> float:
    set_seed(x)
    return random.random()


def set_seed(seed: int) -> None:
    random.seed(seed)


@pytest.mark.parametrize(
    ("function", "options", "count"),
    [
        (reads_variable, {}, 1),
        (reads_variable, {"reads": [EnvVar("LANG_OF_OURS")]}, 0),
        (reads_variable, {"reads": [EnvVar("HOME")]}, 1),
        (reads_variable, {"ignore": ["os.environ"]}, 0),
        (reads_variable, {"cache": False}, 0),
        (reads_variable, {"reads": []}, 0),
        (reads_some_variable, {}, 1),
        (reads_some_variable, {"reads": [EnvVar("HOME")]}, 0),
        (reads_file, {}, 1),
        (reads_file, {"reads": [File("vocab.txt")]}, 0),
        (reads_file, {"reads": [Path("vocab.txt")]}, 0),
        (reads_file, {"reads": [Folder(".")]}, 0),
        (reads_file, {"reads": [Folder("words")]}, 1),
        (reads_clock, {}, 1),
        (reads_clock, {"cache_expiration": timedelta(days=1)}, 0),
        (reads_clock, {"ignore": ["time.time"]}, 0),
        (reads_clock, {"ignore": ["time"]}, 0),
        (reads_folder, {}, 1),
        (asks_program, {}, 1),
        (asks_program, {"version": "2"}, 0),
        (asks_program, {"cache_expiration": timedelta(days=1)}, 0),
        (loads_code, {}, 1),
        (loads_code, {"reads": [language]}, 0),
        (draws, {}, 1),
        (draws, {"version": "2"}, 1),
        (draws, {"cache": False}, 0),
        (draws_seeded, {}, 0),
        (draws_unseeded_beside, {}, 1),
        (seeds_in_helper, {}, 0),
        (names_itself, {}, 1),
    ],
)
def test_what_is_declared_is_not_warned_of(
    project: Project, function: Callable[..., Any], options: dict[str, Any], count: int
) -> None:
    argument: Any = "json" if function in (loads_code, reads_some_variable) else 1
    assert len(warnings(project, function, argument, **options)) == count


def test_a_step_that_works_outside_the_store_is_not_looked_at(project: Project) -> None:
    def notify(x: int) -> None:
        subprocess.run(["true"], env=dict(os.environ), check=True)

    assert warnings(project, notify, 1) == ()


@dataclass(frozen=True)
class Settings:
    table: str
    depth: int = 3


def load(table: Any, name: Any = "vocab") -> int:
    return 1


@pytest.mark.parametrize(
    ("argument", "at"),
    [
        ("vocab.txt", "table"),
        ("./words", "table"),
        (["a", "vocab.txt"], "table[1]"),
        ({"path": ("vocab.txt",)}, "table['path'][0]"),
        (Settings("words/more.txt"), "table.table"),
    ],
)
def test_a_string_that_is_a_path_is_warned_of(project: Project, argument: Any, at: str) -> None:
    (said,) = warnings(project, load, argument)
    assert said.startswith(f"load: argument '{at}' is a str, and the path of a ")
    assert said.endswith("pass Folder(...)" if argument == "./words" else "pass File(...)"), said
    assert warnings(project, load, argument, ignore=["table"]) == ()
    assert warnings(project, load, argument, reads=[]) == ()
    assert warnings(project, load, argument, cache=False) == ()


@pytest.mark.parametrize(
    "argument",
    ["words", ".", "..", "/", "", "none.txt", "a b", "vocab", "x" * 5000, "a\nb.txt", "a\0b.c", 3],
)
def test_a_string_that_need_not_be_meant_as_a_path_is_not(project: Project, argument: Any) -> None:
    assert warnings(project, load, argument) == ()


def test_a_default_that_is_a_path_is_warned_of(project: Project) -> None:
    def read(x: int, table: str = "vocab.txt") -> str:
        return table

    (said,) = warnings(project, read, 1)
    assert "argument 'table'" in said


def test_a_path_that_is_declared_is_not_warned_of(project: Project) -> None:
    assert warnings(project, load, "vocab.txt", reads=[File("vocab.txt")]) == ()
    assert warnings(project, load, File("vocab.txt")) == ()
    assert warnings(project, load, Path("vocab.txt")) == ()
    with pytest.raises(MissingFile):
        warnings(project, load, Path("none.txt"))


def test_a_run_warns_once_of_what_is_certain_when_the_code_is_new(project: Project) -> None:
    @step
    def train(x: int) -> float:
        return x + random.random() + time.time() + len(language())

    @pipeline
    def p(x: int = 1) -> float:
        return train(x)

    owned = project.own(p)
    owned.local()
    said = owned.runs.last().warnings
    assert [text.partition(";")[0] for text in said] == [
        "train → tests.test_lint.language reads os.environ['LANG_OF_OURS']",
        "train draws from random.random without a seed",
    ]
    owned.local()
    assert owned.runs.last()["train"].state == "reused"
    assert owned.runs.last().warnings == []
    owned.local(2)
    assert owned.runs.last()["train"].state == "ran"
    assert owned.runs.last().warnings == []


def test_what_is_ignored_does_not_change_the_key(project: Project) -> None:
    @pipeline
    def p(quiet: bool) -> Any:
        made: Any = step(ignore=["time.time"])(reads_clock) if quiet else step(reads_clock)
        return made(1)

    owned = project.own(p)
    first = owned.local(False)
    assert owned.local(True) == first
    assert owned.runs.last()["reads_clock"].state == "reused"

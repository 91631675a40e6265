"""A slice of the fuzz: `python -m tests.fuzz` does all of it, and plants all faults.

In a process of its own: it forks, and patches what it breaks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import faults, running
from tests.fuzz.neutral import commute
from tests.fuzz.projects import Project
from tests.fuzz.wholes import taken_whole

ROOT = Path(__file__).parents[2]
EDITS = 600
QUICKLY_FOUND = ("constants", "defaults", "values of globals", "other modules", "contents watched")


def fuzz(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_no_edit_leads_to_a_wrong_reuse_or_a_needless_rerun() -> None:
    counts = fuzz("--edits", str(EDITS), "--seed", "7")
    assert counts["edits"] >= EDITS
    assert (counts["wrong"], counts["needless"], counts["failures"]) == ([], [], [])
    assert counts["share"] >= 0.4
    assert counts["fresh"] >= 0.08 * EDITS
    assert counts["in_place"] >= 0.05 * EDITS
    assert counts["neutral"] >= 0.05 * EDITS


def test_edits_find_faults_that_are_planted_in_the_reader_of_code() -> None:
    found = fuzz("--plant", ",".join(QUICKLY_FOUND), "--edits", "800", "--seed", "7")
    assert {name: each["found"] for name, each in found.items()} == dict.fromkeys(
        QUICKLY_FOUND, True
    )


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_each_fault_can_still_be_planted(fault: faults.Fault) -> None:
    function, source = faults.faulty(fault)
    compile(source, fault.name, "exec", dont_inherit=True)
    assert not function.__code__.co_freevars, "its code could not be replaced"


# What judges the edits is judged here.

FOLLOWED = (
    ("import low", "def f(x):\n    return low.f1(x)"),
    ("import low", "alias = low", "def f(x):\n    return alias.f1(x)"),
    ("from low import f1", "def f(x):\n    return f1(x)"),
    ("def f(x):\n    import low as l\n    return l.f1(x)",),
    ("import pkg.inner", "def f(x):\n    return pkg.inner.f2(x)"),
)
WHOLE = (
    ("import low", "def f(x):\n    return [x, low]"),
    ("import low", "def f(x):\n    held = low\n    return held.f1(x)"),
    ("import low", "def f(x):\n    return getattr(low, 'f1')(x)"),
    ("import low", "def f(x):\n    return low.__dict__"),
    ("import low", "kept = [low]"),
    ("def f(x):\n    import low\n    return x",),
    ("import importlib", "def f(x):\n    return importlib.import_module('low').f1(x)"),
    ("import pkg", "def f(x):\n    return [x, pkg]"),
    ("from pkg import passed", "def f(x):\n    return [x, passed]"),
)


def project(*main: str) -> Project:
    return Project(
        {
            "low": ("def f1(x):\n    return x",),
            "pkg.inner": ("def f2(x):\n    return x",),
            "pkg": ("import low as passed",),
            "main": main,
        }
    )


@pytest.mark.parametrize("main", FOLLOWED)
def test_a_module_that_can_be_followed_is_not_taken_whole(main: tuple[str, ...]) -> None:
    assert taken_whole(project(*main)) == set()


@pytest.mark.parametrize("main", WHOLE)
def test_a_module_that_is_used_bare_is_taken_whole(main: tuple[str, ...]) -> None:
    assert "low" in taken_whole(project(*main))


def test_a_module_that_reads_its_globals_by_name_is_taken_whole() -> None:
    assert taken_whole(project("def f(x):\n    return globals()['x']")) == {"main"}


@pytest.mark.parametrize(
    ("one", "other", "between", "free"),
    [
        ("import low", "import high", [], True),
        ("from low import f1", "from high import f2 as f1", [], False),
        ("import pkg.inner", "import pkg.outer", [], False),
        ("from low import f1", "import high", ["kept = f1(3)"], False),
        ("from low import f1", "import high", ["from pkg import *"], False),
    ],
)
def test_imports_change_places_only_where_nobody_notices(
    one: str, other: str, between: list[str], free: bool
) -> None:
    assert commute(one, other, between) is free


@pytest.fixture
def loads() -> Iterator[None]:
    """Leaves no project in the tests' own process."""
    finders = [*sys.meta_path]
    yield
    sys.meta_path[:] = finders
    del sys.modules["main"]


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(("returned", "determined"), [("hash(C)", False), ("C.__name__", True)])
def test_a_value_that_hangs_on_an_address_is_told(returned: str, determined: bool) -> None:
    main = ("class C:\n    pass", f"def main():\n    return {returned}")
    assert running.is_determined(Project({"main": main})) is determined

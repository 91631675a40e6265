"""The holes that a design of reuse can have.

A package that a step reaches only through the type of an input; a file that changes between the
moment it is digested and the moment it is read; a process that has imported another version of the
code than the one that asks it to run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from prefect_mlpipe.compute import Dask
from prefect_mlpipe.core import files
from prefect_mlpipe.core.stat_index import StatIndex
from prefect_mlpipe.errors import CodeMismatch, EnvironmentMismatch
from tests.project import Project
from tests.reuse.lab import Lab
from tests.server import Server

# -- packages that are reached only through the types of inputs ------------------------------------

PATHS = """
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "site-packages"))
"""
SHAPES = """
import enum

FACTOR = {factor}

class Box:
    def __init__(self, side): self.side = side
    def __eq__(self, other): return type(other) is type(self) and other.side == self.side
    def __hash__(self): return hash(self.side)
    def area(self): return FACTOR * self.side

class Size(enum.Enum):
    SMALL = 1
    def area(self): return FACTOR * self.value

class Wrong(Exception):
    def area(self): return FACTOR * self.args[0]

class Meta(type):
    def area(cls): return FACTOR * 3

class Slotted:
    __slots__ = ("side",)
    def __init__(self, side): self.side = side
    def area(self): return FACTOR * self.side

def area(side): return FACTOR * side
"""
# What a user builds with the package, in a module that no step reaches.
MODELS = """
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import shapes

class Own(shapes.Box):
    name = "own"

class Further(Own):
    pass

class OfMeta(metaclass=shapes.Meta):
    pass

@dataclass
class Holder:
    box: shapes.Box
    more: list = field(default_factory=list)

class Two(NamedTuple):
    one: shapes.Box
    two: shapes.Box

class Plain:
    def __init__(self, box): self.box = box

def objects(*boxes):
    made = np.empty(len(boxes), dtype=object)
    made[:] = boxes
    return made
"""


def install(lab: Lab, version: str, factor: int, name: str = "shapes") -> None:
    """Install a distribution as pip does; what was there before goes."""
    folder = lab.folder / "site-packages"
    for old in folder.glob(f"{name}*"):
        shutil.rmtree(old)
    info = f"site-packages/{name}-{version}.dist-info"
    lab.write(
        {
            f"site-packages/{name}/__init__.py": SHAPES.format(factor=factor),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/RECORD": f"{name}/__init__.py,,\n",
            f"{info}/INSTALLER": "pip\n",
        }
    )


VALUES = {
    "an instance": ("shapes.Box(2)", "x.area()"),
    "with slots": ("shapes.Slotted(2)", "x.area()"),
    "in a list": ("[1, shapes.Box(2)]", "x[1].area()"),
    "in a tuple in a dict": ("{'a': (shapes.Box(2),)}", "x['a'][0].area()"),
    "as the key of a dict": ("{shapes.Box(2): 1}", "[*x][0].area()"),
    "in a set": ("{shapes.Box(2)}", "[*x][0].area()"),
    "in a field of a dataclass": ("models.Holder(shapes.Box(2))", "x.box.area()"),
    "deep in a dataclass": (
        "models.Holder(None, [{'a': shapes.Box(2)}])",
        "x.more[0]['a'].area()",
    ),
    "in a named tuple": ("models.Two(shapes.Box(1), shapes.Box(2))", "x.two.area()"),
    "in an attribute": ("models.Plain(shapes.Box(2))", "x.box.area()"),
    "an instance of a subclass of the user's": ("models.Own(2)", "x.area()"),
    "an instance of a subclass further down": ("[models.Further(2)]", "x[0].area()"),
    "an instance of a class made by its metaclass": ("models.OfMeta()", "type(x).area()"),
    "a class of the user's that it made": ("models.OfMeta", "x.area()"),
    "a member of an enum": ("shapes.Size.SMALL", "x.area()"),
    "an exception": ("shapes.Wrong(2)", "x.area()"),
    "a class": ("shapes.Box", "x(2).area()"),
    "a function": ("shapes.area", "x(2)"),
    "a partial": ("models.functools.partial(shapes.area, 2)", "x()"),
    "a bound method": ("shapes.Box(2).area", "x()"),
    "a lambda that calls it": ("lambda: shapes.area(2)", "x()"),
    "in an array of objects": ("models.objects(shapes.Box(2))", "x[0].area()"),
    "in a column of objects": (
        "models.pd.DataFrame({'a': models.objects(shapes.Box(2))})",
        "x['a'][0].area()",
    ),
    "in the attributes of a table": (
        "(lambda t: (t.attrs.update(box=shapes.Box(2)), t)[1])(models.pd.DataFrame({'a': [1]}))",
        "x.attrs['box'].area()",
    ),
}


def typed(value: str, use: str) -> dict[str, str]:
    """A project whose step gets a value as a literal, and another gets it from a step."""
    return {
        "paths.py": PATHS,
        "models.py": MODELS,
        "main.py": f"""
import paths
import models
import shapes

@step
def literal(x: object) -> int:
    ran("literal")
    return {use}

@step
def made() -> object:
    ran("made")
    return {value}

@step
def output(x: object) -> int:
    ran("output")
    return {use}

@pipeline
def main() -> list[int]:
    return [literal({value}), output(made())]
""",
    }


@pytest.mark.parametrize(("value", "use"), VALUES.values(), ids=VALUES)
def test_an_upgrade_of_the_package_that_owns_a_type_is_seen(lab: Lab, value: str, use: str) -> None:
    install(lab, "1.0", 1)
    lab.write(typed(value, use))
    first = lab.run()
    assert first.error is None, first.traceback
    assert first.value == lab.oracle()
    assert lab.run().ran == []
    install(lab, "2.0", 10)
    outcome = lab.run(plan=True)
    assert outcome.error is None, outcome.traceback
    assert outcome.value == lab.oracle() != first.value
    assert outcome.ran == ["literal", "made", "output"]
    for step in ("literal", "output"):
        assert outcome.reasons(step) == ["environment changed: shapes 1.0 → 2.0"], step
    assert outcome.plan["literal"] == ("run", ["environment changed: shapes 1.0 → 2.0"])


def test_an_upgrade_is_seen_by_a_reader_of_a_reused_output(lab: Lab) -> None:
    """Who made the value does not reach the package: what it holds came in as an argument."""
    source = """
        import paths
        import shapes

        @step
        def kept(x: object) -> list:
            ran("kept")
            return [x]

        @step(version="1")
        def reader(x: list) -> int:
            ran("reader")
            return x[0].area()

        @step
        def counted(x: list) -> int:
            ran("counted")
            return 1

        @pipeline
        def main() -> object:
            items = kept.map([shapes.Box(1), shapes.Box(2)])
            return reader.map(items), counted([1])
    """
    install(lab, "1.0", 1)
    lab.write({"paths.py": PATHS, "main.py": source})
    first = lab.run()
    assert first.error is None, first.traceback
    assert lab.run().ran == []
    install(lab, "2.0", 10)
    outcome = lab.run()
    assert outcome.error is None, outcome.traceback
    assert outcome.value == lab.oracle() != first.value
    assert outcome.ran == ["kept", "kept", "reader", "reader"]


def test_a_field_is_read_with_the_packages_of_its_own_types_only(lab: Lab) -> None:
    source = """
        import paths
        import shapes
        from typing import NamedTuple

        class Parts(NamedTuple):
            box: object
            count: int

        @step
        def split() -> Parts:
            ran("split")
            return Parts(shapes.Box(2), 3)

        @step
        def sized(x: object) -> int:
            ran("sized")
            return x.area()

        @step
        def counted(x: int) -> int:
            ran("counted")
            return x

        @step
        def whole(x: Parts) -> int:
            ran("whole")
            return x.box.area()

        @pipeline
        def main() -> list[int]:
            parts = split()
            return [sized(parts.box), counted(parts.count), whole(parts)]
    """
    install(lab, "1.0", 1)
    lab.write({"paths.py": PATHS, "main.py": source})
    first = lab.run()
    assert first.error is None, first.traceback
    assert lab.run().ran == []
    install(lab, "2.0", 10)
    outcome = lab.run()
    assert outcome.value == lab.oracle() != first.value
    assert outcome.ran == ["sized", "split", "whole"]


def test_an_upgrade_is_seen_through_what_is_declared(lab: Lab) -> None:
    source = """
        import importlib
        import paths
        import shapes
        import sizes

        @step(reads=[{declared}])
        def work(name: str) -> int:
            ran("work")
            return importlib.import_module("sizes").{called}

        @pipeline
        def main() -> int:
            return work("a")
    """
    sizes = """
        import shapes
        BOX = shapes.Box(2)
        def size(): return shapes.area(2)
        class Sized:
            def size(self): return shapes.area(3)
    """
    for declared, called in {
        "sizes.size": "size()",
        "sizes.Sized": "Sized().size()",
        "sizes.BOX": "BOX.area()",
        "sizes": "size()",
        "shapes.area": "shapes.area(2)",
    }.items():
        install(lab, "1.0", 1)
        lab.write(
            {
                "paths.py": PATHS,
                "sizes.py": sizes,
                "main.py": source.format(declared=declared, called=called),
            }
        )
        first = lab.run()
        assert first.error is None, first.traceback
        assert lab.run().ran == []
        install(lab, "2.0", 10)
        outcome = lab.run()
        assert outcome.value == lab.oracle() != first.value, declared
        assert outcome.reasons() == ["environment changed: shapes 1.0 → 2.0"]


def test_an_upgrade_of_another_package_runs_nothing(lab: Lab) -> None:
    for name in ("shapes", "colours"):
        install(lab, "1.0", 1, name)
    source = typed("shapes.Box(2)", "x.area()")
    source["main.py"] = source["main.py"].replace("import models", "import models, colours")
    lab.write(source)
    assert lab.run().ran == ["literal", "made", "output"]
    install(lab, "2.0", 10, "colours")
    assert lab.run().ran == []


def test_a_package_that_comes_to_an_input_is_named(lab: Lab) -> None:
    install(lab, "1.0", 1)
    lab.write(typed("[1]", "len(x)"))
    lab.run()
    lab.write(typed("[1, shapes.Box(2)]", "len(x)"))
    outcome = lab.run()
    assert outcome.value == lab.oracle()
    assert "environment changed: shapes absent → 1.0" in outcome.reasons("output")


# -- a file that changes between the digest and the read -------------------------------------------

# Somebody else's hand: changes files as `how.py` says, once, if there is a mark.
MEDDLING = """
import os
import runpy

def meddle():
    if os.path.exists("mark"):
        os.remove("mark")
        runpy.run_path("how.py")
"""
READERS = """
import os
from dataclasses import dataclass
from pathlib import Path
from meddling import meddle

@dataclass(frozen=True)
class Settings:
    csv: object

class Plain:
    def __init__(self, csv): self.csv = csv

def read(place):
    if not os.path.isdir(place):
        return Path(place).read_bytes()
    files = sorted(each for each in Path(place).rglob("*") if each.is_file())
    return [(str(each.relative_to(place)), each.read_bytes()) for each in files]

def slowly(place):
    # Read, while somebody changes what is read, before it is read or after.
    if os.path.exists("late"):
        found = read(place)
        meddle()
        return found
    meddle()
    return read(place)
"""
WRITES = {
    "written anew": "Path('a.csv').write_text('b')",
    "written with the same size and time": """
        facts = os.stat("a.csv")
        Path("a.csv").write_text("b")
        os.utime("a.csv", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    """,
    "replaced": "Path('new').write_text('b'); os.replace('new', 'a.csv')",
    "replaced by one of the same size and time": """
        facts = os.stat("a.csv")
        Path("new").write_text("b")
        os.utime("new", ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.replace("new", "a.csv")
    """,
    "grown": "open('a.csv', 'a').write('b')",
    "truncated": "os.truncate('a.csv', 0)",
    "changed through a link": """
        os.link("a.csv", "link")
        Path("link").write_text("b")
    """,
    "changed and restored": "Path('a.csv').write_text('b'); Path('a.csv').write_text('a')",
}
HOWS = "import os\nfrom pathlib import Path\n\n"

# How a file comes to a step: what stands above, options of the step, its parameter, the argument,
# what it reads.
WAYS = {
    "as an argument": ("", "", "x: File", "File('a.csv')", "x"),
    "as a path": ("", "", "x: object", "Path('a.csv')", "x"),
    "in a list": ("", "", "x: list", "[1, File('a.csv')]", "x[1]"),
    "in a dict in a tuple": ("", "", "x: tuple", "({'a': Path('a.csv')},)", "x[0]['a']"),
    "in a dataclass": ("", "", "x: object", "Settings(File('a.csv'))", "x.csv"),
    "in an object": ("", "", "x: object", "Plain(File('a.csv'))", "x.csv"),
    "in an object in a dict": ("", "", "x: object", "{1: Plain([File('a.csv')])}", "x[1].csv[0]"),
    "as a default": ("", "", "x: File = File('a.csv')", "", "x"),
    "in reads": ("", "reads=[File('a.csv')]", "x: int", "1", "'a.csv'"),
    "in reads, in an object": ("", "reads=[Plain(File('a.csv'))]", "x: int", "1", "'a.csv'"),
    "in a global": ("TABLE = File('a.csv')", "", "x: int", "1", "TABLE"),
    "in a global that is an object": (
        "TABLE = Plain(File('a.csv'))",
        "",
        "x: int",
        "1",
        "TABLE.csv",
    ),
    "in an attribute of a class": (
        "class Places:\n    table = File('a.csv')",
        "",
        "x: int",
        "1",
        "Places.table",
    ),
    "in the default of a helper": (
        "def helper(place=File('a.csv')): return slowly(place)",
        "",
        "x: int",
        "1",
        None,
    ),
    "in a closure": (
        "def make(place):\n    def helper(): return slowly(place)\n    return helper\n"
        "helper = make(File('a.csv'))",
        "",
        "x: int",
        "1",
        None,
    ),
}


def reading(above: str, options: str, parameter: str, argument: str, use: str | None) -> str:
    """A project whose step reads a file that came to it in some way."""
    read = "helper()" if use is None else f"slowly({use})"
    return f"""
from readers import Path, Plain, Settings, slowly

{above}

@step
def other(x: int) -> int:
    ran("other")
    return x

@step({options})
def work({parameter}) -> object:
    ran("work")
    return {read}

@pipeline
def main() -> object:
    return [other(1), work({argument})]
"""


def meddled(lab: Lab, source: str, how: str, *, late: bool) -> None:
    """A run in which files are changed, another, and one more: the first must not be believed."""
    lab.write({"meddling.py": MEDDLING, "readers.py": READERS, "main.py": source})
    (lab.folder / "how.py").write_text(HOWS + dedent(how))
    if late:
        (lab.folder / "late").touch()
    (lab.folder / "mark").touch()
    first = lab.run()
    assert not (lab.folder / "mark").exists(), first.traceback
    assert first.error is not None
    assert "InputChanged" in first.error
    assert "Step 'work' read a file that has changed; nothing is recorded" in first.error
    assert first.steps["work"]["state"] == "failed"
    assert first.steps["work"]["key"] is None
    second = lab.run(plan=True)
    assert second.plan["work"][0] == "run"
    assert second.error is None, second.traceback
    assert second.value == lab.oracle()
    assert second.ran == ["work"]
    third = lab.run()
    assert (third.value, third.ran) == (second.value, [])


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("how", WRITES.values(), ids=WRITES)
def test_a_file_that_is_changed_while_a_step_runs_leaves_no_record(
    lab: Lab, how: str, late: bool
) -> None:
    (lab.folder / "a.csv").write_text("a")
    meddled(lab, reading(*WAYS["as an argument"]), how, late=late)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_changed_file_is_noticed_however_it_came_to_the_step(
    lab: Lab, way: tuple[str, str, str, str, str | None]
) -> None:
    (lab.folder / "a.csv").write_text("a")
    meddled(lab, reading(*way), WRITES["written with the same size and time"], late=False)


FOLDERS = {
    "a file is changed": "Path('data/a').write_text('b')",
    "a file is added": "Path('data/b').write_text('b')",
    "a file is added deeper": "Path('data/deep/b').write_text('b')",
    "a file is removed": "os.remove('data/a')",
    "a file is renamed": "os.rename('data/a', 'data/b')",
    "two files change places": """
        os.rename("data/a", "c")
        os.rename("data/z", "data/a")
        os.rename("c", "data/z")
    """,
    "a file is moved deeper": "os.rename('data/a', 'data/deep/a')",
    "a folder is removed": "import shutil; shutil.rmtree('data/deep')",
    "all of it is replaced": """
        import shutil
        shutil.copytree("data", "new")
        Path("new/a").write_text("b")
        shutil.rmtree("data")
        os.rename("new", "data")
    """,
}


@pytest.mark.parametrize("declared", [False, True], ids=["as an argument", "in reads"])
@pytest.mark.parametrize("how", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_is_changed_while_a_step_runs_leaves_no_record(
    lab: Lab, how: str, declared: bool
) -> None:
    (lab.folder / "data" / "deep").mkdir(parents=True)
    for name in ("a", "z", "deep/c"):
        (lab.folder / "data" / name).write_text(name)
    way = ("", "", "x: Folder", "Folder('data')", "x")
    if declared:
        way = ("", "reads=[Folder('data')]", "x: int", "1", "'data'")
    meddled(lab, reading(*way), how, late=False)


def test_a_file_that_vanishes_while_a_step_runs_leaves_no_record(lab: Lab) -> None:
    (lab.folder / "a.csv").write_text("a")
    source = reading(*WAYS["as an argument"])
    lab.write({"meddling.py": MEDDLING, "readers.py": READERS, "main.py": source})
    for name, content in {
        "how.py": "import os; os.remove('a.csv')",
        "mark": "",
        "late": "",
    }.items():
        (lab.folder / name).write_text(content)
    first = lab.run()
    assert "InputChanged" in str(first.error)
    missing = lab.run()
    assert "MissingFile" in str(missing.error)
    assert "'work'" in str(missing.error)
    (lab.folder / "a.csv").write_text("c")
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (lab.oracle(), ["work"])


def test_a_file_that_nothing_reads_may_change(lab: Lab) -> None:
    (lab.folder / "a.csv").write_text("a")
    (lab.folder / "b.csv").write_text("a")
    source = reading(*WAYS["as an argument"]) + "\nOTHER = File('b.csv')\n"
    lab.write({"meddling.py": MEDDLING, "readers.py": READERS, "main.py": source})
    (lab.folder / "how.py").write_text(f"{HOWS}Path('b.csv').write_text('b')")
    (lab.folder / "mark").touch()
    first = lab.run()
    assert first.error is None, first.traceback
    assert first.value == lab.oracle()
    assert lab.run().ran == []


def test_a_step_that_changes_the_file_of_another_is_found_out(lab: Lab) -> None:
    """Both read the file as it was when the run began; the second finds it changed."""
    source = """
        from pathlib import Path

        TABLE = File("a.csv")

        @step
        def first(x: int) -> str:
            ran("first")
            return Path(TABLE).read_text()

        @step
        def writer(x: str) -> None:
            ran("writer")
            if Path("mark").exists():
                Path("mark").unlink()
                Path("a.csv").write_text("b")

        @step
        def second(x: int) -> str:
            ran("second")
            return Path(TABLE).read_text()

        @pipeline
        def main() -> object:
            one = first(1)
            return one, second.after(writer(one))(1)
    """
    (lab.folder / "a.csv").write_text("a")
    (lab.folder / "mark").touch()
    lab.write(source)
    outcome = lab.run()
    assert "Step 'second' read a file that has changed" in str(outcome.error)
    assert outcome.steps["first"]["state"] == "ran"
    assert outcome.steps["second"]["key"] is None
    outcome = lab.run()
    assert outcome.value == lab.oracle()
    assert outcome.ran == ["first", "second", "writer"]
    assert lab.run().ran == ["writer"]


@pytest.mark.parametrize("place", ["a.csv", "data/a.csv"])
def test_a_change_within_one_tick_of_the_clock_is_seen(lab: Lab, place: str) -> None:
    """Written again and again with the same size and time, as fast as the machine can."""
    folder = place != "a.csv"
    source = f"""
        import os
        from pathlib import Path

        @step
        def work(x: {"Folder" if folder else "File"}) -> str:
            return Path({place!r}).read_text()

        @pipeline
        def main() -> str:
            return work({"Folder('data')" if folder else "File('a.csv')"})

        def races() -> list:
            own = main.with_options(store=os.environ["STORE_OF_OURS"])
            found = []
            for number in range(30):
                Path({place!r}).write_text(str(number % 10))
                os.utime({place!r}, ns=(1, 1))
                found.append(own.local())
            return found
    """
    (lab.folder / "data").mkdir()
    (lab.folder / place).write_text("a")
    lab.write(source)
    setup = f"import os; os.environ['STORE_OF_OURS'] = {lab.store!r}"
    outcome = lab.run(setup=setup, after="races()")
    assert outcome.error is None, outcome.traceback
    assert outcome.extra == [str(number % 10) for number in range(30)]


@pytest.mark.parametrize("late_ns", [0, 50_000_000, 99_000_000])
def test_the_stat_index_does_not_believe_what_was_hashed_too_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late_ns: int
) -> None:
    """Two contents under one state: as if both writes had fallen into one tick of the clock."""
    path = tmp_path / "a.csv"
    path.write_text("a")
    facts = path.stat()
    written_ns = max(facts.st_mtime_ns, facts.st_ctime_ns)
    fine = facts.st_ctime_ns % 1_000_000_000 != 0
    index = StatIndex(clock_ns=lambda: written_ns + late_ns)
    monkeypatch.setattr(files, "state_of", lambda facts: f"{facts.st_ino}:{facts.st_size}")
    first = files.hash_of(str(path), AssertionError, index)
    path.write_text("b")
    assert files.hash_of(str(path), AssertionError, index) != first
    settled = StatIndex(clock_ns=lambda: written_ns + 3_000_000_000)
    second = files.hash_of(str(path), AssertionError, settled)
    path.write_text("c")
    assert fine
    assert files.hash_of(str(path), AssertionError, settled) == second  # so there was a danger


# -- a process that has imported another version of the code ---------------------------------------

LIVING = """
from helpers import clean

@step
def work(x: int) -> int:
    ran("work")
    return clean(x)

@pipeline
def main(x: int = 1) -> int:
    return work(x)
"""


def test_the_key_follows_the_code_that_a_living_process_has_loaded(lab: Lab) -> None:
    """A process that serves for weeks runs the code that it has imported, under that code's key."""
    lab.write({"helpers.py": "def clean(x): return x + 1", "main.py": LIVING})
    edited = "import pathlib; pathlib.Path('helpers.py').write_text('def clean(x): return x + 2')"
    old = lab.run(setup=edited, plan=True)
    assert (old.value, old.ran) == ("builtins.int 2", ["work"])
    new = lab.run()
    assert (new.value, new.ran) == ("builtins.int 3", ["work"])
    assert new.reasons() == ["code changed: helpers.clean"]
    lab.write({"helpers.py": "def clean(x): return x + 1"})
    again = lab.run(setup=edited, plan=True)
    assert (again.value, again.ran) == ("builtins.int 2", [])
    assert again.plan["work"] == ("reuse", [])
    assert lab.run().value == "builtins.int 3"


def test_a_module_that_is_loaded_anew_between_two_calls_is_seen(lab: Lab) -> None:
    source = """
        import importlib, pathlib
        import helpers

        @step
        def work(x: int) -> int:
            ran("work")
            return helpers.clean(x)

        @pipeline
        def main(x: int = 1) -> int:
            return work(x)

        def again(store):
            own = main.with_options(store=store)
            pathlib.Path("helpers.py").write_text("def clean(x): return x + 20")
            stale = own.local()
            importlib.reload(helpers)
            return [stale, own.local(), [*map(str, own.runs.last()["work"].reasons)]]
    """
    lab.write({"helpers.py": "def clean(x): return x + 1", "main.py": source})
    outcome = lab.run(after=f"again({lab.store!r})")
    assert outcome.error is None, outcome.traceback
    assert outcome.extra == [2, 21, ["code changed: helpers.clean"]]
    assert outcome.ran == ["work", "work"]


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    """One worker process, that outlives many runs."""
    from distributed import Client

    cluster = Dask(n_workers=1, threads_per_worker=1).start()
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        yield client
    cluster.close()


class Stale:
    """A worker that has imported old versions of modules, and a driver with new ones."""

    def __init__(self, project: Project, client: Any) -> None:
        self.project, self.client = project, client
        self.there = Dask(address=client.scheduler.address)
        self.old = project.folder / "old"
        self.old.mkdir()

    def given(self, old: dict[str, str], new: dict[str, str]) -> Any:
        """Have the worker import old modules; return the driver's last."""
        for name, source in old.items():
            (self.old / f"{name}.py").write_text(dedent(source))
        self.on_worker(_import_anew, str(self.old), [*old], [*new])
        return [self.project.module(name, source) for name, source in new.items()][-1]

    def on_worker(self, function: Any, *args: Any) -> Any:
        return self.client.submit(function, *args, pure=False).result(timeout=60)

    def own(self, pipeline: Any) -> Any:
        return self.project.own(pipeline, compute={"far": self.there})


def _import_anew(folder: str, names: list[str], others: list[str]) -> None:
    import contextlib
    import importlib
    import sys

    sys.dont_write_bytecode = True
    for name in (*names, *others):
        sys.modules.pop(name, None)
    sys.path[:] = [folder, *(each for each in sys.path if not each.endswith("/old"))]
    importlib.invalidate_caches()
    for name in names:
        with contextlib.suppress(RuntimeError, SyntaxError, AttributeError):
            importlib.import_module(name)


@pytest.fixture
def stale(project: Project, worker: Any, api: Server) -> Stale:
    return Stale(project, worker)


STEPS = """
from prefect_mlpipe import pipeline, resolve, step
import {imported}

@step(compute="far")
def work(x: object) -> object:
    return {expression}

@step
def made(x: int) -> object:
    return {made}

@pipeline
def main() -> object:
    return {body}
"""


def steps(expression: str, body: str, made: str = "x", imported: str = "ours_b") -> str:
    return STEPS.format(expression=expression, body=body, made=made, imported=imported)


POINT = """
class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return isinstance(other, Point) and other.x == self.x
    def __hash__(self): return hash(self.x)
    def size(self): return self.x * {factor}
"""
# What the worker has, what the driver has, the steps.
STALE = {
    "a helper in another module": (
        "def f(x): return x * 2",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
    "a constant in another module": ("K = 2", "K = 100", steps("x * ours_b.K", "work(3)"), 300),
    "a class in another module": (
        POINT.format(factor=2),
        POINT.format(factor=100),
        steps("ours_b.Point(x).size()", "work(3)"),
        300,
    ),
    "the class of an argument": (
        POINT.format(factor=2),
        POINT.format(factor=100),
        steps("x.size()", "work(ours_b.Point(3))"),
        300,
    ),
    "the class of an argument, deep in it": (
        POINT.format(factor=2),
        POINT.format(factor=100),
        steps("x['a'][0].size()", "work({'a': [ours_b.Point(3)]})"),
        300,
    ),
    "a function that is an argument": (
        "def f(x): return x * 2",
        "def f(x): return x * 100",
        steps("x(3)", "work(ours_b.f)"),
        300,
    ),
    "a class that the worker does not have": (
        "",
        POINT.format(factor=100),
        steps("x.size()", "work(ours_b.Point(3))"),
        300,
    ),
    "a function that the worker does not have": (
        "",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
    "a module that fails on the worker": (
        "raise RuntimeError('of the worker')",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
    "a module that is no Python on the worker": (
        "def of the worker",
        "def f(x): return x * 100",
        steps("ours_b.f(x)", "work(3)"),
        300,
    ),
}


@pytest.mark.parametrize(("old", "new", "main", "right"), STALE.values(), ids=STALE)
def test_a_worker_that_has_imported_an_old_version_runs_the_new_one(
    stale: Stale, old: str, new: str, main: str, right: int
) -> None:
    module = stale.given({"ours_b": old, "ours_a": main}, {"ours_b": new, "ours_a": main})
    pipeline = stale.own(module.main)
    assert pipeline() == right
    assert pipeline.local() == right
    assert pipeline.runs.last()["work"].state == "reused"


@pytest.mark.parametrize("body", ["work(made(3))", "work([made(3)])"])
def test_a_stored_input_whose_class_is_old_on_the_worker_is_refused(
    stale: Stale, body: str
) -> None:
    read = "x[0].size()" if "[" in body else "x.size()"
    main = steps(read, body, made="ours_b.Point(x)")
    old, new = POINT.format(factor=2), POINT.format(factor=100)
    module = stale.given({"ours_b": old, "ours_a": main}, {"ours_b": new, "ours_a": main})
    pipeline = stale.own(module.main)
    with pytest.raises(CodeMismatch, match="Step 'work'") as caught:
        pipeline()
    assert "ours_b.Point" in str(caught.value)
    assert pipeline.runs.last()["work"].key is None
    assert pipeline.plan().steps[-1].action == "run"
    assert pipeline.local() == 300


def test_a_stored_input_whose_class_is_the_same_on_the_worker_is_read(stale: Stale) -> None:
    main = steps("x.size()", "work(made(3))", made="ours_b.Point(x)")
    both = {"ours_b": POINT.format(factor=100), "ours_a": main}
    pipeline = stale.own(stale.given(both, both).main)
    assert pipeline() == 300


def test_what_an_old_worker_returns_is_of_the_drivers_class(stale: Stale) -> None:
    main = steps("ours_b.Point(x)", "work(3)")
    old, new = POINT.format(factor=2), POINT.format(factor=100)
    module = stale.given({"ours_b": old, "ours_a": main}, {"ours_b": new, "ours_a": main})
    found = stale.own(module.main)()
    assert found.size() == 300
    assert isinstance(found, module.ours_b.Point)


def test_a_worker_with_another_version_of_a_package_is_refused(
    stale: Stale, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = """
        import shapes_of_ours
        from prefect_mlpipe import pipeline, step

        @step(compute="far")
        def work(x: object) -> int:
            return x.area()

        @pipeline
        def main() -> int:
            return work(shapes_of_ours.Box(2))
    """
    for where, version, factor in (("old", "1.0", 1), ("new", "2.0", 10)):
        packages = stale.project.folder / where / "site-packages"
        (packages / "shapes_of_ours").mkdir(parents=True)
        (packages / "shapes_of_ours" / "__init__.py").write_text(SHAPES.format(factor=factor))
        info = packages / f"shapes_of_ours-{version}.dist-info"
        info.mkdir()
        told = f"Metadata-Version: 2.1\nName: shapes_of_ours\nVersion: {version}\n"
        (info / "METADATA").write_text(told)
        (info / "RECORD").write_text("shapes_of_ours/__init__.py,,\n")
    packages = stale.project.folder / "old" / "site-packages"
    stale.on_worker(lambda path: __import__("sys").path.insert(0, path), str(packages))
    monkeypatch.syspath_prepend(str(stale.project.folder / "new" / "site-packages"))
    module = stale.project.module("ours_c", main)
    pipeline = stale.own(module.main)
    with pytest.raises(EnvironmentMismatch, match="Step 'work'") as caught:
        pipeline()
    assert caught.value.facts["shapes_of_ours"] == "driver 2.0, worker 1.0"
    assert pipeline.runs.last()["work"].key is None
    assert pipeline.local() == 20

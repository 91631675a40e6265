"""Files that change between the moment they are digested and the moment they are read."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from prefect_mlpipe.core import files
from prefect_mlpipe.core.places.stat_index import StatIndex
from tests.reuse.lab import Lab

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

"""Rows 09 and 25 of the table: files that change, and files that are only touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reuse.lab import Lab

TIME = 1_700_000_000
READ = """
import dataclasses
from pathlib import Path

@dataclasses.dataclass
class Sources:
    table: File

TABLE = File("data/birds.csv")

{decorator}
def read(table: {kind}) -> str:
    ran("read")
    with open({opened}) as file:
        return file.read()

@step
def below(text: str) -> int:
    ran("below")
    return text.count("owl")

@pipeline
def main(table: {kind} = {value}) -> list:
    text = read(table)
    return [text, below(text)]
"""


def reading(
    kind: str, value: str, opened: str = "table", decorator: str = "@step"
) -> dict[str, str]:
    main = READ.format(kind=kind, value=value, opened=opened, decorator=decorator)
    return {"main.py": main, "data/birds.csv": "owl,1"}


STRING = reading("str", "'data/birds.csv'")
# What a file can be to a step, and what is said when it changes.
READERS = {
    "a File": (reading("File", "File('data/birds.csv')"), "parameter 'table' changed"),
    "a str declared as File": (reading("File", "'data/birds.csv'"), "parameter 'table' changed"),
    "a Path": (reading("Path", "Path('data/birds.csv')"), "parameter 'table' changed"),
    "a Path in a list": (
        reading("list", "[Path('data/birds.csv')]", "table[0]"),
        "parameter 'table' changed",
    ),
    "a File in a dataclass": (
        reading("object", "Sources(File('data/birds.csv'))", "table.table"),
        "parameter 'table' changed",
    ),
    "a file in a Folder": (
        reading("Folder", "Folder('data')", "Path(table) / 'birds.csv'"),
        "parameter 'table' changed",
    ),
    "a File declared by reads=": (
        reading("int", "1", "'data/birds.csv'", "@step(reads=[File('data/birds.csv')])"),
        "reads changed: birds.csv",
    ),
    "a File that is a global": (
        reading("int", "1", "TABLE"),
        "code changed: main.TABLE",
    ),
}


def keep_time(file: Path) -> None:
    os.utime(file, (TIME, TIME))


def overwrite(file: Path) -> None:
    """Other bytes, as many, in place, and the time of change put back."""
    before = file.stat()
    with open(file, "r+b") as opened:
        opened.write(b"kea")
    keep_time(file)
    after = file.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ino,
    )


def replace(file: Path) -> None:
    """Other bytes, as many, in a file of its own, and the time of change put back."""
    other = file.with_name("other")
    other.write_bytes(file.read_bytes().replace(b"owl", b"kea"))
    keep_time(other)
    other.rename(file)


def rewrite(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"owl", b"kea"))


def touch(file: Path) -> None:
    os.utime(file, (TIME + 60, TIME + 60))


def write_again(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)


def started(lab: Lab, files: dict[str, str]) -> str | None:
    """Run a project whose file is old enough for its state to be trusted."""
    lab.write(files)
    keep_time(lab.folder / "data/birds.csv")
    first = lab.run()
    assert first.value == lab.oracle(), first.traceback
    assert first.ran == ["below", "read"]
    assert lab.run().ran == []
    return first.value


@pytest.mark.parametrize("change", [overwrite, rewrite], ids=["09a same time", "09b new time"])
def test_a_str_is_a_string_whatever_the_file_of_that_name_holds(
    lab: Lab, change: Callable[[Path], None]
) -> None:
    value = started(lab, STRING)
    change(lab.folder / "data/birds.csv")
    assert lab.oracle() != value
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran) == (value, [])
    assert {action for action, _ in outcome.plan.values()} == {"reuse"}


SEEN = [
    *((f"09c {reader}, same size and time", reader, overwrite) for reader in READERS),
    *((f"09d {reader}, new time", reader, rewrite) for reader in READERS),
    ("09c a File, same size and time, but another file", "a File", replace),
]


@pytest.mark.parametrize(("name", "reader", "change"), SEEN, ids=[case[0] for case in SEEN])
def test_a_file_that_changed_is_seen(
    lab: Lab, name: str, reader: str, change: Callable[[Path], None]
) -> None:
    files, why = READERS[reader]
    value = started(lab, files)
    change(lab.folder / "data/birds.csv")
    outcome = lab.run(plan=True)
    assert outcome.value == lab.oracle() != value
    assert outcome.ran == ["below", "read"]
    assert outcome.plan["read"] == ("run", [why])
    assert outcome.reasons("read") == [why]
    assert outcome.reasons("below") == ["input 'text' changed (from read)"]


@pytest.mark.parametrize("change", [overwrite, replace], ids=["in place", "another file"])
def test_09c_a_large_file_of_the_same_size_and_time_is_seen(
    lab: Lab, change: Callable[[Path], None]
) -> None:
    files, why = READERS["a File"]
    value = started(lab, {**files, "data/birds.csv": "owl," + "1" * (1 << 22)})
    change(lab.folder / "data/birds.csv")
    outcome = lab.run(plan=True)
    assert outcome.value == lab.oracle() != value
    assert outcome.reasons("read") == outcome.plan["read"][1] == [why]


TOUCHED = [
    ("25a a str", "", touch),
    *((f"25b {reader}", reader, touch) for reader in READERS),
    ("25b a File, written again", "a File", write_again),
    ("25b a Folder, its file written again", "a file in a Folder", write_again),
]


@pytest.mark.parametrize(("name", "reader", "change"), TOUCHED, ids=[case[0] for case in TOUCHED])
def test_a_file_that_was_only_touched_reruns_nothing(
    lab: Lab, name: str, reader: str, change: Callable[[Path], None]
) -> None:
    value = started(lab, READERS[reader][0] if reader else STRING)
    change(lab.folder / "data/birds.csv")
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran) == (value, [])
    assert {action for action, _ in outcome.plan.values()} == {"reuse"}


def test_where_a_file_lies_does_not_count_but_what_it_is_called(lab: Lab) -> None:
    value = started(lab, READERS["a File"][0])
    lab.write({"elsewhere/birds.csv": "owl,1", "data/fish.csv": "owl,1"})
    moved = lab.run("table=File('elsewhere/birds.csv')")
    assert (moved.value, moved.ran) == (value, [])
    renamed = lab.run("table=File('data/fish.csv')", plan=True)
    assert (renamed.value, renamed.ran) == (value, ["read"])
    assert renamed.reasons("read") == renamed.plan["read"][1] == ["parameter 'table' changed"]


def test_names_in_a_folder_count_and_where_it_lies_does_not(lab: Lab) -> None:
    value = started(lab, READERS["a file in a Folder"][0])
    lab.write({"copy/birds.csv": "owl,1"})
    moved = lab.run("table=Folder('copy')")
    assert (moved.value, moved.ran) == (value, [])
    lab.write({"data/fish.csv": ""})
    more = lab.run(plan=True)
    assert (more.value, more.ran) == (value, ["read"])
    assert more.reasons() == more.plan["read"][1] == ["parameter 'table' changed"]

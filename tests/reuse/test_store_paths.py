"""Paths that are not what they were: of the store, and of what lies in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reuse.lab import Lab
from tests.reuse.mixed import MIXED, right_afterwards
from tests.reuse.test_table_damage import VALUES, files, started


def a_file(path: Path) -> None:
    path.write_text("not a store")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("what", [a_file, a_link_to_nothing, a_link_to_itself])
def test_a_path_where_no_store_can_be_is_one_clear_error(
    lab: Lab, what: Callable[[Path], None]
) -> None:
    lab.write(MIXED)
    what(Path(lab.store))
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (None, [])
    assert str(outcome.error).startswith(f"StoreUnavailable: the store {lab.store} ")
    assert "choose" in str(outcome.error)
    Path(lab.store).unlink()
    right_afterwards(lab, lab.oracle())


def test_a_store_that_was_moved_is_the_same_store(lab: Lab) -> None:
    lab.write(MIXED)
    first = lab.run()
    moved = lab.place / "elsewhere" / "store"
    moved.parent.mkdir()
    shutil.move(lab.store, moved)
    lab.store = str(moved)
    outcome = lab.run()
    assert (outcome.value, outcome.ran, outcome.warnings) == (first.value, [], [])
    lab.write(MIXED.replace("sum(sizes)", "sum(sizes) + 1"))  # and what reads the values
    outcome = lab.run()
    assert (outcome.value, outcome.ran, outcome.warnings) == (lab.oracle(), ["total"], [])


def test_a_store_behind_a_link_is_the_store(lab: Lab) -> None:
    lab.write(MIXED)
    first = lab.run()
    (lab.place / "link").symlink_to(lab.store)
    lab.store = str(lab.place / "link")
    outcome = lab.run()
    assert (outcome.value, outcome.ran, outcome.warnings) == (first.value, [], [])


def by_a_folder(path: Path) -> None:
    _remove(path)
    path.mkdir()
    (path / "inside").write_text("something else")


def by_a_file(path: Path) -> None:
    _remove(path)
    path.write_text("something else")


def by_a_link_to_nothing(path: Path) -> None:
    _remove(path)
    path.symlink_to("/nothing/is/here")


def by_a_link_to_itself(path: Path) -> None:
    _remove(path)
    path.symlink_to(path)


def by_a_link_to_something_else(path: Path) -> None:
    other = path.parent / "something else"
    shutil.move(path, other)
    for file in [other] if other.is_file() else [one for one in other.rglob("*") if one.is_file()]:
        file.chmod(0o644)
        file.write_bytes(bytes(file.stat().st_size))
    path.symlink_to(other)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


REPLACED = [by_a_folder, by_a_file, by_a_link_to_nothing, by_a_link_to_itself]


@pytest.mark.parametrize("value", ["a large array", "a Folder"])
@pytest.mark.parametrize("how", [*REPLACED, by_a_link_to_something_else])
def test_a_value_that_was_replaced_is_made_again(
    lab: Lab, how: Callable[[Path], None], value: str
) -> None:
    started(lab, *VALUES[value])
    places = [*(Path(lab.store) / "values").glob("*/*")]
    how(max(places, key=Path.is_dir))  # what a File holds may be stored as a text, too
    outcome = lab.run()
    assert outcome.value == lab.oracle(), outcome.traceback
    assert outcome.ran == ["below", "make"]
    (reason,) = outcome.reasons("make")
    assert reason in ("value missing", "value damaged")
    (warning,) = outcome.warnings
    assert "The stored value of step 'make' is " in warning
    again = lab.run()
    assert (again.value, again.ran, again.warnings) == (outcome.value, [], [])


@pytest.mark.parametrize("how", REPLACED)
def test_a_record_that_was_replaced_is_made_again(lab: Lab, how: Callable[[Path], None]) -> None:
    started(lab, *VALUES["an array"])
    (record,) = [each for each in files(lab, "records") if "main.make" in each.read_text()]
    how(record)
    outcome = lab.run()
    assert outcome.value == lab.oracle(), outcome.traceback
    assert outcome.ran == ["below", "make"]
    again = lab.run()
    assert (again.value, again.ran, again.warnings) == (outcome.value, [], [])


def test_two_values_of_one_size_that_changed_places_are_both_made_again(lab: Lab) -> None:
    project = """
        import numpy as np

        @step
        def make(x: int) -> np.ndarray:
            ran(f"make-{x}")
            return np.full(200_000, x)

        @step
        def add(one: np.ndarray, other: np.ndarray) -> list:
            ran("add")
            return [int(one[0]), int(other[0])]ADDED

        @pipeline
        def main() -> list:
            return add(make(1), make(2))
        """
    lab.write(project.replace("ADDED", ""))
    lab.run()
    one, other = files(lab, "values")
    assert one.stat().st_size == other.stat().st_size
    os.rename(one, f"{one}.away")
    os.rename(other, one)
    os.rename(f"{one}.away", other)
    lab.write(project.replace("ADDED", " + [3]"))
    outcome = lab.run()
    assert outcome.value == lab.oracle()
    assert outcome.ran == ["add", "make-1", "make-2"]
    assert outcome.reasons("make") == outcome.reasons("make#2") == ["value damaged"]
    assert lab.run().ran == []

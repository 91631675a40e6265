"""Rows 40a-d of the table: what lies in the store is flipped, cut, emptied or deleted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reuse.lab import Lab

MADE = """
from pathlib import Path
import numpy
import pandas
from prefect_mlpipe import output_folder

class Model:
    def __init__(self, weights): self.weights = weights

def written(*names):
    place = Path(output_folder())
    for name in names:
        (place / name).write_text(name * 2000)
    return File(place / names[0]) if len(names) == 1 else Folder(place)

@step
def make() -> object:
    ran("make")
    return {made}

@step
def below(x: object) -> object:
    ran("below")
    return {seen}

@pipeline
def main() -> object:
    return below(make())
"""
SMALL = ("{'a': [1, 2.5, 'owl']}", "str(x)")
# What a step returns, and how the next one looks at it.
VALUES = {
    "an array": ("numpy.arange(5000)", "int(x.sum())"),
    "a large array": ("numpy.arange(500_000)", "int(x.sum())"),
    "a table": ("pandas.DataFrame({'a': range(2000), 'b': ['owl'] * 2000})", "x.to_json()"),
    "a text": ("'owl, ' * 3000", "x.count('owl')"),
    "an object": ("Model(list(range(4000)))", "sum(x.weights)"),
    "a File": ("written('birds')", "open(x).read()"),
    "a Folder": (
        "written('birds', 'fish')",
        "''.join((Path(x) / n).read_text() for n in ('birds', 'fish'))",
    ),
}


def flip(file: Path) -> None:
    """One bit in the middle, in place; size and time stay."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    _write(file, bytes(data))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(file: Path) -> None:
    data = file.read_bytes()
    _write(file, data[: len(data) // 2])


def empty(file: Path) -> None:
    _write(file, b"")


def delete(file: Path) -> None:
    file.unlink()


def _write(file: Path, data: bytes) -> None:
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(mode)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "40a a bit flipped": flip,
    "40b truncated": cut,
    "40c emptied": empty,
    "40d deleted": delete,
}


def files(lab: Lab, kind: str) -> list[Path]:
    return sorted(file for file in (Path(lab.store) / kind).rglob("*") if file.is_file())


def started(lab: Lab, made: str, seen: str) -> str:
    """Run a project, and then have the step below ask for the value of the one above."""
    lab.write(MADE.format(made=made, seen=seen))
    first = lab.run()
    assert first.value == lab.oracle(), first.traceback
    assert first.ran == ["below", "make"]
    lab.write(MADE.format(made=made, seen=f"({seen}, 'again')"))
    return str(first.value)


def record_of(lab: Lab, step: str) -> Path:
    (found,) = [each for each in files(lab, "records") if f"main.{step}" in each.read_text()]
    return found


# Files and arrays are read in ways of their own; the others differ in who would notice.
MIXED = ("an array", "a large array", "a File", "a Folder")
CASES = [
    (damage, value)
    for damage in DAMAGES
    for value in (VALUES if damage.startswith(("40a", "40b")) else MIXED)
]


@pytest.mark.parametrize(("damage", "value"), CASES, ids=map(", ".join, CASES))
def test_a_damaged_value_is_made_again(lab: Lab, damage: str, value: str) -> None:
    started(lab, *VALUES[value])
    stored = files(lab, "values")
    assert stored
    for file in stored:
        DAMAGES[damage](file)
    outcome = lab.run(plan=True)
    assert outcome.value == lab.oracle(), outcome.traceback
    assert outcome.ran == ["below", "make"]
    assert outcome.plan["make"] == ("reuse", []), "a plan reads no values unless it is asked to"
    deleted = damage.startswith("40d")
    assert outcome.reasons("make") == ["value missing" if deleted else "value damaged"]
    assert outcome.reasons("below") == ["code changed: main.below"]
    (warning,) = outcome.warnings
    found = "is gone" if deleted else "is damaged"
    assert f"The stored value of step 'make' {found}: the step runs again." in warning
    again = lab.run()
    assert (again.value, again.ran, again.warnings) == (outcome.value, [], [])


@pytest.mark.parametrize("value", ["of a small value", "of a large value"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_no_record(lab: Lab, damage: str, value: str) -> None:
    # A small value stands in the record, so this is a damaged value too.
    started(lab, *(SMALL if value == "of a small value" else VALUES["an array"]))
    DAMAGES[damage](record_of(lab, "make"))
    outcome = lab.run(plan=True)
    assert outcome.value == lab.oracle(), outcome.traceback
    assert outcome.ran == ["below", "make"]
    kind = "value missing" if damage.startswith("40d") else "value damaged"
    assert outcome.plan["make"] == ("run", [f"{kind}: its record"])
    assert outcome.reasons("make") == [f"{kind}: its record"]
    assert outcome.reasons("below") == ["code changed: main.below"]
    assert "The last run left a record, and it" in outcome.steps["make"]["explain"]
    said = [text for text in outcome.warnings if "The record of step 'make' is damaged" in text]
    assert len(said) == (kind == "value damaged")
    again = lab.run()
    assert (again.value, again.ran, again.warnings) == (outcome.value, [], [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_below_a_damaged_record_nothing_runs_again(lab: Lab, damage: str) -> None:
    lab.write(MADE.format(made=SMALL[0], seen=SMALL[1]))
    first = lab.run()
    DAMAGES[damage](record_of(lab, "make"))
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (first.value, ["make"])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_that_nobody_reads_is_not_asked_for(lab: Lab, damage: str) -> None:
    lab.write(MADE.format(made="numpy.arange(5000)", seen="int(x.sum())"))
    first = lab.run()
    (stored,) = files(lab, "values")
    DAMAGES[damage](stored)
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (first.value, [])
    looked = lab.run(how="plan", verify=True)
    kind = "value missing" if damage.startswith("40d") else "value damaged"
    assert looked.plan["make"] == ("run", [kind])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_is_made_again_for_the_caller_too(lab: Lab, damage: str) -> None:
    lab.write(
        """
        @step
        def make(size: int) -> list:
            ran("make")
            return list(range(size))

        @step
        def longer(x: list) -> list:
            ran("longer")
            return x * 2

        @step
        def last(x: list) -> list:
            ran("last")
            return x + [7]

        @pipeline
        def main(size: int = 3000) -> list:
            return last(longer(make(size)))
        """
    )
    first = lab.run()
    assert (first.value, first.ran) == (lab.oracle(), ["last", "longer", "make"])
    for file in files(lab, "values"):
        DAMAGES[damage](file)
    outcome = lab.run()
    kind = "value missing" if damage.startswith("40d") else "value damaged"
    assert (outcome.value, outcome.ran) == (first.value, ["last", "longer", "make"])
    assert [outcome.reasons(name) for name in ("make", "longer", "last")] == [[kind]] * 3
    assert len(outcome.warnings) == 3


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_only_explains_may_be_damaged(lab: Lab, damage: str) -> None:
    lab.write(MADE.format(made=SMALL[0], seen=SMALL[1]))
    first = lab.run()
    explaining = [*files(lab, "runs"), *files(lab, "latest"), *files(lab, "code")]
    assert len(explaining) > 4
    for file in explaining:
        DAMAGES[damage](file)
    outcome = lab.run(plan=True)
    assert (outcome.value, outcome.ran, outcome.error) == (first.value, [], None)
    lab.write(MADE.format(made=SMALL[0], seen="len(x)"))
    changed = lab.run(plan=True)
    assert (changed.value, changed.ran) == (lab.oracle(), ["below"])
    assert changed.error is None

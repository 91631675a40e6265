"""Rights that are lost: on the store, on parts of it, on one file; before a run and during it.

The child gives up what root may do beyond others, so that permissions bind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reuse.faults import NO_PRIVILEGES
from tests.reuse.gate import Gate
from tests.reuse.lab import Lab, Process
from tests.reuse.mixed import MIXED, right_afterwards


@pytest.fixture
def deny() -> Iterator[Callable[[Path, int], None]]:
    """Take rights away until `deny` is asked to give them back, or the test has ended."""
    before: dict[Path, int] = {}

    def deny(path: Path, mode: int) -> None:
        before.setdefault(path, path.stat().st_mode)
        path.chmod(mode)

    yield deny
    for path, mode in before.items():
        if path.exists():
            path.chmod(mode)


def everything(store: Path) -> list[Path]:
    return [store, *(path for path in store.rglob("*") if path.is_dir())]


def test_a_store_that_may_only_be_read_serves_what_is_in_it(
    lab: Lab, deny: Callable[[Path, int], None]
) -> None:
    lab.write(MIXED)
    first = lab.run()
    folders = everything(Path(lab.store))
    for folder in folders:
        deny(folder, 0o555)
    outcome = lab.run(setup=NO_PRIVILEGES)
    assert (outcome.value, outcome.ran, outcome.error) == (first.value, [], None)
    assert outcome.printed.count("The manifest of this run could not be kept") == 1
    assert "Permission denied" in outcome.printed
    refused = lab.run("seed=1", setup=NO_PRIVILEGES)
    assert (refused.value, refused.ran) == (None, [])
    assert str(refused.error).startswith("StoreUnavailable: Step 'array' must run (parameter 'se")
    assert "Permission denied" in str(refused.error)
    assert "Change its permissions" in str(refused.error)
    for folder in folders:
        folder.chmod(0o755)
    right_afterwards(lab, lab.oracle("seed=1"), "seed=1")


@pytest.mark.parametrize("part", ["", "format", "records", "values", "runs"])
def test_a_part_that_may_not_be_read_is_a_clear_error_and_nothing_is_lost(
    lab: Lab, deny: Callable[[Path, int], None], part: str
) -> None:
    lab.write(MIXED)
    first = lab.run()
    changed = MIXED.replace("sum(sizes)", "sum(sizes) + 1")
    lab.write(changed)
    path = Path(lab.store) / part
    deny(path, 0)
    outcome = lab.run(setup=NO_PRIVILEGES)
    assert outcome.value is None
    assert not set(outcome.ran) - {"total"}, "what is there is not made again"
    assert "StoreUnavailable: " in str(outcome.error)
    assert lab.store in str(outcome.error)
    assert "Permission denied" in str(outcome.error)
    assert "Change its permissions" in str(outcome.error)
    path.chmod(0o755)
    assert lab.run().ran == ["total"]
    lab.write(MIXED)
    again = lab.run()
    assert (again.value, again.ran) == (first.value, [])


TWO = """
from gate import say, until

@step
def first(x: int) -> list:
    ran("first")
    return list(range(10_000))

@step
def second(values: list) -> list:
    ran("second")
    say("begun")
    until("go")
    return values + [1]

@step
def third(values: list) -> int:
    ran("third")
    return sum(values)

@pipeline
def main(who: str, x: int = 1) -> int:
    return third(second(first(x)))
"""


def test_rights_that_are_lost_while_a_step_runs_are_a_clear_error(
    lab: Lab, gate: Gate, start: Callable[..., Process], deny: Callable[[Path, int], None]
) -> None:
    lab.write(TWO)
    process = start(NO_PRIVILEGES, who="it")
    gate.seen("begun")
    folders = everything(Path(lab.store))
    for folder in folders:
        deny(folder, 0o555)
    gate.open("go")
    outcome = process.outcome()
    assert (outcome.value, outcome.ran) == (None, ["first", "second"])
    assert str(outcome.error).startswith(
        "StoreUnavailable: Step 'second' ran, but the store could not take what it returned"
    )
    assert "Permission denied" in str(outcome.error)
    for folder in folders:
        folder.chmod(0o755)
    again = start(NO_PRIVILEGES, who="it").outcome()
    assert (again.value, again.ran) == ("builtins.int 49995001", ["second", "third"])

"""A disk that is full, or read-only, before a run or from some moment of it on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.errors import StoreUnavailable
from tests.reuse.faults import Disk, mounted
from tests.reuse.gate import Gate
from tests.reuse.lab import Lab, Process
from tests.reuse.mixed import MIXED, recorded, right_afterwards


@pytest.fixture
def disk(lab: Lab, tmp_path: Path) -> Iterator[Disk]:
    """The disk that the lab's store is on."""
    with mounted(tmp_path / "disk") as made:
        lab.store = str(made.folder / "store")
        yield made


FULL = "No space left on device"
READ_ONLY = "Read-only file system"
NO_MANIFEST = "The manifest of this run could not be kept"


def test_on_a_full_disk_no_store_is_made_and_nothing_runs(lab: Lab, disk: Disk) -> None:
    lab.write(MIXED)
    disk.fill()
    outcome = lab.run()
    assert (outcome.value, outcome.ran) == (None, [])
    assert str(outcome.error).startswith(f"StoreUnavailable: the store {lab.store} cannot be used.")
    assert FULL in str(outcome.error)
    assert "Free some space there" in str(outcome.error)
    disk.free()
    right_afterwards(lab, lab.oracle())


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_store_that_takes_nothing_still_serves_what_is_in_it(
    lab: Lab, disk: Disk, how: str
) -> None:
    lab.write(MIXED)
    first = lab.run()
    disk.fill() if how == "full" else disk.read_only()
    outcome = lab.run()
    assert (outcome.value, outcome.ran, outcome.error) == (first.value, [], None)
    assert outcome.printed.count(NO_MANIFEST) == outcome.printed.count("WARNING") == 1
    assert lab.store in outcome.printed
    assert (FULL if how == "full" else READ_ONLY) in outcome.printed

    refused = lab.run("seed=1")
    assert (refused.value, refused.ran) == (None, [])
    assert str(refused.error).startswith(
        "StoreUnavailable: Step 'array' must run (parameter 'seed' changed: 0 → 1), "
        f"but nothing can be written into the store {lab.store}. It did not run."
    )
    assert (FULL if how == "full" else READ_ONLY) in str(refused.error)

    disk.free() if how == "full" else disk.writable()
    right_afterwards(lab, lab.oracle("seed=1"), "seed=1")
    assert lab.run().ran == []


def test_a_disk_that_becomes_full_after_any_number_of_blocks_loses_nothing(
    lab: Lab, disk: Disk
) -> None:
    lab.write(MIXED)
    right = lab.oracle()
    ends = set()
    for blocks in range(2, 74, 8):
        lab.store = str(disk.folder / f"store-{blocks}")
        disk.fill(blocks)
        outcome = lab.run()
        ends.add("value" if outcome.value else "error")
        disk.free()
        if outcome.value is not None:
            assert (outcome.value, outcome.error) == (right, None)
        else:
            assert "StoreUnavailable: " in str(outcome.error)
            assert FULL in str(outcome.error)
            assert lab.store in str(outcome.error)
        assert not [*Path(lab.store).rglob(".tmp-*")]
        right_afterwards(lab, right)
        shutil.rmtree(lab.store)
    assert ends == {"value", "error"}


def test_a_manifest_that_does_not_fit_costs_only_the_manifest(lab: Lab, disk: Disk) -> None:
    lab.write("""
        import os
        from pathlib import Path

        @step
        def fill(seed: int, disk: str) -> str:
            ran("fill")
            return "owl" * seed

        @pipeline
        def main(disk: str, seed: int = 1) -> str:
            found = resolve(fill(seed, disk))
            facts = os.statvfs(disk)
            with open(Path(disk) / "ballast", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_bsize)
            return found
    """)
    outcome = lab.run(f"disk={str(disk.folder)!r}")
    assert (outcome.value, outcome.ran, outcome.error) == ("builtins.str 'owl'", ["fill"], None)
    assert outcome.printed.count(NO_MANIFEST) == 1
    disk.free()
    outcome = lab.run(f"disk={str(disk.folder)!r}")
    assert (outcome.value, outcome.ran) == ("builtins.str 'owl'", [])


TWO = """
import numpy as np
from gate import say, until

@step
def first(x: int) -> np.ndarray:
    ran("first")
    return np.full(10_000, x)

@step
def second(values: np.ndarray) -> np.ndarray:
    ran("second")
    say("begun")
    until("go")
    return values + 1

@step
def third(values: np.ndarray) -> int:
    ran("third")
    return int(values.sum())

@pipeline
def main(who: str, x: int = 1) -> int:
    return third(second(first(x)))
"""


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_step_whose_value_cannot_be_kept_says_so_and_nothing_more_runs(
    lab: Lab, disk: Disk, gate: Gate, start: Callable[..., Process], how: str
) -> None:
    lab.write(TWO)
    process = start(who="it")
    gate.seen("begun")
    disk.fill() if how == "full" else disk.read_only()
    gate.open("go")
    outcome = process.outcome()
    assert (outcome.value, outcome.ran) == (None, ["first", "second"])
    assert str(outcome.error).startswith(
        "StoreUnavailable: Step 'second' ran, but the store could not take what it returned: "
        "that is lost, and the step will run again."
    )
    assert f"{lab.store}" in str(outcome.error)
    assert (FULL if how == "full" else READ_ONLY) in str(outcome.error)
    disk.free() if how == "full" else disk.writable()
    again = start(who="it").outcome()
    assert (again.value, again.ran) == ("builtins.int 20000", ["second", "third"])


def test_a_full_disk_fails_one_step_of_many_and_the_rest_does_not_start(
    lab: Lab, disk: Disk
) -> None:
    lab.write("""
        import time

        @step
        def long(x: int) -> list:
            ran(f"long-{x}")
            time.sleep(0.02)
            return list(range(x, x + 5000))

        @pipeline
        def main(length: int) -> list:
            return long.map(range(length))
    """)
    assert lab.run("length=1").error is None
    disk.fill(40)
    outcome = lab.run("length=100", options="failures='finish'")
    assert "StoreUnavailable" in str(outcome.error)
    assert len(outcome.ran) < 100
    done = recorded(lab)
    disk.free()
    again = lab.run("length=100")
    assert again.error is None
    assert len(again.ran) == 100 - len(done)


def test_what_a_store_cannot_take_is_not_left_torn(disk: Disk, tmp_path: Path) -> None:
    store = Store(disk.folder / "store", cache_folder=str(tmp_path / "cache"))
    store.put(1)
    disk.fill(3)
    with pytest.raises(StoreUnavailable, match=FULL):
        store.put(list(range(10_000)))
    assert not [path for path in (disk.folder / "store/values").rglob("*") if path.is_file()]
    disk.fill()
    with pytest.raises(StoreUnavailable, match=FULL):
        store.require_writable()
    disk.free()
    store.require_writable()
    assert store.get(store.put(list(range(10_000)))) == list(range(10_000))

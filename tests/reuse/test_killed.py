"""Processes that are killed while they write: what they leave is never served, and blocks nobody.

Killed at an exact place by a process that kills itself there, and at random ones from outside.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.reuse.lab import Lab
from tests.reuse.mixed import MIXED, recorded, right_afterwards

# Two values too large for their records, and a number made of them.
PROJECT = """
import numpy as np

@step
def make(seed: int) -> np.ndarray:
    ran("make")
    return np.random.default_rng(seed).random(400_000)

@step
def double(values: np.ndarray) -> np.ndarray:
    ran("double")
    return values * 2

@step
def total(values: np.ndarray) -> float:
    ran("total")
    return float(values.sum())

@pipeline
def main(seed: int = 0) -> float:
    return total(double(make(seed)))
"""

# A name in the namespace of the project's main module would be one that its steps could reach.
DIE = """
def _plant():
    import itertools, os, signal
    from prefect_mlpipe.core.places import backends
    from prefect_mlpipe.core.leases import local_leases as leases
    from prefect_mlpipe.core.storing import stored_values
    from prefect_mlpipe.core.storing.records import Records

    def die(*args, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    {plant}

_plant()
del _plant
"""

PLACES = {
    "a value half written": """
    original = backends._write_all
    def half(handle, data):
        if len(data) < 1_000_000:
            return original(handle, data)
        original(handle, memoryview(data)[:1_000_000])
        die()
    backends._write_all = half
    """,
    "a value written and not put in its place": """
    backends.os = type("os", (), {"__getattr__": lambda self, name: getattr(os, name)})()
    backends.os.replace = lambda source, target: (
        die() if "/values/" in target else os.replace(source, target)
    )
    """,
    "a value in its place and no record": """
    Records.write = die
    """,
    "a record that is empty": """
    original = backends._write_all
    def none(handle, data):
        die() if b'"provenance":' in bytes(data) else original(handle, data)
    backends._write_all = none
    """,
    "a record half written": """
    original = backends._write_all
    def half(handle, data):
        if b'"provenance":' not in bytes(data):
            return original(handle, data)
        original(handle, data[:len(data) // 2])
        die()
    backends._write_all = half
    """,
    "a record written and the lease not given back": """
    leases.LocalLeases._drop = die
    """,
    "the last record written and its lease not given back": """
    original, count = leases.LocalLeases._drop, itertools.count()
    leases.LocalLeases._drop = lambda *given: die() if next(count) == 2 else original(*given)
    """,
    "the second step half written": """
    original, count = backends._write_parts, itertools.count()
    def half(handle, parts):
        if next(count) == 0:
            return original(handle, parts)
        backends._write_all(handle, memoryview([*parts][-1]).cast("B")[:1000])
        die()
    backends._write_parts = half
    """,
    "the run manifest half written": """
    original = backends._write_all
    def half(handle, data):
        if b'"saved_s":' not in bytes(data):
            return original(handle, data)
        original(handle, data[:len(data) // 2])
        die()
    backends._write_all = half
    """,
}
# What is there then: whole values, temporary files of values and of manifests, bytes of records.
LEFT = {
    "a value half written": (0, [1_000_128], 0, []),
    "a value written and not put in its place": (0, [3_200_128], 0, []),
    "a value in its place and no record": (1, [], 0, []),
    "a record that is empty": (1, [], 0, [False]),
    "a record half written": (1, [], 0, [False]),
    "a record written and the lease not given back": (1, [], 0, [True]),
    "the last record written and its lease not given back": (2, [], 0, [True, True, True]),
    "the second step half written": (1, [1_000], 0, [True]),
    "the run manifest half written": (2, [], 1, [True, True, True]),
}
# What the next run finds done already.
DONE = {
    "a record written and the lease not given back": ["make"],
    "the last record written and its lease not given back": ["double", "make", "total"],
    "the second step half written": ["make"],
    "the run manifest half written": ["double", "make", "total"],
}


def leases(lab: Lab) -> list[str]:
    folder = Path(lab.store) / "leases"
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != "succession")


def left(lab: Lab) -> tuple[int, list[int], int, list[bool]]:
    store = Path(lab.store)
    return (
        len([*(store / "values").rglob("*.npy")]) - len([*(store / "values").rglob(".tmp-*.npy")]),
        [path.stat().st_size for path in (store / "values").rglob(".tmp-*")],
        len([*(store / "runs").rglob(".tmp-*")]),
        [p.read_bytes().endswith(b"}}") for p in (store / "records").rglob("*") if p.is_file()],
    )


@pytest.mark.parametrize("place", PLACES)
def test_the_next_run_after_a_kill_is_right(lab: Lab, place: str) -> None:
    lab.write(PROJECT)
    right = lab.oracle()
    # Its lease would never expire: were the next run to wait for that, it would not end.
    never = "import prefect_mlpipe.core.leases.leases as _l; _l.EXPIRES_S = 3600.0\n"
    killed = lab.start(setup=never + DIE.format(plant=PLACES[place].strip()))
    assert killed.wait() == -signal.SIGKILL
    assert left(lab) == LEFT[place]
    done = DONE.get(place, [])
    outcome = lab.run(setup=never)
    assert (outcome.value, outcome.error) == (right, None), outcome.traceback
    assert outcome.ran == sorted({"make", "double", "total"} - set(done))
    again = lab.run()
    assert (again.value, again.ran) == (right, [])
    assert leases(lab) == []


@pytest.mark.parametrize("place", PLACES)
def test_the_next_run_after_a_kill_is_right_where_it_cannot_be_seen_that_it_was_killed(
    lab: Lab, place: str
) -> None:
    lab.write(PROJECT)
    right = lab.oracle()
    soon = "import prefect_mlpipe.core.leases.leases as _l; _l.EXPIRES_S = 0.5\n"
    blind = (
        "import prefect_mlpipe.core.leases.processes as _p; _p.has_ended = lambda process: False\n"
    )
    killed = lab.start(setup=soon + DIE.format(plant=PLACES[place].strip()))
    assert killed.wait() == -signal.SIGKILL
    outcome = lab.run(setup=soon + blind)
    assert (outcome.value, outcome.error) == (right, None), outcome.traceback
    assert outcome.ran == sorted({"make", "double", "total"} - set(DONE.get(place, [])))
    again = lab.run(setup=soon + blind)
    assert (again.value, again.ran) == (right, [])


def test_a_run_killed_at_a_random_moment_is_right_afterwards_and_keeps_what_it_recorded(
    lab: Lab,
) -> None:
    lab.write(MIXED)
    right = lab.oracle("size=200_000")
    chance = random.Random(41)
    began = time.monotonic()
    lab.run("size=200_000")
    took = time.monotonic() - began
    kept = 0
    for number in range(15):
        lab.store = str(lab.place / f"store-{number}")
        process = lab.start("size=200_000")
        time.sleep(chance.uniform(0.2, 1.0) * took)
        process.kill()
        process.wait()
        kept += len(recorded(lab))
        right_afterwards(lab, right, "size=200_000")
        assert leases(lab) == []
        shutil.rmtree(lab.store)
    assert kept, "no run was killed in the middle"


@pytest.mark.parametrize("torn", ["empty", "half", "zeros"])
def test_a_torn_record_is_made_again_by_one_process_of_several(lab: Lab, torn: str) -> None:
    lab.write(PROJECT)
    right = lab.run().value
    for path in (Path(lab.store) / "records").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            path.write_bytes(
                {"empty": b"", "half": data[: len(data) // 2], "zeros": bytes(len(data))}[torn]
            )
    started = [lab.start() for _ in range(3)]
    outcomes = [process.outcome() for process in started]
    assert [(one.value, one.error) for one in outcomes] == [(right, None)] * 3
    ran = [name for one in outcomes for name in one.ran]
    assert sorted(ran) == ["double", "make", "total"]
    assert lab.run().ran == []

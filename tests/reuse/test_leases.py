"""Several processes that need the same steps at the same time: each step runs once over all."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from prefect_mlpipe import pipeline, step
from prefect_mlpipe.core.record import Record
from prefect_mlpipe.core.store import Store
from tests.project import Project, ran
from tests.reuse.gate import (
    NEVER,
    SLOW,
    TOGETHER,
    Gate,
    eventually,
    holder_and_waiter,
    leases,
    records,
    run_of,
    waits,
)
from tests.reuse.lab import Lab, Process

CHAIN = """
import time

@step
def grow(x: int) -> int:
    ran(f"grow-{x}")
    time.sleep(0.002)
    return x + 1

@pipeline
def main(who: str, length: int = 20) -> int:
    x = 0
    for _ in range(length):
        x = grow(x)
    return x
"""

MAP = """
@step
def square(x: int) -> int:
    ran(f"square-{x}")
    return x * x

@step
def total(squares: list[int]) -> int:
    ran("total")
    return sum(squares)

@pipeline
def main(who: str, length: int = 60) -> int:
    return total(square.map(range(length)))
"""


@pytest.mark.parametrize("count", [2, 8])
def test_a_chain_runs_once_over_all_processes(
    lab: Lab, gate: Gate, start: Callable[..., Process], count: int
) -> None:
    lab.write(CHAIN)
    started = [start(TOGETHER, who=f"{number}") for number in range(count)]
    gate.all_of(started)
    outcomes = [process.outcome() for process in started]
    assert [(one.value, one.error) for one in outcomes] == [("builtins.int 20", None)] * count
    assert sorted(name for one in outcomes for name in one.ran) == sorted(
        f"grow-{x}" for x in range(20)
    )
    assert len(records(lab)) == 20
    assert leases(lab) == []


@pytest.mark.parametrize("count", [2, 8])
def test_each_item_of_a_map_runs_once_over_all_processes(
    lab: Lab, gate: Gate, start: Callable[..., Process], count: int
) -> None:
    lab.write(MAP)
    started = [start(TOGETHER, who=f"{number}") for number in range(count)]
    gate.all_of(started)
    outcomes = [process.outcome() for process in started]
    total = sum(x * x for x in range(60))
    assert [(one.value, one.error) for one in outcomes] == [(f"builtins.int {total}", None)] * count
    expected = sorted(["total", *(f"square-{x}" for x in range(60))])
    assert sorted(name for one in outcomes for name in one.ran) == expected
    assert leases(lab) == []


def test_a_value_that_is_lost_is_made_again_once_over_all_processes(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write("""
        import numpy as np

        @step
        def make(n: int) -> np.ndarray:
            ran("make")
            return np.arange(n)

        @step
        def add(values: np.ndarray, scale: int) -> int:
            ran("add")
            return int(values.sum()) * scale

        @pipeline
        def main(who: str, scale: int = 1) -> int:
            return add(make(10_000), scale)
    """)
    start(who="first").outcome()
    (value,) = Path(lab.store, "values").rglob("*.npy")
    value.unlink()
    started = [start(TOGETHER, who=f"{n}", arguments="scale=2") for n in range(4)]
    gate.all_of(started)
    outcomes = [process.outcome() for process in started]
    assert {one.value for one in outcomes} == {"builtins.int 99990000"}
    assert sorted(name for one in outcomes for name in one.ran) == ["add", "make"]


def test_who_waited_says_so_and_for_whom(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(SLOW)
    holder, waiter = holder_and_waiter(gate, start)
    assert f", process {holder.pid})" in waiter.printed()
    gate.open("go")
    assert (holder.outcome().ran, waiter.outcome().ran) == (["slow"], [])
    first, second = run_of(lab, "holder"), run_of(lab, "waiter")
    assert f"slow: waits for run {first.name} of pipeline 'main' (host " in waiter.printed()
    step = second["slow"]
    assert (step.state, step.reused_from) == ("reused", first.name)
    assert [str(one) for one in step.reasons] == [f"waited for run {first.name}, which computed it"]
    assert f"slow: reused (from run {first.name}, which was waited for, " in waiter.printed()
    assert step.explain().startswith(f"slow: reused from run {first.name}, which was waited for")


def test_a_plan_waits_for_nobody(lab: Lab, gate: Gate, start: Callable[..., Process]) -> None:
    lab.write(SLOW)
    holder = start(who="holder")
    gate.seen("begun")
    planned = lab.run("who='plan'", how="plan", plan=True)
    assert planned.plan == {"slow": ("run", ["first run"])}
    gate.open("go")
    holder.outcome()


def test_waiting_keeps_nothing_else_from_running(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(SLOW)
    holder = start(who="holder")
    gate.seen("begun")
    waiter = start(who="waiter", arguments="others=True")
    eventually(lambda: waiter.ran() == ["other", "other"])
    assert holder.ran() == ["slow"]
    gate.open("go")
    assert waiter.outcome().value == holder.outcome().value == "builtins.int 2"
    assert waiter.ran() == ["other", "other"]


def test_a_waiter_that_is_cancelled_ends_at_once(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(SLOW)
    holder, waiter = holder_and_waiter(gate, start)
    waiter.kill(signal.SIGINT)
    outcome = waiter.outcome()  # the holder has not ended: it has not been let go
    assert str(outcome.error).startswith("KeyboardInterrupt")
    assert run_of(lab, "waiter")["slow"].state == "cancelled"
    gate.open("go")
    assert holder.outcome().value == "builtins.int 2"


def test_a_failure_elsewhere_in_the_run_ends_the_waiting_if_the_run_is_to_stop(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(
        SLOW
        + """
@step
def broken(x: int) -> int:
    until("fail")
    raise ValueError("no")

@pipeline
def failing(who: str, x: int = 1) -> tuple[int, int]:
    return slow(x), broken(x)
"""
    )
    holder = start(who="holder")
    gate.seen("begun")
    waiter = start(who="waiter", pipeline="failing", options="failures='stop'")
    waits(waiter)
    gate.open("fail")
    outcome = waiter.outcome()
    assert outcome.error == "ValueError: no"
    assert outcome.steps["slow"]["state"] == "cancelled"
    gate.open("go")
    assert holder.outcome().value == "builtins.int 2"


def test_a_step_that_is_to_be_refreshed_waits_for_nobody(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write("""
        from gate import say, until

        @step
        def slow(x: int, who: str) -> str:
            ran("slow")
            say("begun-" + who)
            until("go-" + who)
            return who

        slow = slow.with_options(ignore=["who"])

        @pipeline
        def main(who: str, x: int = 1) -> str:
            return slow(x, who)
    """)
    holder = start(who="holder")
    gate.seen("begun-holder")
    eager = start(who="eager", options="refresh=True")
    gate.open("go-eager")
    assert eager.outcome().value == "builtins.str 'eager'"
    assert eager.ran() == ["slow"]
    gate.open("go-holder")
    assert holder.outcome().value == "builtins.str 'eager'"  # the first record of a key stands
    later = start(who="later", options="refresh=True")
    gate.open("go-later")
    assert later.outcome().value == "builtins.str 'later'"
    assert start(who="last").outcome().value == "builtins.str 'later'"


@step
def tenfold(x: int) -> int:
    ran(f"tenfold-{x}")
    return 10 * x


@pipeline
def powers(length: int) -> int:
    x = 1
    for _ in range(length):
        x = tenfold(x)
    return x


@pytest.mark.parametrize("place", ["a folder", "an object store"])
def test_threads_of_one_process_share_the_work_too(
    project: Project, tmp_path: Path, place: str
) -> None:
    remote = f"memory://{tmp_path.name}"
    stores = [
        Store(remote, cache_folder=str(tmp_path / "cache"))
        if place == "an object store"
        else Store(project.store.url)
        for _ in range(3)
    ]
    try:
        with ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(powers.with_options(store=one).local, 8) for one in stores]
            assert [call.result() for call in calls] == [10**8] * 3
        assert project.ran() == sorted(f"tenfold-{10**n}" for n in range(8))
    finally:
        fsspec.filesystem("memory").store.clear()


# --- no circles ---

NESTED = """
import os
from gate import say, until

@step
def inner(x: int) -> int:
    ran("inner")
    say(f"begun-{os.getpid()}")
    until(f"go-{os.getpid()}")
    return x + 1

@pipeline
def below(x: int) -> int:
    return inner(x)

@step
def outer(x: int) -> int:
    ran("outer")
    return below.local(x) * 10

@pipeline
def main(who: str, x: int = 1) -> int:
    return outer(x)

@pipeline
def plain(who: str, x: int = 1) -> int:
    return inner(x)
"""


def test_a_run_inside_a_step_waits_for_nobody(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(NESTED)
    environ = {"PREFECT_MLPIPE_STORE": lab.store}
    holder = start(NEVER, who="holder", pipeline="plain", environ=environ)
    gate.seen(f"begun-{holder.pid}")
    nested = start(NEVER, who="nested", environ=environ)
    gate.open(f"go-{nested.pid}")
    assert nested.outcome().value == "builtins.int 20"
    assert nested.ran() == ["inner", "outer"]
    gate.open(f"go-{holder.pid}")
    assert holder.outcome().value == "builtins.int 2"


def test_a_step_that_runs_a_pipeline_with_itself_ends(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write("""
        @step(ignore=["depth"])
        def down(x: int, depth: int) -> int:
            ran("down")
            return x if depth == 0 else again.local(x, depth - 1) + 1

        @pipeline
        def again(x: int, depth: int) -> int:
            return down(x, depth)

        @pipeline
        def main(who: str) -> int:
            return down(1, 1)
    """)
    outcome = start(NEVER, who="only", environ={"PREFECT_MLPIPE_STORE": lab.store}).outcome()
    assert outcome.error is None, outcome.traceback
    assert outcome.ran == ["down", "down"]


def test_a_store_that_cannot_keep_leases_is_said_once_and_done_without(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(CHAIN)
    refused = """
def _plant():
    import errno, types
    from prefect_mlpipe.core.leases import local_leases as leases
    def link(source, target):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    leases.os = types.SimpleNamespace(**{**vars(leases.os), "link": link})

_plant()
"""
    outcome = start(refused, who="only", arguments="length=3").outcome()
    assert (outcome.value, outcome.ran) == ("builtins.int 3", ["grow-0", "grow-1", "grow-2"])
    (warning,) = outcome.warnings
    assert warning.startswith(f"No leases can be kept in the store {lab.store} (OSError: [Errno ")


def test_records_that_were_waited_for_are_ordinary_records(
    lab: Lab, gate: Gate, start: Callable[..., Process]
) -> None:
    lab.write(SLOW)
    holder, waiter = holder_and_waiter(gate, start)
    gate.open("go")
    holder.outcome()
    waiter.outcome()
    (path,) = records(lab)
    record = Store(lab.store).records.read(path.name)
    assert isinstance(record, Record)
    later = start(who="later").outcome()
    assert (later.value, later.ran) == ("builtins.int 2", [])
    assert run_of(lab, "later")["slow"].reasons == []

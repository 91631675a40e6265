"""Clocks that are an hour off: from one run to the next, between two processes that share a store,
and in the middle of a run.

The clock of a child is what Python's `time` gives it; files keep the times of the real one, as
those on a file server do. (libfaketime 0.9.10 sets it for C code too, but breaks `time.sleep`.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe.core.store import Store
from prefect_mlpipe.runs import Runs
from tests.reuse.gate import BLIND, Gate, eventually
from tests.reuse.lab import Lab, Outcome, Process

AHEAD, BEHIND = "+3600", "-3600"
SET = """
def _set(file):
    import time
    now, now_ns = time.time, time.time_ns
    def off():
        with open(file) as told:
            return int(told.read())
    time.time = lambda: now() + off()
    time.time_ns = lambda: now_ns() + off() * 1_000_000_000

_set({file!r})
del _set
"""

CLOCKED = """
import datetime, time
from gate import say, until

@step(cache_expiration=datetime.timedelta(minutes=30))
def fresh(x: int) -> int:
    ran("fresh")
    return x + 1

@step
def kept(x: int) -> int:
    ran("kept")
    return x * 2

@step
def slow(x: int) -> int:
    ran("slow")
    say("begun")
    until("go")
    return x + 1

@pipeline
def main(who: str = "", x: int = 1) -> int:
    return kept(fresh(x))

@pipeline
def held(who: str, x: int = 1) -> int:
    return slow(x)
"""


class Clocks:
    """Starts processes whose clocks are off."""

    def __init__(self, lab: Lab, start: Callable[..., Process]) -> None:
        self._folder, self._start = lab.place, start

    def start(self, clock: str, *setup: str, **options: Any) -> Process:
        """Start a process whose clock is off by so many seconds."""
        self.set(clock, clock)
        return self._start(SET.format(file=str(self._file(clock))), *setup, who=clock, **options)

    def run(self, clock: str, **options: Any) -> Outcome:
        return self.start(clock, **options).outcome()

    def set(self, clock: str, to: str) -> None:
        """Set the clock of a process that goes on."""
        self._file(clock).write_text(to)

    def _file(self, clock: str) -> Path:
        return self._folder / f"clock{clock}"


@pytest.fixture
def clocks(lab: Lab, gate: Gate, start: Callable[..., Process]) -> Clocks:
    lab.write(CLOCKED)
    return Clocks(lab, start)


def test_a_clock_that_was_an_hour_ahead_spoils_neither_values_nor_the_order_of_runs(
    lab: Lab, clocks: Clocks
) -> None:
    ahead = clocks.run(AHEAD)
    assert (ahead.value, ahead.ran, ahead.error) == ("builtins.int 4", ["fresh", "kept"], None)
    now = lab.run("who='now'")
    # What was made an hour ahead may be older than half an hour for all that is known.
    assert (now.value, now.ran) == ("builtins.int 4", ["fresh"])
    assert now.reasons() == ["expired: made by a clock 0:30:00 ahead or more"]
    again = lab.run("who='again'")
    assert (again.value, again.ran) == ("builtins.int 4", [])
    runs = Runs(Store(lab.store), "main")
    assert [run.params["who"] for run in runs] == ["again", "now", AHEAD]
    assert runs.last().params["who"] == "again"
    assert [run.started.timestamp() - runs.last().started.timestamp() > 3000 for run in runs] == [
        False,
        False,
        True,
    ]


def test_a_clock_that_is_an_hour_behind_spoils_neither_values_nor_the_order_of_runs(
    lab: Lab, clocks: Clocks
) -> None:
    first = lab.run("who='first'")
    behind = clocks.run(BEHIND)
    assert (behind.value, behind.ran, behind.error) == (first.value, ["fresh"], None)
    after = lab.run("who='after'")
    assert (after.value, after.ran) == (first.value, ["fresh"])
    assert after.reasons() == ["expired: older than 0:30:00"]
    runs = Runs(Store(lab.store), "main")
    assert [run.params["who"] for run in runs] == ["after", BEHIND, "first"]
    assert runs.last().params["who"] == "after"


@pytest.mark.parametrize(("holding", "waiting"), [(AHEAD, BEHIND), (BEHIND, AHEAD)])
def test_processes_whose_clocks_are_two_hours_apart_wait_for_each_other(
    clocks: Clocks, gate: Gate, holding: str, waiting: str
) -> None:
    holder = clocks.start(holding, pipeline="held")
    gate.seen("begun")
    waiter = clocks.start(waiting, BLIND, pipeline="held")
    eventually(lambda: "slow: waits for run " in waiter.printed())
    gate.open("go")
    assert holder.outcome().value == waiter.outcome().value == "builtins.int 2"
    assert (holder.ran(), waiter.ran()) == (["slow"], [])


def test_a_clock_that_is_set_back_while_a_step_runs_makes_no_run_of_negative_length(
    lab: Lab, clocks: Clocks, gate: Gate
) -> None:
    process = clocks.start(AHEAD, pipeline="held")
    gate.seen("begun")
    clocks.set(AHEAD, BEHIND)
    gate.open("go")
    outcome = process.outcome()
    assert (outcome.value, outcome.error) == ("builtins.int 2", None)
    run = Runs(Store(lab.store), "held").last()
    assert 0 <= run["slow"].duration <= run.duration < 3600
    assert lab.run("who='later'", pipeline="held").ran == []
